"""What `kubectl moe autoscaler explain` prints. Pure: values in, text of at most 100 columns out."""

from collections.abc import Iterator

from moe_operator.api import reasons
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.scaling import LearnedStatus, ScalingChange, ScalingFigures
from moe_operator.api.times import parse_time
from moe_operator.autoscaler.budget import ALLOWED
from moe_operator.autoscaler.decide import SCARCE
from moe_operator.catalog.saturation import Resource
from moe_operator.cli.lines import WIDTH, When, field, section, wrapped
from moe_operator.cli.scaling_explanation import Explanation
from moe_operator.cli.spec_changes import cut
from moe_operator.cli.tables import table
from moe_operator.cli.units import count


def explanation_text(found: Explanation, *, absolute: bool = False) -> str:
    """`absolute`: times as they are and not as ages."""
    when = When(found.now, absolute)
    scaling = found.scaling
    parts = ["\n".join(_header(found, when))]
    if scaling is not None:
        now = [] if scaling.figures is None else list(_now(scaling.figures, scaling.desired))
        parts.append(section("NOW", now or [field("", _unmeasured(found))]))
        parts.append(section("HELD BACK", [field(hold.by, hold.text) for hold in found.holds]))
        if scaling.learned is not None:
            since = when.since(scaling.learned.time).strip(" ()")
            parts.append(
                section(f"LEARNED ({since})" if since else "LEARNED", list(_learned(scaling.learned)))
            )
        parts.append(_changes(scaling.history, when))
    return "\n\n".join(part for part in parts if part)


def _header(found: Explanation, when: When) -> Iterator[str]:
    deployment, scaling = found.deployment, found.scaling
    spec, groups = deployment.spec, deployment.status.groups
    yield cut(f"{deployment.namespace}/{deployment.name}: {spec.model.name}", WIDTH)
    most = f" to {found.ceiling}" if found.ceiling != found.floor else ""
    first, later = found.objective
    yield field(
        "mode",
        f"{spec.scaling.mode.value}, {found.floor}{most} groups; {first:g} s to the first token,"
        f" {later * 1000:g} ms per output token",
    )
    if scaling is None:
        yield field(
            "wanted", "not known: the operator has not decided yet; does it run, and serve this namespace?"
        )
        return
    changed = parse_time(scaling.last_change_time)
    since = (
        ""
        if changed is None
        else f" since {when.age(changed)}"
        if when.absolute
        else f" for {when.age(changed)}"
    )
    yield field("wanted", f"{count(scaling.desired, 'group')}{since}: {scaling.reason}: {scaling.message}")
    if scaling.advised is not None:
        yield field("advised", f"{count(scaling.advised, 'group')}, by what Auto would do")
    reason = reasons.describe(scaling.reason)
    if reason is not None and reason.remedy:
        yield field("to do", reason.remedy.replace("`", ""))
    if scaling.floor is not None:
        yield field("asked for", scaling.floor.message)
    if scaling.ignored is not None:
        yield field("ignored", scaling.ignored)
    yield field(
        "there", f"{groups.ready} serve, {groups.current - groups.ready} more start, {groups.draining} drain"
    )


def _unmeasured(found: Explanation) -> str:
    scaling = found.scaling
    reason = scaling.reason if scaling is not None else None
    if reason == ScalingReason.IDLE:
        return "there is no group to measure"
    if found.floor == found.ceiling or reason == ScalingReason.LIMITS_LEAVE_ONE:
        return f"the limits leave {found.ceiling} as the only number: nothing is measured for it"
    return "nothing is measured yet"


def _now(figures: ScalingFigures, desired: int) -> Iterator[str]:
    by = SCARCE.get(Resource(figures.resource)) if figures.resource in set(Resource) else None
    waits = f"; {figures.waiting} wait" if figures.waiting else ""
    yield field(
        "load",
        f"{figures.load} full groups{f', by {by}' if by else ''}; {figures.arrivals} requests/s come{waits}",
    )
    yield field(
        "forecast",
        f"{figures.forecast} full groups ({figures.forecaster}) in {figures.lead_seconds} s, when a group that is"
        " ordered now would serve",
    )
    yield field(
        "late then",
        f"{figures.late_percent} % of requests with {count(desired, 'group')}, {figures.late_percent_then} % with"
        f" {figures.worth_having}, which {'is' if figures.worth_having == 1 else 'are'} worth having",
    )
    yield field(
        "enough",
        f"{count(figures.enough, 'group')}, even for the most that is expected until another could be had",
    )
    yield field("worth", f"{figures.worth} groups are paid for rather than have all requests of one late")


def _learned(learned: LearnedStatus) -> Iterator[str]:
    if learned.idle_step_microseconds is not None:
        yield field(
            "idle step",
            f"{learned.idle_step_microseconds / 1000:.1f} ms for a step of an engine without load",
        )
    if learned.request_milliseconds is not None:
        yield field("a request", f"takes a whole group for {learned.request_milliseconds / 1000:.3g} s")
    if learned.cold_start_seconds is not None:
        seen = (
            f"of {count(learned.cold_starts, 'start')} seen" if learned.cold_starts else "none was seen yet"
        )
        yield field("cold start", f"{learned.cold_start_seconds} s to count with, {seen}")
    if learned.late_percent is not None:
        yield field(
            "late", f"{learned.late_percent} % of requests over the last hours; {ALLOWED * 100:g} % may be"
        )


def _changes(history: list[ScalingChange], when: When) -> str:
    """The newest last, as `status` has its events."""
    if not history:
        return "CHANGES\n  none yet"
    header = ["TIME", "GROUPS", "REASON", "LOAD", "FORECAST", "LEAD", "LATE %", "WORTH"]
    rows = []
    for change in history:
        at, figures = parse_time(change.time), change.figures
        row = ["?" if at is None else when.cell(at), f"{change.before} -> {change.after}", change.reason]
        if figures is None:
            row += ["-"] * 5
        else:
            row += [
                figures.load,
                f"{figures.forecast} {figures.forecaster}",
                f"{figures.lead_seconds}s",
                f"{figures.late_percent} -> {figures.late_percent_then}",
                figures.worth,
            ]
        rows.append(row)
    lines = [cut(line, WIDTH) for line in table(header, rows).splitlines()]
    said = [
        wrapped(f"  {change.before} -> {change.after}: ", change.message)
        for change in history
        if change.message
    ]
    return "\n".join(["CHANGES", *lines, *said])
