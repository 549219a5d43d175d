"""Whose memory it is. Lost if it is wrong: somebody's GPUs in somebody else's status, by a label that anyone can
write; or a measurement that goes on to be told when nobody measures any more."""

from dataclasses import replace
from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import LEADER_WORKER_SET, NODE, Obj
from moe_operator.controller.kube import POD as POD_KIND
from moe_operator.controller.store import Store
from moe_operator.runtime.node_pods import host_addresses, node_devices, node_pods
from moe_operator.telemetry.accelerator_memory import GpuMemory
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.memory_book import INTERVAL, MemoryBook
from moe_operator.telemetry.pod_memory import NodeDevices, NodePod

KEY = ("serving", "tiny")
POD = NodePod("serving", "tiny-g0-0", "uid-a", "node-0", devices=2, deployment=KEY)
HOST = NodePod("serving", "cpu-g0-0", "uid-c", "node-0", devices=0, memory=4 * 2**30, deployment=KEY)


def gpu(index: int, pod: str = "", namespace: str = "serving", used: int = 100, **more: object) -> GpuMemory:
    made = GpuMemory(str(index), f"GPU-{index}", used, usable=200)
    pods = frozenset({(namespace, pod)}) if pod else frozenset()
    return replace(made, pods=pods, **more)  # type: ignore[arg-type]


def credited(
    devices: NodeDevices, pods: list[NodePod], gpus: list[GpuMemory], has: int | None = 8
) -> tuple[dict[str, list[str]], Counts]:
    found, ignored = devices.credit(pods, gpus, "engine", has)
    return {uid: [g.index for g in has] for uid, has in found.items()}, ignored


class TestCredit:
    def test_by_name_and_namespace(self) -> None:
        gpus = [gpu(0, "tiny-g0-0"), gpu(1, "other"), gpu(2, "tiny-g0-0", "another"), gpu(3, "tiny-g0-0")]
        assert credited(NodeDevices(), [POD], gpus) == ({"uid-a": ["0", "3"]}, {})

    def test_a_pod_that_is_not_on_that_node_has_no_gpu_there(self) -> None:
        """The caller gives the pods of the node whose exporter it is: a page cannot speak of another's."""
        assert credited(NodeDevices(), [], [gpu(0, "tiny-g0-0")]) == ({}, {})

    def test_a_pod_of_the_name_with_another_uid_is_another(self) -> None:
        there = [gpu(0, "tiny-g0-0", pod_uids=frozenset({"uid-z"}))]
        assert credited(NodeDevices(), [POD], there) == ({}, {Ignored.ANOTHER_POD: 1})
        ours = [gpu(0, "tiny-g0-0", pod_uids=frozenset({"uid-a"}))]
        assert credited(NodeDevices(), [POD], ours) == ({"uid-a": ["0"]}, {})

    def test_nobody_has_more_gpus_than_it_asked_for(self) -> None:
        gpus = [gpu(index, "tiny-g0-0") for index in range(3)]
        assert credited(NodeDevices(), [POD], gpus) == ({}, {Ignored.TOO_MANY_DEVICES: 3})

    def test_a_gpu_of_several_pods_is_nobodys(self) -> None:
        shared = replace(gpu(0), pods=frozenset({("serving", "tiny-g0-0"), ("serving", "b")}))
        assert credited(NodeDevices(), [POD], [shared]) == ({}, {Ignored.SHARED_DEVICE: 1})

    def test_another_container_of_the_pod(self) -> None:
        beside = gpu(0, "tiny-g0-0", containers=frozenset({"sidecar"}))
        assert credited(NodeDevices(), [POD], [beside]) == ({}, {Ignored.ANOTHER_CONTAINER: 1})

    def test_a_pod_without_gpus_gets_none(self) -> None:
        assert credited(NodeDevices(), [HOST], [gpu(0, "cpu-g0-0")]) == ({}, {})


