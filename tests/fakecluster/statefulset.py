"""The StatefulSet controller, as far as LeaderWorkerSet uses it: stable names, parallel start, replacement."""

from collections.abc import Callable, Iterable

from fakecluster.api_server import ApiServer, Event
from fakecluster.controller import Controller, Key, Timers
from fakecluster.core_events import tell
from fakecluster.objects import controlled_by, controller_reference, copied, is_deleting, labels_of
from moe_operator.controller.kube import POD, STATEFUL_SET, Obj

#: Seconds until a pod that was refused is tried again, at first and at most.
RETRY, LONGEST_RETRY = 1.0, 1000.0


class StatefulSetController(Controller):
    """A pod that is gone is made anew under its name, with a new uid; never beside one that still terminates."""

    def __init__(self, server: ApiServer, timers: Timers) -> None:
        super().__init__(server, timers)
        self.refuse: Callable[[str], str | None] = lambda pod: None
        """The API server's words with which a pod is refused, or None."""
        self._waits: dict[Key, float] = {}

    def keys(self, event: Event) -> Iterable[Key]:
        meta = event.obj["metadata"]
        if event.kind == STATEFUL_SET:
            yield (meta["namespace"], meta["name"])
        elif event.kind == POD:
            for reference in meta.get("ownerReferences") or []:
                if reference["kind"] == "StatefulSet":
                    yield (meta["namespace"], reference["name"])

    def sync(self, key: Key) -> None:
        namespace, name = key
        owner = self.server.get(STATEFUL_SET, namespace, name)
        if owner is None or is_deleting(owner):
            return
        first = (owner["spec"].get("ordinals") or {}).get("start", 0)
        for ordinal in range(first, first + owner["spec"]["replicas"]):
            pod_name = f"{name}-{ordinal}"
            pod = self.server.get(POD, namespace, pod_name)
            if pod is None and (words := self.refuse(pod_name)):
                message = f"Create Pod {pod_name} in StatefulSet {name} failed error: {words}"
                tell(self.server, STATEFUL_SET, owner, "FailedCreate", message)
                self._waits[key] = min(LONGEST_RETRY, 2 * self._waits.get(key, RETRY / 2))
                self.again(key, self._waits[key])
            elif pod is None:
                self.server.create(POD, self._pod(owner, pod_name, ordinal), self.name)
                self._waits.pop(key, None)
            elif controlled_by(pod, owner["metadata"]["uid"]) and not is_deleting(pod) and _failed(pod):
                self.server.delete(POD, namespace, pod_name, self.name, uid=pod["metadata"]["uid"])

    @staticmethod
    def _pod(owner: Obj, name: str, ordinal: int) -> Obj:
        template = copied(owner["spec"]["template"])
        labels = labels_of(template)
        labels["statefulset.kubernetes.io/pod-name"] = name
        # What LeaderWorkerSet's pod webhook does: the index of a worker is its ordinal.
        labels["leaderworkerset.sigs.k8s.io/worker-index"] = str(ordinal)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": owner["metadata"]["namespace"],
                "labels": labels,
                "annotations": template["metadata"].get("annotations") or {},
                "ownerReferences": [controller_reference(owner)],
            },
            "spec": template["spec"],
        }


def _failed(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
