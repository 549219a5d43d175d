"""The objects that the operator would make of a plan, in the order in which it does, each with what it is for. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moe_operator.api import names
from moe_operator.cli.data_text import data_text
from moe_operator.cli.manifest import NOT_APPLIED
from moe_operator.cli.plan_report import PlanReport
from moe_operator.cli.yaml_comments import Path, as_comment, commented
from moe_operator.planner.placement import Placement
from moe_operator.planner.plan import Plan
from moe_operator.resources.children import build_children
from moe_operator.resources.compute_domain import build_compute_domain, needs_compute_domain
from moe_operator.resources.group import build_group
from moe_operator.resources.pod_template import pod_parts
from moe_operator.resources.revision import build_revision
from moe_operator.resources.weights_fetch import build_download

Object = dict[str, Any]

#: What each kind of object is for.
PURPOSES = {
    "ServiceAccount": "the identity of the engines' pods: no rights, no token",
    "NetworkPolicy": "who may connect to the engines",
    "ConfigMap": "the agent, which runs inside vLLM",
    "Service": "what clients call: the pods of all groups that may take traffic",
    "PodDisruptionBudget": "no eviction: one lost pod costs its whole group, so the operator moves groups itself",
    "ResourceClaimTemplate": "the GPUs of a pod: a claim is made of it for each",
    "ComputeDomain": "the namespace's NVLink domain, which its deployments share",
    "ControllerRevision": "the operator's record of this rendering, for rollback",
    "PersistentVolumeClaim": "the cache of weights, one for all deployments of the namespace that name its class",
    "Job": "downloads the weights once; groups are made when it is done",
    "LeaderWorkerSet": "one group",
}

_WORKERS = ("spec", "leaderWorkerTemplate")
_LEADER: Path = (*_WORKERS, "leaderTemplate")
#: Said of the workers where it is so.
SAME = "the same as leaderTemplate"
#: Fields of a group that are the same for all.
_GROUP_REASONS: dict[Path, str] = {
    ("spec", "replicas"): "a group is one LeaderWorkerSet: it starts, serves, fails and drains as one",
    ("spec", "startupPolicy"): "the leader waits for its workers' ranks, so they must not wait for it",
    (*_WORKERS, "size"): "pods, the leader included",
    (*_WORKERS, "restartPolicy"): "a crashed engine keeps its evidence until the operator has read it",
}
#: Fields of a pod that need not be there.
_POD_REASONS: dict[Path, str] = {
    ("automountServiceAccountToken",): "engines call no API server",
    ("terminationGracePeriodSeconds",): "--shutdown-timeout, and time to free the GPUs",
    ("tolerations",): "taints that keep other pods off such nodes",
    ("affinity", "nodeAffinity"): "a vendor's GPUs all share one resource name: labels tell them apart",
    ("affinity", "podAffinity"): "where the pods of a group stand to each other",
    ("affinity", "podAntiAffinity"): "a node for each pod of a group: within a node its ranks are one pod",
}
_ENGINE_REASONS: dict[Path, str] = {
    ("startupProbe",): "while weights load; a day, as the operator's own start deadline comes first",
    ("readinessProbe",): "half a group takes itself out of traffic",
    ("terminationMessagePath",): "the engine's last errors, which the status shows",
}


def rendered_objects(
    report: PlanReport,
    groups: int | Sequence[Placement] = 1,
    *,
    placed: bool = False,
    revision: bool = False,
) -> list[Object]:
    """What is applied, then the groups: so many, or one for each place. `revision`: with the record that the operator
    keeps of it.

    `placed`: the manifest says its namespace; else the objects say none either. Of a deployment that is not applied
    there is no owner to refer to: the garbage collector would delete them at once.
    """
    deployment, rendered = report.deployment, report.revision
    objects = build_children(deployment, rendered, report.site)
    if needs_compute_domain(rendered.plan):
        objects.append(build_compute_domain(deployment))
    if revision:
        objects.append(build_revision(deployment, rendered))
    objects += build_download(report.rendering)
    places = [Placement()] * groups if isinstance(groups, int) else groups
    objects += [build_group(deployment, rendered, slot, placement=place) for slot, place in enumerate(places)]
    return [_of(obj, placed=placed, applied=deployment.uid != NOT_APPLIED) for obj in objects]


def _of(obj: Object, *, placed: bool, applied: bool) -> Object:
    metadata = dict(obj["metadata"])
    if not applied:
        metadata.pop("ownerReferences", None)
    if not placed:
        metadata.pop("namespace", None)
    return {**obj, "metadata": metadata}


def rendered_text(report: PlanReport, objects: list[Object], *, explain: bool = False) -> str:
    """The objects as YAML documents, each below a line that says what it is for. `explain`: with a comment at every
    argument, variable, mount, resource and capability."""
    parts = [_heading(report)]
    for obj in objects:
        text = data_text(obj, "yaml")
        if explain and obj["kind"] == "LeaderWorkerSet":
            text = commented(text, dict(_reasons(report, obj)))
        heading = as_comment(f"{obj['kind']}: {_purpose(obj, report.plan)}")
        parts.append("\n".join(["---", *heading, text]))
    return "\n".join(parts)


def _heading(report: PlanReport) -> str:
    plan, sizing = report.plan, report.plan.sizing
    lines = [
        f"ModelDeployment {report.deployment.name} on {plan.accelerator}, planned for {report.nodes.source}:"
        f" {plan.width} wide, {_layout(plan)}",
    ]
    if sizing is not None:
        lines.append(f"{sizing.repository or sizing.model}, {sizing.precision}")
    if report.nodes.assumed:
        lines.append(
            "note: no node was seen, so nothing is known of the network between nodes; --inventory FILE says it"
        )
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(part for line in lines for part in as_comment(line))


def _purpose(obj: Object, plan: Plan) -> str:
    if obj["kind"] == "LeaderWorkerSet":
        return (
            f"one group, {_layout(plan)}; others differ in name and place. The operator adds to its pods"
            f" {names.ANNOTATION_AGENT_VERIFIER}, by which its agents know it"
        )
    return PURPOSES[obj["kind"]]


def _layout(plan: Plan) -> str:
    pods = "1 pod" if plan.pods_per_group == 1 else f"{plan.pods_per_group} pods"
    ranks = "1 rank" if plan.ranks_per_pod == 1 else f"{plan.ranks_per_pod} ranks"
    return f"{pods} x {ranks} x {plan.tensor} GPU{'' if plan.tensor == 1 else 's'}"


def _reasons(report: PlanReport, lws: Object) -> Iterator[tuple[Path, str]]:
    """(place in the group, why it is so)."""
    yield from _GROUP_REASONS.items()
    workers = lws["spec"]["leaderWorkerTemplate"]
    if workers["workerTemplate"] == workers["leaderTemplate"]:
        yield (*_WORKERS, "workerTemplate"), SAME
    pod = workers["leaderTemplate"]["spec"]
    number, engine = next(
        (i, c) for i, c in enumerate(pod["containers"]) if c["name"] == names.ENGINE_CONTAINER
    )
    at: Path = (*_LEADER, "spec", "containers", number)
    yield from _present((*_LEADER, "spec"), pod, _POD_REASONS)
    yield from _present(at, engine, _ENGINE_REASONS)
    token = 0
    for argument in report.arguments:
        yield (*at, "args", token), argument.reason
        token += len(argument.tokens())
    known = pod_parts(report.rendering).reasons
    for field, key in (("env", "name"), ("volumeMounts", "mountPath")):
        yield from _named((*at, field), engine.get(field, ()), key, known)
    for name in workers["leaderTemplate"]["metadata"].get("annotations") or {}:
        if name in known:
            yield (*_LEADER, "metadata", "annotations", name), known[name]
    for name in engine["resources"].get("limits", {}):
        if name in known:
            yield (*at, "resources", "limits", name), known[name]
    for i, name in enumerate(engine["securityContext"].get("capabilities", {}).get("add", ())):
        if name in known:
            yield (*at, "securityContext", "capabilities", "add", i), known[name]
    for field in ("initContainers", "resourceClaims"):
        yield from _named((*_LEADER, "spec", field), pod.get(field, ()), "name", known)


def _present(at: Path, obj: Object, reasons: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    for path, why in reasons.items():
        found: Any = obj
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            yield at + path, why


def _named(at: Path, items: Any, key: str, known: Any) -> Iterator[tuple[Path, str]]:
    for i, item in enumerate(items):
        if item[key] in known:
            yield (*at, i), known[item[key]]
