"""Health: an operator that looks alive and does nothing must be restarted, and one that works must not."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from moe_operator.api import names
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, POD, Obj
from moe_operator.controller.store import Store
from moe_operator.runtime import metrics_reference
from moe_operator.runtime.health import HealthServer, Vitals, problems
from moe_operator.runtime.metrics import Metrics
from moe_operator.runtime.reporting import LastAnswer, capacity_short, group_counts, readiness
from moe_operator.runtime.targets import targets

WELL = Vitals(
    overdue={"Pod": 0.0},
    longest=("ns/a", 3.0),
    source_down=0.0,
    api_silent=1.0,
    telemetry_silent=4.0,
    devices_silent=15.0,
    synced=True,
    lacking=(),
    leads=True,
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"overdue": {"Pod": 179.0}}, None),
        ({"overdue": {"Pod": 181.0}}, "the watch of Pod has not delivered a change for 181 s"),
        ({"longest": ("ns/a", 301.0)}, "the reconcile of ns/a has been running for 301 s"),
        ({"source_down": 301.0}, "the watches have been failing for 301 s"),
        ({"source_down": 301.0, "api_silent": 90.0}, None),
        ({"source_down": 301.0, "api_silent": None}, None),
        ({"telemetry_silent": 200.0}, "telemetry has stood still for 200 s"),
        ({"telemetry_silent": None, "devices_silent": None, "leads": False}, None),
        ({"devices_silent": 899.0}, None),
        ({"devices_silent": 901.0}, "reading GPUs' faults and memory has stood still for 901 s"),
    ],
)
def test_what_a_restart_heals_fails_the_liveness_and_nothing_else_does(
    change: dict[str, object], expected: str | None
) -> None:
    found = problems(replace(WELL, **change))  # type: ignore[arg-type]
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


class Server:
    def __init__(self) -> None:
        self.vitals = WELL
        self.metrics = Metrics()
        self.http = HealthServer(lambda: self.vitals, self.metrics.registry)

    async def get(self, path: str, metrics: bool = False) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.http.ports[metrics]}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.http.start("127.0.0.1", 0, 0)
    yield server
    await server.http.stop()


async def test_the_probes_answer_what_the_vitals_say(server: Server) -> None:
    assert (await server.get("/healthz"))[0] == 200
    assert (await server.get("/readyz"))[0] == 200
    server.vitals = replace(WELL, synced=False, overdue={"Node": 999.0}, leads=False)
    status, text = await server.get("/healthz")
    assert status == 503
    assert json.loads(text)["problems"] == [
        "the watch of Node has not delivered a change for 999 s (limit 180 s)"
    ]
    status, text = await server.get("/readyz")
    assert status == 503
    assert "first LIST" in text
    server.vitals = replace(WELL, lacking=("Pod",))
    status, text = await server.get("/readyz")
    assert status == 503
    assert json.loads(text)["problems"] == ["Pod may not be listed: grant the operator's account the right"]
    assert (await server.get("/healthz"))[0] == 200, "a restart does not grant rights"


async def test_metrics_are_served_on_their_own_port(server: Server) -> None:
    server.metrics.leading(True)
    server.metrics.request("apply", "Service", 200, 0.1)
    status, text = await server.get("/metrics", metrics=True)
    assert status == 200
    assert "moe_operator_leader 1.0" in text
    assert 'moe_operator_api_requests_total{code="200",kind="Service",verb="apply"} 1.0' in text
    assert (await server.get("/metrics"))[0] == 404
    assert (await server.get("/healthz", metrics=True))[0] == 404


async def test_one_port_may_serve_both() -> None:
    server = Server()
    await server.http.start("127.0.0.1", 0, 0)
    port = server.http.ports[0]
    await server.http.stop()
    server = Server()
    await server.http.start("127.0.0.1", port, port)
    assert (await server.get("/healthz"))[0] == 200
    assert (await server.get("/metrics"))[0] == 200
    await server.http.stop()


def test_the_reference_of_the_metrics_is_current() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
    assert page.read_text() == metrics_reference.render(), (
        "write it again: python -m moe_operator.runtime.metrics_reference > docs/reference/metrics.md"
    )


def test_an_answer_is_any_that_the_api_server_itself_gave() -> None:
    """A 403 proves that it lives; a 503 may be a proxy's."""
    now = 0.0
    last = LastAnswer(Metrics(), lambda: now)
    assert last.silent() is None
    last.request("get", "Pod", 403, 0.1)
    now = 10.0
    last.request("get", "Pod", 0, 0.1)
    last.request("get", "Pod", 503, 0.1)
    assert last.silent() == 10.0


