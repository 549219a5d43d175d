"""What was measured of a deployment's groups at one moment: sums of its engines' figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from moe_operator.api.status import ThroughputStatus
from moe_operator.autoscaler.idleness import Activity
from moe_operator.autoscaler.reading import Buckets, Reading
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.telemetry.engine_counters import EngineCounters
from moe_operator.telemetry.observation import Snapshot

#: A pod's figures are current while no more scrapes than this failed in a row.
TOLERATED_FAILURES = 1
#: Groups that may have requests: one that is admittable may have served before it was in doubt.
_REACHED = (GroupState.SERVING, GroupState.SUSPECT, GroupState.ADMITTABLE, GroupState.DRAINING)


@dataclass(frozen=True)
class GroupRead:
    """A group that serves or drains, as telemetry sees it."""

    ranks: int
    slots: int
    """Requests that a rank works on at once; 0: unknown."""
    reading: Reading | None
    idle_step_time: float | None = None
    """Seconds of a step without load, as its plan expects; None: it does not say."""
    width: int = 0
    """GPUs of the group; 0: unknown, as its revision is gone."""


@dataclass(frozen=True)
class Load:
    """The groups' load, and the deployment's sums."""

    clock: float
    """Telemetry's, to which readings belong, in seconds."""
    serving: Mapping[str, GroupRead]
    draining: Mapping[str, GroupRead]
    throughput: ThroughputStatus
    activity: Mapping[str, Activity | None] = field(default_factory=dict)
    """Of the groups that are or were in the traffic, by uid; None for one that cannot be read."""


def load_of(
    views: Sequence[GroupView],
    snapshot: Snapshot,
    idle_step_times: Mapping[str, float] = MappingProxyType({}),
    widths: Mapping[str, int] = MappingProxyType({}),
) -> Load:
    """Sum up the observations of the groups' pods. By revision: `idle_step_times` in seconds, as planned; `widths`:
    GPUs of a group."""

    def read(state: GroupState) -> dict[str, GroupRead]:
        return {v.name: _read(v, snapshot, idle_step_times, widths) for v in views if v.state is state}

    prompt = output = 0.0
    for group in views:
        seen = [s for p in group.facts.pods if (s := snapshot.pods.get(p.uid))]
        current = [s for s in seen if s.failures <= TOLERATED_FAILURES]
        prompt += sum(s.prompt_tokens_per_second for s in current)
        output += sum(s.output_tokens_per_second for s in current)
    return Load(
        clock=snapshot.taken_at,
        serving=read(GroupState.SERVING),
        draining=read(GroupState.DRAINING),
        throughput=ThroughputStatus(
            prompt_tokens_per_second=round(prompt), output_tokens_per_second=round(output)
        ),
        activity={v.facts.uid: _activity(v, snapshot) for v in views if v.state in _REACHED},
    )


def _activity(view: GroupView, snapshot: Snapshot) -> Activity | None:
    """None where one of its pods cannot be read now, or one of its ranks does not tell."""
    pods = [pod.uid for pod in view.facts.pods]
    seen = [one for uid in pods if (one := snapshot.pods.get(uid)) is not None and not one.failures]
    counters = snapshot.counters(pods) if len(pods) == view.facts.size else None
    if counters is None or counters.ranks_lost or len(seen) < len(pods):
        return None
    totals = (counters.output_tokens, counters.finished, counters.aborted)
    return Activity(
        busy=any(one.busy for one in seen),
        used_at=max(one.used_at for one in seen),
        counted=(counters.since, counters.ranks, *totals),
    )


def _read(
    view: GroupView, snapshot: Snapshot, idle_step_times: Mapping[str, float], widths: Mapping[str, int]
) -> GroupRead:
    pods = [pod.uid for pod in view.facts.pods]
    ranks = view.facts.size * view.facts.ranks_per_pod
    slots = [seen.request_slots for uid in pods if (seen := snapshot.pods.get(uid))]
    counters = snapshot.counters(pods, TOLERATED_FAILURES) if len(pods) == view.facts.size else None
    return GroupRead(
        ranks=ranks,
        slots=sum(slots) // ranks if slots and all(slots) and len(slots) == len(pods) else 0,
        reading=None if counters is None else _reading(counters),
        idle_step_time=idle_step_times.get(view.facts.revision),
        width=widths.get(view.facts.revision, 0),
    )


def _reading(seen: EngineCounters) -> Reading:
    return Reading(
        at=seen.at,
        running=seen.running,
        waiting=seen.waiting,
        kv=seen.kv_sum / max(1, seen.ranks),
        finished=seen.finished + seen.aborted,
        gaps=seen.inter_token_count,
        gap_seconds=seen.inter_token_sum,
        first_token=Buckets(seen.first_token.bounds, seen.first_token.counts),
        per_token=Buckets(seen.per_token.bounds, seen.per_token.counts),
        ranks=seen.ranks,
        since=seen.since,
        prompt_tokens=seen.prompt_tokens,
        cached_tokens=seen.cached_prompt_tokens,
        output_tokens=seen.output_tokens,
    )
