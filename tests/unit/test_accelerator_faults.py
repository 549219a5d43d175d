"""Faults of GPUs by what DCGM exporter shows. Lost if a new one is missed: a group on a GPU that computes nonsense or
nothing. Lost if an old one counts as new: every group on that node, each time an exporter restarts."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from factories.exporter_pages import series_of
from factories.groups import NOW, admitted, change_pod, group
from moe_operator.api import names, reasons
from moe_operator.api.spec import RecoverySpec
from moe_operator.api.status import RecoveryStatus
from moe_operator.catalog.operator_config import OperatorConfigError, read_config
from moe_operator.catalog.telemetry_site import DcgmExporter
from moe_operator.controller import ledger
from moe_operator.controller.faulty_nodes import with_faulty_accelerators
from moe_operator.controller.group_planner import GroupState
from moe_operator.controller.judging import judge
from moe_operator.controller.kube import POD, ForbiddenError, Kind, KubeClient, Obj
from moe_operator.controller.observed import node_conditions
from moe_operator.controller.store import Store
from moe_operator.runtime.exporters import Exporters
from moe_operator.runtime.node_facts import significant
from moe_operator.telemetry.accelerator_faults import FATAL_XIDS, AcceleratorFault, NodeAccelerators
from moe_operator.telemetry.accelerator_page import FAULT_NAMES, GpuReading, fault_readings
from moe_operator.telemetry.accelerators import AcceleratorWatch
from moe_operator.telemetry.observation import Snapshot

PAGE = b"""# HELP DCGM_FI_DEV_XID_ERRORS Value of the last XID error encountered.
# TYPE DCGM_FI_DEV_XID_ERRORS gauge
DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-a",Hostname="n",namespace="serving",pod="tiny-g0-0",err_msg="a \\"b\\", c"} 79
DCGM_FI_DEV_XID_ERRORS{gpu="1",UUID="GPU-b",device="nvidia1",hostname="n"} 0
DCGM_FI_DEV_XID_ERRORS{gpu="2",UUID="GPU-c",GPU_I_ID="1",exported_namespace="serving",exported_pod="x",pod="exporter"} 0
DCGM_FI_DEV_XID_ERRORS{gpu="2",UUID="GPU-c",GPU_I_ID="2",pod_namespace="serving",pod_name="y"} 31
DCGM_FI_DEV_XID_ERRORS{gpu="3"} 9223372036854775792
DCGM_FI_DEV_XID_ERRORS{Hostname="n"} 48
DCGM_FI_DEV_ROW_REMAP_FAILURE{gpu="1",UUID="GPU-b",Hostname="n"} 1
DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS{gpu="1",UUID="GPU-b",Hostname="n"} 3
DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS{gpu="1",UUID="GPU-b",Hostname="n"} 9
DCGM_FI_DEV_XID_ERRORS{gpu="4",UUID="GPU-e"} NaN
DCGM_FI_DEV_XID_ERRORS{gpu="5",UUID="GPU-f"} e-+
"""


def _readings(page: bytes) -> dict[str, GpuReading]:
    return fault_readings(series_of(page, FAULT_NAMES).series)


class TestPage:
    def test_gpus_are_told_apart_and_their_series_joined(self) -> None:
        found = _readings(PAGE)
        assert sorted(found) == ["GPU-a", "GPU-b", "GPU-c"]
        assert found["GPU-a"] == GpuReading("0", "GPU-a", 79, pods=frozenset({("serving", "tiny-g0-0")}))
        assert found["GPU-b"] == GpuReading("1", "GPU-b", 0, remap_failed=True, rows=3)
        assert found["GPU-c"].xid == 31, "an Xid comes and does not go: the higher of two series is the later"
        assert found["GPU-c"].pods == {("serving", "x"), ("serving", "y")}

    def test_a_page_of_something_else_says_nothing(self) -> None:
        assert _readings(b"<html>404</html>") == {}
        assert _readings(b"") == {}

    def test_without_uuid_the_index_tells_gpus_apart(self) -> None:
        page = b'DCGM_FI_DEV_XID_ERRORS{gpu="0"} 0\nDCGM_FI_DEV_XID_ERRORS{gpu="1"} 79\n'
        assert {k: r.xid for k, r in _readings(page).items()} == {"0": 0, "1": 79}


def _shown(*values: int | None, remap: Sequence[bool | None] = ()) -> list[float]:
    """When faults were seen, of readings at 0, 1, 2 …; None: the GPU is not on the page."""
    node = NodeAccelerators("n")
    for at, value in enumerate(values):
        failed = remap[at] if remap else None
        shown = {} if value is None else {"GPU-a": GpuReading("0", "GPU-a", value, failed)}
        node.take(shown, float(at))
    return sorted(fault.seen_at for fault in node.faults)


class TestNews:
    def test_a_change_is_new_and_what_stands_at_first_is_old(self) -> None:
        assert _shown(0, 79) == [1]
        assert _shown(79, 79, 79) == []
        assert _shown(31, 79) == [1]

    def test_it_is_new_once(self) -> None:
        assert _shown(0, 79, 79, 79) == [1]

    def test_an_exporter_that_restarts_says_nothing_new(self) -> None:
        """It shows nothing, then zero, then what the driver still remembers."""
        assert _shown(0, 79, None, 0, 79) == [1]
        assert _shown(79, None, 0, 79) == []

    def test_another_code_after_a_restart_is_new(self) -> None:
        assert _shown(79, 0, 48) == [2]
        assert _shown(0, 79, 48) == [2], "the latest is told"

    def test_what_an_application_did_condemns_no_gpu(self) -> None:
        for xid in (13, 31, 43, 45, 63, 69, 92, 94):
            assert xid not in FATAL_XIDS
            assert _shown(0, xid) == []

    def test_what_comes_after_a_fatal_one_does_not_mend_the_gpu(self) -> None:
        assert _shown(0, 79, 43) == [1]

    def test_a_failed_remapping_is_new_when_it_comes(self) -> None:
        assert _shown(0, 0, 0, remap=(False, True, True)) == [1]
        assert _shown(0, 0, remap=(True, True)) == []
        assert _shown(0, 0, 0, 0, remap=(False, True, False, True)) == [1]

    def test_a_series_that_comes_later_is_first_seen_then(self) -> None:
        node = NodeAccelerators("n")
        for at, xid in enumerate((None, 79)):
            node.take({"GPU-a": GpuReading("0", "GPU-a", xid, remap_failed=False)}, at)
        assert node.faults == []

    def test_it_is_told_with_gpu_code_and_rows(self) -> None:
        node = NodeAccelerators("n")
        node.take({"GPU-a": GpuReading("0", "GPU-a", 0)}, 0)
        (fault,) = node.take({"GPU-a": GpuReading("0", "GPU-a", 48, rows=2)}, 1)
        assert fault.gpu == "GPU 0 (GPU-a)"
        assert (
            fault.what
            == "Xid 48, an uncorrectable ECC error; 2 rows were remapped after uncorrectable errors"
        )


def _fault(
    node: str = "node-1", seen_at: float = NOW, pods: Sequence[tuple[str, str]] = ()
) -> AcceleratorFault:
    return AcceleratorFault(node, "GPU 3 (GPU-d)", "Xid 79, …", seen_at, frozenset(pods))


class TestGroups:
    SERVES = admitted(group(created_at=NOW - 600))

    def _hit(self, fault: AcceleratorFault, **overrides: Any) -> bool:
        facts = admitted(group(created_at=NOW - 600, **overrides))
        return bool(with_faulty_accelerators("serving", [facts], [fault]))

    def test_the_group_on_that_node_is_lost_and_the_node_avoided_at_once(self) -> None:
        causes = with_faulty_accelerators("serving", [self.SERVES, group(slot=1, pods=[])], [_fault()])
        cause = causes.pop("tiny-g0")
        assert causes == {}
        assert (cause.reason, cause.pod, cause.node) == (reasons.ACCELERATOR_FAULT, "tiny-g0-0-1", "node-1")
        assert "GPU 3 (GPU-d) of pod tiny-g0-0-1 on node node-1 failed: Xid 79" in cause.message
        budget = ledger.Budget(losses=5, window=3600, retry=1800)
        known = ledger.record(RecoveryStatus(), self.SERVES, cause, "tiny-a", budget, NOW)
        assert ledger.avoided_nodes(known, NOW) == ["node-1"]

    def test_older_news_than_the_group_does_not_concern_it(self) -> None:
        assert not self._hit(_fault(seen_at=NOW - 601))

    def test_other_nodes_and_other_peoples_gpus_do_not_concern_it(self) -> None:
        assert not self._hit(_fault("node-9"))
        assert not self._hit(_fault(pods=[("serving", "tiny-g1-0")]))
        assert not self._hit(_fault(pods=[("another", "tiny-g0-0-1")]))
        assert self._hit(_fault(pods=[("serving", "tiny-g0-0-1")]))

    def test_a_fault_of_others_does_not_hide_its_own(self) -> None:
        facts = change_pod(self.SERVES, 1, node="node-7")
        assert with_faulty_accelerators("serving", [facts], [_fault("node-9"), _fault("node-7")])

    def test_a_group_that_goes_anyway_goes_its_own_way(self) -> None:
        assert not self._hit(_fault(), deleting=True)

    def test_a_group_that_drains_finishes_what_it_can_and_does_not_come_back(self) -> None:
        """Deleted at once, it would take its requests along; brought back, those of the clients that find it."""
        facts = replace(self.SERVES, draining_since=NOW)
        held = with_faulty_accelerators("serving", [facts], [_fault()])
        nothing = Snapshot({}, 0.0)
        (view,) = judge([facts], RecoverySpec(), nothing, held, lambda _: None, NOW)
        assert (view.state, view.cause) == (GroupState.DRAINING, None)
        assert view.flaw is not None
        assert view.flaw.reason == reasons.ACCELERATOR_FAULT
        (serving,) = judge([self.SERVES], RecoverySpec(), nothing, held, lambda _: None, NOW)
        assert (serving.state, serving.flaw) == (GroupState.BROKEN, None)


class TestWatch:
    @pytest.fixture
    async def exporter(self) -> AsyncIterator[tuple[dict[str, Any], int, aiohttp.ClientSession]]:
        served: dict[str, Any] = {"page": b"", "status": 200}

        async def handle(request: web.Request) -> web.Response:
            assert request.path == "/metrics"
            return web.Response(body=served["page"], status=served["status"])

        app = web.Application()
        app.router.add_get("/metrics", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with aiohttp.ClientSession() as session:
            yield served, runner.addresses[0][1], session
        await runner.cleanup()

    async def test_faults_are_told_once_and_kept(self, exporter: Any) -> None:
        served, port, session = exporter
        now, told = [NOW], []
        nodes = {"n": "127.0.0.1"}

        async def addresses() -> dict[str, str]:
            return nodes

        watch = AcceleratorWatch(session, addresses, told.append, lambda: now[0], port)
        for page, status in ((b'DCGM_FI_DEV_XID_ERRORS{gpu="0"} 0\n', 200), (b"", 500), (b"", 200)):
            served.update(page=page, status=status)
            await watch.round()
            assert told == []
        served.update(page=b'DCGM_FI_DEV_XID_ERRORS{gpu="0"} 79\n')
        for _ in range(3):
            await watch.round()
        assert [(f.node, f.what) for f in told] == [("n", "Xid 79, the GPU has fallen off the bus")]
        assert watch.faults() == told
        nodes.clear()
        await watch.round()
        assert watch.faults() == told
        now[0] += 3601
        await watch.round()
        assert watch.faults() == []

    async def test_nobody_there_is_no_fault(self, exporter: Any) -> None:
        _, _, session = exporter

        async def addresses() -> dict[str, str]:
            return {"n": "127.0.0.1"}

        watch = AcceleratorWatch(session, addresses, lambda fault: None, lambda: NOW, 1)
        await watch.round()
        assert watch.faults() == []


class Pods:
    """A cluster's exporter pods."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.forbidden = False

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        assert kind is POD
        self.asked.append((namespace, label_selector))
        if self.forbidden:
            raise ForbiddenError(403, "Forbidden", "pods is forbidden")
        if label_selector != "app=nvidia-dcgm-exporter":
            return []
        return [
            {"spec": {"nodeName": f"node-{n}"}, "status": {"podIP": f"10.0.0.{n}", "phase": phase}}
            for n, phase in ((0, "Running"), (1, "Running"), (2, "Pending"))
        ]


