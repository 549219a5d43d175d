"""LeaderWorkerSet 0.9 with restartPolicy None and startupPolicy LeaderCreated, for groups of one replica.

LWS `x` makes the leader StatefulSet `x` with pod `x-0`, which owns the worker StatefulSet `x-0` with pods `x-0-1` ….
The headless Service is left out: the engines here have no use for it.
"""

from collections.abc import Iterable

from fakecluster.api_server import Event
from fakecluster.controller import Controller, Key
from fakecluster.objects import controller_reference, copied, is_deleting, is_true, labels_of, with_condition
from moe_operator.api import names
from moe_operator.controller.kube import LEADER_WORKER_SET, POD, STATEFUL_SET, Obj

#: The label by which a pod knows its LeaderWorkerSet; StatefulSets carry it too.
NAME = names.LWS_LABEL_NAME


class LeaderWorkerSetController(Controller):
    """Makes StatefulSets, never repairs a pod: that is the StatefulSets' and the operator's."""

    latency = 0.1
    away = False
    """Whether nothing acts on LeaderWorkerSets: its pods are gone."""

    def keys(self, event: Event) -> Iterable[Key]:
        meta = event.obj["metadata"]
        if event.kind == LEADER_WORKER_SET:
            yield (meta["namespace"], meta["name"])
        elif event.kind in (POD, STATEFUL_SET) and NAME in labels_of(event.obj):
            yield (meta["namespace"], labels_of(event.obj)[NAME])

    def sync(self, key: Key) -> None:
        namespace, name = key
        lws = self.server.get(LEADER_WORKER_SET, namespace, name)
        if self.away:
            self.again(key, 1.0)
            return
        if lws is None or is_deleting(lws):
            return
        group = lws["spec"]["leaderWorkerTemplate"]
        leader_template = group.get("leaderTemplate") or group["workerTemplate"]
        if self.server.get(STATEFUL_SET, namespace, name) is None:
            self.server.create(
                STATEFUL_SET, self._stateful_set(lws, lws, name, leader_template, 1, 0), self.name
            )
        leader = self.server.get(POD, namespace, f"{name}-0")
        # While the workers of an earlier leader are on their way out, their name is taken.
        free = self.server.get(STATEFUL_SET, namespace, f"{name}-0") is None
        if leader is not None and not is_deleting(leader) and free and group["size"] > 1:
            template, size = group["workerTemplate"], group["size"]
            workers = self._stateful_set(lws, leader, f"{name}-0", template, size - 1, 1)
            self.server.create(STATEFUL_SET, workers, self.name)
        self._status(lws, leader)

    def _stateful_set(self, lws: Obj, owner: Obj, name: str, template: Obj, replicas: int, start: int) -> Obj:
        own = {
            NAME: lws["metadata"]["name"],
            f"{names.LWS_LABEL_PREFIX}/group-index": "0",
        }
        pod = copied(template)
        meta = pod.setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **own}
        return {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {
                "name": name,
                "namespace": lws["metadata"]["namespace"],
                "labels": own,
                "ownerReferences": [controller_reference(owner)],
            },
            "spec": {
                "replicas": replicas,
                "ordinals": {"start": start},
                "serviceName": lws["metadata"]["name"],
                "podManagementPolicy": "Parallel",
                "template": pod,
            },
        }

    def _status(self, lws: Obj, leader: Obj | None) -> None:
        name, namespace = lws["metadata"]["name"], lws["metadata"]["namespace"]
        pods = [p for p in self.server.list(POD, namespace, f"{NAME}={name}") if not is_deleting(p)]
        size = lws["spec"]["leaderWorkerTemplate"]["size"]
        ready = leader is not None and len(pods) == size and all(is_true(p, "Ready") for p in pods)
        now = self.server.clock()
        # The conditions exclude each other, as in LeaderWorkerSet.
        conditions = with_condition(
            lws, "Available", "True" if ready else "False", now, reason="GroupsAvailable"
        )
        conditions = with_condition(
            {"metadata": {}, "status": {"conditions": conditions}},
            "Progressing",
            "False" if ready else "True",
            now,
        )
        status = {
            "replicas": 1 if leader is not None else 0,
            "readyReplicas": 1 if ready else 0,
            "conditions": conditions,
            "hpaPodSelector": f"{NAME}={name},{names.LWS_LABEL_WORKER_INDEX}=0",
        }
        self.server.set_status(LEADER_WORKER_SET, lws, status, self.name)


def group_of(pod: Obj) -> tuple[str, str] | None:
    """Namespace and name of the LeaderWorkerSet of a pod."""
    name = labels_of(pod).get(NAME)
    return (pod["metadata"]["namespace"], name) if name else None
