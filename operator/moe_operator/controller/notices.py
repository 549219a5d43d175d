"""What only Events tell of groups whose pods do not come: refused, or stuck before their first container.

Asked for while a group waits, and at most every 20 s for each: a pod that was never made has no status to read. The
Events are those of the group's StatefulSets (`NAME`, and `NAME-0` for the workers), of the LeaderWorkerSet and of the
pod. They are kept for an hour, and names are used again: only those of the very objects count.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_operator.api import reasons
from moe_operator.api.times import parse_time
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.kube import (
    CORE_EVENT,
    STATEFUL_SET,
    ForbiddenError,
    KubeClient,
    KubeError,
    Obj,
)
from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.controller.webhooks import unavailable

log = logging.getLogger(__name__)

#: Seconds that pods of a new group may take to be there; LeaderWorkerSet and Kubernetes take one or two.
MISSING_AFTER = 15.0
#: Seconds from its node to its first container before a pod's Events are looked at.
STUCK_AFTER = 30.0
#: Seconds between two looks at one group.
INTERVAL = 20.0
#: Seconds until a right that was missing is tried again.
_FORBIDDEN_FOR = 600.0
#: Before the API server's own words in a StatefulSet's Event.
_PREAMBLE = "failed error: "
_LONGEST = 600

_REFUSED = "FailedCreate"
_STUCK = {
    "FailedMount": reasons.VOLUMES_NOT_MOUNTED,
    "FailedAttachVolume": reasons.VOLUMES_NOT_MOUNTED,
    "FailedCreatePodSandBox": reasons.POD_SANDBOX_FAILED,
}
#: What a kubelet says of a pod when mounts and sandbox are behind it.
_PAST = frozenset({"Pulling", "Pulled", "Created", "Started"})

Notice = tuple[str, str]
"""A reason and a message."""


@dataclass(frozen=True)
class _Look:
    at: float
    notice: Notice | None


class Notices:
    """Remembers, by group, what its last look found. Losing it is harmless."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._looks: dict[str, _Look] = {}
        self._forbidden: dict[str, float] = {}
        """By namespace, when the right was found missing."""

    async def look(self, namespace: str, groups: Sequence[GroupFacts], now: float) -> dict[str, Notice]:
        """What is known of groups that wait, by their uid. A look that fails leaves what is known."""
        waiting = [group for group in groups if _waits(group, now)]
        for uid in {group.uid for group in groups} - {group.uid for group in waiting}:
            self._looks.pop(uid, None)
        found = {}
        for group in waiting:
            known = self._looks.get(group.uid)
            if known is None or now - known.at >= INTERVAL:
                before = known.notice if known is not None else None
                known = _Look(now, await self._ask(namespace, group, before, now))
                self._looks[group.uid] = known
            if known.notice is not None:
                found[group.uid] = known.notice
        if len(self._looks) > len(waiting):
            # Of groups that are gone: none is looked at for longer than this.
            self._looks = {u: s for u, s in self._looks.items() if now - s.at < 10 * INTERVAL}
        return found

    async def _ask(
        self, namespace: str, group: GroupFacts, before: Notice | None, now: float
    ) -> Notice | None:
        refused_at = self._forbidden.get(namespace)
        if refused_at is not None and now - refused_at < _FORBIDDEN_FOR:
            return None
        try:
            if len(group.pods) < group.size:
                return await self._missing(namespace, group, now)
            return await self._stuck(namespace, _stuck(group, now))
        except ForbiddenError as error:
            if refused_at is None:
                log.warning("Events cannot be read, so why pods do not come is not told: %s", error.message)
            self._forbidden[namespace] = now
            return None
        except KubeError:
            return before

    async def _missing(self, namespace: str, group: GroupFacts, now: float) -> Notice | None:
        """Why pods were never made."""
        owners: list[str] = [group.uid]
        for name in (group.name, f"{group.name}-0"):
            if name != group.name and (group.size == 1 or group.leader is None):
                break  # the workers' comes after the leader
            stateful_set = await self._client.get(STATEFUL_SET, namespace, name)
            if stateful_set is None:
                return await self._refused(namespace, group, owners) or _silent(group, name, now)
            owners.append(stateful_set["metadata"]["uid"])
        return await self._refused(namespace, group, owners)

    async def _refused(self, namespace: str, group: GroupFacts, owners: Sequence[str]) -> Notice | None:
        events = await self._events(namespace, group.name)
        if group.leader is not None:
            events += await self._events(namespace, f"{group.name}-0")
        newest = _newest(e for e in events if _uid(e) in owners and e.get("reason") == _REFUSED)
        if newest is None:
            return None
        said = str(newest.get("message") or "")
        what, _, words = said.rpartition(_PREAMBLE)
        away = unavailable(words)
        reason = away[0] if away else reasons.PODS_REFUSED
        count = f"{group.size - len(group.pods)} of {group.size} pods were never created"
        by = f"{what[:1].lower()}{what[1:].strip()} is refused: " if what else ""
        return reason, f"{count}: {by}{away[1] if away else words}"[:_LONGEST]

    async def _stuck(self, namespace: str, pod: PodFacts | None) -> Notice | None:
        """Why a pod that has its node starts no container."""
        if pod is None:
            return None
        events = [e for e in await self._events(namespace, pod.name) if _uid(e) == pod.uid]
        newest = _newest(e for e in events if e.get("reason") in _STUCK)
        past = _newest(e for e in events if e.get("reason") in _PAST)
        if newest is None or (past is not None and _time(past) >= _time(newest)):
            return None
        text = f"pod {pod.name} on node {pod.node}: {newest['reason']}: {newest.get('message') or ''}"
        return _STUCK[newest["reason"]], text.rstrip(": ")[:_LONGEST]

    async def _events(self, namespace: str, name: str) -> list[Obj]:
        return await self._client.list(CORE_EVENT, namespace, field_selector=f"involvedObject.name={name}")


def _waits(group: GroupFacts, now: float) -> bool:
    if group.deleting or group.draining_since is not None or admitted_incarnations(group):
        return False
    if len(group.pods) < group.size:
        return now - group.created_at >= MISSING_AFTER
    return _stuck(group, now) is not None


def _stuck(group: GroupFacts, now: float) -> PodFacts | None:
    for pod in group.pods:
        at = pod.scheduled_at
        if pod.node and not pod.begun and at is not None and now - at >= STUCK_AFTER:
            return pod
    return None


def _silent(group: GroupFacts, missing: str, now: float) -> Notice:
    since = group.leader.created_at if missing != group.name and group.leader else group.created_at
    return (
        reasons.LEADER_WORKER_SET_SILENT,
        f"LeaderWorkerSet {group.name} has no StatefulSet {missing} after {int(now - (since or now))} s:"
        " LeaderWorkerSet's controller does not act; see that it runs (usually Deployment lws-controller-manager in"
        " namespace lws-system)",
    )


def _uid(event: Mapping[str, Any]) -> str:
    return (event.get("involvedObject") or {}).get("uid") or ""


def _time(event: Mapping[str, Any]) -> float:
    """When it was last seen: recorders of the older and of the newer API fill in different fields."""
    series = (event.get("series") or {}).get("lastObservedTime")
    times = (series, event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp"))
    try:
        return max((parse_time(one) or 0.0 for one in times), default=0.0)
    except ValueError:
        return 0.0


def _newest(events: Iterable[Obj]) -> Obj | None:
    return max(events, key=_time, default=None)
