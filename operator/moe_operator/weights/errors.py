"""What can go wrong with a fetch."""

from moe_operator.catalog.weights_layout import Reason


class FetchError(Exception):
    """The fetch ends with this reason; the message says what, where, how many, and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TransientError(Exception):
    """One request failed in a way that the next may not: a reset, a timeout, a 5xx, a 429.

    `retry_after` is what the server asked for, in seconds.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SourceChangedError(Exception):
    """The source's file is no longer the one that was listed."""


class LeaseLostError(Exception):
    """Another process has taken this entry over: this one must not write to it any more."""


class InterruptedFetchError(Exception):
    """The process was told to stop."""
