"""The engine model of a plan: measured step times where there are some for its model and layout, else the planner's.

What a group holds (ranks, requests, tokens of a step and of the KV cache) is the plan's own in both cases.
"""

from dataclasses import asdict, dataclass
from typing import Any

from moe_operator.planner.plan import Plan, Sizing
from moe_operator.planner.sizing import Sized
from moe_operator.planner.step_times import step_times
from moe_operator.planner.wants import Wants
from moe_operator.simulator.engine_model import BLOCK, EngineModel, engines


@dataclass(frozen=True)
class PlannedEngine:
    """An engine, and where its step times are from, for people."""

    engine: EngineModel
    measured: bool
    """Fitted to measurements of this model on this hardware in this layout."""
    source: str


def planned_engine(plan: Plan, sized: Sized, wants: Wants) -> PlannedEngine:
    """The engine of one group of the plan. Raises ValueError for a plan without sizes, and for one whose KV cache holds
    no block."""
    if plan.sizing is None:
        raise ValueError("a plan without sizes has no engine model")
    held = _held(plan, plan.sizing)
    for engine in engines().values():
        if _measured_for(engine, plan, plan.sizing):
            return PlannedEngine(
                engine.model_copy(update=held),
                True,
                f"step times of {engine.name}: {engine.source.partition(';')[0]}",
            )
    times = asdict(step_times(sized, wants))
    note = "; drafted tokens are not simulated" if plan.sizing.speculative_tokens else ""
    return PlannedEngine(
        EngineModel(name="planned", source="the planner's roofline", **held, **times),
        False,
        "step times of the planner's roofline, an estimate: there are no measurements of "
        f"{plan.sizing.model} in {plan.sizing.precision} as {plan.data} x {plan.tensor} {plan.accelerator}{note}",
    )


def _held(plan: Plan, sizing: Sizing) -> dict[str, Any]:
    tokens = sizing.kv_cache_tokens // plan.data
    if tokens < BLOCK:
        raise ValueError(f"a KV cache of {tokens} tokens a rank holds no block of {BLOCK}")
    return {
        "ranks": plan.data,
        "gpus": plan.width,
        "slots": min(sizing.max_sequences, sizing.max_batched_tokens),
        "batch_tokens": sizing.max_batched_tokens,
        "kv_tokens": tokens,
        "prefix_cache_share": 0.0 if sizing.prefix_caching is False else 1.0,
    }


def _measured_for(engine: EngineModel, plan: Plan, sizing: Sizing) -> bool:
    return (
        sizing.model in engine.models
        and (engine.accelerator, engine.precision) == (plan.accelerator, sizing.precision)
        and (engine.ranks, engine.gpus) == (plan.data, plan.width)
    )
