"""Brings what was measured of the groups before the autoscaler, and its decision into the status."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.api.status import ScalingStatus, ThroughputStatus
from moe_operator.api.times import format_time
from moe_operator.autoscaler.auto import TICK, Autoscaler, Numbers, Profile, Want
from moe_operator.autoscaler.cold_start import ColdStart
from moe_operator.autoscaler.decide import ScalingDecision, ScalingInputs, base, decide, limits
from moe_operator.autoscaler.reading import Buckets, Reading
from moe_operator.autoscaler.width_units import WidthUnits, chosen_width, most_groups
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.store import Key
from moe_operator.planner.wants import TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN
from moe_operator.telemetry.engine_counters import EngineCounters
from moe_operator.telemetry.observation import Snapshot

#: A pod's figures are current while no more scrapes than this failed in a row.
_TOLERATED_FAILURES = 1
_STARTING = (GroupState.STARTING, GroupState.ADMITTABLE, GroupState.SUSPECT)


@dataclass(frozen=True)
class GroupRead:
    """A group that serves or drains, as telemetry sees it."""

    ranks: int
    slots: int
    """Requests that a rank works on at once; 0: unknown."""
    reading: Reading | None
    width: int = 0
    """GPUs of the group; 0: unknown, as its revision is gone."""


@dataclass(frozen=True)
class Load:
    """The groups' load, and the deployment's sums."""

    clock: float
    """Telemetry's, to which readings belong, in seconds."""
    serving: Mapping[str, GroupRead]
    draining: Mapping[str, GroupRead]
    starting: int
    throughput: ThroughputStatus


@dataclass(frozen=True)
class Scale:
    """What the decision means for the groups."""

    desired: int
    minimum: int
    """Groups that must serve for the deployment to be Ready."""
    status: ScalingStatus | None
    recheck_after: float | None
    floor: int = 0
    """Groups that it is not to go below."""
    numbers: Numbers | None = None
    """What the decision was made of, where anything was measured."""
    losses: tuple[float, ...] | None = None
    """Requests per second expected to miss the objective with floor, floor + 1 .. desired groups; None: not known."""
    granted: int | None = None
    """Groups that it may have where GPUs are scarce; None: all."""
    surge: bool = True
    """Whether a rollout may make more than these meanwhile."""
    units: WidthUnits | None = None
    """Of the width that was chosen, in which groups are counted here; None: that of the plan."""
    given_up: frozenset[str] = frozenset()
    """Groups that go for other deployments, by name; those that drain already do not come back."""


def load_of(views: Sequence[GroupView], snapshot: Snapshot, widths: Mapping[str, int] | None = None) -> Load:
    """Sum up the observations of the groups' pods. `widths`: GPUs of a group, by revision."""
    widths = widths or {}
    prompt = output = 0.0
    for group in views:
        seen = [s for p in group.facts.pods if (s := snapshot.pods.get(p.uid))]
        current = [s for s in seen if s.failures <= _TOLERATED_FAILURES]
        prompt += sum(s.prompt_tokens_per_second for s in current)
        output += sum(s.output_tokens_per_second for s in current)
    return Load(
        clock=snapshot.taken_at,
        serving={v.name: _read(v, snapshot, widths) for v in views if v.state is GroupState.SERVING},
        draining={v.name: _read(v, snapshot, widths) for v in views if v.state is GroupState.DRAINING},
        starting=sum(view.state in _STARTING for view in views),
        throughput=ThroughputStatus(
            prompt_tokens_per_second=round(prompt), output_tokens_per_second=round(output)
        ),
    )


