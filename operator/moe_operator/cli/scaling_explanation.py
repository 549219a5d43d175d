"""Why a deployment has as many groups as it has: what its status tells of scaling, put together. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.spec import ScalingMode
from moe_operator.api.times import format_time, parse_time
from moe_operator.autoscaler.decide import Idle, ScalingInputs, ceiling_text, floor_text, limits
from moe_operator.autoscaler.deployment_inputs import inputs_of
from moe_operator.autoscaler.floor import Floor
from moe_operator.cli.units import count, span
from moe_operator.planner.wants import TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN


@dataclass(frozen=True)
class Hold:
    """What keeps the number of groups from what would be worth having."""

    by: str
    """`ceiling`, `floor`, `window`, `telemetry` or `GPUs`."""
    text: str


@dataclass(frozen=True)
class Explanation:
    """All that is known of it."""

    deployment: ModelDeployment
    floor: int
    ceiling: int
    holds: tuple[Hold, ...]
    now: float

    @property
    def scaling(self) -> ScalingStatus | None:
        return self.deployment.status.scaling

    @property
    def objective(self) -> tuple[float, float]:
        """Seconds to the first token, and per output token."""
        objective = self.deployment.spec.objective
        first, later = objective.time_to_first_token, objective.time_per_output_token
        return (
            parse_duration(first) if first else TIME_TO_FIRST_TOKEN,
            parse_duration(later) if later else TIME_PER_OUTPUT_TOKEN,
        )


def explanation(deployment: ModelDeployment, now: float) -> Explanation:
    """`now`: seconds since the epoch."""
    status = deployment.status
    inputs = inputs_of(deployment, _floor(status.scaling), _idle(deployment), serving=status.groups.ready)
    floor, ceiling = limits(inputs)
    holds = tuple(_holds(inputs, status.scaling, floor, ceiling, now)) if status.scaling else ()
    return Explanation(deployment, floor, ceiling, holds, now)


def _floor(scaling: ScalingStatus | None) -> Floor:
    """What keeps more groups than `minGroups`, as the operator saw it."""
    told = scaling.floor if scaling is not None else None
    return Floor() if told is None else Floor(groups=told.groups, text=told.message)


def _idle(deployment: ModelDeployment) -> Idle | None:
    """As if nobody had asked for long: the fewest groups are none then."""
    written = deployment.spec.scaling.scale_to_zero_after
    return None if written is None else Idle(parse_duration(written), written, quiet=math.inf)


def _holds(
    inputs: ScalingInputs, scaling: ScalingStatus, floor: int, ceiling: int, now: float
) -> Iterator[Hold]:
    figures = scaling.figures
    if figures is not None and inputs.mode is not ScalingMode.EXTERNAL:
        if figures.worth_having > ceiling:
            where = (
                f"scaling.{ceiling_text(inputs, ceiling)}"
                if inputs.max_groups is not None
                else f"scaling.maxGroups is not set, so Auto stays at {ceiling}"
            )
            late = f"{figures.late_percent_then} % of requests late, not {figures.late_percent} %"
            yield Hold("ceiling", f"{where}, and {figures.worth_having} are worth having: {late}")
        if figures.enough < floor <= scaling.desired:
            asks = floor_text(inputs)
            by = f": {asks}" if asks is not None else ""
            yield Hold("floor", f"{figures.enough} would do, and {count(floor, 'group')} are the fewest{by}")
        if figures.silent:
            yield Hold(
                "telemetry",
                f"{count(figures.silent, 'group')} without current figures: none goes meanwhile",
            )
        if (until := parse_time(figures.held_until)) is not None and until > now:
            yield Hold(
                "window",
                f"{figures.enough} would do, and groups go in {span(until - now)} ({format_time(until)[11:]}) if"
                " nothing changes",
            )
    if waiting := scaling.waiting:
        granted = "" if scaling.granted is None else f"{scaling.granted} of {scaling.desired} granted; "
        at = parse_time(waiting.since)
        since = "" if at is None else f", for {span(now - at)}"
        yield Hold("GPUs", f"{granted}{waiting.message} ({waiting.reason}{since})")


def explanation_data(found: Explanation) -> dict[str, Any]:
    """As `-o json` has it. Keys are stable; `scaling` is the status', without what is for the operator alone."""
    deployment, scaling = found.deployment, found.scaling
    told = None
    if scaling is not None:
        told = scaling.wire()
        if "learned" in told:
            told["learned"].pop("state", None)
    first, later = found.objective
    return {
        "namespace": deployment.namespace,
        "name": deployment.name,
        "mode": deployment.spec.scaling.mode.value,
        "fewestGroups": found.floor,
        "mostGroups": found.ceiling,
        "objective": {"secondsToFirstToken": first, "secondsPerOutputToken": later},
        "groups": deployment.status.groups.wire(),
        "scaling": told,
        "heldBack": [{"by": hold.by, "why": hold.text} for hold in found.holds],
    }
