"""The whole way in one command: cluster, operator, a served model, real traffic, a lost pod, a clean end."""
