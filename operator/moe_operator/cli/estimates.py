"""What a plan's estimated speed comes to: tokens per GPU, money per token, groups for a load. Pure arithmetic."""

import math
from dataclasses import dataclass

from moe_operator.catalog.profile import Price
from moe_operator.planner.plan import Plan
from moe_operator.planner.wants import Wants


@dataclass(frozen=True)
class Money:
    """At a price per GPU-hour, with the group as busy as the objective allows."""

    usd_per_gpu_hour: float
    source: str
    usd_per_million_output_tokens: float
    """All of the group's cost on the output."""
    usd_per_million_tokens: float
    """The same cost spread over prompt and output tokens alike."""


@dataclass(frozen=True)
class Fleet:
    """For so many requests per second on average, all day, without reserve."""

    requests_per_second: float
    requests_per_second_per_group: float
    groups: int
    gpus: int
    gpu_hours_per_day: int
    usd_per_day: float | None
    """None without a price."""


def money(plan: Plan, wants: Wants, price: Price | None) -> Money | None:
    """None where the catalogue has no price, or nothing is produced by estimate."""
    if plan.sizing is None or price is None or not plan.sizing.output_tokens_per_second:
        return None
    hourly = float(price.usd_per_gpu_hour) * plan.width
    output = hourly / (plan.sizing.output_tokens_per_second * 3600) * 1e6
    share = wants.output_tokens / (wants.input_tokens + wants.output_tokens)
    return Money(float(price.usd_per_gpu_hour), price.source, output, output * share)


def fleet(plan: Plan, wants: Wants, price: Price | None, requests_per_second: float) -> Fleet | None:
    """Groups that serve the load while each meets the objective; None for a plan that is not sized."""
    if plan.sizing is None or not plan.sizing.output_tokens_per_second:
        return None
    each = plan.sizing.output_tokens_per_second / wants.output_tokens
    groups = math.ceil(round(requests_per_second / each, 9))
    hours = groups * plan.width * 24
    return Fleet(
        requests_per_second=requests_per_second,
        requests_per_second_per_group=each,
        groups=groups,
        gpus=groups * plan.width,
        gpu_hours_per_day=hours,
        usd_per_day=hours * float(price.usd_per_gpu_hour) if price else None,
    )
