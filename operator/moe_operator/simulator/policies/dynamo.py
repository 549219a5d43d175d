"""Dynamo's planner for aggregated engines: a floor from the request rate, and one group up or down from load.

Source: the wheel ai-dynamo 1.6.1, dynamo/planner/core (load_scaling.py, throughput_scaling.py, state_machine.py)
and config/defaults.py.

Target `sla`: every 180 s the floor is the predicted request rate over the rate that one engine was fitted to
hold within both objectives, at most 8 away from the ready groups. Every 5 s: one more if *all* engines would give
the next request a TTFT (or ITL) beyond the objective; one fewer if on every engine n/(n-1) times its load fits
the KV cache, keeps the ITL below `sensitivity` of the objective and the TTFT's queued part below `sensitivity`
of what the request's own prefill leaves. Target `throughput` (the default of the planner's configuration) and
`latency`: static thresholds on the KV cache's use, queued prefill included, one up or down, no floor.

While groups drain nothing is decided. While groups start, nothing is added, but since 1.6 load that has gone may
cancel them. A group without figures, or one too many, holds everything ("worker count mismatch").

What the planner gets per forward pass is derived here from the scrapes of a group: the mean step between two
scrapes (running requests over tokens out), its uncached prefill tokens, KV cache use. The planner looks at the
worst rank of an engine, so the worst rank's KV cache use is taken; the queue is shared out evenly over the
ranks. Requests that wait after a preemption are not told apart.
Not here: the load predictors. The default is ARIMA over the 180 s counts; here the next interval is as the last
one (Dynamo's `constant`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from moe_operator.simulator.policies.baseline import Served, Tunable
from moe_operator.simulator.policies.dynamo_model import Step, StepModel, cached_share
from moe_operator.simulator.policies.readings import STALE_AFTER
from moe_operator.simulator.policy import FleetState, Samples, View

TUNABLE = Tunable(
    ("objective_share", "capacity_share"),
    tuple(
        (objective, capacity)
        for objective in (0.4, 0.6, 0.8, 1.0)
        for capacity in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    ),
    "the share of the objective that the planner is given, and of the fitted rate that it may use",
)
EASY_TUNABLE = Tunable(
    ("kv_up", "kv_down"),
    (
        (0.02, 0.01),
        (0.05, 0.025),
        (0.1, 0.05),
        (0.2, 0.1),
        (0.3, 0.15),
        (0.4, 0.1),
        (0.5, 0.3),
        (0.6, 0.4),
        (0.7, 0.4),
        (0.8, 0.5),
        (0.9, 0.6),
        (1.0, 0.6),
    ),
    "KV cache use that asks for one more (any engine) and allows one fewer (all engines)",
)


@dataclass(frozen=True)
class DynamoSettings:
    served: Served = field(default_factory=lambda: Served(ttft=0.5, tpot=0.05))
    """The objectives are the planner's defaults (500 ms, 50 ms); a benchmark gives its own."""
    target: Literal["sla", "easy"] = "sla"
    kv_up: float = 1.0
    """Target `easy`: the thresholds of `optimization_target: throughput`; `latency` has 0.4 and 0.1."""
    kv_down: float = 0.6
    load_interval: float = 5.0
    throughput_interval: float = 180.0
    sensitivity: float = 0.8
    """`load_scaling_down_sensitivity`, 0..1."""
    most_change: int = 8
    """`max_throughput_scaling_replicas`."""
    samples: int = 64
    least_samples: int = 5
    buckets: int = 16
    objective_share: float = 1.0
    """Not Dynamo's: objectives are multiplied by it, as a team would who gives it tighter ones."""
    capacity_share: float = 1.0
    """Not Dynamo's: the fitted rate of an engine is multiplied by it."""


@dataclass(frozen=True)
class EngineLoad:
    """The worst rank of one engine, tokens."""

    kv: float
    queued_prefill: float
    queued_kv: float = 0.0


@dataclass(frozen=True)
class Counts:
    """Groups as the planner counts them: `pending` start and nothing drains; `blocked`: something drains."""

    ready: int
    pending: int = 0
    blocked: bool = False


