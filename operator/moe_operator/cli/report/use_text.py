"""Uptime, use and cost, in a record's text. Pure."""

from collections.abc import Iterator

from moe_operator.cli.report.blocks import Block, Fields, Paragraph, Table
from moe_operator.cli.report.data import UNKNOWN, Source, UptimeRecord, Usage, UsageRecord
from moe_operator.cli.units import span


def uptime_blocks(found: UptimeRecord) -> Iterator[Block]:
    """How long it was Ready, with a table of outages."""
    rows = []
    if found.ready is not None:
        rows.append(("Ready now", f"{found.ready} since {found.since}"))
    if found.ready_percent is not None:
        down = span(found.known_seconds - found.ready_seconds)
        known = f"not for {down} of the {span(found.known_seconds)} that are known"
        rows.append(("Ready in the period", f"{percent(found)}: {known}"))
    rows.append(("Known from", found.message))
    yield Fields(tuple(rows))
    if found.outages:
        cells = tuple((one.begin, one.end, span(one.not_ready_seconds)) for one in found.outages)
        yield Table((f"Not Ready, in windows of {span(found.window_seconds or 0)} from", "to", "for"), cells)
    if found.outages_left_off:
        yield Paragraph(f"And {found.outages_left_off} further times.")


def percent(found: UptimeRecord) -> str:
    """`99.950 %` of the time that is known."""
    return UNKNOWN if found.ready_percent is None else f"{found.ready_percent:.3f} %"


def usage_blocks(found: UsageRecord) -> Iterator[Block]:
    """A table with a column for each span of time that has figures."""
    columns = (
        ("The period", found.period),
        ("In total", found.total),
        ("Last day", found.last_day),
        ("Last hour", found.last_hour),
    )
    shown = [(name, one) for name, one in columns if one is not None]
    if shown:
        rows: list[tuple[str, ...]] = [
            ("From", *(one.begin or UNKNOWN for _, one in shown)),
            ("To", *(one.end or UNKNOWN for _, one in shown)),
            ("Input tokens", *(_number(one.input_tokens) for _, one in shown)),
            ("of these cached", *(_number(one.cached_input_tokens) for _, one in shown)),
            ("Output tokens", *(_number(one.output_tokens) for _, one in shown)),
            ("Requests completed", *(_number(one.requests_completed) for _, one in shown)),
            ("Requests aborted", *(_number(one.requests_aborted) for _, one in shown)),
            ("Requests failed", *(_number(one.requests_failed) for _, one in shown)),
            ("GPU-hours", *(one.gpu_hours or UNKNOWN for _, one in shown)),
            *(
                (f"of these {state}", *(one.gpu_hours_by_state.get(state, UNKNOWN) for _, one in shown))
                for state in ("starting", "serving", "idle", "draining")
            ),
            ("of these without a price", *(one.unpriced_gpu_hours or "0" for _, one in shown)),
            ("Cost", *(money(one) for _, one in shown)),
        ]
        yield Table(("", *(name for name, _ in shown)), tuple(rows))
    facts = [("Price", found.price)] if found.price else []
    facts += [("Note", note) for note in found.notes]
    if found.source is not Source.NONE:
        facts.append(("Figures of the period from", source_text(found.source)))
    yield Fields(tuple(facts))


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def tokens(used: Usage) -> str:
    """`1,200 / 340`: input and output."""
    return f"{_number(used.input_tokens)} / {_number(used.output_tokens)}"


def money(used: Usage) -> str:
    """`12.50 EUR + 3.10 USD`."""
    return " + ".join(f"{value} {currency}" for currency, value in sorted(used.cost.items())) or UNKNOWN


def source_text(source: Source) -> str:
    """As a sentence names it."""
    return {Source.PROMETHEUS: "Prometheus", Source.STATUS: "the status", Source.NONE: "none"}[source]
