"""What `kubectl moe status` prints of a picture. Pure: values in, text of at most 100 columns out."""

from collections.abc import Iterator, Sequence

from moe_operator.api import reasons
from moe_operator.api.status import ColdStartStatus, Condition, ProvenanceStatus, WeightsStatus
from moe_operator.api.times import parse_time
from moe_operator.cli.cost_text import cost_text
from moe_operator.cli.hbm_text import hbm_text
from moe_operator.cli.latency_text import latency_text
from moe_operator.cli.lines import WIDTH, When, field, item, section, wrapped
from moe_operator.cli.spec_changes import cut, one_line
from moe_operator.cli.status_picture import GroupLine, Picture, RevisionLine
from moe_operator.cli.tables import table
from moe_operator.cli.timeline import Entry
from moe_operator.cli.units import count, span
from moe_operator.controller.group_planner import GroupState
from moe_operator.planner.governance import places

#: Columns between two cells of a table.
_GAP = 3
#: Columns of a domain's value: many are uuids, told apart by their beginning.
_DOMAIN = 12
#: Deployments with longer names have their groups called by slot in tables.
_LONG_NAME = 30


def status_text(picture: Picture, last: int, *, absolute: bool = False) -> str:
    """Everything but the parts that could not be read, which are named. `last`: events at most; `absolute`: times as
    they are and not as ages."""
    when = When(picture.now, absolute)
    parts = [
        "\n".join(_header(picture, when)),
        _groups(picture, when),
        _revisions(picture, when),
        section("WAITS FOR", [item(one) for one in picture.waits]),
        _events(picture, last, when),
        section("NOT SHOWN", [item(one) for one in picture.unread]),
    ]
    return "\n\n".join(part for part in parts if part)


# --- header ---------------------------------------------------------------------------------------


def _header(picture: Picture, when: When) -> Iterator[str]:
    deployment, status = picture.deployment, picture.deployment.status
    model = deployment.spec.model.name if not picture.invalid else "its spec cannot be read"
    yield cut(f"{deployment.namespace}/{deployment.name}: {model}", WIDTH)
    if picture.invalid:
        yield field("spec", picture.invalid)
    stalled = picture.condition(reasons.STALLED)
    for type_ in (reasons.READY, reasons.STALLED, reasons.RECONCILING):
        condition = picture.condition(type_)
        if condition is not None:
            yield field(type_, _condition(condition, when, stalled))
        elif type_ == reasons.READY:
            yield field(type_, "not known: the operator has not written a status")
    if status.revision:
        number = f" (number {picture.number})" if picture.number is not None else ""
        yield field("revision", f"{status.revision}{number}, spec generation {deployment.generation}")
    if plan := status.plan:
        yield field(
            "plan",
            f"{count(plan.pods_per_group, 'pod')} x {count(plan.ranks_per_pod, 'rank')} x"
            f" {count(plan.tensor, 'GPU')} on {plan.accelerator}, {plan.image}",
        )
    if status.provenance:
        for name, text in provenance_fields(status.provenance):
            yield field(name, text)
    if status.endpoint:
        yield field("endpoint", status.endpoint)
    yield field(
        "groups",
        f"{status.groups.summary} serve, {status.groups.updated} of the wanted revision,"
        f" {status.groups.draining} draining",
    )
    yield field(
        "tokens/s",
        f"{status.throughput.prompt_tokens_per_second} prompt,"
        f" {status.throughput.output_tokens_per_second} output",
    )
    if status.latency:
        yield field("latency", latency_text(status.latency))
    if status.hbm:
        yield field("hbm", hbm_text(status.hbm))
    if status.cost:
        yield field("cost", cost_text(status.cost))
    if status.scaling:
        scaling = status.scaling
        granted = "" if scaling.granted is None else f", {scaling.granted} granted"
        yield field("scaling", f"{scaling.desired} wanted{granted}: {scaling.reason}: {scaling.message}")
        if floor := scaling.floor:
            yield field("floor", floor.message)
        if scaling.ignored:
            yield field("ignored", scaling.ignored)
        if chosen := scaling.chosen_width:
            text = f"{chosen.gpus} GPUs, chosen in place of {chosen.before}{when.since(chosen.since)}"
            shown = scaling.width_message if scaling.recommended_width is None else None
            yield field("width", f"{text}: {shown}" if shown else text)
        if scaling.recommended_width is not None:
            text = f"{scaling.recommended_width} GPUs are recommended: {scaling.width_message}"
            yield field("width", text)
        if waiting := scaling.waiting:
            at = parse_time(waiting.since)
            since = (
                ""
                if at is None
                else f", for {when.age(at)}"
                if not when.absolute
                else f", since {when.age(at)}"
            )
            yield field("GPUs", f"{waiting.message} ({waiting.reason}{since})")
    if status.weights:
        yield field("weights", weights_text(status.weights))
    if status.cold_start:
        yield field("last start", start_text(status.cold_start))
    if cause := status.recovery.last_cause:
        lost = f"{status.recovery.last_group}{when.since(status.recovery.last_failure_time)}"
        yield field("last loss", f"{lost}: {cause.reason}: {cause.message}")
        yield from (wrapped(f"  {'':<11} | ", line) for line in cause.output)