class TestWithoutPodLabels:
    def test_what_was_known_of_a_gpu_holds_while_the_pod_is_there(self) -> None:
        """As after a restart of the exporter, until it knows pods again."""
        node = NodeDevices()
        credited(node, [POD], [gpu(0, "tiny-g0-0"), gpu(5, "tiny-g0-0"), gpu(6, "other")])
        silent = [gpu(index) for index in range(8)]
        assert credited(node, [POD], silent) == ({"uid-a": ["0", "5"]}, {})
        successor = replace(POD, uid="uid-b")
        assert credited(node, [successor], silent) == ({}, {}), "its successor may have others"

    def test_a_gpu_that_went_to_somebody_else_is_no_longer_known(self) -> None:
        node = NodeDevices()
        credited(node, [POD], [gpu(0, "tiny-g0-0"), gpu(1, "tiny-g0-0")])
        credited(node, [POD], [gpu(0, "other"), gpu(1, "tiny-g0-0")])
        assert credited(node, [POD], [gpu(0), gpu(1)]) == ({"uid-a": ["1"]}, {})

    def test_a_pod_that_has_a_whole_node_has_its_gpus(self) -> None:
        whole = replace(POD, devices=8)
        gpus = [gpu(index) for index in range(8)]
        assert credited(NodeDevices(), [whole], gpus)[0] == {"uid-a": [str(n) for n in range(8)]}

    def test_less_than_the_whole_node_is_not_guessed(self) -> None:
        eight = [gpu(index) for index in range(8)]
        assert credited(NodeDevices(), [POD], eight) == ({}, {})
        whole = replace(POD, devices=8)
        assert credited(NodeDevices(), [whole], eight, has=16) == ({}, {})
        assert credited(NodeDevices(), [whole], eight, has=None) == ({}, {})
        assert credited(NodeDevices(), [whole], [*eight[:7], gpu(7, "other")]) == ({}, {})
        other = replace(whole, name="tiny-g1-0", uid="uid-b")
        assert credited(NodeDevices(), [whole, other], eight) == ({}, {})


class Site:
    def __init__(self, *pods: NodePod) -> None:
        self.pods, self.now, self.news = list(pods), 1000.0, []
        self.ignored = Counts()
        self.book = MemoryBook(
            lambda: self.pods,
            lambda node: 8,
            "engine",
            self.news.append,
            lambda: self.now,
            self.ignored.update,
        )

    def round(self, *gpus: GpuMemory, node: str = "node-0", sets: dict[tuple[str, str], int] | None = None):
        self.book.begin()
        if gpus:
            self.book.take_gpus(node, gpus)
        if sets:
            self.book.take_working_sets(node, sets)
        self.book.end()
        told, self.news[:] = list(self.news), []
        return told


BOTH = (gpu(0, "tiny-g0-0"), gpu(1, "tiny-g0-0"))


class TestBook:
    def test_a_missing_exporter_shows_within_two_intervals_and_its_return_at_once(self) -> None:
        site = Site(POD)
        assert site.round(*BOTH) == [KEY]
        assert site.book.snapshot()["uid-a"].used == 200
        gone = site.now
        while "uid-a" in site.book.snapshot():
            site.now += INTERVAL
            news = site.round()
        assert site.now - gone <= 2 * INTERVAL
        assert news == [KEY]
        assert site.round(*BOTH) == [KEY]
        assert "uid-a" in site.book.snapshot()

    def test_figures_stand_as_long_as_a_slow_round_takes(self) -> None:
        """Lost: the source of every figure, which would change to and fro, with a write of every status each time."""
        site = Site(POD)
        estimated = 0
        for at in range(8):
            site.book.begin()
            for _ in range(40):
                site.now += 1
                estimated += at > 1 and "uid-a" not in site.book.snapshot()
            site.book.take_gpus("node-0", BOTH)
            site.book.end()
            site.now += 1
        assert (estimated, site.news) == (0, [KEY])
        for _ in range(2):
            site.now += 41
            site.round()
        assert "uid-a" not in site.book.snapshot(), "and no longer than two rounds"

    def test_a_round_that_hung_does_not_let_old_figures_stand(self) -> None:
        site = Site(POD)
        site.round(*BOTH)
        site.now += 3600
        site.round(*BOTH)
        site.now += 240
        assert "uid-a" not in site.book.snapshot()

    def test_one_answer_that_did_not_come_changes_nothing(self) -> None:
        site = Site(POD)
        site.round(*BOTH)
        site.now += INTERVAL
        assert site.round() == []
        assert "uid-a" in site.book.snapshot()

    def test_news_are_what_moved_by_a_percent(self) -> None:
        site = Site(POD)
        site.round(gpu(0, "tiny-g0-0", used=10_000))
        assert site.round(gpu(0, "tiny-g0-0", used=10_090)) == []
        assert site.round(gpu(0, "tiny-g0-0", used=10_110)) == [KEY], "also in small steps"
        assert site.round(*BOTH) == [KEY]

    def test_a_pod_that_went_is_forgotten(self) -> None:
        site = Site(POD)
        site.round(*BOTH)
        site.pods.clear()
        site.round()
        assert site.book.snapshot() == {}

    def test_the_kubelet_tells_of_pods_without_gpus_alone(self) -> None:
        site = Site(POD, HOST)
        site.round(sets={("serving", "cpu-g0-0"): 7, ("serving", "tiny-g0-0"): 9, ("other", "cpu-g0-0"): 5})
        (seen,) = site.book.snapshot().values()
        assert (seen.working_set, seen.asked, seen.used) == (7, 4 * 2**30, 7)
        assert site.book.host_nodes == {"node-0"}

    def test_pages_that_lie_are_counted(self) -> None:
        site = Site(POD)
        site.round(*(gpu(index, "tiny-g0-0") for index in range(5)))
        assert site.ignored == {Ignored.TOO_MANY_DEVICES: 5}
        assert site.book.snapshot() == {}


