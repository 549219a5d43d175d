"""Why something that an exporter says is not used."""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum


class Ignored(StrEnum):
    """A label of `moe_operator_telemetry_ignored_total`."""

    NOT_A_SERIES = "NotASeries"
    """A line that begins like one of ours and does not go on like one."""
    NOT_A_NUMBER = "NotANumber"
    OUT_OF_RANGE = "OutOfRange"
    """Negative, larger than hardware can have, or parts that are more than the whole."""
    REPEATED_LABEL = "RepeatedLabel"
    REPEATED_SERIES = "RepeatedSeries"
    """The same GPU has the same figure twice, and not the same."""
    NO_DEVICE = "NoDevice"
    """Neither UUID nor index."""
    ANOTHER_POD = "AnotherPod"
    """A pod has the name of one of ours, and another uid."""
    ANOTHER_CONTAINER = "AnotherContainer"
    SHARED_DEVICE = "SharedDevice"
    """Several pods have the GPU: whose memory it is nobody says."""
    TOO_MANY_DEVICES = "TooManyDevices"
    """A pod is said to have more GPUs than it asked for."""
    TOO_MANY_SERIES = "TooManySeries"
    PAGE_TOO_LONG = "PageTooLong"
    LINE_TOO_LONG = "LineTooLong"
    TOO_SLOW = "TooSlow"
    """It did not end in time."""
    ENCODED = "Encoded"
    """Compressed though nobody asked for it."""
    UNFORESEEN = "Unforeseen"
    """It raised what the operator does not expect. The log has the first for each pod and exporter."""


Counts = Counter[Ignored]

OnIgnored = Callable[[Counts], None]
"""Told of what was not used."""


def nobody(_: Counts) -> None:
    """Who does not care."""
