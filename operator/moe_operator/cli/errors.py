"""What goes wrong before there is anything to answer."""


class UsageError(Exception):
    """The command cannot be carried out; the message says where the fault is and what to do."""
