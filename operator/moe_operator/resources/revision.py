"""A revision: one immutable rendering of the spec, kept as a ControllerRevision for history and rollback.

It is named by a hash over what the user wrote of the fields that reach the pods, and not over what was
rendered: a new version of the operator, which may render differently, finds the kept revision of an unchanged
spec and uses its template as it is, so that an upgrade restarts nothing. A rollback finds its revision the
same way.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.planner.plan import Plan, plan_from_data, plan_to_data
from moe_operator.resources.metadata import child_metadata
from moe_operator.resources.weights import Kept, kept_from_data, kept_to_data

#: The parts of the spec that reach the pods' template. All others act on groups as they are.
TEMPLATE_FIELDS = ("model", "hardware", "parallelism", "engine", "pod_template", "weights")
#: Of these, what acts on objects as they are: a larger claim moves no group.
_NOT_IN_TEMPLATE = {"weights": {"cache": {"size"}}}

_HASH_LENGTH = 10


@dataclass(frozen=True)
class Revision:
    """What every group of it is made from."""

    name: str
    hash: str
    plan: Plan
    template: dict[str, Any]
    """`spec` of the group's LeaderWorkerSet; see `group.render_template`. Not to be changed."""
    engine_arguments: tuple[str, ...]
    """What follows `vllm serve`."""
    image: str
    companions: tuple[dict[str, Any], ...] = ()
    """Further objects that the template refers to by name, kept with it: what was rendered then is what a rollback
    finds. Without namespace and owner."""
    weights: Kept | None = None
    """The weights that the template reads from a cache; None where engines read the source themselves."""


def spec_hash(deployment: ModelDeployment) -> str:
    """Ten hex digits over the fields that reach the template, as far as they differ from their defaults.

    Leaving defaults out keeps the hash of a stored spec when a later version of the API adds a field. To
    change a field's default is then to change what a revision means: such a field must be given a new name.
    """
    spec = deployment.spec.model_dump(
        mode="json", include=set(TEMPLATE_FIELDS), exclude=_NOT_IN_TEMPLATE, exclude_defaults=True
    )
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def written_parts(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """What the user wrote of the fields that reach the pods, as on the wire and as far as it differs from defaults:
    applied in place of the present ones, it has the hash that it had."""
    return spec.model_dump(mode="json", by_alias=True, include=set(TEMPLATE_FIELDS), exclude_defaults=True)


def revision_name(deployment: ModelDeployment) -> str:
    """`<deployment>-<hash10>`."""
    return f"{deployment.name}-{spec_hash(deployment)}"


def new_revision(
    deployment: ModelDeployment,
    plan: Plan,
    template: dict[str, Any],
    companions: Sequence[dict[str, Any]] = (),
    weights: Kept | None = None,
) -> Revision:
    """The revision of the spec as it is now, from a template of `group.render_template`."""
    engine = engine_container(template)
    return Revision(
        name=revision_name(deployment),
        hash=spec_hash(deployment),
        plan=plan,
        template=template,
        engine_arguments=tuple(engine["args"]),
        image=engine["image"],
        companions=tuple(companions),
        weights=weights,
    )


def engine_container(template: Mapping[str, Any]) -> dict[str, Any]:
    """The container that runs vLLM, in a template of `group.render_template`."""
    containers = template["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"]
    return next(c for c in containers if c["name"] == names.ENGINE_CONTAINER)


def build_revision(
    deployment: ModelDeployment,
    revision: Revision,
    number: int = 1,
    written: ModelDeploymentSpec | None = None,
) -> dict[str, Any]:
    """The ControllerRevision. `number` orders the history for people; nothing here depends on it.

    `written`: the spec as its user wrote it, where a policy has added to that of `deployment`: people go back to it.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": child_metadata(deployment, revision.name, {names.LABEL_REVISION: revision.name}),
        "data": {
            "plan": plan_to_data(revision.plan),
            "template": revision.template,
            "spec": written_parts(written or deployment.spec),
            **({"companions": list(revision.companions)} if revision.companions else {}),
            **({"weights": kept_to_data(revision.weights)} if revision.weights else {}),
        },
        "revision": number,
    }


def written_of(obj: Mapping[str, Any]) -> dict[str, Any] | None:
    """`written_parts` of the spec that a ControllerRevision was made of; None for one of an earlier version, which kept
    only what was rendered."""
    data = obj.get("data")
    spec = data.get("spec") if isinstance(data, Mapping) else None
    return dict(spec) if isinstance(spec, Mapping) else None


def read_revision(obj: Mapping[str, Any]) -> Revision:
    """Read a ControllerRevision that `build_revision` wrote, in this or an earlier version.

    Raises:
        ValueError: if it holds something else; the message names the object.
    """
    name = obj["metadata"]["name"]
    try:
        data = obj["data"]
        plan = plan_from_data(data["plan"])
        engine = engine_container(data["template"])
        return Revision(
            name=name,
            hash=name.rpartition("-")[2],
            plan=plan,
            template=data["template"],
            engine_arguments=tuple(engine["args"]),
            image=engine["image"],
            companions=tuple(data.get("companions") or ()),
            weights=kept_from_data(data.get("weights")),
        )
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(
            f"ControllerRevision {name} does not hold a revision of a ModelDeployment ({error!r}): delete it,"
            f" and the operator renders the spec anew"
        ) from error
