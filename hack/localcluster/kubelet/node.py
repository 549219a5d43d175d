"""One node: its Node object, its heartbeats, and a worker for each pod bound to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from localcluster.kubelet import nodespec, processes
from localcluster.kubelet.apiclient import MERGE, ApiClient, ApiError, Obj
from localcluster.kubelet.events import EventRecorder
from localcluster.kubelet.nodespec import AddressPool, NodeNetwork, NodesError, NodeSpec
from localcluster.kubelet.pod import PodWorker, Surroundings
from localcluster.netlink import drop_address, hold_address

#: Seconds: a kubelet's own numbers.
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
STATUS_SECONDS = 300.0
_RETRY = 1.0
#: What happens to the pods' processes when their node plays dead.
PodsFate = Literal["stop", "kill", "run"]


class NodeAgent:
    """``surroundings`` makes what its pods find, from the node's own client and Event recorder."""

    def __init__(
        self,
        spec: NodeSpec,
        network: NodeNetwork,
        client: ApiClient,
        version: str,
        directory: Path,
        surroundings: Callable[[ApiClient, EventRecorder, NodeSpec, NodeNetwork], Surroundings],
    ) -> None:
        self.spec, self.network = spec, network
        self.client = client.branch()
        self.workers: dict[str, PodWorker] = {}
        self.failed = False
        self.heartbeats = True
        self.registered = asyncio.Event()
        self.listed = asyncio.Event()
        self._version, self._directory = version, directory
        self._recorder = EventRecorder(self.client)
        self._surroundings = surroundings(self.client, self._recorder, spec, network)
        self._pool = AddressPool(network)
        self._boot_id = str(uuid.uuid4())
        self._since = datetime.now(UTC)
        self._contact: list[asyncio.Task[None]] = []
        self._pods: set[asyncio.Task[None]] = set()
        self._events = asyncio.create_task(self._recorder.run())
        self._report = asyncio.Event()

    @property
    def _path(self) -> str:
        return f"/api/v1/nodes/{self.spec.name}"

    def start(self) -> None:
        """Register and keep in contact, in the background; ``registered`` says when the node is known and Ready."""
        jobs: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._status_loop,
            self._lease_loop,
            self._watch_node,
        ]
        self._contact = [
            asyncio.create_task(self._after_registration(job)) for job in (*jobs, self._watch_pods)
        ]
        self._contact.append(asyncio.create_task(self._register()))

    async def _after_registration(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self.registered.wait()
        await job()

    # -- contact -----------------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        wanted = nodespec.node_object(self.spec, self.network)
        while True:
            try:
                try:
                    await self.client.post("/api/v1/nodes", wanted)
                except ApiError as error:
                    if error.status != 409:
                        raise
                    labels = {"metadata": {key: wanted["metadata"][key] for key in ("labels", "annotations")}}
                    await self.client.patch(self._path, labels, MERGE)
                await self._write_status()
                self.registered.set()
                return
            except ApiError as error:
                print(f"node {self.spec.name}: not registered yet: {error}", flush=True)
                await asyncio.sleep(_RETRY)

    async def _write_status(self) -> None:
        status = nodespec.node_status(
            self.spec, self.network, self._version, self._boot_id, datetime.now(UTC), self._since
        )
        await self.client.patch(f"{self._path}/status", {"status": status})

    async def _status_loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(STATUS_SECONDS):
                    await self._report.wait()
            except TimeoutError:
                pass
            self._report.clear()
            if self.heartbeats:
                try:
                    await self._write_status()
                except ApiError as error:
                    if error.status != 404:
                        await asyncio.sleep(_RETRY)
                        self._report.set()

    async def _lease_loop(self) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        lease: Obj | None = None
        while True:
            if self.heartbeats:
                try:
                    lease = await self._renew(path, lease)
                except ApiError as error:
                    lease = None
                    if error.status == 0:
                        await asyncio.sleep(_RETRY)
                        continue
            await asyncio.sleep(RENEW_SECONDS)

    async def _renew(self, path: str, lease: Obj | None) -> Obj | None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.spec.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        if lease is None:
            lease = await self.client.get_or_none(f"{path}/{self.spec.name}")
        if lease is not None:
            return await self.client.put(f"{path}/{self.spec.name}", {**lease, "spec": spec})
        node = await self.client.get_or_none(self._path)
        if node is None:
            return None
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.spec.name, "uid": node["metadata"]["uid"]}
        metadata = {"name": self.spec.name, "namespace": "kube-node-lease", "ownerReferences": [owner]}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return await self.client.post(path, body)

    async def _watch_node(self) -> None:
        def seen(event: str, node: Obj) -> None:
            if event == "DELETED":
                return  # a kubelet does not bring its node back by itself: node-recover does
            conditions = (node.get("status") or {}).get("conditions") or []
            ready = next((entry for entry in conditions if entry["type"] == "Ready"), None)
            if self.heartbeats and (ready is None or ready["status"] != "True"):
                self._since = datetime.now(UTC)
                self._report.set()

        def listed(items: list[Obj]) -> None:
            for item in items:
                seen("ADDED", item)

        await self.client.follow(
            "/api/v1/nodes", listed, seen, fieldSelector=f"metadata.name={self.spec.name}"
        )

    # -- pods --------------------------------------------------------------------------------------------------------

    async def _watch_pods(self) -> None:
        def listed(items: list[Obj]) -> None:
            present = {item["metadata"]["uid"] for item in items}
            for uid, worker in list(self.workers.items()):
                if uid not in present:
                    worker.removed(None)
            # Those that have an address keep it: they come before those that may take any.
            for item in sorted(items, key=lambda pod: not (pod.get("status") or {}).get("podIP")):
                self._pod(item)
            self.listed.set()

        def seen(event: str, pod: Obj) -> None:
            if event == "DELETED":
                worker = self.workers.get(pod["metadata"]["uid"])
                if worker is not None:
                    worker.removed(pod)
            else:
                self._pod(pod)

        await self.client.follow(
            "/api/v1/pods", listed, seen, fieldSelector=f"spec.nodeName={self.spec.name}"
        )

    def _pod(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if worker is not None:
            worker.update(pod)
            return
        host_network = bool(pod["spec"].get("hostNetwork"))
        try:
            known = (pod.get("status") or {}).get("podIP")
            address = self.network.host_ip if host_network else self._pool.take(known)
            if not host_network:
                hold_address(address)
        except (NodesError, OSError) as error:
            self._recorder.pod(pod, "Warning", "FailedCreatePodSandBox", str(error))
            return
        worker = self.workers[uid] = PodWorker(self._surroundings, pod, address, self._directory / uid)
        task = asyncio.create_task(worker.run())
        self._pods.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._pods.discard(done)
            self.workers.pop(uid, None)
            if not host_network:
                with contextlib.suppress(OSError):
                    drop_address(address)
                self._pool.give_back(address)

        task.add_done_callback(ended)

    # -- failure on demand -------------------------------------------------------------------------------------------

    def container_roots(self) -> list[int]:
        """First processes of all running containers."""
        return [
            container.process.pid
            for worker in self.workers.values()
            for container in worker.containers.values()
            if container.process is not None
        ]

    async def fail(self, pods: PodsFate) -> None:
        """Fall silent: no heartbeat, no status, no answer. Its pods' processes are stopped, killed, or run on."""
        self.failed = self.client.cut = True
        for task in self._contact:
            task.cancel()
        self._contact = []
        if pods == "run":
            return
        for worker in self.workers.values():
            worker.freeze(True)
        if pods == "kill":
            for worker in self.workers.values():
                await worker.kill_now()
        else:
            self._signal_all(signal.SIGSTOP)

    def _signal_all(self, number: signal.Signals) -> None:
        snapshot = processes.Snapshot()
        for root in self.container_roots():
            processes.send(snapshot.tree(root), number)

    def recover(self) -> None:
        """Come back: register again if the Node object is gone, and catch up with what happened meanwhile."""
        if not self.failed:
            for task in self._contact:
                task.cancel()
        self._signal_all(signal.SIGCONT)
        for worker in self.workers.values():
            worker.freeze(False)
        self.failed = self.client.cut = False
        self.heartbeats = True
        self._since = datetime.now(UTC)
        self.registered = asyncio.Event()
        self.start()

    async def stop(self) -> None:
        """End all tasks of the node; its pods' objects stay as they are."""
        for task in (*self._contact, *self._pods, self._events):
            task.cancel()
        await asyncio.gather(*self._contact, *self._pods, self._events, return_exceptions=True)
