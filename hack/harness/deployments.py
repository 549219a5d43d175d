"""ModelDeployments as seen from outside: state, pods, endpoints."""

from typing import Any

from harness.kubectl import JsonObject, get, items
from harness.wait import wait_for
from moe_operator.api import names

#: Every kind of object that a ModelDeployment causes, itself or through its LeaderWorkerSets, as kubectl lists them.
CHILDREN = (
    "leaderworkersets,statefulsets,pods,services,configmaps,serviceaccounts,"
    "poddisruptionbudgets,controllerrevisions,networkpolicies"
)


def condition(obj: JsonObject, type_: str) -> JsonObject | None:
    """A condition of an object's status."""
    for one in obj.get("status", {}).get("conditions", []):
        if one["type"] == type_:
            return dict(one)
    return None


def deployment(name: str, namespace: str) -> JsonObject:
    """The ModelDeployment. Raises RuntimeError if it is gone."""
    found = get(names.PLURAL, name, namespace)
    if found is None:
        raise RuntimeError(f"ModelDeployment {namespace}/{name} is gone")
    return found


def wait_ready(name: str, namespace: str, *, seconds: float = 600, **options: Any) -> JsonObject:
    """The ModelDeployment once it is Ready for its present generation."""

    def ready() -> JsonObject | None:
        obj = deployment(name, namespace)
        found = condition(obj, "Ready")
        current = obj.get("status", {}).get("observedGeneration") == obj["metadata"]["generation"]
        return obj if current and found and found["status"] == "True" else None

    return wait_for(f"{name} Ready", ready, seconds=seconds, every=0.5, **options)


def engine_pods(name: str, namespace: str) -> list[JsonObject]:
    """The pods of all groups that are not on their way out, by name."""
    found = items("pods", namespace, f"{names.LABEL_DEPLOYMENT}={name},{names.LABEL_GROUP}")
    alive = [p for p in found if "deletionTimestamp" not in p["metadata"]]
    return sorted(alive, key=lambda p: str(p["metadata"]["name"]))


def ready_endpoints(service: str, namespace: str) -> dict[str, str]:
    """Ready endpoints of a Service: pod name by address."""
    found: dict[str, str] = {}
    for piece in items("endpointslices", namespace, f"kubernetes.io/service-name={service}"):
        for endpoint in piece.get("endpoints") or []:
            if endpoint.get("conditions", {}).get("ready", True):
                for address in endpoint["addresses"]:
                    found[address] = endpoint.get("targetRef", {}).get("name", "")
    return found


def group_of(pod: JsonObject) -> str:
    """Name of the group that a pod belongs to."""
    return str(pod["metadata"]["labels"][names.LABEL_GROUP])
