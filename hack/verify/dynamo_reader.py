"""Run by a Python that has ai-dynamo's dependencies: reads cases as JSON from standard input, prints what Dynamo's own
planner makes of each. See `verify.autoscalers`. The first argument is the folder with the unpacked wheel.

The planner's native parts (its runtime, AISimulate) are stood in for: what decides is Python. Its engine model is its
own regression, asked as the planner asks AISimulate.
"""

# What is imported is in the peer's environment only.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any


def main() -> None:
    """Print one JSON list: an answer per case."""
    _stand_in(sys.argv[1])
    print(json.dumps([_answer(case) for case in json.load(sys.stdin)]))


def _stand_in(folder: str) -> None:
    sys.path.insert(0, folder)
    for name in ("aisimulate_core", "aisimulate_core.sdk", "dynamo.runtime", "dynamo.runtime.logging"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("ForwardPassPerfModelConfig", "RustForwardPassPerfModel"):
        setattr(sys.modules["aisimulate_core.sdk"], name, object)
    sys.modules["dynamo.runtime.logging"].configure_dynamo_logging = lambda: None  # type: ignore[attr-defined]
    # Its __init__ imports the connectors, and with them a Kubernetes client.
    package = types.ModuleType("dynamo.planner")
    package.__path__ = [f"{folder}/dynamo/planner"]
    sys.modules["dynamo.planner"] = package
    from dynamo.planner.core import state_machine

    state_machine.PlannerEnginePerfModel = Regression


class Regression:
    """The planner's regression of aggregated engines behind the questions that its decisions ask."""

    def __init__(self, *, worker_type: str, config: Any, capabilities: Any) -> None:
        from dynamo.planner.core.perf_model.agg import AggRegressionModel

        self.model = AggRegressionModel(
            config.max_num_fpm_samples, config.load_min_observations, config.fpm_sample_bucket_size
        )
        self.limits = capabilities

    def has_sufficient_data(self) -> bool:
        return bool(self.model.has_sufficient_data())

    @property
    def num_observations(self) -> int:
        return int(self.model.num_observations)

    @property
    def min_observations(self) -> int:
        return int(self.model.min_observations)

    def query_groups(self, stats: dict[Any, Any]) -> Iterator[tuple[str, list[Any]]]:
        for key in sorted(stats):
            yield str(key), [stats[key]]

    def estimate_queued_prefill_time(
        self,
        group: list[Any],
        *,
        max_num_batched_tokens: int,
        kv_hit_rate: float | None = None,
        queue_scale: float = 1.0,
        decode_scale: float = 1.0,
        include_queued_decode: bool = False,
    ) -> float | None:
        scheduled, queued = group[0].scheduled_requests, group[0].queued_requests
        kv = scheduled.sum_decode_kv_tokens
        if include_queued_decode:
            kv += queued.sum_decode_kv_tokens
        found: float | None = self.model.estimate_next_ttft(
            queued.sum_prefill_tokens * queue_scale,
            max_num_batched_tokens,
            int(kv * decode_scale),
            kv_hit_rate,
        )
        return found

    def estimate_scheduled_decode_itl(
        self,
        group: list[Any],
        *,
        decode_scale: float = 1.0,
        include_queued_decode: bool = True,
        include_queued_prefill_as_kv: bool = False,
    ) -> float | None:
        scheduled, queued = group[0].scheduled_requests, group[0].queued_requests
        kv = scheduled.sum_decode_kv_tokens
        if include_queued_decode:
            kv += queued.sum_decode_kv_tokens
        if include_queued_prefill_as_kv:
            kv += queued.sum_prefill_tokens
        found: float | None = self.model.estimate_next_itl(int(kv * decode_scale), 0)
        return found

    def find_engine_capacity_rps(
        self,
        *,
        isl: float,
        osl: float,
        ttft_sla_ms: float,
        itl_sla_ms: float,
        kv_hit_rate: float | None,
        accept_length: float,
    ) -> Any:
        rps, ttft, itl = self.model.find_best_engine_agg_rps(
            isl=isl,
            osl=osl,
            max_num_batched_tokens=self.limits.max_num_batched_tokens,
            ttft_sla=ttft_sla_ms,
            itl_sla=itl_sla_ms,
            max_kv_tokens=self.limits.max_kv_tokens,
            max_num_seqs=self.limits.max_num_seqs,
            kv_hit_rate=kv_hit_rate,
            accept_length=accept_length,
        )
        return SimpleNamespace(rps=rps, ttft_ms=ttft, itl_ms=itl, eligible=True)


def _answer(case: dict[str, Any]) -> dict[str, Any]:
    from dynamo.planner.config.planner_config import PlannerConfig
    from dynamo.planner.core.state_machine import PlannerScalingState
    from dynamo.planner.core.types import EngineCapabilities, WorkerCapabilities

    served = case["served"]
    limits = EngineCapabilities(
        max_num_batched_tokens=served["batched_tokens"],
        max_num_seqs=served["slots"],
        max_kv_tokens=served["kv_tokens"],
    )
    config = PlannerConfig(
        mode="agg",
        optimization_target="sla" if case["target"] == "sla" else "throughput",
        enable_load_scaling=True,
        enable_throughput_scaling=True,
        ttft_ms=served["ttft"] * 1e3,
        itl_ms=served["tpot"] * 1e3,
    )
    state = PlannerScalingState(config, WorkerCapabilities(decode=limits))
    regression = Regression(worker_type="aggregated", config=config, capabilities=limits)
    if case["target"] == "sla":
        state._agg_regression = regression
    for prefill, requests, kv, decoding, seconds in case["steps"]:
        scheduled = {
            "prefill_tokens": prefill,
            "prefill_requests": requests,
            "decode_kv": kv,
            "decode_requests": decoding,
        }
        regression.model.add_observation(_metrics(scheduled, {}, seconds))
    return {
        "answers": [_ask(regression.model, question, served) for question in case["questions"]],
        "decisions": [_decide(state, look) for look in case["looks"]],
    }


def _metrics(scheduled: dict[str, Any], queued: dict[str, Any], seconds: float) -> Any:
    from dynamo.common.forward_pass_metrics import (
        ForwardPassMetrics,
        QueuedRequestMetrics,
        ScheduledRequestMetrics,
    )

    return ForwardPassMetrics(
        wall_time=seconds,
        scheduled_requests=ScheduledRequestMetrics(
            num_prefill_requests=scheduled.get("prefill_requests", 0),
            sum_prefill_tokens=scheduled.get("prefill_tokens", 0),
            num_decode_requests=scheduled.get("decode_requests", 0),
            sum_decode_kv_tokens=scheduled["decode_kv"],
        ),
        queued_requests=QueuedRequestMetrics(
            sum_prefill_tokens=queued.get("queued_prefill", 0),
            sum_decode_kv_tokens=queued.get("queued_kv", 0),
        ),
    )


def _ask(model: Any, question: dict[str, Any], served: dict[str, Any]) -> dict[str, Any]:
    rate, _, _ = model.find_best_engine_agg_rps(
        isl=question["isl"],
        osl=question["osl"],
        max_num_batched_tokens=served["batched_tokens"],
        ttft_sla=served["ttft"] * 1e3,
        itl_sla=served["tpot"] * 1e3,
        max_kv_tokens=served["kv_tokens"],
        max_num_seqs=served["slots"],
        kv_hit_rate=question["cached"],
    )
    ttft = model.estimate_next_ttft(
        question["queued"], served["batched_tokens"], question["kv"], question["cached"]
    )
    return {
        "rate": _rounded(rate),
        "ttft": _rounded(ttft),
        "itl": _rounded(model.estimate_next_itl(question["kv"], 0)),
    }


def _rounded(value: float | None) -> float | None:
    return value if value is None or value == 0 else float(f"{value:.10g}")


def _decide(state: Any, look: dict[str, Any]) -> dict[str, Any]:
    from dynamo.planner.core.types import FpmObservations, TrafficObservation, WorkerCounts

    moving = look["blocked"] or look["pending"] > 0
    state.begin_tick()
    state.observe_worker_counts(
        WorkerCounts(
            ready_num_decode=look["ready"],
            expected_num_decode=look["ready"] + look["pending"],
            decode_scaling_in_progress=moving,
            pending_num_decode=0 if look["blocked"] else look["pending"],
        )
    )
    state._last_kv_hit_rate = look["cached"]
    if look["traffic"] is not None:
        traffic = TrafficObservation(duration_s=180, **look["traffic"])
        state.advance_throughput_from_prediction(
            traffic,
            predicted_num_req=traffic.num_req,
            predicted_isl=traffic.isl,
            predicted_osl=traffic.osl,
            predicted_kv_hit_rate=look["cached"],
        )
    loads = {
        (f"engine-{index}", 0): _metrics({"decode_kv": load["kv"]}, load, math.nan)
        for index, load in enumerate(look["loads"])
    }
    decision = state.advance_load(FpmObservations(decode=loads))
    return {
        "floor": state._throughput_lower_bound_d,
        "groups": None if decision is None else decision.num_decode,
    }


if __name__ == "__main__":
    main()
