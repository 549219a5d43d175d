"""What is seen of a pod that holds GPUs, and what is remembered of it between two looks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class GpuState(StrEnum):
    """What a held GPU is for."""

    STARTING = "starting"
    """Its group does not serve yet, or is out of traffic in doubt."""
    SERVING = "serving"
    """In traffic, with requests."""
    IDLE = "idle"
    """In traffic, without a request."""
    DRAINING = "draining"
    """Its group is on the way out."""


#: The order in which a group goes through them.
ORDER = {GpuState.STARTING: 0, GpuState.SERVING: 1, GpuState.IDLE: 1, GpuState.DRAINING: 2}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pod's engine has counted since it began. Without the operator's own requests as far as this operator
    knows of them; `own_…` is what was taken off."""

    prompt: float = 0.0
    cached: float = 0.0
    output: float = 0.0
    completed: float = 0.0
    aborted: float = 0.0
    failed: float = 0.0
    preempted: float = 0.0
    ranks: int = 0
    """Ranks that told."""
    since: float | None = None
    """Since when the counters run on, by telemetry's clock, which is another in each operator: None for a reading of
    an earlier one."""
    own_prompt: float = 0.0
    own_output: float = 0.0
    """Each own request has one token of output."""

    @property
    def counts(self) -> tuple[float, ...]:
        """As `TOKENS` names them."""
        return (
            self.prompt,
            self.cached,
            self.output,
            self.completed,
            self.aborted,
            self.failed,
            self.preempted,
        )

    def with_own(self) -> "Reading":
        """As the engine counts: what another operator can go on from."""
        return Reading(
            prompt=self.prompt + self.own_prompt,
            cached=self.cached,
            output=self.output + self.own_output,
            completed=self.completed + self.own_output,
            aborted=self.aborted,
            failed=self.failed,
            preempted=self.preempted,
            ranks=self.ranks,
        )


@dataclass(frozen=True, slots=True)
class Meter:
    """What all GPUs of a pod have taken by a moment."""

    joules: float
    at: float
    """When it was read, in seconds since the epoch."""
    since: float = 0.0
    """When the sum began; 0: with the GPUs' driver, as it was found. Of two of the same beginning differences may be
    taken."""


#: Names of what is counted, in the order of `Reading.counts`.
TOKENS = ("input", "cached_input", "output", "completed", "aborted", "failed", "preempted")


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod that has, or had, a node."""

    uid: str
    place: str
    """Which pod of which group it is: a pod that takes the place of another comes after it."""
    gpus: int
    begun: float
    """When it was given its node."""
    history: Sequence[tuple[GpuState, float]]
    """The states that its group has come to, the present one last, and when; before the first it was starting."""
    ended: float | None = None
    """When its containers ended for good; None while they have not."""
    price: int | None = None
    """Millionths of the currency per GPU-hour; None: not known."""
    run: int = 0
    """How often its engine was started anew."""
    reading: Reading | None = None
    """None: the engine does not tell."""
    meter: Meter | None = None
    """None: not all of its GPUs tell."""
    unsure: bool = False
    """Whether nobody knows if its group has requests: serving then means serving or idle, as it was."""

    @property
    def state(self) -> GpuState:
        return self.history[-1][0] if self.history else GpuState.STARTING


@dataclass(frozen=True, slots=True)
class Hold:
    """A pod's GPUs, accounted for until a moment. From then on they are held in this state, at this price, until
    something else is seen."""

    uid: str
    place: str
    gpus: int
    state: GpuState
    until: float
    price: int | None = None
    run: int = 0
    reading: Reading | None = None
    meter: Meter | None = None
    """As it was read last."""
    ended: bool = False
    """Its containers have ended: it holds nothing any more, and is still there."""
