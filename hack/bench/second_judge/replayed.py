"""One run under the other judge: its engines serve, its fleet starts and drains groups, our policies decide.

It calls us every 2.5 s of the trace with what its groups do; from that a Prometheus' samples are made up every 15 s,
and policies see them as they do in our own simulator (`scrape.View`), as late.

What it does not tell and how it is filled in:

- Times to the first token and per further token come with a request's end, over all groups: each is counted then, at
  groups in proportion to what they run. Ours come with the first token. Requests that last long make this late.
- Of the steps in between it tells each group's last one: it stands for them all.
- Gauges are looked at once a second, and requests that ended in one second are told by their means.
- Policies are asked at multiples of 2.5 s: Knative's, every 2 s of its own, a little less often.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.second_judge import timing
from bench.second_judge.install import core
from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import BLOCK, EngineModel
from moe_operator.simulator.fleet import Group, Life
from moe_operator.simulator.policy import FleetState, Policy
from moe_operator.simulator.result import Objective
from moe_operator.simulator.scrape import BOUNDS, COUNTERS, GAUGES, HISTOGRAMS, Scraper, Series, View
from moe_operator.simulator.trace import Trace

Floats = NDArray[np.float64]

#: Seconds of the trace between calls, samples, and looks at what ended.
_TICK, _SCRAPE, _TELEMETRY = 2.5, 15.0, 1.0
_COUNTER = {name: len(GAUGES) + at for at, name in enumerate(COUNTERS)}
_HISTOGRAM = {name: len(GAUGES) + len(COUNTERS) + at * kernel.WIDEST for at, name in enumerate(HISTOGRAMS)}
_WIDTH = len(GAUGES) + len(COUNTERS) + len(HISTOGRAMS) * kernel.WIDEST


@dataclass(frozen=True)
class Judged:
    """What came of a run."""

    attainment: float
    gpu_hours: float
    finished: int
    requests: int
    actions: int
    ttft_p99: float
    tpot_p99: float


def serve(
    trace: Trace,
    engine: EngineModel,
    policy: Policy,
    *,
    cold_start: float,
    start_groups: int,
    floor: int,
    ceiling: int,
    objective: Objective,
    settle: float,
    run_out: float = 900.0,
) -> Judged:
    """As `simulator.run.simulate`. Prompts found in a cache are not known here: `trace.cached` has to be nothing."""
    if trace.cached.any():
        raise ValueError("the other judge has caches of its own: give a trace without cached tokens")
    native = core()
    with tempfile.TemporaryDirectory() as folder:
        requests, tables = Path(folder, "trace.jsonl"), Path(folder, "times.npz")
        _write(trace, requests)
        timing.write(engine, tables)
        fleet = _Fleet(
            trace, engine, policy, start_groups=start_groups, floor=floor, ceiling=ceiling, settle=settle
        )
        told = native._normalize_mocker_config(
            {
                "engine": {
                    "backend": "vllm",
                    "block_size": BLOCK,
                    "num_gpu_blocks": engine.kv_blocks,
                    "max_num_seqs": engine.slots,
                    "max_num_batched_tokens": engine.batch_tokens,
                    "enable_prefix_caching": False,
                    "enable_chunked_prefill": True,
                    "timing_model": {
                        "type": "external",
                        "provider": "dynamo_profile",
                        "config": {"path": str(tables)},
                    },
                },
                "dp_size": engine.ranks,
                "startup_time": cold_start,
            }
        )
        found = native.run_mocker_trace_replay(
            [str(requests)],
            extra_engine_args=told,
            num_workers=start_groups,
            router_mode="kv_router",
            trace_block_size=_ONE_BLOCK,
            max_sim_time_ms=(trace.duration + run_out) * 1e3,
            scaling_policy=fleet,
            telemetry_callback=fleet.listen,
            telemetry_sample_interval_ms=_TELEMETRY * 1e3,
            sla_ttft_ms=objective.ttft * 1e3,
            sla_itl_ms=objective.tpot * 1e3,
        )
    summary = found.summary
    return Judged(
        attainment=summary["goodput_completed_requests"] / len(trace),
        gpu_hours=fleet.held * engine.gpus / 3600,
        finished=int(summary["completed_requests"]),
        requests=len(trace),
        actions=fleet.actions,
        ttft_p99=summary["p99_ttft_ms"] / 1e3,
        tpot_p99=summary["p99_tpot_ms"] / 1e3,
    )


#: Prompts are told by the names of their blocks; no two have one in common, so one block, longer than any, will do.
_ONE_BLOCK = 1 << 20


def _write(trace: Trace, path: Path) -> None:
    with path.open("w") as file:
        for number in range(len(trace)):
            row = {
                "timestamp": float(trace.arrival[number]) * 1e3,
                "input_length": int(trace.prompt[number]),
                "output_length": int(trace.output[number]),
                "hash_ids": [number],
            }
            file.write(json.dumps(row) + "\n")


class _Fleet(Scraper):
    """The other simulator's scaling policy, and a fleet for our views."""

    def __init__(
        self,
        trace: Trace,
        engine: EngineModel,
        policy: Policy,
        *,
        start_groups: int,
        floor: int,
        ceiling: int,
        settle: float,
    ) -> None:
        self.engine, self.interval, self.delay = engine, _SCRAPE, _SCRAPE
        self.fleet: Any = self
        self.groups: dict[int, Series] = {}
        self.frontend = Series(2)
        self.held = 0.0
        """Seconds of groups up to the trace's end."""
        self.actions = 0
        self._trace, self._policy = trace, policy
        self._prompts = np.concatenate([[0], np.cumsum(trace.prompt)])
        self._floor, self._ceiling, self._settle, self._first = floor, ceiling, settle, start_groups
        self._desired = start_groups
        self._lives: dict[Life, list[int]] = {Life.READY: [], Life.STARTING: [], Life.DRAINING: []}
        self._rows: dict[int, Floats] = {}
        self._owed: dict[int, float] = {}
        self._decisions = self._scrapes = 1

    # --- What a view asks of a fleet -------------------------------------------------------------

    def of(self, life: Life) -> Iterator[Group]:
        """Groups in a state."""
        return (Group(number, life, 0.0) for number in self._lives[life])

    # --- What the other simulator calls ----------------------------------------------------------

    def initial_tick_ms(self) -> float:
        """When it asks first."""
        return _TICK * 1e3

    def on_tick(self, told: dict[str, Any]) -> dict[str, Any]:
        """Every 2.5 s."""
        now = round(told["now_ms"] / 1e3, 3)
        self._lives = {
            Life.READY: list(told["active_decode_ids"]),
            Life.STARTING: list(told["starting_decode_ids"]),
            Life.DRAINING: list(told["draining_decode_ids"]),
        }
        if now <= self._trace.duration:
            self.held += _TICK * sum(map(len, self._lives.values()))
        self._steps(told["decode_fpm_snapshots"])
        if now >= self._scrapes * _SCRAPE:
            self._scrapes = math.floor(now / _SCRAPE) + 1
            self.scrape(now)
        wanted = None
        if now >= self._decisions * self._policy.interval and now < self._trace.duration:
            self._decisions = math.floor(now / self._policy.interval) + 1
            wanted = self._decide(now)
        return {"target_prefill": None, "target_decode": wanted, "next_tick_ms": (now + _TICK) * 1e3}

    def listen(self, told: dict[str, Any]) -> None:
        """Once a second: gauges, and the requests that ended."""
        for row in self._rows.values():
            row[: len(GAUGES)] = 0.0
        ranks: dict[int, int] = {}
        for rank in told["decode_scheduler_metrics"]:
            number = rank["worker_id"]
            row = self._row(number)
            running, use = rank["running_requests"], rank["active_cache_usage"]
            row[0] += running
            row[1] += rank["waiting_requests"]
            row[2] += use / self.engine.ranks
            row[3] = max(row[3], use)
            row[4] = max(row[4], running)
            row[5] += 1
            ranks[number] = ranks.get(number, 0) + running
        traffic = told["traffic"]
        for _ in range(traffic["completed_requests"]):
            row = self._row(self._next(ranks))
            row[_COUNTER["finished"]] += 1
            row[_COUNTER["finished_prompt_tokens"]] += traffic["avg_isl"]
            row[_COUNTER["finished_output_tokens"]] += traffic["avg_osl"]
            row[_COUNTER["prompt_tokens"]] += traffic["avg_isl"]
            row[_COUNTER["output_tokens"]] += 1
            self._observe(row, "ttft", traffic["avg_ttft_ms"] / 1e3, 1)
            self._observe(row, "tpot", traffic["avg_itl_ms"] / 1e3, 1)

    # --- Samples ---------------------------------------------------------------------------------

    def scrape(self, time: float) -> None:
        """A sample of every group that serves, and of the gateway."""
        for life in (Life.READY, Life.DRAINING):
            for number in self._lives[life]:
                self.groups.setdefault(number, Series(_WIDTH)).append(time, self._row(number))
        arrived = int(np.searchsorted(self._trace.arrival, time, "left"))
        self.frontend.append(time, np.array([arrived, self._prompts[arrived]], dtype=np.float64))

    def _row(self, number: int) -> Floats:
        if number not in self._rows:
            self._rows[number] = np.zeros(_WIDTH)
            self._rows[number][5] = self.engine.ranks
        return self._rows[number]

    def _steps(self, told: list[dict[str, Any]]) -> None:
        of_group: dict[int, tuple[float, int]] = {}
        for rank in told:
            longest, decode = of_group.get(rank["worker_id"], (0.0, 0))
            of_group[rank["worker_id"]] = (
                max(longest, rank["wall_time"]),
                decode + rank["num_decode_requests"],
            )
        for number, (seconds, decode) in of_group.items():
            if seconds <= 0 or decode == 0:
                continue
            row, tokens = self._row(number), decode * _TICK / seconds
            row[_COUNTER["output_tokens"]] += tokens
            row[_COUNTER["gaps"]] += tokens
            row[_COUNTER["gap_microseconds"]] += decode * _TICK * 1e6
            self._observe(row, "itl", seconds, tokens)

    def _observe(self, row: Floats, name: str, value: float, count: float) -> None:
        row[_HISTOGRAM[name] + int(np.searchsorted(BOUNDS[name], value, "left"))] += count

    def _next(self, running: dict[int, int]) -> int:
        """The group whose turn it is: in the long run each has its share."""
        whole = sum(running.values())
        if not whole:
            return next(iter(running or self._rows))
        for number in list(self._owed):
            if number not in running:
                del self._owed[number]
        for number, count in running.items():
            self._owed[number] = self._owed.get(number, 0.0) + count / whole
        chosen = max(self._owed, key=lambda number: self._owed[number])
        self._owed[chosen] -= 1.0
        return chosen

    # --- Decisions -------------------------------------------------------------------------------

    def _decide(self, now: float) -> int:
        least = self._floor if now >= self._settle else self._first
        state = FleetState(
            self._desired,
            len(self._lives[Life.READY]),
            len(self._lives[Life.STARTING]),
            len(self._lives[Life.DRAINING]),
            least,
            self._ceiling,
        )
        view: Any = View(self, now)
        wanted = min(max(self._policy.desired(view, state, now), least), self._ceiling)
        self.actions += wanted != self._desired
        self._desired = wanted
        return wanted
