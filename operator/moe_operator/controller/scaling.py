"""Brings what was measured of the groups before the autoscaler, and its decision into the status."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.api.status import ScalingStatus, ThroughputStatus
from moe_operator.api.times import format_time
from moe_operator.autoscaler.decide import (
    GroupLoad,
    ScalingDecision,
    ScalingInputs,
    ScalingState,
    decide,
    limits,
)
from moe_operator.controller.group_planner import GroupState, GroupView
from moe_operator.controller.store import Key
from moe_operator.telemetry.observation import PodObservation, Snapshot

#: A pod's figures are current while no more scrapes than this failed in a row.
_TOLERATED_FAILURES = 1


@dataclass(frozen=True)
class Load:
    """The groups' load, and the deployment's sums."""

    serving: tuple[GroupLoad | None, ...]
    starting: int
    draining: int
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
    losses: tuple[float, ...] | None = None
    """Requests per second expected to miss the objective with floor, floor + 1 .. desired groups; None: not known."""
    granted: int | None = None
    """Groups that it may have where GPUs are scarce; None: all."""
    surge: bool = True
    """Whether a rollout may make more than these meanwhile."""
    given_up: frozenset[str] = frozenset()
    """Groups that go for other deployments, by name; those that drain already do not come back."""


def load_of(views: Sequence[GroupView], snapshot: Snapshot) -> Load:
    """Sum up the observations of the groups' pods."""
    serving: list[GroupLoad | None] = []
    prompt = output = 0.0
    for group in views:
        seen = [s for p in group.facts.pods if (s := snapshot.pods.get(p.uid))]
        current = [s for s in seen if s.failures <= _TOLERATED_FAILURES]
        prompt += sum(s.prompt_tokens_per_second for s in current)
        output += sum(s.output_tokens_per_second for s in current)
        if group.state is GroupState.SERVING:
            serving.append(_group_load(current) if len(current) == len(group.facts.pods) else None)
    return Load(
        serving=tuple(serving),
        starting=sum(
            g.state in (GroupState.STARTING, GroupState.ADMITTABLE, GroupState.SUSPECT) for g in views
        ),
        draining=sum(g.state is GroupState.DRAINING for g in views),
        throughput=ThroughputStatus(
            prompt_tokens_per_second=round(prompt), output_tokens_per_second=round(output)
        ),
    )


def _group_load(pods: Sequence[PodObservation]) -> GroupLoad:
    return GroupLoad(
        running=sum(s.running for s in pods),
        waiting=sum(s.waiting for s in pods),
        slots=sum(s.request_slots for s in pods) if all(s.request_slots for s in pods) else 0,
        time_to_first_token=_mean([s.time_to_first_token for s in pods]),
        time_per_output_token=_mean([s.time_per_output_token for s in pods]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


@dataclass
class Scaler:
    """Remembers, per deployment, since when a shortage or a surplus lasts."""

    _states: dict[Key, ScalingState] = field(default_factory=dict)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._states.pop(key, None)

    def scale(self, deployment: ModelDeployment, load: Load, now: float) -> Scale:
        """Decide. The last decision is read from the status, so that it survives the operator."""
        spec, old = deployment.spec, deployment.status.scaling
        objective = spec.objective
        inputs = ScalingInputs(
            mode=spec.scaling.mode,
            now=now,
            replicas=spec.replicas,
            min_groups=spec.scaling.min_groups,
            max_groups=spec.scaling.max_groups,
            current=old.desired if old else spec.scaling.min_groups,
            serving=load.serving,
            starting=load.starting,
            draining=load.draining,
            time_to_first_token=parse_duration(objective.time_to_first_token)
            if objective.time_to_first_token
            else None,
            time_per_output_token=parse_duration(objective.time_per_output_token)
            if objective.time_per_output_token
            else None,
        )
        decision = decide(inputs, self._states.get(deployment.key, ScalingState()))
        self._states[deployment.key] = decision.state
        floor, _ = limits(inputs)
        minimum = min(floor, decision.desired) if inputs.mode is ScalingMode.AUTO else decision.desired
        return Scale(
            decision.desired, minimum, _status(old, decision, now), decision.recheck_after, floor=floor
        )


def _status(old: ScalingStatus | None, decision: ScalingDecision, now: float) -> ScalingStatus:
    """A decision with the same outcome for the same reason is no news: its numbers are in the metrics.

    Nor is one that is still being made: under load it comes and goes with every scrape.
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
    )
