"""Nodes, the scheduler, and what the cluster does about nodes that fall silent."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from fakecluster.api_server import ApiServer, Event
from fakecluster.controller import Controller, Key, Timers
from fakecluster.objects import is_deleting, is_true, with_condition
from fakecluster.scheduling import Board, gates
from moe_operator.controller.kube import NODE, POD, RESOURCE_CLAIM, RESOURCE_SLICE, NotFoundError, Obj

GPU = "nvidia.com/gpu"
#: Seconds of silence until a node counts as not ready, and until its pods are deleted (the default tolerations).
MONITOR_GRACE, EVICTION = 40.0, 300.0
#: Seconds until the pods of a node that no longer exists are removed.
ORPHAN_QUARANTINE = 40.0


def gpu_node(
    name: str, gpus: int = 8, product: str = "NVIDIA-B200", labels: Mapping[str, str] | None = None
) -> Obj:
    """A node as GPU Feature Discovery labels it."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "nvidia.com/gpu.product": product,
                "nvidia.com/gpu.count": str(gpus),
                **(labels or {}),
            },
        },
        "spec": {},
    }


class Nodes:
    """The machines: which of them answer."""

    def __init__(self, server: ApiServer, timers: Timers) -> None:
        self._server = server
        self._timers = timers
        self._silent: dict[str, int] = {}
        self._silences = 0
        self.returned: Callable[[str], None] = lambda name: None
        self.reachability_changed: Callable[[str], None] = lambda name: None

    def add(
        self,
        name: str,
        gpus: int = 8,
        product: str = "NVIDIA-B200",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        node = self._server.create(NODE, gpu_node(name, gpus, product, labels), "kubelet")
        capacity = {GPU: str(gpus), "cpu": "192", "memory": "2Ti", "pods": "110"}
        ready = with_condition(node, "Ready", "True", self._server.clock(), reason="KubeletReady")
        self._server.set_status(
            NODE, node, {"capacity": capacity, "allocatable": dict(capacity), "conditions": ready}, "kubelet"
        )

    def alive(self, name: str) -> bool:
        """Whether the machine runs and can be reached."""
        return name not in self._silent and self._server.get(NODE, None, name) is not None

    def silence(self, name: str) -> None:
        """The machine stops answering; after the monitor's grace the cluster notices."""
        self._silences += 1
        mark = self._silent[name] = self._silences
        self.reachability_changed(name)
        self._timers.after(MONITOR_GRACE, lambda: self._not_ready(name, mark))
        self._timers.after(MONITOR_GRACE + EVICTION, lambda: self._evict(name, mark))

    def bring_back(self, name: str) -> None:
        """The machine answers again, its processes as they were."""
        if self._silent.pop(name, None) is None:
            return
        node = self._server.get(NODE, None, name)
        if node is not None:
            ready = with_condition(node, "Ready", "True", self._server.clock(), reason="KubeletReady")
            self._server.set_status(NODE, node, {"conditions": ready}, "kubelet")
        self.reachability_changed(name)
        self.returned(name)

    def cordon(self, name: str, on: bool = True) -> None:
        """`kubectl cordon` and `uncordon`."""
        self._server.patch(NODE, None, name, {"spec": {"unschedulable": on or None}}, "admin")

    def cordoned(self, name: str | None) -> bool:
        """Whether a node is there and takes no pods."""
        node = self._server.get(NODE, None, name) if name else None
        return node is not None and bool(node["spec"].get("unschedulable"))

    def remove(self, name: str) -> None:
        """The machine is gone for good, and its Node object with it."""
        self._silences += 1
        self._silent[name] = self._silences
        self.reachability_changed(name)
        self._server.delete(NODE, None, name, "cloud")
        self._timers.after(ORPHAN_QUARANTINE, lambda: self._collect_orphans(name))

    def _not_ready(self, name: str, mark: int) -> None:
        node = self._server.get(NODE, None, name)
        if node is None or self._silent.get(name) != mark:
            return
        now = self._server.clock()
        unknown = with_condition(node, "Ready", "Unknown", now, reason="NodeStatusUnknown")
        self._server.set_status(NODE, node, {"conditions": unknown}, "node-controller")
        for pod in self._pods(name):
            if is_true(pod, "Ready"):
                unready = with_condition(pod, "Ready", "False", now, reason="NodeNotReady")
                self._server.set_status(POD, pod, {"conditions": unready}, "node-controller")

    def _evict(self, name: str, mark: int) -> None:
        if self._silent.get(name) != mark:
            return
        for pod in self._pods(name):
            if not is_deleting(pod):
                meta = pod["metadata"]
                self._server.delete(POD, meta["namespace"], meta["name"], "node-controller", uid=meta["uid"])

    def _collect_orphans(self, name: str) -> None:
        for pod in self._pods(name):
            meta = pod["metadata"]
            try:
                self._server.delete(
                    POD, meta["namespace"], meta["name"], "pod-gc", uid=meta["uid"], grace_seconds=0
                )
            except NotFoundError:
                continue

    def _pods(self, node: str) -> list[Obj]:
        return [p for p in self._server.list(POD) if p["spec"].get("nodeName") == node]


class Scheduler(Controller):
    """Binds pods, the oldest first, to the node with enough free GPUs that they would like best."""

    latency = 0.05

    def keys(self, event: Event) -> Iterable[Key]:
        if (
            event.kind == POD and (event.type == "DELETED" or not event.obj["spec"].get("nodeName"))
        ) or event.kind in (NODE, RESOURCE_SLICE):
            yield ("", "pending")

    def sync(self, key: Key) -> None:
        pods = self.server.list(POD)
        free = self._free(pods)
        board = Board(self.server.list(NODE), pods)
        for pod in sorted(pods, key=lambda p: int(p["metadata"]["resourceVersion"])):
            if pod["spec"].get("nodeName") or is_deleting(pod):
                continue
            if gates(pod):
                self._waits(pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
                continue
            claims = self._claims(pod)
            if claims is None:
                continue  # not looked at, and nothing said, before its claims are made
            asked = _asked(pod)
            asked[GPU] += sum(map(_claimed, claims))
            objections = Counter[str]()
            fits = []
            for name, left in free.items():
                lacking = next((f"Insufficient {what}" for what in asked if left[what] < asked[what]), None)
                objection = board.objection(pod, name) or lacking
                if objection:
                    objections[objection] += 1
                else:
                    fits.append(name)
            if not fits:
                why = ", ".join(f"{count} {text}" for text, count in sorted(objections.items()))
                self._waits(pod, "Unschedulable", f"0/{len(free)} nodes are available: {why}.")
                continue
            best = max(fits, key=lambda name: board.score(pod, name))
            free[best].subtract(asked)
            board.bind(pod, best)
            for claim in claims:
                self._allocate(claim, best)
            # Binding is a subresource of its own: no generation, no field owner that anybody competes with.
            bound = {"spec": {"nodeName": best}}
            meta = pod["metadata"]
            fresh = self.server.patch(POD, meta["namespace"], meta["name"], bound, self.name)
            conditions = with_condition(fresh, "PodScheduled", "True", self.server.clock())
            self.server.set_status(POD, fresh, {"conditions": conditions}, self.name)

    def _waits(self, pod: Obj, reason: str, message: str) -> None:
        conditions = with_condition(
            pod, "PodScheduled", "False", self.server.clock(), reason=reason, message=message
        )
        self.server.set_status(POD, pod, {"conditions": conditions}, self.name)

    def _free(self, pods: list[Obj]) -> dict[str, Counter[str]]:
        """GPUs, and bytes of memory."""
        free: dict[str, Counter[str]] = {}
        for node in self.server.list(NODE):
            if is_true(node, "Ready") and not node["spec"].get("unschedulable"):
                offered = node["status"]["allocatable"]
                free[node["metadata"]["name"]] = Counter(
                    {GPU: int(offered.get(GPU, 0)), "memory": _bytes(offered.get("memory", "0Mi"))}
                )
        for pod in pods:
            if pod["spec"].get("nodeName") in free:
                free[pod["spec"]["nodeName"]].subtract(_asked(pod))
        for name in free:
            free[name][GPU] += len(self._devices(name))
        return free

    def _claims(self, pod: Obj) -> list[Obj] | None:
        """The claims of a pod; None while one is still to be made."""
        statuses = (pod.get("status") or {}).get("resourceClaimStatuses") or []
        if len(statuses) < len(pod["spec"].get("resourceClaims") or []):
            return None
        namespace = pod["metadata"]["namespace"]
        found = [self.server.get(RESOURCE_CLAIM, namespace, one["resourceClaimName"]) for one in statuses]
        return [claim for claim in found if claim is not None]

    def _devices(self, node: str) -> list[str]:
        """GPUs of the node's slices that no claim holds."""
        allocations = [
            (claim.get("status") or {}).get("allocation") for claim in self.server.list(RESOURCE_CLAIM)
        ]
        results = [r for allocation in allocations if allocation for r in allocation["devices"]["results"]]
        held = {(result["pool"], result["device"]) for result in results}
        return [
            device["name"]
            for one in self.server.list(RESOURCE_SLICE)
            for device in one["spec"]["devices"]
            if one["spec"].get("nodeName") == node and (node, device["name"]) not in held
        ]

    def _allocate(self, claim: Obj, node: str) -> None:
        devices = self._devices(node)[: _claimed(claim)]
        driver = {"driver": "gpu.nvidia.com", "pool": node, "request": "gpus"}
        results = [{**driver, "device": device} for device in devices]
        self.server.set_status(
            RESOURCE_CLAIM, claim, {"allocation": {"devices": {"results": results}}}, self.name
        )


def _asked(pod: Obj) -> Counter[str]:
    total: Counter[str] = Counter()
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        total[GPU] += int(amounts.get(GPU, 0))
        total["memory"] += _bytes(amounts.get("memory", "0Mi"))
    return total


def _bytes(quantity: str) -> int:
    number, unit = quantity[:-2], quantity[-2:]
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[unit]


def _claimed(claim: Obj) -> int:
    """GPUs that a claim asks for; a channel is no GPU."""
    requests = claim["spec"]["devices"]["requests"]
    return sum(one["exactly"].get("count", 0) for one in requests)
