"""Figures of the moment, as the operator's page `/figures` tells them and `kubectl moe top` shows them.

A figure that is not known is absent: none is 0 for want of a reading.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from moe_operator.api.base import ApiModel
from moe_operator.api.hbm import HbmSource
from moe_operator.api.times import read_rfc3339

#: Path of the page, on the operator's metrics port. Queries `namespace` and `name` narrow it down.
PATH = "/figures"

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


def _time(text: str) -> str:
    read_rfc3339(text)
    return text


_Name = Annotated[str, Field(max_length=253)]


class Quantiles(ApiModel):
    """Of a latency, in seconds."""

    p50: _Number | None = None
    """Half of them are below."""
    p95: _Number | None = None
    """19 of 20 are below."""
    p99: _Number | None = None
    """99 of 100 are below."""


class Figures(ApiModel):
    """Of one deployment, group or rank."""

    input_tokens_per_second: _Number | None = None
    """Prompt tokens read."""
    output_tokens_per_second: _Number | None = None
    """Tokens generated."""
    running: _Number | None = None
    """Requests in the engines' batches."""
    waiting: _Number | None = None
    """Requests in the engines' queues."""
    kv_used_ratio: _Number | None = None
    """Of the KV cache. Of a deployment: of all ranks together; of a group: of its fullest rank."""
    prefix_hit_ratio: _Number | None = None
    """Of prompt tokens, those found in the prefix cache."""
    preemptions_per_minute: _Number | None = None
    """Requests that lost their KV cache to others."""
    draft_acceptance_ratio: _Number | None = None
    """Of drafted tokens, with speculative decoding."""
    time_to_first_token_seconds: Quantiles | None = None
    """From a request's arrival at the engine."""
    time_per_output_token_seconds: Quantiles | None = None
    """Between two tokens of a request."""
    imbalance_ratio: _Number | None = None
    """The busiest rank's tokens over the mean of the ranks: 1 is even."""
    hbm_used_bytes: _Count | None = None
    """Of GPU memory; a KV cache counts whole."""
    hbm_capacity_bytes: _Count | None = None
    """What processes may have of it."""
    hbm_source: HbmSource | None = None
    """Measured, or Estimated as soon as one GPU is."""
    power_watts: _Number | None = None
    """What the GPUs draw."""


class RankFigures(ApiModel):
    """One rank."""

    rank: _Count
    """Its number in the group."""
    pod: _Name | None = None
    """The pod that it runs in."""
    node: _Name | None = None
    """The pod's node."""
    figures: Figures = Figures()
    """Its own."""


class GroupFigures(ApiModel):
    """One group."""

    name: _Name
    """Name of its LeaderWorkerSet."""
    state: _Name | None = None
    """Where it is in its life, in lower case: `serving`."""
    figures: Figures = Figures()
    """Of its ranks together."""
    ranks: list[RankFigures] = Field(default_factory=list)
    """Its ranks."""


class DeploymentFigures(ApiModel):
    """One ModelDeployment."""

    namespace: _Name
    """Its namespace."""
    name: _Name
    """Its name."""
    figures: Figures = Figures()
    """Of its groups together."""
    groups: list[GroupFigures] = Field(default_factory=list)
    """Its groups."""


class FiguresPage(ApiModel):
    """The whole page."""

    at: Annotated[str, Field(max_length=64), AfterValidator(_time)]
    """When the figures were taken (RFC 3339)."""
    window_seconds: _Number | None = None
    """Over how long rates are."""
    latency_window_seconds: _Number | None = None
    """Over how long latencies are."""
    deployments: list[DeploymentFigures]
    """Those that were asked for."""
