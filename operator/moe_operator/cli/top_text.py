"""What `kubectl moe top` prints of rows: which columns, and how figures are written. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moe_operator.api.figures import Quantiles
from moe_operator.api.hbm import HbmSource
from moe_operator.api.times import format_time, read_rfc3339
from moe_operator.cli.fitting import Line, Piece, Shape, Style, clean, cut_line, table_lines
from moe_operator.cli.top_rows import Look, Row, View, p95
from moe_operator.cli.units import GIB, count, span

UNKNOWN = "-"
#: Used shares of a KV cache from which on requests soon wait for it, or lose theirs.
_KV_WARNING, _KV_ALARM = 0.9, 0.98
#: From here on ranks wait for the busiest one a third of the time, on average.
_UNEVEN = 1.5
#: Seconds beyond the figures' window from which on their age is said.
_OLD = 60.0


@dataclass(frozen=True)
class Column:
    """One column."""

    shape: Shape
    cell: Callable[[Row], str]
    style: Callable[[Row], Style | None] = lambda _: None


# --- figures ----------------------------------------------------------------------------------------


def rate(value: float | None) -> str:
    """`7.5`, `640`, `41.2k`, `1.3M`."""
    if value is None:
        return UNKNOWN
    if value < 9.95:
        return f"{value:.1f}".removesuffix(".0")
    if value < 999.5:
        return f"{value:.0f}"
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if value < 999.5 * size:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 99.95 else f"{scaled:.0f}{unit}"
    return f"{value:.0e}"


def seconds(value: float | None) -> str:
    """`8.4ms`, `412ms`, `1.21s`, `75s`."""
    if value is None:
        return UNKNOWN
    if value < 0.9995:
        return f"{rate(value * 1e3)}ms"
    return f"{value:.2f}s" if value < 9.995 else f"{rate(value)}s"


def percent(ratio: float | None) -> str:
    """`71%`."""
    return UNKNOWN if ratio is None else f"{rate(round(ratio * 100))}%"


def watts(value: float | None) -> str:
    """`692W`, `18.4kW`."""
    return UNKNOWN if value is None else f"{rate(value)}W"


def _requests(row: Row) -> str:
    running, waiting = row.figures.running, row.figures.waiting
    return UNKNOWN if running is None and waiting is None else f"{rate(running)}/{rate(waiting)}"


def _hbm(row: Row) -> str:
    """`152/179Gi`, with `~` where it is estimated."""
    used, capacity = row.figures.hbm_used_bytes, row.figures.hbm_capacity_bytes
    if used is None:
        return UNKNOWN
    mark = "~" if row.figures.hbm_source is HbmSource.ESTIMATED else ""
    most = max(used, capacity or 0)
    size, unit = (GIB, "Gi") if most < 1e4 * GIB else (GIB * 1024, "Ti")
    written = [_sized(amount / size) if amount is not None else UNKNOWN for amount in (used, capacity)]
    return f"{mark}{'/'.join(written)}{unit}"


def _sized(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 99.95 else f"{amount:.1f}"


def _ready(row: Row) -> str:
    return UNKNOWN if row.ready is None else f"{row.ready}/{row.desired}"


def _cost(row: Row) -> str:
    if row.per_million_tokens is None:
        return UNKNOWN
    return row.per_million_tokens if row.currency == "USD" else f"{row.per_million_tokens} {row.currency}"


def _plain(value: object) -> str:
    return UNKNOWN if value is None or value == "" else str(value)


# --- what stands out --------------------------------------------------------------------------------


def _ready_style(row: Row) -> Style | None:
    if row.ready is None or row.desired is None or row.ready >= row.desired:
        return None
    return Style.ALARM if row.ready == 0 else Style.WARNING


def _state_style(row: Row) -> Style | None:
    if row.state in (None, "serving"):
        return None
    return Style.ALARM if row.state in ("broken", "suspect") else Style.WARNING


def _kv_style(row: Row) -> Style | None:
    used = row.figures.kv_used_ratio or 0.0
    return Style.ALARM if used >= _KV_ALARM else Style.WARNING if used >= _KV_WARNING else None


def _waiting_style(row: Row) -> Style | None:
    return Style.WARNING if (row.figures.waiting or 0.0) >= 1 else None


def _beyond(value: float | None, objective: float | None) -> Style | None:
    """95 of 100 need not be within an objective that is about the mean: worth a look, no alarm."""
    return Style.WARNING if value is not None and objective is not None and value > objective else None


def _uneven(row: Row) -> Style | None:
    return Style.WARNING if (row.figures.imbalance_ratio or 0.0) >= _UNEVEN else None


# --- columns ----------------------------------------------------------------------------------------


def _first(row: Row) -> Quantiles | None:
    return row.figures.time_to_first_token_seconds


def _output(row: Row) -> Quantiles | None:
    return row.figures.time_per_output_token_seconds


def _half(latency: Quantiles | None) -> float | None:
    return latency.p50 if latency else None


def _most(latency: Quantiles | None) -> float | None:
    return latency.p99 if latency else None


_NAMESPACE = Column(Shape("NAMESPACE", 0, name=True), lambda row: row.namespace)
_NAME = Column(Shape("NAME", 0, name=True), lambda row: row.name)
_READY = Column(Shape("READY", 0), _ready, _ready_style)
_STATE = Column(Shape("STATE", 0, left=True), lambda row: _plain(row.state), _state_style)
_RANK = Column(Shape("RANK", 0), lambda row: _plain(row.rank))
_WIDTH = Column(Shape("WIDTH", 9), lambda row: _plain(row.width))
_RANKS = Column(Shape("RANKS", 9), lambda row: _plain(row.ranks))
_IN = Column(Shape("IN TOK/S", 6), lambda row: rate(row.figures.input_tokens_per_second))
_OUT = Column(Shape("OUT TOK/S", 0), lambda row: rate(row.figures.output_tokens_per_second))
_RUN = Column(Shape("RUN/WAIT", 1), _requests, _waiting_style)
_KV = Column(Shape("KV", 2), lambda row: percent(row.figures.kv_used_ratio), _kv_style)
_HBM = Column(Shape("HBM", 5), _hbm)
_TTFT = Column(
    Shape("TTFT P95", 3),
    lambda row: seconds(p95(_first(row))),
    lambda row: _beyond(p95(_first(row)), row.first_token_objective),
)
_TPOT = Column(
    Shape("TPOT P95", 4),
    lambda row: seconds(p95(_output(row))),
    lambda row: _beyond(p95(_output(row)), row.output_token_objective),
)
_IMBALANCE = Column(
    Shape("IMB", 8),
    lambda row: UNKNOWN if row.figures.imbalance_ratio is None else f"{row.figures.imbalance_ratio:.2f}",
    _uneven,
)
_COST_COLUMN = Column(Shape("$/MTOK", 7), _cost)
_POWER = Column(Shape("POWER", 10), lambda row: watts(row.figures.power_watts))
_NODE = Column(Shape("NODE", 7, name=True), lambda row: _plain(row.node))
_POD = Column(Shape("POD", 19, name=True), lambda row: _plain(row.pod))
_WIDE = (
    Column(Shape("PREFIX", 11), lambda row: percent(row.figures.prefix_hit_ratio)),
    Column(Shape("DRAFT", 12), lambda row: percent(row.figures.draft_acceptance_ratio)),
    Column(Shape("PREEMPT/M", 13), lambda row: rate(row.figures.preemptions_per_minute)),
    Column(Shape("TTFT P50", 15), lambda row: seconds(_half(_first(row)))),
    Column(Shape("TTFT P99", 16), lambda row: seconds(_most(_first(row)))),
    Column(Shape("TPOT P50", 17), lambda row: seconds(_half(_output(row)))),
    Column(Shape("TPOT P99", 18), lambda row: seconds(_most(_output(row)))),
)
_LATENCIES = (_TTFT, _TPOT)
_COLUMNS = {
    View.DEPLOYMENTS: (
        *(_NAME, _READY, _WIDTH, _IN, _OUT, _RUN, _KV, _HBM),
        *(*_LATENCIES, _IMBALANCE, _COST_COLUMN, _POWER),
    ),
    View.GROUPS: (_NAME, _STATE, _RANKS, _IN, _OUT, _RUN, _KV, _HBM, *_LATENCIES, _IMBALANCE, _POWER),
    View.RANKS: (_NAME, _RANK, _IN, _OUT, _RUN, _KV, _HBM, *_LATENCIES, _POWER, _NODE),
}


def columns(view: View, *, namespaces: bool, wide: bool) -> tuple[Column, ...]:
    """From left to right. A column that stands aside in a view (a rank's node) is the last."""
    return (
        *((_NAMESPACE,) if namespaces else ()),
        *_COLUMNS[view],
        *(_WIDE if wide else ()),
        *((_POD,) if wide and view is View.RANKS else ()),
    )


def top_lines(
    shown: Sequence[Row],
    view: View,
    *,
    namespaces: bool = False,
    wide: bool = False,
    width: int | None = None,
) -> list[Line]:
    """The table, in at most `width` columns. Whatever names say, a terminal gets nothing but text."""
    chosen = columns(view, namespaces=namespaces, wide=wide)
    cells = [[Piece(clean(one.cell(row)), one.style(row)) for one in chosen] for row in shown]
    return table_lines([one.shape for one in chosen], cells, width)


def heading(look: Look, every: float, width: int | None) -> Line:
    """What stands above a table that is drawn again and again."""
    groups = [one.status.groups for one in look.deployments]
    ready, desired = sum(one.ready for one in groups), sum(one.desired for one in groups)
    said = (
        f"{format_time(look.taken_at)}  every {every:g} s  {count(len(look.deployments), 'deployment')}, "
        f"{ready}/{desired} groups ready"
    )
    return cut_line((Piece(said, Style.FAINT),), width)


def notes(look: Look) -> list[str]:
    """What a reader of the figures must know, a line each."""
    said = [clean(look.missing)] if look.missing else []
    if look.page is not None:
        age = look.taken_at - read_rfc3339(look.page.at)
        if age > (look.page.window_seconds or 0.0) + _OLD:
            said.append(f"the operator's figures are of {span(age)} ago")
    return said