def _condition(condition: Condition, when: When, stalled: Condition | None) -> str:
    """`no for 3m: Starting: 0 of 2 groups serve`; what Stalled says stands there alone."""
    answer = {"True": "yes", "False": "no"}.get(condition.status, "unknown")
    moved = parse_time(condition.last_transition_time)
    since = (
        "" if moved is None else f" since {when.age(moved)}" if when.absolute else f" for {when.age(moved)}"
    )
    said = f"{answer}{since}: {condition.reason}"
    if stalled is not None and condition.message.startswith(stalled.message) and stalled is not condition:
        return f"{said} {condition.message.removeprefix(stalled.message).strip()}".strip()
    return f"{said}: {condition.message}"


def start_text(start: ColdStartStatus) -> str:
    """A group's start in a line: `g0 in 412 s: scheduled 3, image 120, engine 289 (weights 180, graphs 22)`."""
    spans = {"weights": start.weights, "compile": start.compile, "graphs": start.graphs}
    engine = [f"{name} {seconds}" for name, seconds in spans.items() if seconds is not None]
    parts = [f"scheduled {start.schedule}"]
    if start.download is not None:
        parts.append(f"download {start.download}")
    parts += [
        f"image {start.image}",
        f"engine {start.engine}" + (f" ({', '.join(engine)})" if engine else ""),
    ]
    return f"{start.group} in {start.total} s: {', '.join(parts)}"


def provenance_fields(runs: ProvenanceStatus) -> Iterator[tuple[str, str]]:
    """What runs and whose it is, and by whose leave and where."""
    version = runs.commit[:12] if runs.commit else runs.revision
    at = f" at {version}" if version else ""
    if not runs.commit and runs.source.startswith("hf://"):
        at += " (not pinned)"
    adapters = f", with adapters {', '.join(runs.adapters)}" if runs.adapters else ""
    where = places({key: tuple(values) for key, values in runs.nodes.items()})
    rule = f"policy rule {runs.policy_rule}" if runs.policy_rule else "no policy"
    whose = f"licence {runs.licence}, publisher {runs.publisher}"
    yield "runs", f"{runs.source}{at}, {runs.precision}{adapters}; {whose}"
    yield "governed", f"by {rule}; on {where or 'any node'}; Pod Security Standard {runs.pod_security}"


def weights_text(weights: WeightsStatus) -> str:
    """Where the weights stand, in a line."""
    commit = f" at {weights.commit[:12]}" if weights.commit else ""
    text = f"{weights.source}{commit} in {weights.cache}"
    if weights.ready_since:
        return f"{text}, {weights.bytes / 1e9:.1f} GB, ready since {weights.ready_since}"
    if not weights.total_bytes:
        return f"{text}, not begun"
    return f"{text}, {weights.bytes / 1e9:.1f} of {weights.total_bytes / 1e9:.1f} GB ({weights.percent} %)"


# --- groups ---------------------------------------------------------------------------------------


