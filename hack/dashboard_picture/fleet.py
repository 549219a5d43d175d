"""Six hours of a deployment in virtual time: the whole operator on an in-memory cluster, and what its page says.

The operator is the real one. Engines, exporters and the load are played: a morning's rise, an engine that is lost at
its height, and a fall.
"""

import asyncio
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client.samples import Sample

from fakecluster.clock import EPOCH
from fakecluster.engines import EngineSettings, State
from fakecluster.harness import NAMESPACE, Harness, manifest, play
from moe_operator.runtime.metrics import Metrics
from moe_operator.runtime.reporting import of_deployments

NAME = "qwen3-30b"
HOURS = 6.0
#: Seconds between two scrapes, as the chart's ServiceMonitor has it.
SCRAPE = 30.0
#: Requests at the quietest and the busiest, of all groups.
_QUIET, _BUSY = 20.0, 260.0
_LOST_AT = 3.6
#: MiB of a B200 that processes may have, and that they hold beyond the plan.
_CAPACITY, _UNPLANNED = 182642, 900
#: Bytes of a block of the model's KV cache: 48 layers, keys and values, 4 heads of 128, 2 bytes, 16 tokens.
_BLOCK = 48 * 2 * 4 * 128 * 2 * 16
_SPEC: dict[str, Any] = {
    "model": {"name": "Qwen/Qwen3-30B-A3B"},
    "hardware": {"accelerator": "B200", "gpusPerGroup": 8},
    "objective": {"timeToFirstToken": "1s", "timePerOutputToken": "50ms"},
    "scaling": {"mode": "Auto", "minGroups": 1, "maxGroups": 5},
    "cost": {"budget": {"amount": "1000", "period": "Day", "action": "Warn", "timeZone": "UTC"}},
}


@dataclass
class Pages:
    """What was scraped, in OpenMetrics' text."""

    families: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Name -> type, and lines in the order of time."""

    def add(self, metrics: Metrics, at: float) -> None:
        """One scrape, at seconds since the epoch."""
        for family in metrics.registry.collect():
            _, lines = self.families.setdefault(family.name, (family.type, []))
            lines += [_line(sample, at) for sample in family.samples if not sample.name.endswith("_created")]

    def text(self) -> str:
        """All of it, as `promtool tsdb create-blocks-from openmetrics` reads it."""
        return "".join(self._written()) + "# EOF\n"

    def _written(self) -> Iterator[str]:
        for name, (type_, lines) in self.families.items():
            yield f"# TYPE {name} {type_}\n"
            yield from lines


def _line(sample: Sample, at: float) -> str:
    """With the labels of the target that the deployment's own do not hide (`honor_labels`)."""
    target = {
        "job": "moe-operator-metrics",
        "instance": "10.0.0.1:9090",
        "namespace": "moe-system",
        "pod": "operator-0",
    }
    labels = ",".join(f'{name}="{value}"' for name, value in {**target, **sample.labels}.items())
    return f"{sample.name}{{{labels}}} {sample.value!r} {at:.3f}\n"


def _wanted(hours: float) -> float:
    """Requests that are being computed, of all groups."""
    rise: float = 0.5 - 0.5 * math.cos(2 * math.pi * min(max((hours - 0.4) / 5.4, 0.0), 1.0))
    return _QUIET + (_BUSY - _QUIET) * math.pow(rise, 1.3)


class Fleet:
    """One story: the harness, the load and what is scraped."""

    def __init__(self, h: Harness) -> None:
        self.h = h
        self.pages = Pages()
        self.metrics = _metrics(h)
        self._draw = random.Random(1)
        self._lost: dict[tuple[str, str, str], int] = {}

    async def run(self) -> None:
        """From an empty cluster to the end of the day."""
        self.h.apply(manifest(name=NAME, **_SPEC))
        begun = self.h.world.clock.elapsed
        lost, told = False, 0
        while (hours := (self.h.world.clock.elapsed - begun) / 3600) < HOURS:
            if hours >= told:
                print(
                    f"{told} of {HOURS:g} hours are played, {len(self.h.serving(NAME))} groups serve",
                    flush=True,
                )
                told += 1
            self._ask(_wanted(hours))
            self._show()
            if hours >= _LOST_AT and not lost and len(self.h.serving(NAME)) > 1:
                lost = True
                pod = f"{self.h.serving(NAME)[0]}-0"
                self.h.world.crash_engine(pod, "CUDA error: an illegal memory access was encountered", 1)
            self._scrape()
            await asyncio.sleep(SCRAPE)

    def _ask(self, requests: float) -> None:
        """Spread the load over the groups that serve. A step takes what it takes: histograms of engines only grow."""
        engines = self.h.world.engines
        up = [engine for engine in engines.by_pod.values() if engine.state is State.UP]
        for engine in up:
            engines.count(engine)
        each = max(1, round(requests * self._draw.uniform(0.93, 1.07) / max(1, len(up))))
        settings = engines.settings
        settings.requests = each
        settings.tokens_per_second = each / settings.step_seconds
        for engine in up:
            if engine.running:
                engine.running = each

    def _show(self) -> None:
        """What DCGM exporter says of the nodes with groups."""
        plan = self.h.status(NAME).get("plan")
        if plan is None:
            return
        memory = plan["memory"]
        self.h.world.engines.settings.kv_blocks = memory["kvCacheMib"] * 2**20 // _BLOCK
        planned = memory["weightsMib"] + memory["kvCacheMib"] + memory["buffersMib"]
        exporters, taken = self.h.world.exporters, set()
        for engine in self.h.world.engines.by_pod.values():
            taken.add(engine.node)
            used = planned + _UNPLANNED
            exporters.memory[engine.node] = {
                gpu: (used + 220 * gpu + self._draw.randrange(0, 90), _CAPACITY - used - 220 * gpu)
                for gpu in range(8)
            }
            exporters.watts[engine.node] = 640.0
            for gpu in range(8):
                exporters.pods[engine.node, gpu] = (NAMESPACE, engine.pod)
        for node in set(exporters.memory) - taken:
            del exporters.memory[node]

    def _scrape(self) -> None:
        for key, count in self.h.operator.counting.groups_lost.items():
            for _ in range(count - self._lost.get(key, 0)):
                self.metrics.group_lost(*key)
            self._lost[key] = count
        self.metrics.leading(self.h.operator.leads)
        self.pages.add(self.metrics, EPOCH + self.h.world.clock.elapsed)


def _metrics(h: Harness) -> Metrics:
    """A page as `runtime.process` wires it, of the harness's operator."""
    metrics, operator = Metrics(), h.operator
    metrics.watch_values(
        replace(
            of_deployments(operator.store, operator.reconciler, lambda: True),
            queue_depth=lambda: len(operator.queue),
        )
    )
    return metrics


def recorded() -> tuple[str, float, float]:
    """The pages of the whole story, when it begins and when it ends, in seconds since the epoch."""
    made: list[Fleet] = []

    async def story(h: Harness) -> None:
        made.append(Fleet(h))
        await made[0].run()

    play(story, nodes=6, settings=EngineSettings(requests=1, start_seconds=240.0))
    return made[0].pages.text(), EPOCH, EPOCH + HOURS * 3600
