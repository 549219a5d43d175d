"""What the in-memory API server keeps of what happened, and how it says that the past is gone."""

from dataclasses import dataclass
from typing import Literal

from moe_operator.controller.kube import Kind, KubeError, Obj


class GoneError(KubeError):
    """410: the past that was asked for has been compacted."""

    def __init__(self, version: int) -> None:
        super().__init__(410, "Expired", f"too old resource version: {version}")


@dataclass(frozen=True)
class Event:
    """One change, as watches tell it. `obj` is the object as it was then; not to be changed."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    obj: Obj
    before: Obj | None
    """The object before this change."""


@dataclass(frozen=True)
class Write:
    """One write that was carried out, for counting and for judging it."""

    at: float
    """Virtual seconds since the world began."""
    manager: str
    verb: str
    kind: Kind
    namespace: str
    name: str
    body: Obj
    before: Obj | None
    """The object that was written to; None for a create."""
    changed: bool
    """False where it changed nothing, so that no event came of it."""

    def __str__(self) -> str:
        return f"{self.at:9.3f} {self.manager}: {self.verb} {self.kind.kind} {self.name}" + (
            "" if self.changed else " (no change)"
        )