def _groups(picture: Picture, when: When) -> str:
    if not picture.groups:
        return "" if picture.groups is None else "no groups"
    domains = any(group.domain for group in picture.groups)
    header = ["GROUP", "REVISION", "STATE", "PODS", "TRAFFIC", when.age_header]
    rows = [_group_cells(picture, group, when) for group in picture.groups]
    if any(group.restarts for group in picture.groups):
        header.append("RESTARTS")
        for row, group in zip(rows, picture.groups, strict=True):
            row.append(str(group.restarts))
    if domains:
        header.append("DOMAIN")
        for row, group in zip(rows, picture.groups, strict=True):
            row.append(cut((group.domain or "-").rpartition("=")[2], _DOMAIN))
    room = WIDTH - sum(max(len(line[i]) for line in (header, *rows)) + _GAP for i in range(len(header)))
    header.append("NODES")
    for row, group in zip(rows, picture.groups, strict=True):
        row.append(_nodes(group, max(room, 12)))
    return table(header, rows)


def _group_cells(picture: Picture, group: GroupLine, when: When) -> list[str]:
    state = group.state
    if state == GroupState.DRAINING and group.draining_since is not None:
        state = f"{state} {span(picture.now - group.draining_since)}"
    return [
        group.name if len(picture.deployment.name) <= _LONG_NAME else group.name.rpartition("-")[2],
        _hash(group.revision),
        state,
        f"{group.ready}/{group.size}" if group.ready is not None else f"?/{group.size}",
        _traffic(group),
        when.cell(group.created),
    ]


def _traffic(group: GroupLine) -> str:
    if group.traffic is None:
        return "?"
    if group.traffic in (0, group.size):
        return "on" if group.traffic else "off"
    return f"on {group.traffic}/{group.size}"


def _nodes(group: GroupLine, room: int) -> str:
    """As many nodes as there is room for."""
    if not group.nodes:
        return "-" if group.ready is not None else "?"
    for shown in range(len(group.nodes), 0, -1):
        rest = len(group.nodes) - shown
        text = ", ".join(group.nodes[:shown]) + (f" +{rest}" if rest else "")
        if len(text) <= room:
            return text
    rest = len(group.nodes) - 1
    more = f" +{rest}" if rest else ""
    return cut(group.nodes[0], room - len(more)) + more


def _hash(revision: str) -> str:
    return revision.rpartition("-")[2] or "-"


# --- revisions ------------------------------------------------------------------------------------


def _revisions(picture: Picture, when: When) -> str:
    if not picture.revisions:
        return "" if picture.revisions is None else "no revisions"
    return revisions_table(picture.revisions, picture.now, absolute=when.absolute)


def revisions_table(revisions: Sequence[RevisionLine], now: float, *, absolute: bool = False) -> str:
    """Oldest first, each with what changed against the one before."""
    when = When(now, absolute)
    header = ["REVISION", "NUMBER", "STATE", "GROUPS", when.age_header]
    rows = [
        [
            _hash(line.kept.name),
            str(line.kept.number),
            ", ".join(line.roles) or "kept",
            "?" if line.groups is None else str(line.groups),
            when.cell(line.kept.created),
        ]
        for line in revisions
    ]
    room = WIDTH - sum(max(len(cells[i]) for cells in (header, *rows)) + _GAP for i in range(len(header)))
    header.append("CHANGED")
    for cells, line in zip(rows, revisions, strict=True):
        cells.append(_changed(line, first=line is revisions[0], room=max(room, 20)))
    return table(header, rows)


def _changed(line: RevisionLine, *, first: bool, room: int) -> str:
    if line.changes is None:
        return "-" if first else "(cannot be read)"
    return one_line(line.changes, room) if line.changes else "nothing that its user wrote"


# --- timeline -------------------------------------------------------------------------------------


def _events(picture: Picture, last: int, when: When) -> str:
    shown = picture.timeline[-last:] if last else ()
    if not shown:
        return ""
    stamps = [when.ago(entry.at) for entry in shown]
    room, said = max(map(len, stamps)), max(len(entry.reason) for entry in shown)
    lines = [
        wrapped(f"  {stamp:<{room}}   {entry.reason:<{said}}   ", _told(entry, when))
        for stamp, entry in zip(stamps, shown, strict=True)
    ]
    left = len(picture.timeline) - len(shown)
    return section("EVENTS" + (f" (the last {len(shown)} of {len(picture.timeline)})" if left else ""), lines)


def _told(entry: Entry, when: When) -> str:
    if entry.since is None:
        return entry.text
    again = "again" if entry.count == 2 else f"{entry.count} times"
    return f"{entry.text} ({again}, first {when.ago(entry.since)})"
