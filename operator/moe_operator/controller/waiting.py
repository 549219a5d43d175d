"""What a deployment waits for while GPUs are scarce, and behind whom, in words."""

from moe_operator.api.reasons import WaitingReason
from moe_operator.api.scaling import WaitingStatus
from moe_operator.api.times import format_time
from moe_operator.autoscaler.allocation import RECLAIM_AFTER
from moe_operator.autoscaler.claims import Waiting
from moe_operator.controller.store import Key
from moe_operator.controller.wishes import Wish


def _name(key: Key) -> str:
    return "/".join(key)


def waiting_status(waiting: Waiting, wish: Wish, since: float) -> WaitingStatus:
    """As the status says it. `since`: seconds since the epoch."""
    plan, count = wish.revision.plan, waiting.groups
    gpus = wish.need.pods * wish.need.gpus
    groups = "1 group" if count == 1 else f"{count} groups"
    behind = waiting.reason is not WaitingReason.NO_ROOM
    ahead = [_name(key) for key in waiting.ahead] if behind else []
    return WaitingStatus(
        groups=count,
        gpus_per_group=gpus,
        accelerator=plan.accelerator,
        reason=waiting.reason.value,
        message=f"waits for {groups} of {gpus} GPUs ({plan.accelerator}): {_for_what(waiting)}",
        behind=ahead,
        since=format_time(since),
    )


def _for_what(waiting: Waiting) -> str:
    named = ", ".join(_name(key) for key in waiting.ahead)
    match waiting.reason:
        case WaitingReason.BEHIND:
            return f"behind {named}"
        case WaitingReason.RECLAIMING:
            groups = ", ".join(f"{key[0]}/{group}" for key, group in waiting.reclaimed[:3])
            more = len(waiting.reclaimed) - 3
            return f"{groups}" + (f" and {more} more" if more > 0 else "") + " of lower priority drain for it"
        case WaitingReason.RECLAIM_DUE:
            return f"groups of lower priority are drained for it once it has waited for {RECLAIM_AFTER:.0f} s"
        case WaitingReason.DRAINING:
            return "groups that drain make room for it"
        case _:
            held = f"; most are held by {named}" if named else ""
            return f"first in the queue, and no nodes have room for a whole one{held}: free or add nodes"