def _ours(store: Store, node: str) -> None:
    meta = {"name": f"p-{node}", "namespace": "serving", "uid": node, "resourceVersion": "1"}
    store.upsert(
        POD, {"metadata": {**meta, "labels": {names.LABEL_DEPLOYMENT: "tiny"}}, "spec": {"nodeName": node}}
    )


class TestExporters:
    async def test_only_nodes_with_pods_of_ours_are_read(self) -> None:
        store, pods, now = Store(), Pods(), [0.0]
        exporters = Exporters(cast(KubeClient, pods), store, DcgmExporter(), lambda: now[0])
        assert await exporters() == {}
        assert pods.asked == [], "without groups nothing is asked"
        _ours(store, "node-0")
        assert await exporters() == {"node-0": "10.0.0.0"}
        assert pods.asked == [
            (None, "app=nvidia-dcgm-exporter"),
            (None, "app.kubernetes.io/name=dcgm-exporter"),
        ]
        await exporters()
        assert len(pods.asked) == 2
        _ours(store, "node-1")
        assert sorted(await exporters()) == ["node-0", "node-1"]
        now[0] = 301
        await exporters()
        assert len(pods.asked) == 6

    async def test_a_missing_right_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        store, pods, now = Store(), Pods(), [0.0]
        pods.forbidden = True
        _ours(store, "node-0")
        exporters = Exporters(cast(KubeClient, pods), store, DcgmExporter("gpus"), lambda: now[0])
        for _ in range(100):
            assert await exporters() == {}
            now[0] += 15
        assert len(caplog.records) == 1
        assert "namespace gpus" in caplog.text
        assert len(pods.asked) < 10


