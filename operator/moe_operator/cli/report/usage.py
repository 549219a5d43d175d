"""What a deployment took and what that cost, for its record: by Prometheus and the accounts in its status. Pure."""

from moe_operator.api.cost import CostFigures, CostStatus
from moe_operator.api.times import format_time
from moe_operator.cli.report.data import Source, Usage, UsageRecord
from moe_operator.cli.report.figures import Recorded, taken
from moe_operator.cli.report.period import Span
from moe_operator.cli.report.subject import Subject, time_of


def usage_of(subject: Subject) -> UsageRecord:
    """The period's figures, and beside them what the accounts say."""
    cost = subject.status.cost
    found = _of_period(subject, cost)
    if cost is None:
        return found.model_copy(update={"notes": [*found.notes, "the operator has written no accounts"]})
    price = cost.price
    return found.model_copy(
        update={
            "total": _of_status(cost.total, cost),
            "last_day": _of_status(cost.last_day, cost),
            "last_hour": _of_status(cost.last_hour, cost),
            "price": price.message
            if price.per_gpu_hour is None
            else f"{price.per_gpu_hour} {cost.currency} per GPU-hour ({price.message})",
        }
    )


def _of_period(subject: Subject, cost: CostStatus | None) -> UsageRecord:
    span, since = subject.span, time_of(cost.since) if cost else None
    if subject.recorded is not None:
        made = subject.made
        found = recorded_usage(subject.recorded, span, since, made)
        if made is None:
            found.notes.append("it has figures of a former ModelDeployment of this name too")
        return found
    if cost is None:
        return UsageRecord(source=Source.NONE)
    at = time_of(cost.time)
    if since is None or at is None or since < span.begin or at > span.end:
        return UsageRecord(
            source=Source.NONE,
            notes=[
                "the period's figures are not known without Prometheus: total, last day and last hour are not the"
                " period's"
            ],
        )
    return UsageRecord(
        source=Source.STATUS,
        period=_of_status(cost.total, cost),
        notes=["the accounts began in the period: their total is the period's, until they were written"],
    )


def recorded_usage(
    found: Recorded, span: Span, since: float | None = None, created: float | None = None
) -> UsageRecord:
    """`since`: when the accounts began. `created`: as in `recorded_uptime`."""
    counted = taken(found, span, since)
    notes = []
    if counted.usage is None:
        notes.append(
            "Prometheus has no accounts of it in the period: was the operator scraped, with honorLabels?"
        )
    else:
        if counted.first is not None and counted.first > max(span.begin, created or 0.0) + found.step:
            notes.append(f"Prometheus has nothing of before {format_time(counted.first)}")
        if counted.last is not None and counted.last < span.end - 2 * found.step:
            notes.append(f"Prometheus has nothing of after {format_time(counted.last)}")
        if counted.falls:
            notes.append(
                f"an account fell {counted.falls} times: an operator ended without its last write, or the accounts"
                f" began anew; of these {round(found.step)} s windows only what is certain is counted"
            )
    return UsageRecord(source=Source.PROMETHEUS, period=counted.usage, notes=notes)


def _of_status(figures: CostFigures, accounts: CostStatus) -> Usage:
    held, tokens, requests = figures.gpu_hours, figures.tokens, figures.requests
    states = {
        "starting": held.starting,
        "serving": held.serving,
        "idle": held.idle,
        "draining": held.draining,
    }
    return Usage(
        begin=figures.since,
        end=accounts.time,
        input_tokens=tokens.input,
        cached_input_tokens=tokens.cached_input,
        output_tokens=tokens.output,
        requests_completed=requests.completed,
        requests_aborted=requests.aborted,
        requests_failed=requests.failed,
        gpu_hours=held.total,
        gpu_hours_by_state=states,
        unpriced_gpu_hours=figures.unpriced_gpu_hours,
        cost={} if figures.cost is None else {accounts.currency: figures.cost},
    )
