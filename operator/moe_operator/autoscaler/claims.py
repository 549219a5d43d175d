"""What deployments claim of scarce GPUs, and what each gets: the values of `allocation`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from moe_operator.api.reasons import WaitingReason

Key = tuple[str, str]
"""Namespace and name of a deployment."""


class Phase(StrEnum):
    """What a group does with the GPUs that it holds."""

    SERVING = "Serving"
    STARTING = "Starting"
    DRAINING = "Draining"
    """It gives them back in minutes."""
    ENDING = "Ending"
    """It gives them back in seconds: its successor is made meanwhile."""


LIVE = (Phase.SERVING, Phase.STARTING)


@dataclass(frozen=True)
class Held:
    """A group that exists."""

    name: str
    phase: Phase
    nodes: tuple[str, ...] = ()
    """Of its pods that have one."""
    gpus: int = 0
    """Of each pod."""
    work: int = 0
    """Requests in it."""
    hint: str | None = None
    """Node or domain that it was given, while no pod has a node."""
    pods: int = 0
    """With those that have no node yet; fewer than there are nodes where that is not known."""

    @property
    def lacks(self) -> int:
        """Nodes that it lacks, where some of its pods have one: it holds GPUs, and cannot serve."""
        return max(0, self.pods - len(self.nodes)) if self.nodes else 0


@dataclass(frozen=True)
class Shape:
    """Room that one group takes."""

    pods: int
    """Each on a node of its own."""
    gpus: int
    """Of each pod."""

    @property
    def total(self) -> int:
        """GPUs of a group."""
        return self.pods * self.gpus


@dataclass(frozen=True, eq=False)
class Pool:
    """Nodes that groups of one kind may run on. Pools may share nodes."""

    name: str
    """For people: the accelerator."""
    nodes: Mapping[str, str]
    """Node -> the domain that all pods of a group must be within; one and the same where it does not matter."""
    grows: bool = False
    """Whether nodes may be added for pods that find none."""


@dataclass(frozen=True)
class Claim:
    """What one deployment has and wants."""

    key: Key
    pool: Pool
    shape: Shape
    floor: int
    """Groups."""
    wanted: int
    """Groups; fewer than it has where some are about to go."""
    granted: int = 0
    """The last grant (groups): what was lost of it is replaced before others of the class grow."""
    groups: tuple[Held, ...] = ()
    """Of those that drain the last to begin first."""
    priority: int = 0
    losses: tuple[float, ...] | None = None
    """Expected requests per second that miss the objective with floor, floor + 1 .. wanted groups; None: not known,
    then each further group avoids half of what the one before it did."""
    since: float = 0.0
    """Since when it waits (s)."""
    moving: bool = False
    """Whether groups are replaced by others one by one (a rollout, a move off nodes): for a while it has more than it
    wants."""


@dataclass(frozen=True)
class Waiting:
    """What a deployment waits for."""

    groups: int
    reason: WaitingReason
    ahead: tuple[Key, ...] = ()
    """The first of those that come before it; `NO_ROOM`: those that hold most of the pool."""
    reclaimed: tuple[tuple[Key, str], ...] = ()
    """Deployments and groups that are drained for it."""


@dataclass(frozen=True)
class Share:
    """What one deployment gets."""

    granted: int
    """Groups it may have."""
    given_up: tuple[str, ...] = ()
    """Groups of it that go, by name."""
    gone: tuple[str, ...] = ()
    """Groups of it that drain and do not come back."""
    surge: bool = True
    """Whether it may have more than these while groups are replaced one by one: not while a place is cleared for a
    higher priority, which its pods would take."""
    waiting: Waiting | None = None


@dataclass(frozen=True)
class Allocation:
    """What all get."""

    shares: Mapping[Key, Share]
    reserved: Mapping[Key, Mapping[str, int]]
    """GPUs by node that are kept for those that wait, those that are yet to come free included."""
    moving_in: Mapping[Key, Mapping[str, int]]
    """The same for groups that got room in this pass: until their pods are there."""
    recheck_after: float | None = None
    """Seconds until time alone may change it."""


def avoided(claim: Claim) -> list[float]:
    """Loss (requests per second) that the group beyond the floor, the next one .. avoid each; never rising.

    Where a group avoids less than one after it, the two count with their mean (pool adjacent violators): the first must
    be had to get to the second.
    """
    count = max(0, claim.wanted - claim.floor)
    if claim.losses is None:
        return [0.5 ** (index + 1) for index in range(count)]
    known = claim.losses
    steps = [max(0.0, a - b) if math.isfinite(a - b) else 0.0 for a, b in pairwise(known)]
    blocks: list[tuple[float, int]] = []
    for step in steps[:count]:
        total, size = step, 1
        while blocks and blocks[-1][0] * size < total * blocks[-1][1]:
            before = blocks.pop()
            total, size = total + before[0], size + before[1]
        blocks.append((total, size))
    found = [total / size for total, size in blocks for _ in range(size)]
    return found + [0.0] * (count - len(found))
