"""What was last measured of every pod's memory, and when that is too old to be told. Does no input or output."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from moe_operator.telemetry.accelerator_memory import GpuMemory
from moe_operator.telemetry.energy_meter import EnergyMeter, PodEnergy
from moe_operator.telemetry.ignored import OnIgnored, nobody
from moe_operator.telemetry.pod_labels import Pod
from moe_operator.telemetry.pod_memory import NodeDevices, NodePod, PodMemory

#: Seconds between two rounds: what DCGM exporter's own charts have it scraped at.
INTERVAL = 15.0
#: Rounds for which a measurement stands, so that an exporter that is gone shows within two.
_STANDS = 1.8
#: Seconds between two rounds that count, at most: what is older says nothing of now.
_LONGEST_ROUND = 120.0
#: Share by which a pod's memory must move to be news.
_NEWS = 0.01

Key = tuple[str, str]


class MemoryBook:
    """Begins empty; a pod is known by its uid, so a successor of the same name begins anew."""

    def __init__(
        self,
        pods: Callable[[], Iterable[NodePod]],
        node_devices: Callable[[str], int | None],
        container: str,
        on_news: Callable[[Key], None],
        clock: Callable[[], float],
        on_ignored: OnIgnored = nobody,
    ) -> None:
        """`pods`: those of ours that have a node; `node_devices`: GPUs of a node, None where that is not known;
        `container`: the engine's in every pod; `on_news`: told of deployments whose memory moved; `clock`: seconds
        since the epoch."""
        self._pods = pods
        self._node_devices = node_devices
        self._container = container
        self._on_news = on_news
        self._clock = clock
        self._on_ignored = on_ignored
        self._by_node: dict[str, list[NodePod]] = {}
        self._devices: dict[str, NodeDevices] = {}
        self._measured: dict[str, PodMemory] = {}
        self._meters: dict[str, EnergyMeter] = {}
        self._begun: float | None = None
        self._period = INTERVAL
        """Seconds between the last two rounds: more than the interval where one is longer than that."""
        self._told: dict[str, tuple[Key, int | None, int]] = {}

    def snapshot(self) -> Mapping[str, PodMemory]:
        """The newest measurements by uid, without those that are too old."""
        since = self._clock() - _STANDS * self._period
        return {uid: seen for uid, seen in self._measured.items() if seen.at >= since}

    def begin(self) -> None:
        """A round begins: look at the pods that there are now."""
        now = self._clock()
        if self._begun is not None:
            self._period = min(max(INTERVAL, now - self._begun), _LONGEST_ROUND)
        self._begun = now
        self._by_node = {}
        for pod in self._pods():
            self._by_node.setdefault(pod.node, []).append(pod)
        self._devices = {node: known for node, known in self._devices.items() if node in self._by_node}

    @property
    def host_nodes(self) -> frozenset[str]:
        """Nodes with pods that have no GPUs."""
        return frozenset(node for node, pods in self._by_node.items() if any(not p.devices for p in pods))

    @property
    def nodes(self) -> frozenset[str]:
        """Nodes with pods of ours."""
        return frozenset(self._by_node)

    def take_gpus(self, node: str, gpus: Sequence[GpuMemory]) -> None:
        """What an exporter said of the GPUs of a node."""
        now = self._clock()
        known = self._devices.setdefault(node, NodeDevices())
        pods = self._by_node.get(node, ())
        found, ignored = known.credit(pods, gpus, self._container, self._node_devices(node))
        if ignored:
            self._on_ignored(ignored)
        asked = {pod.uid: pod.devices for pod in pods}
        for uid, has in found.items():
            self._measured[uid] = PodMemory(now, has, energy=self._energy(uid, now, has, asked[uid]))

    def _energy(self, uid: str, now: float, gpus: Sequence[GpuMemory], asked: int) -> PodEnergy | None:
        taken, ignored = self._meters.setdefault(uid, EnergyMeter()).take(now, gpus, asked)
        if ignored:
            self._on_ignored(ignored)
        return taken

    def take_working_sets(self, node: str, sets: Mapping[Pod, int]) -> None:
        """What the kubelet of a node said, in bytes of the engine's container."""
        now = self._clock()
        for pod in self._by_node.get(node, ()):
            used = sets.get((pod.namespace, pod.name))
            if used is not None and not pod.devices:
                self._measured[pod.uid] = PodMemory(now, working_set=used, asked=pod.memory)

    def end(self) -> None:
        """A round is over: forget what is gone, tell what moved."""
        keys = {pod.uid: pod.deployment for pods in self._by_node.values() for pod in pods}
        self._measured = {uid: seen for uid, seen in self._measured.items() if uid in keys}
        self._meters = {uid: meter for uid, meter in self._meters.items() if uid in keys}
        current = self.snapshot()
        told: dict[str, tuple[Key, int | None, int]] = {}
        news: dict[Key, None] = {}
        for uid, key in keys.items():
            seen = current.get(uid)
            now = (key, None if seen is None else seen.used, 0 if seen is None else len(seen.gpus))
            before = self._told.get(uid, (key, None, 0))
            moved = _moved(before, now)
            told[uid] = now if moved else before
            if moved:
                news[key] = None
        self._told = told
        for key in news:
            self._on_news(key)


def _moved(before: tuple[Key, int | None, int], now: tuple[Key, int | None, int]) -> bool:
    if before[1] is None or now[1] is None or before[2] != now[2]:
        return before[1:] != now[1:]
    return abs(before[1] - now[1]) > _NEWS * max(before[1], now[1])
