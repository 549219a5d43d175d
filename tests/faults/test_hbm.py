"""HBM in the status of the whole operator, with exporters that come, go and lie.

What a user would lose: the difference between a measurement and an estimate; the API server's patience, if every round
of telemetry wrote; a deployment's own figures, to labels that somebody else wrote.
"""

from typing import Any

from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, manifest, play
from moe_operator.api import reasons
from moe_operator.controller.kube import EVENT, MODEL_DEPLOYMENT

MODEL = "Qwen/Qwen3-30B-A3B"
#: As manifests say it; the plan knows its size.
SPEC: dict[str, Any] = {
    "model": {"name": MODEL},
    "hardware": {"accelerator": "B200", "gpusPerGroup": 8},
}


def _show(h: Harness, used: int = 160_000) -> str:
    """The exporters of all nodes; the group's GPUs hold so many MiB. Returns its node."""
    pod = h.world.pod("tiny-g0-0")
    node = str(pod["spec"]["nodeName"])
    h.world.exporters.memory[node] = dict.fromkeys(range(8), (used, 182642 - used))
    for gpu in range(8):
        h.world.exporters.pods[node, gpu] = (NAMESPACE, "tiny-g0-0")
    return node


def _hbm(h: Harness) -> dict[str, Any]:
    return h.status().get("hbm") or {}


def _written(h: Harness) -> str:
    obj = h.world.server.get(MODEL_DEPLOYMENT, NAMESPACE, "tiny")
    assert obj is not None
    return str(obj["metadata"]["resourceVersion"])


def test_a_missing_exporter_degrades_to_an_estimate_within_two_intervals_and_back() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve()
        await h.until(lambda: _hbm(h).get("source") == "Estimated", 30)
        assert _hbm(h)["summary"].startswith("~")
        node = _show(h)
        await h.until(lambda: _hbm(h).get("source") == "Measured", 16)
        assert (_hbm(h)["usedMib"], _hbm(h)["capacityMib"]) == (8 * 160_000, 8 * 182_642)
        assert (_hbm(h)["summary"], _hbm(h)["worst"]["node"]) == ("88%", node)
        gone = h.world.exporters.memory.pop(node)
        took = await h.until(lambda: _hbm(h).get("source") == "Estimated", 40)
        assert took <= 31
        h.world.exporters.memory[node] = gone
        await h.until(lambda: _hbm(h).get("source") == "Measured", 16)

    play(scenario)


def test_figures_are_written_at_most_every_half_minute_and_not_at_all_while_nothing_moves() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve()
        node = _show(h)
        await h.until(lambda: _hbm(h).get("source") == "Measured", 16)
        await h.settle()
        before = _written(h)
        for step in range(40):
            # Noise within half a percent.
            h.world.exporters.memory[node] = dict.fromkeys(range(8), (160000 + 500 * (step % 2), 22642))
            await h.rest(15)
        assert _written(h) == before
        writes = set()
        for step in range(40):
            h.world.exporters.memory[node] = dict.fromkeys(range(8), (120000 + 1500 * step, 62642))
            await h.rest(15)
            writes.add(_written(h))
        assert 2 <= len(writes) <= 21, "600 seconds of memory that moves all the time"

    play(scenario)


def test_a_planner_that_is_off_is_told_once_also_over_a_time_without_groups() -> None:
    def told(h: Harness) -> int:
        events = h.world.server.list(EVENT, NAMESPACE)
        return sum(
            (e.get("series") or {}).get("count", 1)
            for e in events
            if e.get("reason") == reasons.MEMORY_OFF_PLAN
        )

    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve()
        _show(h, 182_000)
        await h.until(lambda: "offPlanSince" in _hbm(h), 90)
        since = _hbm(h)["offPlanSince"]
        h.edit(replicas=0, scaling={"minGroups": 0})
        await h.until(lambda: not h.groups() and not _hbm(h), 300)
        await h.rest(120)
        h.edit(replicas=1)
        await h.serve()
        _show(h, 182_000)
        await h.until(lambda: _hbm(h).get("source") == "Measured", 90)
        await h.rest(60)
        assert (_hbm(h)["offPlanSince"], told(h)) == (since, 1)

    play(scenario, settings=EngineSettings(kv_blocks=1000))


def test_labels_that_others_wrote_credit_nobody() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve()
        node = _show(h)
        await h.until(lambda: _hbm(h).get("source") == "Measured", 16)
        other = next(name for name in (f"node-{n}" for n in range(8)) if name != node)
        # An exporter on a node where the pod is not, and a ninth GPU on the one where it is.
        h.world.exporters.memory[other] = dict.fromkeys(range(8), (1, 182_641))
        for gpu in range(8):
            h.world.exporters.pods[other, gpu] = (NAMESPACE, "tiny-g0-0")
        await h.rest(60)
        assert _hbm(h)["usedMib"] == 8 * 160_000
        h.world.exporters.memory[node][8] = (1, 1)
        h.world.exporters.pods[node, 8] = (NAMESPACE, "tiny-g0-0")
        await h.until(lambda: _hbm(h).get("source") == "Estimated", 40)

    play(scenario)
