"""What goes wrong before there is anything to answer."""


class UsageError(Exception):
    """The command cannot be carried out; the message says where the fault is and what to do."""


class ClusterError(UsageError):
    """The cluster does not answer, refuses, or has no such object. `final`: another try would say the same."""

    def __init__(self, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.final = final