class TestSite:
    def test_where_exporters_are_and_which_conditions_count(self) -> None:
        text = """
telemetry: {dcgmExporter: {namespace: gpus, selector: "app=dcgm,tier=node", port: 9401}}
nodes: {unhealthyConditions: [GpuUnhealthy]}
"""
        config = read_config(text)
        assert config.telemetry.dcgm == DcgmExporter("gpus", ("app=dcgm,tier=node",), 9401)
        assert config.unhealthy_conditions == {"GpuUnhealthy"}
        assert read_config("{}").telemetry.dcgm == DcgmExporter()

    def test_a_selector_that_is_none_is_refused_by_its_path(self) -> None:
        with pytest.raises(OperatorConfigError, match=r"telemetry\.dcgmExporter\.selector"):
            read_config("telemetry: {dcgmExporter: {selector: 'app in (a, b)'}}")

    def test_a_node_with_such_a_condition_is_to_be_left(self) -> None:
        def node(status: str) -> Obj:
            bad = {"type": "GpuUnhealthy", "status": status, "message": "Xid 79 on GPU 3"}
            ready = {"type": "Ready", "status": "True"}
            return {"metadata": {"name": "n"}, "status": {"conditions": [ready, bad]}}

        def leaving(status: str, types: Sequence[str]) -> str | None:
            found = node_conditions([node(status)], types)
            assert found is not None
            left = found["n"].leaving
            return left.why if left else None

        assert leaving("True", ["GpuUnhealthy"]) == "has the condition GpuUnhealthy (Xid 79 on GPU 3)"
        assert leaving("False", ["GpuUnhealthy"]) is None
        assert leaving("True", []) is None
        assert significant(node("True")) != significant(node("False")), "its change is news"
