"""A simulation as data for scripts (`-o json`): camelCase, seconds, US dollars. What is not known is null."""

from typing import Any

import numpy as np

from moe_operator.cli.simulation import INTERVAL, Served, Simulation
from moe_operator.simulator import kernel
from moe_operator.simulator.fleet import Life
from moe_operator.simulator.result import Objective, Result


def simulation_data(found: Simulation) -> dict[str, Any]:
    """All of a simulation but the requests' own times."""
    trace, engine = found.trace, found.engine.engine
    return {
        "deployment": {
            "name": found.report.deployment.name,
            "namespace": found.report.deployment.namespace,
            "model": found.report.deployment.spec.model.name,
            "accelerator": found.report.plan.accelerator,
        },
        "trace": {
            "file": found.path,
            "scale": found.scale,
            "requests": len(trace),
            "seconds": rounded(trace.duration, 1),
            "requestsPerSecond": rounded(trace.rate),
            "meanPromptTokens": rounded(float(trace.prompt.mean()), 1),
            "meanOutputTokens": rounded(float(trace.output.mean()), 1),
            "cachedShareOfPrompts": rounded(float(trace.cached.sum() / trace.prompt.sum())),
        },
        "engine": {
            "measured": found.engine.measured,
            "source": found.engine.source,
            "ranks": engine.ranks,
            "gpus": engine.gpus,
            "requestsPerRank": engine.slots,
            "kvTokensPerRank": engine.kv_tokens,
            "batchTokensPerRank": engine.batch_tokens,
        },
        "objective": {
            "timeToFirstTokenSeconds": found.objective.ttft,
            "timePerOutputTokenSeconds": found.objective.tpot,
        },
        "group": None
        if found.capacity is None
        else {
            "sustainedRequestsPerSecond": rounded(found.capacity.rate),
            "sustainedOutputTokensPerSecond": rounded(found.capacity.rate * float(trace.output.mean()), 1),
        },
        "groups": {"min": found.floor, "max": found.ceiling, "start": found.start},
        "coldStartSeconds": found.cold_start,
        "seed": found.seed,
        "usdPerGpuHour": found.price,
        "priceSource": found.price_source or None,
        "policies": [_served(one) for one in found.served],
        "neededGroups": None
        if found.need is None
        else {"intervalSeconds": INTERVAL, "values": [rounded(float(value), 3) for value in found.need]},
        "warnings": list(found.warnings),
    }


def _served(one: Served) -> dict[str, Any]:
    result, line = one.result, one.result.timeline()
    return {
        "name": one.name,
        "note": one.note or None,
        "attainment": rounded(result.attainment(), 5),
        "tokenAttainment": rounded(result.token_attainment(), 5),
        "attainmentWithin2sAnd50ms": rounded(result.attainment(Objective(2.0, 0.05)), 5),
        "timeToFirstTokenSeconds": _quantiles(result.ttft),
        "timePerOutputTokenSeconds": _quantiles(result.tpot),
        "requests": {
            "finished": result.count(kernel.FINISHED),
            "cut": result.count(kernel.CUT),
            "rejected": result.count(kernel.REJECTED),
            "unfinished": result.count(kernel.IN_FLIGHT),
        },
        "preemptions": result.preemptions,
        "gpuHours": {
            "total": rounded(result.gpu_hours, 3),
            **{life.value: rounded(result.gpu_hours_of(life), 3) for life in Life},
            "cancelledBeforeReady": rounded(result.wasted_gpu_hours, 3),
        },
        "usd": rounded(one.cost, 2),
        "actions": [
            {"second": rounded(action.time, 1), "before": action.before, "after": action.after}
            for action in result.actions
        ],
        "reversals": result.reversals(),
        "byMinute": {
            name: [rounded(float(value), 4) for value in getattr(line, field)]
            for name, field in (
                ("ready", "ready"),
                ("starting", "starting"),
                ("draining", "draining"),
                ("waiting", "waiting"),
                ("attained", "attained"),
                ("timeToFirstTokenP99", "ttft_p99"),
            )
        },
    }


def _quantiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float | None]:
    names = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {name: rounded(quantile(values, q)) for name, q in names.items()}


def quantile(values: np.ndarray[Any, np.dtype[np.float64]], q: float) -> float | None:
    """Of those that are numbers; None without one."""
    seen = values[np.isfinite(values)]
    return float(np.quantile(seen, q)) if len(seen) else None


def rounded(value: float | None, digits: int = 4) -> float | None:
    """None for what JSON cannot hold."""
    return None if value is None or not np.isfinite(value) else round(value, digits)


def p99_first_token(result: Result) -> float | None:
    """Seconds."""
    return quantile(result.ttft, 0.99)
