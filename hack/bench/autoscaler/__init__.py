"""Compares autoscalers on traces: each tuned on made-up ones, frozen, and scored on others. See `__main__`."""
