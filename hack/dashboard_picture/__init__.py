"""A picture of the dashboard without Grafana: its own queries, asked of a Prometheus, drawn where its panels are."""
