"""Pods as a ledger sees them."""

from dataclasses import replace
from typing import Any

from factories.groups import NOW
from moe_operator.costs.holdings import GpuState, PodSeen, Reading

#: 3.60 per GPU-hour: a thousandth per GPU-second.
PRICE = 3_600_000


def held(name: str = "tiny-g0-0", **overrides: Any) -> PodSeen:
    """A pod of eight GPUs that was given its node at NOW and is starting."""
    made = PodSeen(
        uid=f"uid-{name}",
        place=name,
        gpus=8,
        begun=NOW,
        history=((GpuState.STARTING, NOW),),
        price=PRICE,
    )
    return replace(made, **overrides)


def counted(prompt: float = 0, output: float = 0, **overrides: Any) -> Reading:
    """One rank's counters; requests have ten tokens of output."""
    made = Reading(prompt=prompt, output=output, completed=output // 10, ranks=1, since=1.0)
    return replace(made, **overrides)
