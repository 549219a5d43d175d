"""How far a rollout, or a first start, has come, and when it has stood still for too long. Pure; times in seconds."""

from collections.abc import Sequence

from moe_operator.api import reasons
from moe_operator.api.status import Cause, RolloutStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.observed import GroupFacts


def progress(
    old: RolloutStatus | None, revision: str | None, updated: int, under_way: bool, now: float
) -> RolloutStatus | None:
    """What to remember: None where nothing is under way, and while it does not count (paused, parked, no weights).

    `updated`: groups of the revision that serve.
    """
    if not under_way or revision is None:
        return None
    if old is None or old.revision != revision or updated > old.updated:
        return RolloutStatus(revision=revision, updated=updated, progress_time=format_time(now))
    return old if updated == old.updated else old.model_copy(update={"updated": updated})


def stands_since(rollout: RolloutStatus | None, deadline: float, now: float) -> float | None:
    """Seconds for which a rollout has not come further, once that is too long; else None."""
    since = parse_time(rollout.progress_time) if rollout else None
    if since is None or now - since < deadline:
        return None
    return now - since


def due_in(rollout: RolloutStatus | None, deadline: float, now: float) -> float | None:
    """Seconds until a rollout that does not come further has stood still for too long; None where that is over."""
    since = parse_time(rollout.progress_time) if rollout else None
    if since is None or now - since >= deadline:
        return None
    return since + deadline - now


def held_up(
    groups: Sequence[GroupFacts], revision: str | None, deadline: float, now: float
) -> dict[str, Cause]:
    """Groups of a revision that stands still which hold nodes without serving: they give them back. Those without a
    node hold nothing, and wait on, as what makes node autoscalers add some."""
    found: dict[str, Cause] = {}
    for group in groups:
        if group.revision != revision or admitted_incarnations(group) or group.deleting:
            continue
        placed = [pod.scheduled_at for pod in group.pods if pod.node]
        since = max((at for at in placed if at is not None), default=None)
        if since is None or now - since < deadline:
            continue
        late = next((pod for pod in group.pods if not pod.ready), None)
        found[group.name] = Cause(
            reason=reasons.PROGRESS_DEADLINE,
            message=f"group {group.name} did not come to serve within {int(now - since)} s of having its nodes"
            f" (spec.rollout.progressDeadline is {int(deadline)} s)",
            pod=late.name if late else None,
        )
    return found
