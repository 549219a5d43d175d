"""How long a group took to come up, by part: what its pods and its engines say of their starts. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from moe_operator.api.status import ColdStartStatus
from moe_operator.api.times import format_time
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.telemetry.observation import PodObservation


def newest_start(
    known: ColdStartStatus | None, groups: Iterable[GroupView], seen: Mapping[str, PodObservation]
) -> ColdStartStatus | None:
    """The start of the newest group that serves, where all is known of it; else what is `known` already.

    Measured once for each group: pods that are unready for a moment later did not start later.
    """
    serving = [view.facts for view in groups if view.state is GroupState.SERVING]
    if not serving:
        return known
    newest = max(serving, key=lambda group: (group.created_at, group.slot))
    if known is not None and _identity(newest) == (known.group, known.created_time):
        return known
    return measured(newest, [seen.get(pod.uid) for pod in newest.pods]) or known


def measured(group: GroupFacts, seen: Sequence[PodObservation | None]) -> ColdStartStatus | None:
    """The group's start; None until its engines have been asked, and for one whose engines were restarted."""
    pods = group.pods
    if not pods or any(one is None for one in seen) or any(pod.engine.restarts for pod in pods):
        return None
    starts = [_pod_start(pod) for pod in pods]
    known = [one for one in starts if one is not None]
    if len(known) < len(pods):
        return None
    ready = max(pod.ready_at or 0.0 for pod in pods)
    downloads = [one["download"] for one in known if "download" in one]
    return ColdStartStatus(
        group=group.name,
        created_time=format_time(group.created_at),
        total=_whole(ready - group.created_at),
        schedule=_whole(max(one["schedule"] for one in known)),
        download=_whole(max(downloads)) if downloads else None,
        image=_whole(max(one["image"] for one in known)),
        weights=_slowest("weights", seen),
        compile=_slowest("compile", seen),
        graphs=_slowest("graphs", seen),
        engine=_whole(max(one["engine"] for one in known)),
    )


def _identity(group: GroupFacts) -> tuple[str, str]:
    """Slots, and so names, are used again."""
    return group.name, format_time(group.created_at)


def _pod_start(pod: PodFacts) -> dict[str, float] | None:
    """Seconds by part; None while the pod has not come through all of them."""
    created, scheduled, running, ready = (
        pod.created_at,
        pod.scheduled_at,
        pod.engine.running_since,
        pod.ready_at,
    )
    if created is None or scheduled is None or running is None or ready is None:
        return None
    parts = {"schedule": scheduled - created, "image": running - scheduled, "engine": ready - running}
    if pod.initialized_at is not None:
        parts["download"] = pod.initialized_at - scheduled
        parts["image"] = running - pod.initialized_at
    return parts


def _slowest(phase: str, seen: Iterable[PodObservation | None]) -> int | None:
    spans = [one.phases[phase] for one in seen if one is not None and phase in one.phases]
    return _whole(max(spans)) if spans else None


def _whole(seconds: float) -> int:
    """Kubernetes' times are whole seconds, and clocks of nodes differ a little."""
    return max(0, round(seconds))
