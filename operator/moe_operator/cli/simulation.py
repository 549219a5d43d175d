"""What `kubectl moe simulate` found: a trace served by each policy, and by what engine. Imports the simulator."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moe_operator.api.base import parse_duration
from moe_operator.api.spec import ScalingMode, ScalingSpec, WidthPolicy
from moe_operator.cli.errors import UsageError
from moe_operator.cli.plan_report import PlanReport
from moe_operator.cli.units import span
from moe_operator.simulator.candidates import OPERATOR, candidates
from moe_operator.simulator.capacity import Capacity, Floats, needed, sustained
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.hindsight import bound, starting_groups
from moe_operator.simulator.planned_engine import PlannedEngine, planned_engine
from moe_operator.simulator.result import Objective, Result
from moe_operator.simulator.run import simulate
from moe_operator.simulator.trace import Trace, TraceError, read_trace, scaled

BOUND = "clairvoyant"
#: Without `--policy`: ours if it is there, a fleet of the most groups, and llm-d's.
_USUAL = (OPERATOR, "static", "llm-d-slo-aware")
#: Seconds between points of the groups needed.
INTERVAL = 15.0
#: Seconds in which nothing is scaled in, as the trace begins with idle groups.
SETTLE = 600.0
#: What is simulated at most: days more of the same teach no policy anything, and a time in another unit, which is what
#: a longer trace usually is, would take all of the memory.
_MOST_SECONDS = 60 * 86400.0
_MOST_REQUESTS = 50_000_000


@dataclass(frozen=True)
class Served:
    """One policy's run."""

    name: str
    result: Result
    cost: float | None
    """US dollars; None without a price."""
    note: str = ""


@dataclass(frozen=True)
class Simulation:
    """All runs, of one trace on one engine."""

    report: PlanReport
    path: str
    trace: Trace
    scale: float
    engine: PlannedEngine
    objective: Objective
    capacity: Capacity | None
    """None where a group does not hold the objective however few requests it has."""
    need: Floats | None
    """Groups at full capacity, every INTERVAL seconds."""
    cold_start: float
    seed: int
    floor: int
    ceiling: int
    start: int
    price: float | None
    """US dollars per GPU-hour."""
    price_source: str
    served: tuple[Served, ...]
    warnings: tuple[str, ...]


def policy_names(asked: list[str] | None) -> tuple[str, ...]:
    """The policies' names, checked. Raises UsageError."""
    known = [*candidates(), BOUND]
    if not asked:
        return tuple(name for name in _USUAL if name in known)
    if asked == ["all"]:
        return tuple(known)
    for name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]}?" if close else ""
            raise UsageError(
                f"--policy {name}: there is no such policy; {advice or 'known are'} "
                + ("" if advice else ", ".join(known))
            )
    return tuple(dict.fromkeys(asked))


def simulation(
    report: PlanReport,
    path: str,
    names: tuple[str, ...],
    *,
    cold_start: float,
    seed: int,
    scale: float,
    least: int | None,
    most: int | None,
    start: int | None,
    tell: Callable[[str], None],
) -> Simulation:
    """Serve the trace by each policy. `tell` hears of progress. Raises UsageError, TraceError and OSError."""
    trace = read_trace(Path(path))
    _refuse_endless(trace, path, scale)
    if scale != 1:
        trace = scaled(trace, scale, seed)
    if not len(trace):
        raise TraceError(f"{path}: nothing is left of the trace at --scale {scale:g}")
    planned, objective = _engine(report), _objective(report)
    engine = planned.engine
    floor, ceiling, warnings = _limits(report, least, most)
    longest = int((trace.prompt + trace.output).max())
    if report.plan.sizing is not None and longest > report.plan.sizing.context_length:
        count = int(np.count_nonzero(trace.prompt + trace.output > report.plan.sizing.context_length))
        warnings.append(
            f"{count} of {len(trace)} requests are longer than the plan's context of "
            f"{report.plan.sizing.context_length} tokens (the longest has {longest}); the engine would refuse or cut "
            "them, and here they are served as far as the KV cache holds them"
        )
    if trace.duration < 2 * cold_start:
        warnings.append(
            f"the trace lasts {span(trace.duration)}, less than two cold starts: little of what scaling does is "
            "seen, and GPU time is counted to its end only"
        )
    if start is not None and not floor <= start <= ceiling:
        raise UsageError(f"--start-groups {start}: is not between {floor} and {ceiling} groups")
    tell("finding what a group sustains of this mix")
    capacity: Capacity | None = None
    need: Floats | None = None
    try:
        capacity = sustained(trace, engine, objective, seed=seed)
        need = needed(trace, engine, capacity, INTERVAL)
    except TraceError as error:
        warnings.append(str(error))
    if start is None:
        start = floor if need is None else starting_groups(need, INTERVAL, floor, ceiling)
    price = report.hardware.profile.price
    hourly = float(price.usd_per_gpu_hour) if price is not None else None
    served = []
    for name in names:
        tell(f"serving {len(trace)} requests by {name}")
        note = ""
        if name == BOUND:
            if need is None:
                warnings.append(f"{BOUND} was left out: without a capacity there is no schedule")
                continue
            best = bound(
                trace,
                engine,
                need,
                INTERVAL,
                cold_start=cold_start,
                seed=seed,
                floor=floor,
                ceiling=ceiling,
                objective=objective,
            )
            result = best.result
            note = f"knows the trace; groups used to {best.utilisation:.0%}" + (
                "" if best.held else ", and still below 99 %"
            )
        else:
            candidate = candidates()[name]
            settings = candidate.defaults(engine, objective)
            window = report.deployment.spec.scaling.scale_down.window
            if name == OPERATOR and window is not None:
                settings = replace(settings, window=parse_duration(window))
            result = simulate(
                trace,
                engine,
                candidate.make(settings, engine, objective),
                cold_start=cold_start,
                seed=seed,
                start_groups=ceiling if name == "static" else start,
                floor=floor,
                ceiling=ceiling,
                objective=objective,
                settle=SETTLE,
            )
            note = f"always {ceiling} groups" if name == "static" else ""
        served.append(Served(name, result, None if hourly is None else result.gpu_hours * hourly, note))
    return Simulation(
        report=report,
        path=path,
        trace=trace,
        scale=scale,
        engine=planned,
        objective=objective,
        capacity=capacity,
        need=need,
        cold_start=cold_start,
        seed=seed,
        floor=floor,
        ceiling=ceiling,
        start=start,
        price=hourly,
        price_source=price.source if price is not None else "",
        served=tuple(served),
        warnings=tuple(warnings),
    )


