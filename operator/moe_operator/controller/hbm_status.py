"""HBM as the status has it: rounded, and written only when it says something else. Pure."""

from collections.abc import Iterator

from moe_operator.api import reasons
from moe_operator.api.hbm import HbmSource, HbmStatus, WorstGpu
from moe_operator.api.times import format_time
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.width_news import News
from moe_operator.planner.memory import MIB

#: Figures are others than before when one moved by this share of the capacity.
_STEP = 0.01
#: The planner is off, by the share of a GPU; and no more below the second.
OFF_PLAN, ON_PLAN = 0.05, 0.04


def hbm_status(old: HbmStatus | None, figures: HbmFigures | None, now: float) -> HbmStatus | None:
    """`now`: seconds since the epoch."""
    if figures is None:
        return None
    split, worst = figures.split, figures.worst
    percent = round(100 * figures.share)
    active = figures.dram_active
    return HbmStatus(
        source=HbmSource.MEASURED if figures.is_measured else HbmSource.ESTIMATED,
        used_mib=figures.used // MIB,
        capacity_mib=figures.capacity // MIB,
        percent=percent,
        summary=f"{percent}%" if figures.is_measured else f"~{percent}%",
        gpus=len(figures.gpus),
        measured_gpus=figures.measured,
        weights_mib=None if split is None else split.weights // MIB,
        kv_used_mib=None if split is None else split.kv_used // MIB,
        kv_free_mib=None if split is None else split.kv_free // MIB,
        other_mib=None if split is None else split.other // MIB,
        bandwidth_percent=None if active is None else round(100 * active),
        worst=None
        if worst is None
        else WorstGpu(
            group=worst.group,
            pod=worst.pod,
            node=worst.node,
            rank=worst.rank,
            gpu=worst.gpu or None,
            percent=round(100 * worst.share),
        ),
        planner_error_percent=None if figures.error is None else f"{100 * figures.error:.1f}",
        off_plan_since=_off_plan(_said(old, figures), figures.error, now),
    )


def _said(old: HbmStatus | None, figures: HbmFigures | None) -> str | None:
    """Since when the planner is off, by what was said last: while nothing held memory the status did not say it."""
    if old is not None:
        return old.off_plan_since
    return figures.off_plan_before if figures is not None else None


def _off_plan(before: str | None, error: float | None, now: float) -> str | None:
    """What was said stands while nothing is measured, and until the planner is clearly right."""
    if error is None:
        return before
    off = abs(error) > (OFF_PLAN if before is None else ON_PLAN)
    return (before or format_time(now)) if off else None


def hbm_turned(old: HbmStatus | None, new: HbmStatus | None) -> bool:
    """Whether it is of another kind than before, which is no figure that moved: it is told at once."""
    if old is None or new is None:
        return old is not new
    return (old.source, old.gpus, old.off_plan_since is None) != (
        new.source,
        new.gpus,
        new.off_plan_since is None,
    )


def hbm_moved(old: HbmStatus | None, new: HbmStatus | None) -> bool:
    """Whether it is worth telling anew."""
    if old is None or new is None or hbm_turned(old, new):
        return old is not new
    if old.measured_gpus != new.measured_gpus:
        return True
    step = _STEP * max(old.capacity_mib, new.capacity_mib)
    pairs = (
        (old.used_mib, new.used_mib),
        (old.capacity_mib, new.capacity_mib),
        (old.kv_used_mib or 0, new.kv_used_mib or 0),
        (old.kv_free_mib or 0, new.kv_free_mib or 0),
        (old.other_mib or 0, new.other_mib or 0),
    )
    if any(abs(a - b) > step for a, b in pairs):
        return True
    percents = (
        (old.worst.percent if old.worst else 0, new.worst.percent if new.worst else 0),
        (_number(old.planner_error_percent), _number(new.planner_error_percent)),
    )
    return any(abs(a - b) > 100 * _STEP for a, b in percents)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0  # nobody's figure


def hbm_news(old: HbmStatus | None, new: HbmStatus | None, figures: HbmFigures | None) -> Iterator[News]:
    """What an Event tells, once, by two statuses in a row, and the `figures` that the newer is of."""
    if new is None or new.off_plan_since is None or _said(old, figures) is not None:
        return
    where = f", most on {new.worst.pod} (node {new.worst.node})" if new.worst else ""
    error = _number(new.planner_error_percent)
    text = (
        f"a GPU holds {abs(error):.1f} % of its memory {'more' if error > 0 else 'less'} than was planned for weights,"
        f" activations and buffers{where}"
    )
    yield "Warning", reasons.MEMORY_OFF_PLAN, text
