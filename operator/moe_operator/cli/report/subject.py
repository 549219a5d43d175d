"""What all sections of a deployment's record go by: the deployment, and what of all that was read is its own. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse, without_spec
from moe_operator.api.status import ModelDeploymentStatus
from moe_operator.api.times import parse_time
from moe_operator.cli.report.figures import Recorded
from moe_operator.cli.report.network import engine_labels, selecting
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.reading import Collected, Missing, Obj

#: Namespace and name.
Key = tuple[str, str]


@dataclass(frozen=True)
class Subject:
    """One ModelDeployment and its surroundings."""

    obj: Obj
    deployment: ModelDeployment
    invalid: str | None
    """Why the spec cannot be read; `deployment` has a blank one then."""
    collected: Collected
    span: Span
    now: float
    """When the cluster was read."""
    recorded: Recorded | None
    """What Prometheus has of it; None: not asked, or not there."""
    pods: list[Obj] | None
    """Of its groups, without those of Jobs that fetch weights; None where they could not be read."""
    labels: list[Mapping[str, str]]
    """Of its pods as they are in traffic."""
    policies: list[Mapping[str, Any]] | None
    """NetworkPolicies that select its pods; None where they could not be read."""

    @property
    def status(self) -> ModelDeploymentStatus:
        return self.deployment.status

    @property
    def made(self) -> float | None:
        """When it was made; None where Prometheus has samples of its name from before that."""
        created = created_of(self.obj) or 0.0
        times = [at for at, count in self.recorded.ready_count if count] if self.recorded else []
        return None if times and times[0] < created else created


def subject_of(obj: Obj, collected: Collected, recorded: Recorded | None, span: Span, now: float) -> Subject:
    """Of a ModelDeployment as it was read. Nothing of the rest is hidden by a spec that cannot be read."""
    invalid = None
    try:
        deployment = parse(obj)
    except InvalidSpecError as error:
        deployment, invalid = without_spec(obj), str(error)
    pods = None if isinstance(collected.pods, Missing) else list(_own(collected.pods, deployment))
    labels = _labels(pods or (), deployment.name)
    return Subject(
        obj=obj,
        deployment=deployment,
        invalid=invalid,
        collected=collected,
        span=span,
        now=now,
        recorded=recorded,
        pods=pods,
        labels=labels,
        policies=selecting(collected.policies, deployment.namespace, labels),
    )


def _own(pods: Iterable[Obj], deployment: ModelDeployment) -> Iterator[Obj]:
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        mine = labels.get(names.LABEL_DEPLOYMENT) == deployment.name and names.LABEL_GROUP in labels
        if mine and pod["metadata"].get("namespace") == deployment.namespace:
            yield pod


def _labels(pods: Iterable[Obj], name: str) -> list[Mapping[str, str]]:
    found = [pod["metadata"].get("labels") or {} for pod in pods]
    in_traffic = {names.LABEL_TRAFFIC: names.TRAFFIC_ON}
    return [each | in_traffic for each in found] or [engine_labels(name)]


def key_of(obj: Obj) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def created_of(obj: Obj) -> float | None:
    """Seconds since the epoch."""
    return time_of(obj["metadata"].get("creationTimestamp"))


def time_of(text: Any) -> float | None:
    """Seconds since the epoch of a time that anybody may have written; None where it is none."""
    try:
        return parse_time(text) if isinstance(text, str) else None
    except ValueError:
        return None