def test_groups_and_readiness_come_from_the_status() -> None:
    store = Store()
    store.upsert(
        MODEL_DEPLOYMENT,
        {
            "metadata": {"namespace": "ns", "name": "a", "uid": "a"},
            "status": {
                "groups": {"desired": 3, "ready": 2},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        },
    )
    store.upsert(MODEL_DEPLOYMENT, {"metadata": {"namespace": "ns", "name": "b", "uid": "b"}})
    counts = dict(group_counts(store))
    assert (counts["ns", "a", "desired"], counts["ns", "a", "ready"], counts["ns", "b", "desired"]) == (
        3,
        2,
        0,
    )
    assert dict(readiness(store)) == {("ns", "a"): 1.0, ("ns", "b"): 0.0}


def test_a_deployment_is_short_of_room_for_a_reason_of_the_cluster_or_its_own_limit() -> None:
    """Lost: the alert by which somebody adds nodes, or raises the limit."""
    store = Store()
    for name, available, decision in (
        ("full", "False", "WithinObjective"),
        ("limited", "True", "AtMaximum"),
        ("both", "False", "AtMaximum"),
        ("well", "True", "WithinObjective"),
    ):
        condition = {"type": "CapacityAvailable", "status": available, "reason": "WaitingForGpus"}
        obj: Obj = {"metadata": {"namespace": "ns", "name": name, "uid": name}}
        obj["status"] = {"conditions": [condition], "scaling": {"reason": decision}}
        store.upsert(MODEL_DEPLOYMENT, obj)
    store.upsert(MODEL_DEPLOYMENT, {"metadata": {"namespace": "ns", "name": "new", "uid": "new"}})
    assert sorted(capacity_short(store)) == [
        (("ns", "both", "AtMaximum"), 1.0),
        (("ns", "both", "WaitingForGpus"), 1.0),
        (("ns", "full", "WaitingForGpus"), 1.0),
        (("ns", "limited", "AtMaximum"), 1.0),
    ]


# --- whom telemetry asks --------------------------------------------------------------------------


def pod(name: str, **changes: object) -> Obj:
    obj: Obj = {
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": name,
            "labels": {names.LABEL_DEPLOYMENT: "qwen", names.LABEL_GROUP: "qwen-g0"},
            "annotations": {},
        },
        "spec": {
            "containers": [{"name": "engine", "args": ["serve", "--max-num-seqs", "8", "--middleware", "x"]}]
        },
        "status": {
            "podIP": "10.0.0.1",
            "containerStatuses": [{"name": "engine", "state": {"running": {}}}],
        },
    }
    for path, value in changes.items():
        part, _, key = path.partition("__")
        obj[part][key] = value
    return obj


def group(**annotations: str) -> Obj:
    return {
        "metadata": {
            "namespace": "ns",
            "name": "qwen-g0",
            "uid": "g",
            "annotations": {names.ANNOTATION_RANKS_PER_POD: "4", **annotations},
        }
    }


def test_engines_that_run_are_asked_with_what_is_known_of_them() -> None:
    store = Store()
    store.upsert(LEADER_WORKER_SET, group())
    store.upsert(POD, pod("a"))
    store.upsert(POD, pod("no-address", status__podIP=None))
    store.upsert(
        POD, pod("starting", status__containerStatuses=[{"name": "engine", "state": {"waiting": {}}}])
    )
    store.upsert(POD, pod("not-ours", metadata__labels={}))
    store.upsert(POD, pod("no-engine", spec__containers=[{"name": "sidecar"}]))
    (target,) = targets(store)
    assert (target.key, target.pod_uid, target.host, target.port) == (("ns", "qwen"), "a", "10.0.0.1", 8000)
    assert (target.request_slots, target.agent, target.urgent) == (32, True, False)


def test_without_the_flag_or_the_agent_nothing_is_made_up() -> None:
    store = Store()
    store.upsert(POD, pod("a", spec__containers=[{"name": "engine", "args": ["serve", "--max-num-seqs"]}]))
    store.upsert(POD, pod("b", spec__containers=[{"name": "engine", "args": ["--max-num-seqs=16"]}]))
    assert [(t.request_slots, t.agent) for t in targets(store)] == [(0, False), (16, False)]


def test_figures_are_expected_of_engines_that_answered_somebody() -> None:
    """Lost: an alert that says something, as every start of an engine would set it off."""
    store = Store()
    store.upsert(POD, pod("starts", status__conditions=[{"type": "Ready", "status": "False"}]))
    store.upsert(POD, pod("admitted", metadata__annotations={names.ANNOTATION_INCARNATION: "x"}))
    store.upsert(POD, pod("ready", status__conditions=[{"type": "Ready", "status": "True"}]))
    assert {t.pod_uid: t.serves for t in targets(store)} == {"starts": False, "admitted": True, "ready": True}


def test_a_group_that_drains_or_is_suspected_is_asked_every_second() -> None:
    """A drain ends with the last request, not five seconds after it."""
    store = Store()
    store.upsert(LEADER_WORKER_SET, group(**{names.ANNOTATION_DRAINING: "2026-01-01T00:00:00Z"}))
    store.upsert(POD, pod("a"))
    assert [t.urgent for t in targets(store)] == [True]
    store = Store()
    store.upsert(LEADER_WORKER_SET, group())
    store.upsert(POD, pod("a", metadata__annotations={names.ANNOTATION_INCARNATION: "x"}))
    assert [t.urgent for t in targets(store)] == [True]


def test_lost_groups_are_counted_by_cause_and_forgotten_with_their_deployment() -> None:
    """An alert on GPUs that fail must not fire for arguments; series of what is gone would stay for ever."""
    metrics = Metrics()
    metrics.group_lost("serving", "tiny", "AcceleratorFault")
    metrics.group_lost("serving", "tiny", "AcceleratorFault")
    metrics.group_lost("serving", "other", "ArgumentRefused")

    def count(name: str, reason: str) -> float | None:
        labels = {"namespace": "serving", "name": name, "reason": reason}
        return metrics.registry.get_sample_value("moe_operator_groups_lost_total", labels)

    assert count("tiny", "AcceleratorFault") == 2
    metrics.forget_losses("serving", "tiny")
    metrics.forget_losses("serving", "never")
    assert count("tiny", "AcceleratorFault") is None
    assert count("other", "ArgumentRefused") == 1
