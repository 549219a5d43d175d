"""Nodes without machines, and the kubelet's part for the pods that the scheduler binds to them.

Containers start and end at once, as far as the API can tell. So what is measured from the end of an engine to the next
one's pods is what the control plane and the controllers take.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bench.played_engines import NODE_ADDRESS, POD_ADDRESSES
from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj
from localcluster.kubelet.nodespec import KUBELET_PORT
from moe_operator.api import names
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.synthetic_nodes import synthetic_nodes

#: On every node made here.
LABEL = "moe-operator-bench/played"
_AT_ONCE = 16


def nodes(count: int) -> list[Obj]:
    """HGX B200 on InfiniBand: eight GPUs each."""
    labels = {LABEL: "true", "feature.node.kubernetes.io/rdma.available": "true"}
    entry = {
        "accelerator": "B200",
        "count": count,
        "labels": labels,
        "resources": {"cpu": "224", "memory": "2Ti", "pods": "110", "rdma/ib": "1k"},
    }
    made = synthetic_nodes({"nodes": [entry]}, "", load_catalog())
    for node in made:
        node["metadata"]["labels"]["kubernetes.io/hostname"] = node["metadata"]["name"]
        node["status"] |= {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"} | _since()],
            "addresses": [{"type": "Hostname", "address": NODE_ADDRESS}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        }
    return made


class PlayedKubelet:
    """Told of every pod by a watch; says that it runs, and takes it away when it is to go."""

    def __init__(self, api: ApiClient, played: Sequence[str]) -> None:
        """`played`: names of the nodes."""
        self._api = api
        self._nodes = frozenset(played)
        self._free = deque(POD_ADDRESSES)
        self._address: dict[str, str] = {}
        self._ended: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._limit = asyncio.Semaphore(_AT_ONCE)

    def pod(self, type_: str, pod: Obj) -> None:
        """One event of the pods' watch."""
        meta = pod["metadata"]
        uid = meta["uid"]
        if (pod.get("spec") or {}).get("nodeName") not in self._nodes:
            return
        if type_ == "DELETED":
            address = self._address.pop(uid, None)
            if address is not None:
                self._free.append(address)
            self._ended.discard(uid)
        elif meta.get("deletionTimestamp"):
            if uid not in self._ended:
                self._ended.add(uid)
                self._begin(self._end(pod))
        elif uid not in self._address:
            self._address[uid] = self._free.popleft()
            self._begin(self._run(pod))

    async def fail(self, pod: Obj) -> None:
        """The engine of this pod ends, and is started again in place: the one write by which a kubelet tells."""
        status = [
            _container(one, ready=False, restarts=1, last={"terminated": _TERMINATED | _ended()})
            if one["name"] == names.ENGINE_CONTAINER
            else _container(one)
            for one in pod["spec"]["containers"]
        ]
        await self._write(pod, {"conditions": _conditions(ready=False), "containerStatuses": status})

    def _begin(self, what: Any) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, pod: Obj) -> None:
        spec, address = pod["spec"], self._address[pod["metadata"]["uid"]]
        done = {"terminated": {"exitCode": 0, "reason": "Completed"} | _ended()}
        await self._write(
            pod,
            {
                "phase": "Running",
                "startTime": _now(),
                "hostIP": NODE_ADDRESS,
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": _conditions(ready=True),
                "initContainerStatuses": [
                    _container(one) | {"state": done} for one in spec.get("initContainers") or []
                ],
                "containerStatuses": [_container(one) for one in spec["containers"]],
            },
        )

    async def _end(self, pod: Obj) -> None:
        meta = pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        async with self._limit:
            try:
                await self._api.delete(_path(pod), body)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise

    async def _write(self, pod: Obj, status: Obj) -> None:
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        async with self._limit:
            try:
                await self._api.patch(f"{_path(pod)}/status", body)
            except ApiError as error:
                if error.status not in (404, 409, 422):
                    raise


def _path(pod: Obj) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


#: The agent's termination message says no more than that; the cause is in the log.
_TERMINATED = {"exitCode": 1, "reason": "Error", "message": ""}


def _container(spec: Obj, *, ready: bool = True, restarts: int = 0, last: Obj | None = None) -> Obj:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "sha256:0",
        "containerID": f"played://{restarts}",
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "state": {"running": {"startedAt": _now()}},
        "lastState": last or {},
    }


def _conditions(*, ready: bool) -> list[Obj]:
    def condition(type_: str, true: bool) -> Obj:
        return {"type": type_, "status": str(true)} | _since()

    return [
        condition("PodReadyToStartContainers", True),
        condition("Initialized", True),
        condition("ContainersReady", ready),
        condition("Ready", ready),
    ]


def _since() -> Obj:
    return {"lastTransitionTime": _now()}


def _ended() -> Obj:
    return {"startedAt": _now(), "finishedAt": _now()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
