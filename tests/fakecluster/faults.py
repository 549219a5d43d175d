"""What goes wrong between an operator and the API server, and when."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from moe_operator.controller.kube import ConflictError, Kind, KubeError


class CrashError(BaseException):
    """The operator's process ends here. No Exception: nothing in the operator may handle it."""


@dataclass(frozen=True)
class Call:
    """One call that is about to be made."""

    verb: str
    kind: Kind
    name: str
    write_number: int
    """Counts this operator's writes from 1; 0 for reads."""


@dataclass
class FaultPlan:
    """Faults of one operator instance's API calls. Everything is off by default."""

    crash_before: int | None = None
    """Number of the write before which the process dies."""
    crash_after: int | None = None
    """Number of the write after which it dies: carried out, the answer never read."""
    lose_answers: set[int] = field(default_factory=set)
    """Numbers of writes that are carried out but answered by a timeout."""
    fail_writes: dict[int, int] = field(default_factory=dict)
    """HTTP status by number of the write; such a write is not carried out."""
    refuse: Callable[[Call], KubeError | None] = lambda call: None
    """Anything else: the error for a call, or None to let it pass."""

    def before(self, call: Call) -> None:
        """Raises what stops this call from being carried out."""
        if call.write_number and call.write_number == self.crash_before:
            raise CrashError(f"before write {call.write_number}: {call.verb} {call.kind.kind} {call.name}")
        status = self.fail_writes.get(call.write_number) if call.write_number else None
        if status == 409:
            raise ConflictError(409, "Conflict", "injected conflict")
        if status:
            raise KubeError(status, "Injected", f"injected failure {status}")
        error = self.refuse(call)
        if error is not None:
            raise error

    def after(self, call: Call) -> None:
        """Raises what keeps the answer of a call that was carried out from the operator."""
        if call.write_number and call.write_number == self.crash_after:
            raise CrashError(f"after write {call.write_number}: {call.verb} {call.kind.kind} {call.name}")
        if call.write_number in self.lose_answers:
            raise KubeError(0, "Timeout", "no answer within the deadline")


@dataclass
class WatchFaults:
    """Faults of one operator instance's watches. Everything is off by default."""

    delay: dict[Kind, float] = field(default_factory=dict)
    """Seconds by which a kind's events come late; kinds with other delays are thereby reordered."""
    jitter: float = 0.0
    """Further seconds at random, drawn per event; order within a kind is kept."""
    double: float = 0.0
    """Share of events that come twice."""
    gap: set[Kind] = field(default_factory=set)
    """Kinds whose watch is broken now. When it is mended, what exists is listed; what was deleted is not told."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
