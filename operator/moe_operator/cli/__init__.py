"""The commands: the operator's entry point and the kubectl plugin."""
