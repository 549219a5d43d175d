"""What a cluster keeps of one deployment, as plain objects: for tests of what people are shown."""

from typing import Any

from factories.deployments import UID, group_plan, revision_of
from moe_operator.api import names
from moe_operator.api.deployment import parse
from moe_operator.api.times import format_time
from moe_operator.resources.group import build_group
from moe_operator.resources.revision import build_revision

Obj = dict[str, Any]
#: A time of day: seconds since the epoch (2027-01-15T08:00:00Z).
NOW = 1_800_000_000.0
NAME, NAMESPACE = "tiny", "serving"


def deployment_object(spec: Obj | None = None, *, generation: int = 1, **status: Any) -> Obj:
    """A ModelDeployment of groups of two pods, as read; `status` in camelCase."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": generation,
            "resourceVersion": "7",
        },
        "spec": {"model": {"name": "org/tiny-moe"}, "hardware": {"accelerator": "B200"}, **(spec or {})},
        "status": {"observedGeneration": generation, **status},
    }


def condition(type_: str, status: str, reason: str, message: str, ago: float = 180.0) -> Obj:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(NOW - ago),
    }


def revision_object(obj: Obj, number: int, ago: float, *, with_spec: bool = True) -> Obj:
    """The ControllerRevision of this deployment's spec; without one as early versions kept it."""
    deployment = parse(obj)
    made = build_revision(deployment, revision_of(deployment, group_plan(2, 8, accelerator="B200")), number)
    made["metadata"]["creationTimestamp"] = format_time(NOW - ago)
    if not with_spec:
        del made["data"]["spec"]
    return made


def group_object(
    obj: Obj, slot: int, ago: float, *, draining: float | None = None, deleting: bool = False
) -> Obj:
    """The LeaderWorkerSet of a group of this spec."""
    deployment = parse(obj)
    made = build_group(deployment, revision_of(deployment, group_plan(2, 8, accelerator="B200")), slot)
    meta = made["metadata"]
    meta |= {"uid": f"uid-g{slot}", "creationTimestamp": format_time(NOW - ago)}
    if draining is not None:
        meta["annotations"][names.ANNOTATION_DRAINING] = format_time(NOW - draining)
    if deleting:
        meta["deletionTimestamp"] = format_time(NOW)
    return made


def pod_object(
    slot: int,
    index: int,
    *,
    ready: bool = True,
    incarnation: str | None = None,
    restarts: int = 0,
    ago: float = 600.0,
) -> Obj:
    """A pod of a group; with an `incarnation` it takes traffic."""
    name = f"{NAME}-g{slot}-0" + (f"-{index}" if index else "")
    labels = {names.LABEL_GROUP: f"{NAME}-g{slot}", names.LWS_LABEL_WORKER_INDEX: str(index)}
    if incarnation:
        labels[names.LABEL_TRAFFIC] = names.TRAFFIC_ON
    state = {"type": "Ready", "status": str(ready), "lastTransitionTime": format_time(NOW - ago)}
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "labels": labels,
            "annotations": {names.ANNOTATION_INCARNATION: incarnation} if incarnation else {},
        },
        "spec": {"nodeName": f"b200-{slot}{index}"},
        "status": {
            "phase": "Running",
            "conditions": [state],
            "containerStatuses": [
                {
                    "name": names.ENGINE_CONTAINER,
                    "restartCount": restarts,
                    "state": {"running": {"startedAt": format_time(NOW - ago)}},
                }
            ],
        },
    }


def event_object(
    note: str, reason: str, action: str, ago: float, *, uid: str = UID, again: tuple[int, float] | None = None
) -> Obj:
    """An Event of the operator; `again`: a series of so many, the last so many seconds ago."""
    made: Obj = {
        "metadata": {"name": f"{NAME}.{abs(hash((note, reason)))}", "namespace": NAMESPACE},
        "eventTime": format_time(NOW - ago),
        "type": "Normal",
        "reason": reason,
        "action": action,
        "note": note,
        "regarding": {"kind": names.KIND, "name": NAME, "namespace": NAMESPACE, "uid": uid},
    }
    if again:
        made["series"] = {"count": again[0], "lastObservedTime": format_time(NOW - again[1])}
    return made
