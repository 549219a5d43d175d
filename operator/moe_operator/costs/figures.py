"""Ratios of a span of time, and the comparison with an API's price.

How cost is split between input and output: a group spends its time on computing prompts and on generating, and both are
paid for by the time that they take. What a prompt token takes of the group's time, in output tokens, is the plan's own
estimate (`Split`); what was found in a cache took none. The two prices follow from the tokens that were counted, so
that together they are all of the cost, idle and starting GPUs included.
"""

from dataclasses import dataclass

from moe_operator.api.cost import (
    ApiPriceSpec,
    ComparisonStatus,
    CostFigures,
    GpuHours,
    RequestCounts,
    TokenCounts,
)
from moe_operator.api.times import format_time
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.amounts import amount, four_digits, hours
from moe_operator.costs.holdings import GpuState
from moe_operator.costs.marks import DAY
from moe_operator.planner.plan import Sizing

_MILLION = 1e6
#: Share of the GPU-seconds for which energy must have been told. A pod's first seconds never are, nor its last.
_METERED = 0.95


@dataclass(frozen=True)
class Split:
    """What an input token takes of a group's time, in output tokens."""

    input_weight: float

    @classmethod
    def of(cls, sizing: Sizing | None) -> "Split | None":
        """At the plan's working point: prompts take so much of the time for so many tokens, output the rest. None where
        the plan does not say."""
        if sizing is None or not 0 < sizing.prompt_time_permille < 1000:
            return None
        if not sizing.prompt_tokens_per_second or not sizing.output_tokens_per_second:
            return None
        prompt = sizing.prompt_time_permille / sizing.prompt_tokens_per_second
        output = (1000 - sizing.prompt_time_permille) / sizing.output_tokens_per_second
        return cls(prompt / output)


def per_million(span: Accounts) -> float | None:
    """All of the cost over all tokens; None without a price or a token."""
    tokens = span.count("input") + span.count("output")
    return span.total_money / tokens * _MILLION if tokens > 0 and priced(span) else None


def priced(span: Accounts) -> bool:
    """Whether what GPUs cost is known, at least in part; of no GPUs it is."""
    return span.unpriced < span.total_seconds or not span.total_seconds


def kwh(span: Accounts) -> float | None:
    """Energy that GPUs took; None where it was told for clearly less than all of the time in which they were held."""
    if span.metered <= 0 or span.metered < _METERED * span.total_seconds:
        return None
    return span.joules / 3.6e6


def cost_figures(span: Accounts, since: float, split: Split | None) -> CostFigures:
    """Of a span of time that began at `since` (seconds since the epoch)."""
    known, cost = priced(span), span.total_money
    prompts, output = span.count("input"), span.count("output")
    ended = span.count("completed") + span.count("aborted") + span.count("failed")
    seconds = span.gpu_seconds

    def per(divisor: float, share: float = 1.0, unit: float = 1.0) -> str | None:
        return four_digits(cost * share / divisor * unit) if known and divisor > 0 else None

    apart = _share_of_output(span, split)
    energy = kwh(span)
    return CostFigures(
        since=format_time(since),
        gpu_hours=GpuHours(
            total=hours(span.total_seconds),
            starting=hours(seconds[GpuState.STARTING]),
            serving=hours(seconds[GpuState.SERVING]),
            idle=hours(seconds[GpuState.IDLE]),
            draining=hours(seconds[GpuState.DRAINING]),
        ),
        cost=amount(cost) if known else None,
        idle_cost=amount(span.money[GpuState.IDLE]) if known else None,
        tokens=TokenCounts(
            input=round(prompts), cached_input=round(span.count("cached_input")), output=round(output)
        ),
        requests=RequestCounts(
            completed=round(span.count("completed")),
            aborted=round(span.count("aborted")),
            failed=round(span.count("failed")),
            preempted=round(span.count("preempted")),
        ),
        per_million_tokens=per(prompts + output, unit=_MILLION),
        per_million_input_tokens=None if apart is None else per(prompts, 1 - apart, _MILLION),
        per_million_output_tokens=None if apart is None else per(output, apart, _MILLION),
        per_request=per(ended),
        per_completed_request=per(span.count("completed")),
        energy_kwh=None if energy is None else four_digits(energy),
        energy_kwh_per_million_tokens=None
        if energy is None or prompts + output <= 0
        else four_digits(energy / (prompts + output) * _MILLION),
        unpriced_gpu_hours=hours(span.unpriced) if span.unpriced > 1 else None,
    )


def _share_of_output(span: Accounts, split: Split | None) -> float | None:
    """Share of the cost that goes to output tokens; None where it is not known."""
    if split is None:
        return None
    computed = max(0.0, span.count("input") - span.count("cached_input"))
    work = span.count("output") + split.input_weight * computed
    return span.count("output") / work if work > 0 else None


def comparison(span: Accounts, seconds: float, api: ApiPriceSpec) -> ComparisonStatus | None:
    """With an API's price, of a span of so many seconds; None where there is nothing to compare."""
    tokens = span.count("input") + span.count("output")
    if not tokens or not priced(span) or seconds <= 0:
        return None
    price = float(api.input_per_million)
    cached_price = price if api.cached_input_per_million is None else float(api.cached_input_per_million)
    cached = span.count("cached_input")
    there = (
        max(0.0, span.count("input") - cached) * price
        + cached * cached_price
        + span.count("output") * float(api.output_per_million)
    ) / _MILLION
    if there <= 0:
        return None
    here = span.total_money
    return ComparisonStatus(
        api_cost=amount(there),
        saving=amount(there - here),
        saving_percent=round(100 * (there - here) / there),
        break_even_tokens_per_day=round(here / (there / tokens) * DAY / seconds),
    )