@dataclass
class Planner:
    """The decisions, apart from where their figures come from."""

    settings: DynamoSettings
    model: StepModel
    cached: float | None = None
    floor: int = 1
    least: int = 1
    """`min_endpoint`."""

    @property
    def ttft(self) -> float:
        return self.settings.served.ttft * self.settings.objective_share

    @property
    def itl(self) -> float:
        return self.settings.served.tpot * self.settings.objective_share

    def plan_floor(self, rate: float, isl: float, osl: float, ready: int) -> None:
        """Sets the floor for a rate (requests per second) of requests of a mean shape (tokens)."""
        served, wanted = self.settings.served, ready
        engine = served.ranks * self.model.best_rate(
            isl,
            osl,
            batched_tokens=served.batched_tokens,
            ttft=self.ttft,
            itl=self.itl,
            kv_tokens=served.kv_tokens,
            slots=served.slots,
            cached=self.cached,
        )
        if engine > 0:
            wanted = max(math.ceil(rate / (engine * self.settings.capacity_share)), self.least)
        change = self.settings.most_change
        self.floor = max(min(max(wanted, ready - change, 0), ready + change), self.least)

    def decide(self, loads: list[EngineLoad], counts: Counts) -> int | None:
        """Groups; None: no opinion, whatever was asked for last stays."""
        if not loads or counts.blocked or len(loads) != counts.ready:
            return None
        wanted = self._easy(loads, counts) if self.settings.target == "easy" else self._by_sla(loads, counts)
        if wanted is None or not counts.pending:
            return wanted
        # What starts is never taken for a rise that is still to be made, and only load that has gone cancels it.
        return wanted if wanted <= counts.ready else None

    def _easy(self, loads: list[EngineLoad], counts: Counts) -> int | None:
        ready, up, down = counts.ready, self.settings.kv_up, self.settings.kv_down
        uses = [
            (load.kv + load.queued_kv + load.queued_prefill) / self.settings.served.kv_tokens
            for load in loads
        ]
        if max(uses) > up:
            return max(ready + 1, self.least)
        if not ((ready > 1 or counts.pending) and max(uses) < down):
            return None
        fewer = max(ready - 1, self.least)
        if 0 < fewer < ready and max(uses) * ready / fewer >= up:
            return ready
        return fewer

    def _by_sla(self, loads: list[EngineLoad], counts: Counts) -> int | None:
        if not self.model.enough:
            return None
        ready = counts.ready
        prefill, decode = self._prefill(loads, counts), self._decode(loads, counts)
        refused = prefill.refused or decode.refused
        wanted = _combined(prefill.wanted, decode.wanted, ready)
        if counts.pending and wanted > ready:
            return None
        wanted = max(wanted, self.least, self.floor)
        cancels = (
            not refused
            and counts.pending > 0
            and prefill.wanted is not None
            and decode.wanted is not None
            and max(prefill.wanted, decode.wanted) <= ready
        )
        return None if wanted == ready and not cancels else wanted

    def _prefill(self, loads: list[EngineLoad], counts: Counts) -> "_Opinion":
        model, batched = self.model, self.settings.served.batched_tokens
        grown = _grown(counts)
        estimates, may, refused = [], counts.ready > 1 or counts.pending > 0, False
        for load in loads:
            first = model.next_ttft(load.queued_prefill, batched, int(load.kv), self.cached)
            if first is not None:
                estimates.append(first)
            if may:
                kv = int((load.kv + load.queued_kv) * grown)
                own = model.next_ttft(0.0, batched, kv, self.cached)
                then = model.next_ttft(load.queued_prefill * grown, batched, kv, self.cached)
                if own is None or then is None:
                    may = False
                elif (budget := (self.ttft - own) * self.settings.sensitivity) <= 0 or then - own >= budget:
                    may, refused = False, True
        return self._opinion(estimates, self.ttft, counts, may, refused)

    def _decode(self, loads: list[EngineLoad], counts: Counts) -> "_Opinion":
        model = self.model
        grown = _grown(counts)
        estimates, may, refused = [], counts.ready > 1 or counts.pending > 0, False
        for load in loads:
            itl = model.next_itl(load.kv, load.queued_kv)
            if itl is not None:
                estimates.append(itl)
            if may:
                kv = int((load.kv + load.queued_kv + load.queued_prefill) * grown)
                if kv >= self.settings.served.kv_tokens:
                    may, refused = False, True
                    continue
                then = model.next_itl(kv, 0.0)
                if then is None:
                    may = False
                elif then >= self.itl * self.settings.sensitivity:
                    may, refused = False, True
        return self._opinion(estimates, self.itl, counts, may, refused)

    def _opinion(
        self, estimates: list[float], objective: float, counts: Counts, may: bool, refused: bool
    ) -> "_Opinion":
        if estimates and all(estimate > objective for estimate in estimates):
            return _Opinion(counts.ready + 1)
        if estimates and may:
            return _Opinion(max(counts.ready - 1, self.least))
        return _Opinion(counts.ready, refused) if refused else _Opinion(None)


@dataclass(frozen=True)
class _Opinion:
    """Of the prefill or the decode side; None: nothing to say. `refused`: fewer would not be safe."""

    wanted: int | None
    refused: bool = False


def _combined(prefill: int | None, decode: int | None, ready: int) -> int:
    """Up if either side wants it, down only if both do; the decode side alone where prefill says nothing."""
    if prefill is not None and prefill > ready:
        return prefill
    if decode is not None and (decode > ready or prefill is None):
        return decode
    return ready if prefill is None or decode is None else max(prefill, decode)


def _grown(counts: Counts) -> float:
    return counts.ready / (counts.ready - 1) if counts.ready > 1 else 1.0


