"""GPUs that fail under groups, and nodes that say so of themselves.

What a user would lose: hours of a group on a GPU that gives no or wrong answers, its successor on the same one; or
healthy groups, to an exporter that restarts.
"""

from typing import Any

from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, Witness, manifest, play
from moe_operator.api import reasons
from moe_operator.catalog.operator_config import read_config
from moe_operator.controller.kube import NODE


async def _serving(h: Harness, groups: int = 1) -> None:
    for index in range(8):
        h.world.exporters.xids[f"node-{index}"] = dict.fromkeys(range(8), 0)
    h.apply(manifest(groups))
    await h.serve(groups)
    await h.settle()


def _node(h: Harness, pod: str) -> str:
    return str(h.world.pod(pod)["spec"]["nodeName"])


def _uids(h: Harness) -> list[str]:
    return [g["metadata"]["uid"] for g in h.groups()]


def _cause(h: Harness) -> dict[str, Any]:
    return h.status().get("recovery", {}).get("lastCause") or {}


def test_a_gpu_that_fell_off_the_bus_costs_its_group_and_the_next_is_elsewhere() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h, 2)
        node, kept = _node(h, "tiny-g1-0-1"), _uids(h)[0]
        h.world.exporters.xids[node][3] = 79
        took = await h.until(lambda: _cause(h).get("reason") == reasons.ACCELERATOR_FAULT, 30)
        assert took < 17
        assert _cause(h)["node"] == node
        assert f"GPU 3 (GPU-{node}-3)" in _cause(h)["message"]
        assert "Xid 79" in _cause(h)["message"]
        await h.serve(2)
        assert kept in _uids(h)
        uids = _uids(h)
        nodes = {_node(h, f"{g}-0") for g in h.serving()} | {_node(h, f"{g}-0-1") for g in h.serving()}
        assert node not in nodes
        await h.rest(1200)
        assert _uids(h) == uids, "the fault that stands costs no other group"

    play(scenario)


def test_an_exporter_that_restarts_costs_nothing() -> None:
    async def scenario(h: Harness) -> None:
        for index in range(8):
            h.world.exporters.xids[f"node-{index}"] = {0: 79}
        h.apply(manifest())
        await h.serve()
        uids = _uids(h)
        pages = dict(h.world.exporters.xids)
        h.world.exporters.xids.clear()
        await h.rest(60)
        h.world.exporters.xids.update({node: {0: 0} for node in pages})
        await h.rest(60)
        h.world.exporters.xids.update(pages)
        await h.rest(120)
        assert _uids(h) == uids

    play(scenario)


def test_an_xid_of_an_application_or_of_somebody_elses_gpu_costs_nothing() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        node, uids = _node(h, "tiny-g0-0"), _uids(h)
        h.world.exporters.pods[node, 7] = ("training", "job-0")
        h.world.exporters.xids[node] |= {0: 31, 7: 79}
        await h.rest(120)
        assert _uids(h) == uids
        h.world.exporters.pods[node, 6] = (NAMESPACE, "tiny-g0-0")
        h.world.exporters.xids[node][6] = 48
        await h.until(lambda: _cause(h).get("reason") == reasons.ACCELERATOR_FAULT, 30)

    play(scenario)


def test_a_node_whose_agent_marks_it_is_left_without_losing_a_request() -> None:
    async def scenario(h: Harness) -> None:
        h.config = read_config("nodes: {unhealthyConditions: [GpuUnhealthy]}")
        h.start_operator()
        await _serving(h)
        witness = Witness(h)
        node = _node(h, "tiny-g0-0")
        live = h.world.server.get(NODE, None, node)
        assert live is not None
        conditions = [
            *live["status"]["conditions"],
            {"type": "GpuUnhealthy", "status": "True", "message": "ECC"},
        ]
        h.world.server.patch(NODE, None, node, {"status": {"conditions": conditions}}, "agent", "status")
        await h.until(
            lambda: (h.condition(reasons.GROUPS_READY) or {}).get("reason") == reasons.LEAVING_NODES, 30
        )
        assert "has the condition GpuUnhealthy (ECC)" in (h.condition(reasons.GROUPS_READY) or {})["message"]
        await h.until(lambda: h.serving() == ["tiny-g1"] and len(h.groups()) == 1, 400, "it moves")
        assert node not in {_node(h, "tiny-g1-0"), _node(h, "tiny-g1-0-1")}
        assert witness.lowest == 1
        assert not witness.lost_requests
        await h.settle()
        assert h.serving() == ["tiny-g1"]

    play(scenario, operator=False, settings=EngineSettings(requests=4))
