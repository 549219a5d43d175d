"""What the record covers, what it does not, and which obligations it helps with. Pure.

Cited is Regulation (EU) 2024/1689 (the AI Act): Articles 26(5) and 26(6) for what a deployer of a high-risk system
monitors and keeps, and those that the record is easily taken for and has nothing of.
"""

from moe_operator.cli.report.data import Coverage


def coverage(*, prometheus: bool) -> Coverage:
    """`prometheus`: whether figures of the period were asked for."""
    return Coverage(
        covers=[
            "which model, weights, adapters and engine the operator runs now, where they come from and by which licence"
            " and policy",
            "where requests are processed, and what Kubernetes' NetworkPolicies, Services, Ingresses, HTTPRoutes and"
            " RBAC say of who may reach what",
            "uptime, tokens, requests, GPU-hours and cost of the period, as far as Prometheus has recorded them"
            if prometheus
            else "tokens, requests, GPU-hours and cost in total and of the last day: of the period only with"
            " --prometheus",
            "revisions that are kept, lost groups, trouble and scaling, as far as the cluster remembers them",
        ],
        does_not_cover=[
            "requests, prompts and answers: the operator keeps none, and this record holds none; what engines log of"
            " them is in the cluster's logs",
            "who sent a request: that is known to whatever checks users before the engine, such as a gateway",
            "which person changed something: managedFields name programs, the API server's audit log names people",
            "other ways to the engines than Services, Ingresses and HTTPRoutes of the namespace: gateways of another"
            " one, InferencePools, and what lies before the cluster",
            "Events that the cluster has forgotten: it keeps them for an hour by default",
            "rights beside RBAC: members of system:masters, other authorizers, administrators of nodes, of storage and"
            " of the cloud",
            "what a NetworkPolicy is worth: a network plugin that enforces none ignores it, and RDMA passes by it",
            "the past of what is read from the cluster: it is of the moment of reading, whatever the period",
            "its own integrity: it is not signed; keep it where it cannot be changed",
        ],
        obligations=[
            "Regulation (EU) 2024/1689 (AI Act), Article 26(5), deployers of high-risk AI systems monitor their"
            " operation on the basis of the instructions for use: uptime, incidents and changes here are part of such"
            " monitoring, of the serving of the model alone.",
            "Article 26(6), such deployers keep the logs that the system generates automatically, as far as they are"
            " under their control, for at least six months unless other law says otherwise: this record is not those"
            " logs. It may be kept beside them, and says which model, weights and engine were in effect when it was"
            " made.",
            "Whether a system is high-risk follows from what it is used for, not from the model or from how it is"
            " served; from when these obligations apply, the Regulation and its amendments say.",
            "Not covered: human oversight (Article 26(2)), input data (26(4)), informing workers and affected persons"
            " (26(7), 26(11)), assessments of the impact on fundamental rights (Article 27) and on data protection,"
            " and other assessments of risk; transparency (Article 50); what providers of general-purpose AI models"
            " document (Article 53), such as training and its data.",
            "This is a technical record and not legal advice.",
        ],
    )
