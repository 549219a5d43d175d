"""What a group takes of a mix of requests while they meet the time per output token: an estimate, for comparing widths.

With n requests at work in each rank a step computes n tokens of answers, and n x prompt / output tokens of prompts, as
each request leaves after `output` steps. Prompts come whole (or in chunks of a step's size) to single ranks, and all
ranks wait for the one that computes most: so what counts of prompts is the mean of the largest number among the ranks,
not the mean. That is what a wider group pays for its larger batch.

Ratios between layouts are closer to what is measured than the figures themselves: both leave out bursts.
"""

import math
from dataclasses import dataclass

from moe_operator.catalog.saturation import KV_LIMIT, Resource
from moe_operator.planner.step_times import StepTimes

#: Requests at work are found as closely as this.
_PRECISION = 1e-3
#: Prompts in one step of one rank beyond which further ones are not counted.
_MOST_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class RequestMix:
    """A usual request. Tokens."""

    prompt: float
    output: float
    cached: float = 0.0
    """Share of the prompt that is found in the cache."""

    @property
    def computed(self) -> float:
        """Prompt tokens that are computed."""
        return self.prompt * (1 - self.cached)

    @property
    def held(self) -> float:
        """Tokens in the KV cache while it is at work, on average."""
        return self.prompt + self.output / 2


@dataclass(frozen=True, slots=True)
class GroupSize:
    """What a group holds. All but `ranks` of one rank."""

    ranks: int
    slots: int
    batch_tokens: int
    """Tokens of a step."""
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class GroupCapacity:
    """Of one group."""

    requests_per_second: float
    sequences: float
    """Requests at work in each rank."""
    bound: Resource
    meets: bool
    """Whether a single request in each rank meets the objective."""


def group_capacity(
    size: GroupSize, times: StepTimes, mix: RequestMix, time_per_output_token: float
) -> GroupCapacity:
    """The most of this mix that a group takes. At least one request is at work in each rank, late or not; where the KV
    cache holds no whole one, as many as it does."""
    held = KV_LIMIT * size.kv_tokens / mix.held
    # Answers and prompts share a step.
    slots = min(size.slots, size.batch_tokens / (1 + mix.computed / mix.output))
    most, bound = (held, Resource.KV_CACHE) if held < slots else (slots, Resource.REQUEST_SLOTS)
    least = min(1.0, most)
    meets = step_seconds(size, times, mix, least) <= time_per_output_token
    if step_seconds(size, times, mix, most) > time_per_output_token:
        low, high = least, most
        while high - low > _PRECISION * high:
            middle = (low + high) / 2
            if step_seconds(size, times, mix, middle) <= time_per_output_token:
                low = middle
            else:
                high = middle
        most, bound = low, Resource.STEP_TIME
    rate = size.ranks * most / (mix.output * step_seconds(size, times, mix, most))
    return GroupCapacity(rate, most, bound, meets)


def step_seconds(size: GroupSize, times: StepTimes, mix: RequestMix, sequences: float) -> float:
    """Mean seconds of a step with so many requests at work in each rank."""
    chunk = min(mix.computed, size.batch_tokens)
    prompts = sequences * mix.computed / mix.output
    tokens = size.ranks * (sequences + prompts)
    worst = chunk * largest_of(size.ranks, prompts / chunk) if chunk > 0 else 0.0
    return times.seconds(tokens, sequences, min(worst, max(prompts, size.batch_tokens)), sequences * mix.held)


def largest_of(ranks: int, mean: float) -> float:
    """Mean of the largest of so many independent Poisson numbers of this mean."""
    if mean <= 0:
        return 0.0
    if mean > _MOST_PROMPTS / 2:
        return mean  # as many in each
    found, term, below = 0.0, math.exp(-mean), 0.0
    for count in range(_MOST_PROMPTS):
        below += term
        rest = 1 - below**ranks
        found += rest
        if rest < 1e-9:
            break
        term *= mean / (count + 1)
    return found