def _pod(name: str, resources: dict[str, Any], group: str = "tiny-g0", **meta: Any) -> Obj:
    labels = {names.LABEL_DEPLOYMENT: "tiny", names.LABEL_GROUP: group}
    made = {
        "name": name,
        "namespace": "serving",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "labels": labels,
    }
    containers = [{"name": "beside"}, {"name": names.ENGINE_CONTAINER, "resources": resources}]
    return {
        "metadata": made | meta,
        "spec": {"nodeName": "node-0", "containers": containers},
        "status": {"hostIP": "10.0.0.7"},
    }


class TestCache:
    """Which pods are ours, by what the operator's own cache has."""

    def _store(self, *pods: Obj, annotations: dict[str, str] | None = None) -> Store:
        store = Store()
        meta = {"name": "tiny-g0", "namespace": "serving", "uid": "g", "resourceVersion": "1"}
        store.upsert(LEADER_WORKER_SET, {"metadata": meta | {"annotations": annotations or {}}})
        for pod in pods:
            store.upsert(POD_KIND, pod)
        return store

    def test_gpus_by_resource_or_by_claim_and_none_on_processors(self) -> None:
        gpus = _pod("a", {"limits": {"nvidia.com/gpu": "8", "memory": "2Ti"}})
        host = _pod("b", {"requests": {"memory": "4Gi"}})
        found = {pod.name: pod for pod in node_pods(self._store(gpus, host))}
        assert (found["a"].devices, found["a"].memory, found["a"].uid) == (8, 2 * 2**40, "uid-a")
        assert (found["b"].devices, found["b"].memory) == (0, 4 * 2**30)
        assert found["b"].deployment == ("serving", "tiny")
        claimed = self._store(_pod("c", {}), annotations={names.ANNOTATION_GPUS_PER_POD: "4"})
        assert [pod.devices for pod in node_pods(claimed)] == [4]

    def test_a_pod_that_only_wears_our_label_is_nobodys(self) -> None:
        stranger = _pod("a", {"limits": {"nvidia.com/gpu": "8"}}, group="tiny-g7")
        assert list(node_pods(self._store(stranger))) == []

    def test_addresses_and_gpus_of_nodes(self) -> None:
        store = self._store(_pod("a", {}))
        assert host_addresses(store) == {"node-0": "10.0.0.7"}
        assert node_devices(store, "node-0") is None
        node = {"metadata": {"name": "node-0", "resourceVersion": "1"}, "status": {}}
        store.upsert(NODE, node | {"status": {"capacity": {"nvidia.com/gpu": "8", "cpu": "192"}}})
        assert node_devices(store, "node-0") == 8
