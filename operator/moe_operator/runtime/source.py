"""Where events come from: on a real API server `kopf_source`; tests have their own."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol

from moe_operator.api import names
from moe_operator.controller.kube import CHILD_KINDS, MODEL_DEPLOYMENT, NODE, Kind, Obj

#: Everything that is watched.
WATCHED_KINDS: tuple[Kind, ...] = (MODEL_DEPLOYMENT, NODE, *CHILD_KINDS)


class EventType(StrEnum):
    """What a watch said. LISTED: the object was there when the watch began, or began again."""

    LISTED = "LISTED"
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


#: Takes one event; called in the main loop's thread. The object is the receiver's to keep and change.
Deliver = Callable[[Kind, EventType, Obj], None]


class Source(Protocol):
    """A stream of events that may lose and double them; the resync makes up for that."""

    async def run(self, kinds: Iterable[Kind], deliver: Deliver) -> None:
        """Watch these kinds until cancelled. Raises when watching came to an end; it may be run again."""


def selector(kind: Kind) -> str:
    """Label selector for LISTs and watches of a kind: of what others have too, only our part matters."""
    if kind in (MODEL_DEPLOYMENT, NODE):
        return ""
    return f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
