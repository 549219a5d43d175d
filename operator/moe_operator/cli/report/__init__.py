"""`kubectl moe report`: the technical record of deployments over a period, for audits."""
