"""The rows of `kubectl moe top`, from the deployments' status and the operator's figures. Pure.

With the operator's page live figures come from there alone: what it does not know is unknown, and not what the status
said earlier. Without it deployments have what their status says.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from types import MappingProxyType

from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.figures import DeploymentFigures, Figures, FiguresPage, Quantiles
from moe_operator.api.hbm import HbmStatus
from moe_operator.api.status import ModelDeploymentStatus, PercentilesStatus

_MIB = 2**20
_DIGITS = re.compile(r"([0-9]+)")


class View(StrEnum):
    """What a row is about."""

    DEPLOYMENTS = "deployments"
    GROUPS = "groups"
    RANKS = "ranks"


@dataclass(frozen=True)
class Look:
    """What was read at one time."""

    deployments: tuple[ModelDeployment, ...]
    page: FiguresPage | None
    missing: str | None
    """Why there is no page, and what to do."""
    taken_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Row:
    """One deployment, group or rank. None: not known, or not of this view."""

    namespace: str
    deployment: str
    figures: Figures
    first_token_objective: float | None = None
    """Seconds."""
    output_token_objective: float | None = None
    """Seconds."""
    ready: int | None = None
    """Groups."""
    desired: int | None = None
    """Groups."""
    width: int | None = None
    """GPUs of a group."""
    per_million_tokens: str | None = None
    """A decimal, in `currency`."""
    currency: str | None = None
    group: str | None = None
    state: str | None = None
    ranks: int | None = None
    """That the group told of."""
    rank: int | None = None
    pod: str | None = None
    node: str | None = None

    @property
    def name(self) -> str:
        """Of the group, else of the deployment."""
        return self.group or self.deployment


def rows(look: Look, view: View) -> list[Row]:
    """In the order of their names. Groups and ranks only of deployments that the reader may list."""
    told = {(one.namespace, one.name): one for one in look.page.deployments} if look.page else {}
    found: list[Row] = []
    for deployment in look.deployments:
        figures = told.get(deployment.key)
        if view is View.DEPLOYMENTS:
            found.append(_deployment(deployment, figures, live=look.page is not None))
        elif figures is not None:
            found += _groups(deployment, figures, view)
    return sorted(found, key=_by_name)


def _by_name(row: Row) -> tuple[str, str, list[tuple[bool, int, str]], int]:
    """`g2` before `g10`."""
    pieces = _DIGITS.split(row.name[:253])
    parts = [(i % 2 == 1, int(part) if i % 2 else 0, part) for i, part in enumerate(pieces)]
    return row.namespace, row.deployment, parts, -1 if row.rank is None else row.rank


def _deployment(deployment: ModelDeployment, told: DeploymentFigures | None, *, live: bool) -> Row:
    status, groups = deployment.status, deployment.status.groups
    figures = (told.figures if told else Figures()) if live else of_status(status)
    cost = status.cost
    written = status.observed_generation is not None
    first, output = _objective(deployment)
    return Row(
        deployment.namespace,
        deployment.name,
        figures,
        first,
        output,
        ready=groups.ready if written else None,
        desired=groups.desired if written else None,
        width=status.plan.width if status.plan else None,
        per_million_tokens=cost.per_million_tokens if cost else None,
        currency=cost.currency if cost and cost.per_million_tokens is not None else None,
    )


def _groups(deployment: ModelDeployment, told: DeploymentFigures, view: View) -> Iterator[Row]:
    first, output = _objective(deployment)
    for group in told.groups:
        base = Row(
            told.namespace,
            told.name,
            group.figures,
            first,
            output,
            group=group.name,
            state=group.state,
            ranks=len(group.ranks) or None,
        )
        if view is View.GROUPS:
            yield base
            continue
        for rank in group.ranks:
            yield replace(
                base, figures=rank.figures, ranks=None, rank=rank.rank, pod=rank.pod, node=rank.node
            )


def _objective(deployment: ModelDeployment) -> tuple[float | None, float | None]:
    objective = deployment.spec.objective
    first, output = objective.time_to_first_token, objective.time_per_output_token
    return (parse_duration(first) if first else None, parse_duration(output) if output else None)


def of_status(status: ModelDeploymentStatus) -> Figures:
    """What a status says of them. Its throughput is 0 too while nobody has read an engine: then it is not known."""
    rates = status.throughput
    prompt, output = rates.prompt_tokens_per_second, rates.output_tokens_per_second
    measured = bool(prompt or output or (status.scaling and status.scaling.figures))
    hbm, latency = status.hbm, status.latency
    return Figures(
        input_tokens_per_second=prompt if measured else None,
        output_tokens_per_second=output if measured else None,
        time_to_first_token_seconds=_quantiles(latency.time_to_first_token_milliseconds if latency else None),
        time_per_output_token_seconds=_quantiles(
            latency.time_per_output_token_milliseconds if latency else None
        ),
        kv_used_ratio=_kv_used(hbm),
        hbm_used_bytes=hbm.used_mib * _MIB if hbm else None,
        hbm_capacity_bytes=hbm.capacity_mib * _MIB if hbm else None,
        hbm_source=hbm.source if hbm else None,
    )


def _quantiles(told: PercentilesStatus | None) -> Quantiles | None:
    return None if told is None else Quantiles(**{name: _seconds(text) for name, text in told})


def _seconds(milliseconds: str | None) -> float | None:
    with suppress(ValueError):
        if milliseconds is not None and isfinite(found := float(milliseconds)) and found >= 0:
            return found / 1000
    return None


def _kv_used(hbm: HbmStatus | None) -> float | None:
    if hbm is None or hbm.kv_used_mib is None or hbm.kv_free_mib is None:
        return None
    whole = hbm.kv_used_mib + hbm.kv_free_mib
    return hbm.kv_used_mib / whole if whole > 0 else None


def _used(row: Row) -> float | None:
    used, capacity = row.figures.hbm_used_bytes, row.figures.hbm_capacity_bytes
    return used / capacity if used is not None and capacity else None


def _cost(row: Row) -> float | None:
    with suppress(ValueError):
        if row.per_million_tokens is not None and isfinite(amount := float(row.per_million_tokens)):
            return amount
    return None


def p95(latency: Quantiles | None) -> float | None:
    """Seconds."""
    return latency.p95 if latency else None


#: What rows may be sorted by, the largest first.
SORTS: Mapping[str, Callable[[Row], float | None]] = MappingProxyType(
    {
        "ready": lambda row: row.ready,
        "width": lambda row: row.width,
        "input": lambda row: row.figures.input_tokens_per_second,
        "output": lambda row: row.figures.output_tokens_per_second,
        "running": lambda row: row.figures.running,
        "waiting": lambda row: row.figures.waiting,
        "kv": lambda row: row.figures.kv_used_ratio,
        "hbm": _used,
        "ttft": lambda row: p95(row.figures.time_to_first_token_seconds),
        "tpot": lambda row: p95(row.figures.time_per_output_token_seconds),
        "imbalance": lambda row: row.figures.imbalance_ratio,
        "cost": _cost,
        "power": lambda row: row.figures.power_watts,
        "prefix": lambda row: row.figures.prefix_hit_ratio,
        "draft": lambda row: row.figures.draft_acceptance_ratio,
        "preemptions": lambda row: row.figures.preemptions_per_minute,
    }
)


def ordered(found: Sequence[Row], column: str | None) -> list[Row]:
    """By a key of `SORTS`, the largest first and the unknown last; by anything else as they are."""
    value = SORTS.get(column or "")
    if value is None:
        return list(found)

    def key(row: Row) -> tuple[bool, float]:
        figure = value(row)
        return figure is None, -(figure or 0.0)

    return sorted(found, key=key)
