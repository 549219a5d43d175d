"""The planner's answer: how one group is laid out, or why it cannot be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Layout of one group. width = data x tensor = pods_per_group x ranks_per_pod x tensor GPUs."""

    accelerator: str
    """Catalogue name."""
    width: int
    """GPUs in the group, its expert-parallel size."""
    pods_per_group: int
    ranks_per_pod: int
    tensor: int
    data: int
    expert_parallel: bool
    """False only for a group of one rank with one GPU, where it means nothing."""
    gpus_per_pod: int
    notes: tuple[str, ...] = ()
    """What the plan assumed, for the `Planned` message (for example that nodes could not be read)."""


@dataclass(frozen=True)
class Refusal:
    """No layout: a constant of `api.reasons` and a message with numbers and a way out."""

    reason: str
    message: str
    retry: bool = False
    """True when the cluster may change so that it fits (no such nodes yet), False when only the spec can."""
