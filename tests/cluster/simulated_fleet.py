"""Nodes without machines on a real API server: the real scheduler binds pods to them, and nothing runs there.

What a kubelet owes its cluster while no container runs is done here: a Node with its devices, a heartbeat, and the end
of pods that are to go. Trays of a rack have what NVIDIA's driver gives them: a channel each, and templates for it.
"""

import asyncio
import functools
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from factories.dra import channel_slice, channel_template
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    LEASE,
    NODE,
    POD,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
    ConflictError,
    KubeError,
    Obj,
)
from moe_operator.runtime.kube_client import AioKubeClient

CLIQUE = "nvidia.com/gpu.clique"
ZONE = "topology.kubernetes.io/zone"

_LEASES = "kube-node-lease"
#: Seconds between heartbeats; a node of the local cluster counts as silent after 20.
_BEAT = 4.0
#: Seconds between two looks for pods that are to go.
_LOOK = 0.2


class SimulatedFleet:
    """Nodes that are there until they are removed."""

    def __init__(self, client: AioKubeClient, namespace: str) -> None:
        """Pods in `namespace` that are to go are taken away."""
        self._client = client
        self._namespace = namespace
        self._nodes: dict[str, str] = {}
        self._channels: dict[str, Obj] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "SimulatedFleet":
        self._tasks = [
            asyncio.create_task(run) for run in (self._beat(), self._reap(), self._serve_domains())
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for name in list(self._nodes):
            await self.remove(name)

    async def rack(self, name: str, trays: int, *, first: int = 0, memory: str = "1Ti") -> None:
        """Compute trays of an NVL72 rack, as GPU Feature Discovery labels them."""
        labels = {
            "kubernetes.io/arch": "arm64",
            ZONE: "zone-a",
            CLIQUE: name,
            "nvidia.com/gpu.product": "NVIDIA-GB200",
            "nvidia.com/gpu.memory": "189471",
            "nvidia.com/gpu.count": "4",
        }
        # Mixed clusters keep what is built for another processor off such nodes.
        taints = [{"key": "kubernetes.io/arch", "value": "arm64", "effect": "NoSchedule"}]
        for index in range(first, first + trays):
            tray = f"{name}-{index}"
            await self.add(tray, 4, labels, memory=memory, taints=taints)
            self._channels[tray] = await self._client.create(RESOURCE_SLICE, channel_slice(tray))

    async def hgx(self, name: str, zone: str) -> None:
        """An HGX B200."""
        labels = {
            ZONE: zone,
            "nvidia.com/gpu.product": "NVIDIA-B200",
            "nvidia.com/gpu.memory": "183359",
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.sharing-strategy": "none",
        }
        taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        await self.add(name, 8, labels, taints=taints)

    async def add(
        self,
        name: str,
        gpus: int,
        labels: Mapping[str, str],
        *,
        memory: str = "1Ti",
        taints: list[dict[str, str]] | None = None,
    ) -> None:
        """A node that is ready."""
        now = _stamp()
        capacity = {"cpu": "144", "memory": memory, "pods": "110", "nvidia.com/gpu": str(gpus)}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "spec": {"taints": taints} if taints else {},
            "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
        }
        made = await self._client.create(NODE, node)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": _LEASES},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _precise()},
        }
        with suppress(ConflictError):
            await self._client.create(LEASE, lease)
        self._nodes[name] = made["metadata"]["uid"]

    async def remove(self, name: str) -> None:
        """The machine is gone, and its Node with it."""
        await self._client.delete(NODE, None, name, uid=self._nodes.pop(name))
        if slice_ := self._channels.pop(name, None):
            meta = slice_["metadata"]
            await self._client.delete(RESOURCE_SLICE, None, meta["name"], uid=meta["uid"])
        lease = await self._client.get(LEASE, _LEASES, name)
        if lease is not None:
            await self._client.delete(LEASE, _LEASES, name, uid=lease["metadata"]["uid"])

    async def cordon(self, name: str) -> None:
        await self._client.patch(NODE, None, name, {"spec": {"unschedulable": True}})

    async def _beat(self) -> None:
        while True:
            for name in list(self._nodes):
                with suppress(KubeError):
                    await self._client.patch(LEASE, _LEASES, name, {"spec": {"renewTime": _precise()}})
            await asyncio.sleep(_BEAT)

    async def _reap(self) -> None:
        """What kubelets do last for a pod: its object goes once nothing of it runs. Here nothing ever does."""
        while True:
            with suppress(KubeError):
                for pod in await self._client.list(POD, self._namespace):
                    if pod["metadata"].get("deletionTimestamp"):
                        await self._finish(pod)
            await asyncio.sleep(_LOOK)

    async def _serve_domains(self) -> None:
        """What NVIDIA's controller does: a channel's template for each ComputeDomain."""
        served: set[str] = set()
        while True:
            with suppress(KubeError):
                for domain in await self._client.list(COMPUTE_DOMAIN, self._namespace):
                    if domain["metadata"]["uid"] not in served:
                        await self._client.create(RESOURCE_CLAIM_TEMPLATE, channel_template(domain))
                        served.add(domain["metadata"]["uid"])
            await asyncio.sleep(_LOOK)

    async def _finish(self, pod: Obj) -> None:
        meta = pod["metadata"]
        delete = functools.partial(self._client.delete, POD, meta["namespace"], meta["name"])
        await delete(uid=meta["uid"], grace_seconds=0)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _precise() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
