"""Whether a group has something to lose: requests, or connections on which they may come; and since when not."""

from moe_operator.controller.group_planner import DRAIN_SETTLE
from moe_operator.controller.observed import GroupFacts
from moe_operator.telemetry.observation import Snapshot


def occupied(group: GroupFacts, snapshot: Snapshot, now: float) -> int | None:
    """Requests in a group; of one that drains, with the connections that clients keep to it.

    None if telemetry cannot say. Of a group that drains it can only by figures from after the last request could
    have found its way there: older ones were taken when it still got new ones.
    """
    seen = [snapshot.pods.get(pod.uid) for pod in group.pods]
    found = [s for s in seen if s is not None and s.failures == 0]
    if not found or len(found) < len(seen):
        return None
    if group.draining_since is None:
        return sum(s.requests for s in found)
    if left := sum(s.requests + s.idle_connections for s in found):
        return left
    closed = now - group.draining_since - DRAIN_SETTLE
    return 0 if all(snapshot.taken_at - s.at <= closed for s in found) else None


def quiet_for(group: GroupFacts, snapshot: Snapshot) -> float | None:
    """Seconds for which a group has had no request; None if telemetry cannot say."""
    seen = [snapshot.pods.get(pod.uid) for pod in group.pods]
    found = [s for s in seen if s is not None and s.failures == 0]
    if not found or len(found) < len(seen):
        return None
    return snapshot.taken_at - max(s.used_at for s in found)