def _refuse_endless(trace: Trace, path: str, scale: float) -> None:
    if trace.duration > _MOST_SECONDS:
        raise UsageError(
            f"--trace {path}: covers {trace.duration / 86400:,.0f} days, and {_MOST_SECONDS / 86400:.0f} are simulated "
            "at most: is t_seconds in seconds, and not in milli-, micro- or nanoseconds? Divide it, or give a part "
            "of the trace"
        )
    if len(trace) * scale > _MOST_REQUESTS:
        raise UsageError(
            f"--scale {scale:g}: makes {len(trace) * scale:,.0f} requests of the trace's {len(trace):,}, and "
            f"{_MOST_REQUESTS:,} are simulated at most: give a smaller --scale, or a part of the trace"
        )


def _engine(report: PlanReport) -> PlannedEngine:
    if report.sizes is None:
        raise UsageError(
            f"spec.model.name: the catalogue has no model {report.deployment.spec.model.name!r}, so nothing is "
            "known of its speed: give its config.json with --config FILE"
        )
    try:
        return planned_engine(report.plan, report.sizes.sized, report.sizes.wants)
    except ValueError as error:
        raise UsageError(f"the plan cannot be simulated: {error}") from error


def _objective(report: PlanReport) -> Objective:
    """The spec's, or what is planned for where it says none."""
    assert report.sizes is not None
    return Objective(report.sizes.wants.time_to_first_token, report.sizes.wants.time_per_output_token)


def _limits(report: PlanReport, least: int | None, most: int | None) -> tuple[int, int, list[str]]:
    scaling = report.deployment.spec.scaling
    warnings = []
    floor = least if least is not None else max(1, scaling.min_groups)
    ceiling = most if most is not None else scaling.max_groups
    if ceiling is None:
        ceiling = max(floor, 1)
        warnings.append(
            f"spec.scaling.maxGroups is not set, so that there are always {ceiling}: set it, or give --max-groups N"
        )
    if ceiling < floor:
        raise UsageError(f"at least {floor} groups and at most {ceiling} do not go together")
    if scaling.mode is not ScalingMode.AUTO:
        warnings.append(f"spec.scaling.mode is {scaling.mode}: what is simulated is mode Auto")
    warnings.extend(_left_out(scaling, floor))
    return floor, ceiling, warnings


def _left_out(scaling: ScalingSpec, floor: int) -> Iterator[str]:
    """What of the spec would have other groups than those that are simulated."""
    if scaling.schedules:
        names = ", ".join(schedule.name for schedule in scaling.schedules)
        yield (
            f"spec.scaling.schedules ({names}) are left out, as a trace has no time of the day: --min-groups N shows "
            "the hours of one"
        )
    if scaling.scale_to_zero_after is not None:
        yield (
            f"spec.scaling.scaleToZeroAfter is left out: there are never fewer than {floor} here, also in "
            f"{scaling.scale_to_zero_after} without a request"
        )
    if scaling.width is WidthPolicy.AUTO:
        yield "spec.scaling.width is Auto, and left out: groups are as wide as the plan's at all times"


def layout(engine: EngineModel) -> str:
    """`8 ranks on 8 GPUs, 180 requests and 460,880 KV tokens a rank`."""
    return (
        f"{engine.ranks} ranks on {engine.gpus} GPUs, {engine.slots} requests and "
        f"{engine.kv_tokens:,} KV tokens a rank"
    )