class Dynamo:
    undrain = False

    def __init__(self, settings: DynamoSettings | None = None) -> None:
        self.settings = settings or DynamoSettings()
        sla = self.settings.target == "sla"
        self.name = "dynamo-floor-load" if sla else "dynamo-static-thresholds"
        self.tunable: Tunable = TUNABLE if sla else EASY_TUNABLE
        self.interval = self.settings.load_interval
        model = StepModel(self.settings.samples, self.settings.least_samples, self.settings.buckets)
        self.planner = Planner(self.settings, model)
        self._seen: dict[int, float] = {}
        self._next: float | None = None
        self._isl = self._osl = 0.0

    def desired(self, view: View, fleet: FleetState, now: float) -> int:
        self.planner.least = max(fleet.floor, 1)
        if self.settings.target == "sla":
            self._learn(view)
            if self._next is None:
                self._next = now + self.settings.throughput_interval
            elif now >= self._next:
                self._next += self.settings.throughput_interval
                self._plan(view, fleet)
        moving = fleet.starting > 0 or fleet.draining > 0 or fleet.desired != fleet.ready
        pending = fleet.starting if fleet.draining == 0 else 0
        counts = Counts(fleet.ready, pending, moving and not pending)
        wanted = self.planner.decide(self._loads(view), counts)
        return fleet.desired if wanted is None else wanted

    def _plan(self, view: View, fleet: FleetState) -> None:
        seconds = self.settings.throughput_interval
        arrivals = view.frontend_increase("arrivals", seconds)
        if arrivals > 0:
            self._isl = view.frontend_increase("arrived_prompt_tokens", seconds) / arrivals
        finished = math.fsum(view.increase("finished", seconds).values())
        if finished > 0:
            self._osl = math.fsum(view.increase("finished_output_tokens", seconds).values()) / finished
        prompt = math.fsum(view.increase("prompt_tokens", seconds).values())
        if prompt > 0:
            self.planner.cached = math.fsum(view.increase("cached_prompt_tokens", seconds).values()) / prompt
        figures = (arrivals, self._isl, self._osl)
        if all(math.isfinite(figure) for figure in figures):
            self.planner.plan_floor(arrivals / seconds, self._isl, self._osl, fleet.ready)

    def _loads(self, view: View) -> list[EngineLoad]:
        kv, waiting = view.latest("kv_usage_worst"), view.latest("waiting")
        served = self.settings.served
        isl = self._prompt_length(view) if any(waiting.values()) else 0.0
        return [
            EngineLoad(kv[group] * served.kv_tokens, waiting[group] / served.ranks * isl)
            for group in sorted(view.groups())
            if math.isfinite(kv.get(group, math.nan)) and math.isfinite(waiting.get(group, math.nan))
        ]

    def _prompt_length(self, view: View) -> float:
        """Mean tokens of the prompts that arrive; the planner is told the queue's tokens by the engine."""
        arrivals = view.frontend_increase("arrivals", self.settings.throughput_interval)
        if not arrivals > 0:
            return self._isl
        return view.frontend_increase("arrived_prompt_tokens", self.settings.throughput_interval) / arrivals

    def _learn(self, view: View) -> None:
        names = ("output_tokens", "prompt_tokens", "cached_prompt_tokens", "running", "kv_usage")
        windows = {name: view.window(name, STALE_AFTER) for name in names}
        for group in sorted(windows["output_tokens"]):
            pairs = {name: _last_two(windows[name], group) for name in names}
            step = self._step(pairs, self._seen.get(group, -math.inf))
            if step is not None:
                self._seen[group] = pairs["output_tokens"][1][0]
                self.planner.model.add(step)

    def _step(self, pairs: dict[str, list[tuple[float, float]]], seen: float) -> Step | None:
        """The mean step of one rank between the last two scrapes; None without two, or where nothing ran."""
        cached = pairs.pop("cached_prompt_tokens")
        if any(len(pair) < 2 or not all(map(math.isfinite, sum(pair, ()))) for pair in pairs.values()):
            return None
        (before, tokens), (at, tokens_now) = pairs["output_tokens"]
        running = (pairs["running"][0][1] + pairs["running"][1][1]) / 2
        out = tokens_now - tokens
        uncached = _rise(pairs["prompt_tokens"]) - (_rise(cached) if len(cached) == 2 else 0.0)
        if at <= seen or at <= before or out <= 0 or running <= 0 or not uncached >= 0:
            return None
        served = self.settings.served
        seconds = (at - before) * running / out
        prefill = uncached / served.ranks * seconds / (at - before)
        use = (pairs["kv_usage"][0][1] + pairs["kv_usage"][1][1]) / 2
        length = self._isl * (1.0 - cached_share(self.planner.cached))
        return Step(
            prefill_tokens=prefill,
            prefill_requests=prefill / length if length > 0 else 0.0,
            decode_kv=use * served.kv_tokens,
            decode_requests=running / served.ranks,
            seconds=seconds,
        )


def _rise(pair: list[tuple[float, float]]) -> float:
    return pair[1][1] - pair[0][1]


def _last_two(window: Mapping[int, tuple[Samples, Samples]], group: int) -> list[tuple[float, float]]:
    if group not in window:
        return []
    times, values = window[group]
    return [(float(times[at]), float(values[at])) for at in range(max(0, len(times) - 2), len(times))]
