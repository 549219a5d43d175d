"""What the demo and the end-to-end tests share: kubectl, helm, waiting, engine processes, requests."""