def _read(view: GroupView, snapshot: Snapshot, widths: Mapping[str, int]) -> GroupRead:
    pods = [pod.uid for pod in view.facts.pods]
    ranks = view.facts.size * view.facts.ranks_per_pod
    slots = [seen.request_slots for uid in pods if (seen := snapshot.pods.get(uid))]
    counters = snapshot.counters(pods, _TOLERATED_FAILURES) if len(pods) == view.facts.size else None
    return GroupRead(
        ranks=ranks,
        slots=sum(slots) // ranks if slots and all(slots) and len(slots) == len(pods) else 0,
        reading=None if counters is None else _reading(counters),
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


@dataclass
class _Deployment:
    """What is kept of one."""

    autoscaler: Autoscaler
    width: int = 0
    """GPUs of the groups that the autoscaler counts in."""
    starts: ColdStart = field(default_factory=ColdStart)
    started: str | None = None
    """The group whose start was taken up last."""
    born: dict[str, float] = field(default_factory=dict)
    """When groups were first seen to serve, by telemetry's clock."""
    looked: float | None = None
    want: tuple[int, Want] | None = None
    """The number that it goes on from, and what is wanted."""


@dataclass
class Scaler:
    """Keeps an autoscaler for every deployment: what it learned is in memory, the last decision in the status."""

    _kept: dict[Key, _Deployment] = field(default_factory=dict)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._kept.pop(key, None)

    def scale(self, deployment: ModelDeployment, load: Load, now: float) -> Scale:
        """Decide. The last decision is read from the status, so that it survives the operator."""
        spec, old = deployment.spec, deployment.status.scaling
        chosen = chosen_width(spec, old)
        units = WidthUnits.of(chosen)
        moving = units is not None and any(group.width != units.gpus for group in load.serving.values())
        inputs = ScalingInputs(
            mode=spec.scaling.mode,
            replicas=spec.replicas,
            min_groups=spec.scaling.min_groups,
            max_groups=most_groups(spec.scaling.max_groups, chosen, moving=moving),
            current=old.desired if old else spec.scaling.min_groups,
            serving=len(load.serving),
            starting=load.starting,
            width=chosen.gpus if chosen is not None and chosen.gpus != chosen.planned else None,
        )
        floor, ceiling = limits(inputs)
        decides = inputs.mode is not ScalingMode.EXTERNAL and floor < ceiling
        number = base(inputs)
        want = self._want(deployment, load, number, floor, units) if decides else Want(number, None)
        if moving and want.groups < number:
            want = replace(want, groups=number)  # none goes while others are made in their place
        decision = decide(inputs, want)
        minimum = min(floor, decision.desired) if inputs.mode is ScalingMode.AUTO else decision.desired
        # While nothing is asked of the fewest groups, telemetry's news bring the next look.
        busy = decision.desired > floor or want.blind or (want.numbers is not None and want.numbers.level > 0)
        return Scale(
            decision.desired,
            minimum,
            _status(old, decision, now),
            TICK if decides and busy else None,
            floor=floor,
            numbers=decision.numbers,
            units=units,
            losses=None if moving else _losses(decision, floor),
        )

    def _want(
        self, deployment: ModelDeployment, load: Load, number: int, floor: int, units: WidthUnits | None
    ) -> Want:
        """`number`, `floor` and the answer are in groups of the wanted width; the autoscaler counts in those that it
        has learned of, until the last of them has gone."""
        kept = self._of(deployment, load)
        autoscaler = kept.autoscaler
        everyone = {**load.serving, **load.draining}
        for name, group in everyone.items():
            if group.reading is not None:
                autoscaler.read(name, group.reading, born=kept.born.get(name), slots=group.slots)
        if kept.looked is None or load.clock - kept.looked >= TICK or load.clock < kept.looked:
            kept.looked, kept.want = load.clock, None
            worth: dict[Hashable, float] = {}
            if units is not None:
                whole = units.worth(kept.width)
                worth = {
                    name: float(units.worth(group.width) / whole)
                    for name, group in everyone.items()
                    if group.width != kept.width
                }
            autoscaler.look(
                load.clock, {name: kept.born.get(name) for name in load.serving}, load.draining, worth
            )
        if kept.want is None or kept.want[0] != number:
            if units is None or kept.width in (0, units.gpus):
                want = autoscaler.want(load.clock, number, floor, UNBOUNDED)
            else:
                there = units.in_groups_of(kept.width, number)
                least = units.in_groups_of(kept.width, floor)
                want = autoscaler.want(load.clock, there, least, UNBOUNDED)
                asked = number if want.groups == there else units.from_groups_of(kept.width, want.groups)
                want = replace(want, groups=asked)
            kept.want = (number, want)
        return kept.want[1]

    def _of(self, deployment: ModelDeployment, load: Load) -> _Deployment:
        kept = self._kept.get(deployment.key)
        profile, width = _profile(deployment, load, kept)
        if kept is None or (
            profile is not None and (kept.autoscaler.profile != profile or kept.width != width)
        ):
            # Another layout or objective: what was learned is of another group.
            starts = kept.starts if kept else ColdStart()
            made = Autoscaler(profile or Profile(ranks=1, slots=0), starts.expected)
            kept = _Deployment(made, width, starts)
            self._kept[deployment.key] = kept
        newest = deployment.status.cold_start
        if newest is not None and newest.group != kept.started:
            kept.started, kept.starts = newest.group, kept.starts.observed(newest.total)
            kept.autoscaler.cold_start = kept.starts.expected
        kept.born = {name: kept.born.get(name, load.clock) for name in (*load.serving, *load.draining)}
        return kept


def _losses(decision: ScalingDecision, floor: int) -> tuple[float, ...] | None:
    """With `floor` to `desired` groups: beyond those that are worth having another avoids none."""
    if decision.numbers is None or not decision.numbers.losses:
        return None
    known = decision.numbers.losses[: decision.desired - floor + 1]
    return known + known[-1:] * (decision.desired - floor + 1 - len(known))


#: `maxGroups` is for the decision to keep to: what would be wanted without is told.
UNBOUNDED = 1 << 20


def _profile(deployment: ModelDeployment, load: Load, kept: _Deployment | None) -> tuple[Profile | None, int]:
    """Of the groups that serve, with their width, as before while one of them is like that; None while none does."""
    objective = deployment.spec.objective
    known = list(load.serving.values())
    if not known:
        return None, 0
    if kept is not None:
        before = (kept.width, kept.autoscaler.profile.ranks, kept.autoscaler.profile.slots)
        known.sort(key=lambda group: (group.width, group.ranks, group.slots) != before)
    first, later = objective.time_to_first_token, objective.time_per_output_token
    profile = Profile(
        ranks=known[0].ranks,
        slots=known[0].slots,
        ttft=parse_duration(first) if first else TIME_TO_FIRST_TOKEN,
        tpot=parse_duration(later) if later else TIME_PER_OUTPUT_TOKEN,
    )
    return profile, known[0].width


def _status(old: ScalingStatus | None, decision: ScalingDecision, now: float) -> ScalingStatus:
    """A decision with the same outcome for the same reason is no news: its numbers are in the metrics.

    Nor is one that is still being made: under load it comes and goes with every look.
    """
    same = old is not None and old.desired == decision.desired
    making = decision.reason is ScalingReason.OBSERVING
    if old and same and old.advised == decision.advised and (making or old.reason == decision.reason.value):
        return old
    return ScalingStatus(
        desired=decision.desired,
        advised=decision.advised,
        reason=decision.reason.value,
        message=decision.message,
        last_change_time=old.last_change_time if old and same else format_time(now),
        # Of the width something is said elsewhere.
        recommended_width=old.recommended_width if old else None,
        width_message=old.width_message if old else None,
        width_change_time=old.width_change_time if old else None,
        chosen_width=old.chosen_width if old else None,
    )
