"""What engines deliver and what GPUs take, while pods, drivers and operators begin anew.

What a user would lose: a spike in every graph after each lost group, from counters that began anew; energy that nobody
counted while no operator was there, or that was counted twice.
"""

import asyncio
from typing import Any

import pytest

from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, manifest, play
from moe_operator.controller.delivered import DeploymentFigures
from moe_operator.runtime.reporting import accounts, delivered

KEY = (NAMESPACE, "tiny")
#: Two pods of 400 tokens per second each, with four requests each.
BUSY = EngineSettings(requests=4)
GPUS, WATTS = 8, 500.0


def _told(h: Harness) -> DeploymentFigures | None:
    found = h.operator.reconciler.delivered.detail(KEY)
    return found[0] if found else None


def _rates(h: Harness) -> list[float]:
    """Every rate of output that is told now: of the deployment, its groups and their ranks."""
    found = h.operator.reconciler.delivered.detail(KEY)
    if found is None:
        return []
    told, ranks = found
    every = [told.figures, *(g.figures for g in told.groups), *(one.figures for of in ranks for one in of)]
    return [one.output_tokens_per_second for one in every if one.output_tokens_per_second is not None]


def _counted(h: Harness) -> float:
    every = delivered(h.operator.reconciler.delivered.all())
    return sum(value for name, _, value in every if name == "objective_requests_total")


def _settled(h: Harness) -> bool:
    told = _told(h)
    return told is not None and told.figures.output_tokens_per_second == pytest.approx(800, rel=0.01)


def test_a_lost_group_and_its_successor_are_told_without_a_spike() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, objective={"timeToFirstToken": "2s", "timePerOutputToken": "50ms"}))
        await h.serve(1)
        await h.until(lambda: _settled(h), 120)
        told, ranks = h.operator.reconciler.delivered.detail(KEY) or (None, [])
        assert told is not None
        (group,) = told.groups
        assert group.figures.running == 8
        assert [one.rank for one in ranks[0]] == list(range(16))
        # An engine of the in-memory cluster speaks for all ranks of its pod, as the first of them.
        known = {one.rank: one.figures.output_tokens_per_second for one in ranks[0] if one.figures.running}
        assert known == {0: pytest.approx(400, rel=0.01), 8: pytest.approx(400, rel=0.01)}
        await h.rest(120)
        latency = h.status()["latency"]
        # 0.2 s to the first token, 20 ms for each: in the buckets up to 0.25 s and 25 ms.
        assert 100 <= float(latency["timeToFirstTokenMilliseconds"]["p50"]) <= 250
        assert 10 <= float(latency["timePerOutputTokenMilliseconds"]["p95"]) <= 25
        counted, seen = _counted(h), []
        assert counted > 0

        async def watch() -> None:
            while True:
                await asyncio.sleep(1.0)
                seen.extend(_rates(h))
                assert _counted(h) >= counted

        watching = asyncio.create_task(watch())
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: "tiny-g0" not in h.serving(), 30)
        await h.until(lambda: not _settled(h), 30, "half of a group is not told as the whole")
        await h.serve(1)
        await h.until(lambda: _settled(h), 120)
        assert not watching.done(), watching
        watching.cancel()
        assert seen
        assert max(seen) <= 1.02 * 800
        assert min(seen) >= 0

    play(scenario, settings=BUSY)


def test_an_idle_group_has_no_latency_after_some_minutes_and_its_status_rests() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(1))
        await h.serve(1)
        await h.until(lambda: "latency" in h.status(), 180)
        for engine in h.world.engines.by_pod.values():
            h.world.engines.count(engine)
            engine.running = 0
        await h.until(lambda: "latency" not in h.status(), 420)
        await h.settle()
        writes = h.writes
        await h.rest(900)
        # Of cost, at most every ten minutes, and of what was learned.
        assert h.writes - writes <= 2
        assert "latency" not in h.status()

    play(scenario, settings=EngineSettings(requests=4))


def _show(h: Harness) -> str:
    node = str(h.world.pod("tiny-g0-0")["spec"]["nodeName"])
    h.world.exporters.memory[node] = dict.fromkeys(range(GPUS), (160_000, 22_642))
    h.world.exporters.watts[node] = WATTS
    for gpu in range(GPUS):
        h.world.exporters.pods[node, gpu] = (NAMESPACE, "tiny-g0-0")
    return node


def _joules(h: Harness) -> float | None:
    known = accounts(h.operator.reconciler.accounts())
    return next((value for name, at, value in known if (name, at) == ("energy_joules_total", KEY)), None)


def test_energy_is_counted_across_operators_and_drivers_and_absent_where_nobody_tells() -> None:
    spec: dict[str, Any] = {
        "model": {"name": "Qwen/Qwen3-30B-A3B"},
        "hardware": {"accelerator": "B200", "gpusPerGroup": GPUS},
        "cost": {"pricePerGPUHour": "3.60"},
    }

    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, **spec))
        await h.serve(1)
        assert _joules(h) is None
        node = _show(h)
        shown = h.world.clock.elapsed
        await h.until(lambda: _joules(h) is not None, 60)

        def expect(lost: float = 0.0) -> None:
            """But for the seconds until the first reading, and since the last."""
            true = GPUS * WATTS * (h.world.clock.elapsed - shown - lost)
            found = _joules(h)
            assert found is not None
            assert true - GPUS * WATTS * 32 <= found <= true

        await h.rest(1800)
        expect()
        h.edit(cost={"pricePerGPUHour": "3.70"})  # something to write
        await h.until(lambda: "energyKWh" in h.status()["cost"]["total"], 90)
        h.supervised = False
        h.operator.kill()
        await h.rest(900)
        h.supervised = True
        h.start_operator()
        await h.until(lambda: _joules(h) is not None, 90)
        await h.rest(60)
        expect()
        # The driver is loaded anew: what was taken between two readings is not known.
        h.world.exporters.driver_loaded[node] = h.world.clock.elapsed
        before = _joules(h)
        await h.rest(120)
        assert before is not None
        found = _joules(h)
        assert found is not None
        assert found >= before
        h.edit(cost={"pricePerGPUHour": "3.60"})
        await h.rest(600)
        h.edit(cost={"pricePerGPUHour": "3.70"})
        await h.rest(60)
        total = h.status()["cost"]["total"]
        # 8 GPUs at 500 W: 4 kWh an hour.
        hours = float(total["gpuHours"]["total"]) / GPUS
        assert float(total["energyKWh"]) == pytest.approx(4 * hours, rel=0.05)
        h.world.exporters.memory.pop(node)
        await h.until(lambda: _joules(h) is None, 45)

    play(scenario)
