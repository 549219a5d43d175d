"""Whose memory it is: from the GPUs of a node to the pods of ours that have them. Pure.

A GPU counts for a pod only if the pod is in the operator's own cache, on the node whose exporter tells of it, with the
name and namespace that the exporter says and, where it says one, the uid; and never more GPUs than the pod asked for.
Exporters do not always know pods: after a restart for a while, or for good. A running container keeps its GPUs, so what
was once known of a GPU holds while that very pod is there. Where nothing was ever known, a pod that asks for as many
GPUs as its node has, by what the node says of itself, has all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from moe_operator.telemetry.accelerator_memory import GpuMemory
from moe_operator.telemetry.energy_meter import PodEnergy
from moe_operator.telemetry.ignored import Counts, Ignored


@dataclass(frozen=True, slots=True)
class NodePod:
    """A pod of ours that has a node."""

    namespace: str
    name: str
    uid: str
    node: str
    devices: int
    """GPUs that it asked for; 0: it runs on the host's processors."""
    memory: int | None = None
    """Bytes of main memory that its engine may have, else that it asked for."""
    deployment: tuple[str, str] = ("", "")
    """Namespace and name of its ModelDeployment."""


@dataclass(frozen=True, slots=True)
class PodMemory:
    """What was measured of one pod."""

    at: float
    """When, in seconds since the epoch."""
    gpus: tuple[GpuMemory, ...] = ()
    """In the order of their indexes, which is that of the pod's ranks; perhaps not all that it has."""
    working_set: int | None = None
    """Bytes of the engine's container in main memory, of a pod without GPUs."""
    asked: int | None = None
    """And those that it may have, else asked for."""
    energy: PodEnergy | None = None
    """What its GPUs have taken; None where not all of them tell."""

    @property
    def used(self) -> int:
        """Bytes."""
        return sum(gpu.used for gpu in self.gpus) if self.working_set is None else self.working_set


@dataclass
class NodeDevices:
    """Which pod had which GPU of one node, as far as it was ever told."""

    _known: dict[tuple[str, str], str] = field(default_factory=dict)
    """Uid of the pod by GPU."""

    def credit(
        self, pods: Iterable[NodePod], gpus: Sequence[GpuMemory], container: str, devices: int | None = None
    ) -> tuple[Mapping[str, tuple[GpuMemory, ...]], Counts]:
        """GPUs by uid of the pod that has them. `container`: the one that has GPUs in pods of ours; `devices`: GPUs of
        the node, None where that is not known."""
        ignored = Counts()
        there = {pod.uid: pod for pod in pods if pod.devices}
        named = {(pod.namespace, pod.name): pod for pod in there.values()}
        self._known = {gpu: uid for gpu, uid in self._known.items() if uid in there}
        found: dict[str, list[GpuMemory]] = {}
        silent: list[GpuMemory] = []
        for gpu in gpus:
            if not gpu.pods:
                silent.append(gpu)
                continue
            self._known.pop(gpu.key, None)
            ours = [named[pod] for pod in gpu.pods if pod in named]
            if not ours:
                continue
            pod = ours[0]
            if len(gpu.pods) > 1:
                ignored[Ignored.SHARED_DEVICE] += 1
            elif gpu.pod_uids - {pod.uid}:
                ignored[Ignored.ANOTHER_POD] += 1
            elif gpu.containers - {container}:
                ignored[Ignored.ANOTHER_CONTAINER] += 1
            else:
                found.setdefault(pod.uid, []).append(gpu)
        for uid in [uid for uid, has in found.items() if len(has) > there[uid].devices]:
            ignored[Ignored.TOO_MANY_DEVICES] += len(found.pop(uid))
        for uid, has in found.items():
            self._known.update({gpu.key: uid for gpu in has})
        alone = silent and len(silent) == len(gpus) and len(there) == 1 and not self._known
        (only,) = there.values() if alone else (None,)
        if only is not None and only.devices == len(gpus) == devices:
            return {only.uid: tuple(gpus)}, ignored
        for gpu in silent:
            owner = self._known.get(gpu.key)
            if owner is not None and len(found.get(owner, ())) < there[owner].devices:
                found.setdefault(owner, []).append(gpu)
        order = {gpu.key: at for at, gpu in enumerate(gpus)}
        return {
            uid: tuple(sorted(has, key=lambda gpu: order[gpu.key])) for uid, has in found.items()
        }, ignored
