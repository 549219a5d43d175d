"""Conditions per kstatus: Ready sums up; Reconciling and Stalled are there only while they are true."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import Condition
from moe_operator.api.times import format_time


@dataclass(frozen=True)
class Said:
    """One condition as it should be; absent ones are left out of the list."""

    type: str
    status: bool
    reason: str
    message: str


def merge(old: Sequence[Condition], said: Sequence[Said], generation: int, now: float) -> list[Condition]:
    """The new list: `lastTransitionTime` moves only when `status` does."""
    before = {c.type: c for c in old}
    merged = []
    for one in said:
        status = "True" if one.status else "False"
        known = before.get(one.type)
        since = known.last_transition_time if known and known.status == status else format_time(now)
        merged.append(
            Condition(
                type=one.type,
                status=status,
                reason=one.reason,
                message=one.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return merged


def was_ready_at(deployment: ModelDeployment) -> bool:
    """Whether this generation has been Ready before: then a loss is recovery, no rollout."""
    return any(
        c.type == reasons.GROUPS_READY
        and c.observed_generation == deployment.generation
        and (c.status == "True" or c.reason in (reasons.GROUPS_UNHEALTHY, reasons.SCALING))
        for c in deployment.status.conditions
    )
