"""Rules and the dashboard for Prometheus and Grafana, made of one set of expressions.

`python -m generate` writes them: `charts/moe-operator/files/`, `manifests/monitoring/` and `docs/reference/rules.md`.
"""
