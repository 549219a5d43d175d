"""A plan as text. Pure: a report in, text out."""

from collections.abc import Iterator

from moe_operator.catalog.models.storage import checkpoint_bytes
from moe_operator.catalog.policy import UNKNOWN
from moe_operator.cli.contexts import ContextRow
from moe_operator.cli.memory_bar import memory_bar
from moe_operator.cli.plan_report import PlanReport, Sizes
from moe_operator.cli.tables import table
from moe_operator.cli.units import GIB, billions, count, gib, usd
from moe_operator.planner.plan import Plan, Refusal, Sizing
from moe_operator.resources.security_notes import security_notes


def plan_text(report: PlanReport, *, plain: bool = False, arguments: bool = True) -> str:
    """All of a plan. `plain`: ASCII only. `arguments`: with the engine's command line."""
    blocks = [list(_header(report))]
    sizing, sizes = report.plan.sizing, report.sizes
    if sizing is not None and sizes is not None:
        blocks += [
            list(_memory(report, sizing, plain=plain)),
            list(_kv_cache(sizing, sizes, report.plan)),
            _contexts(sizes.contexts, sizing),
            list(_estimate(report, sizing, sizes)),
        ]
    blocks.append(list(_notes(report)))
    if arguments:
        blocks.append(_command(report))
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def refusal_text(refusal: Refusal) -> str:
    """Why there is no plan, and each change that was found to help on a line of its own."""
    lines = [f"{refusal.reason}: {refusal.message}"]
    if refusal.lifts:
        # The message ends with the same in one line, for conditions.
        lines = [lines[0].partition("; what would fit: ")[0], "any one of these would do:"]
        lines += [f"  spec.{lift}" for lift in refusal.lifts]
    return "\n".join(lines)


def layout_line(plan: Plan) -> str:
    """`16 wide: 2 pods x 8 ranks x 1 GPU`."""
    return (
        f"{plan.width} wide: {count(plan.pods_per_group, 'pod')} x {count(plan.ranks_per_pod, 'rank')}"
        f" x {count(plan.tensor, 'GPU')}"
    )


def _header(report: PlanReport) -> Iterator[str]:
    plan, sizes, sizing = report.plan, report.sizes, report.plan.sizing
    yield f"{report.deployment.name}: {report.deployment.spec.model.name} on {plan.accelerator}"
    if sizes is not None and sizing is not None:
        model, architecture = sizes.model, sizes.model.architecture
        active = f", {billions(architecture.active_parameters)} active" if architecture.is_moe else ", dense"
        licence = f", licence {model.licence}" if model.licence else ""
        yield f"  model      {billions(architecture.total_parameters)} parameters{active}{licence}"
        size = checkpoint_bytes(model, sizes.checkpoint) / 1e9
        yield f"  weights    {sizing.precision}, {size:.1f} GB, {sizing.repository or 'from model.source'}"
    yield f"  group      {layout_line(plan)}"
    spread = f"spread over {plan.width} GPUs" if plan.expert_parallel else "on one GPU"
    if sizing is not None and sizing.redundant_experts:
        spread += f", {sizing.redundant_experts} copies of busy ones"
    if sizes is None or sizes.model.architecture.is_moe:
        yield f"  experts    {spread}"
    if sizing is not None and sizing.speculative_tokens:
        drafts = count(sizing.speculative_tokens, "token")
        yield f"  drafts     {drafts} a step{' by prediction layers (MTP)' if sizing.speculation else ''}"
    if sizing is not None and sizing.adapter_slots:
        yield (
            f"  adapters   {sizing.adapter_slots} at a time of rank {sizing.adapter_rank}:"
            f" {gib(sizing.adapter_bytes)} of each GPU"
        )
    if sizing is not None:
        own = sizing.native_context
        what = "the model's own" if sizing.context_length == own else f"of the model's {own}"
        if sizing.context_length > own:
            what = f"stretched from the model's {own}"
        yield f"  context    {sizing.context_length} tokens ({what})"
    origin = report.provenance
    licence = ", licence unknown" if origin.licence == UNKNOWN else ""
    yield f"  source     {origin.source}, publisher {origin.publisher}{licence}"
    yield f"  processed  on {origin.places()}" + (f" (policy rule {origin.rule})" if origin.rule else "")
    yield f"  image      {report.revision.image}"
    why = f" ({', '.join(report.security.reasons)})" if report.security.reasons else ""
    yield f"  security   Pod Security Standard {report.security.level}{why}"
    yield f"  revision   {report.revision.name}"
    yield f"  nodes      {report.nodes.source}{_room(report)}"


def _room(report: PlanReport) -> str:
    if report.room is None:
        return ""
    return f": free GPUs for {count(report.room, 'group')} now"


def _memory(report: PlanReport, sizing: Sizing, *, plain: bool) -> Iterator[str]:
    what = "GPU" if report.profile.resource_name else "rank"
    yield f"Memory of one {what}: {gib(sizing.capacity_bytes)}"
    yield from (f"  {line}" for line in memory_bar(sizing, plain=plain))


def _kv_cache(sizing: Sizing, sizes: Sizes, plan: Plan) -> Iterator[str]:
    wants = sizes.wants
    usual = min(wants.request_tokens, sizing.context_length)
    yield (
        f"KV cache ({sizing.kv_cache_dtype}): {sizing.kv_cache_tokens:,} tokens in the group;"
        f" {sizing.concurrency * plan.data} requests of {usual} tokens at once"
        f" ({sizing.concurrency} per rank)"
    )


def _contexts(rows: tuple[ContextRow, ...], sizing: Sizing) -> list[str]:
    precisions = tuple(dict.fromkeys(row.kv_cache_precision for row in rows))
    header = ["TOKENS"]
    for precision in precisions:
        header += [f"KV {precision}: GiB/REQUEST", "REQUESTS/GROUP"]
    lines: list[tuple[str, ...]] = []
    for length in dict.fromkeys(row.context_length for row in rows):
        line = [_length(length, sizing)]
        for precision in precisions:
            row = next(r for r in rows if (r.context_length, r.kv_cache_precision) == (length, precision))
            line += [
                f"{row.bytes_per_request / GIB:.2f}",
                str(row.requests_per_group) if row.fits else "does not fit",
            ]
        lines.append(tuple(line))
    return table(header, lines).splitlines() if rows else []


def _length(length: int, sizing: Sizing) -> str:
    if length > sizing.native_context:
        return f"{length} (stretched)"
    return f"{length} (the model's own)" if length == sizing.native_context else str(length)


def _estimate(report: PlanReport, sizing: Sizing, sizes: Sizes) -> Iterator[str]:
    wants, plan, cost, load = sizes.wants, report.plan, sizes.money, sizes.fleet
    met = "met" if sizing.meets_objective else "missed"
    yield (
        f"Estimate, not a measurement: requests of {wants.input_tokens} + {wants.output_tokens} tokens,"
        f" {sizing.sequences_per_rank} running per rank"
    )
    tokens = sizing.output_tokens_per_second
    yield (
        f"  output     {tokens:,} tokens/s per group, {tokens / plan.width:,.0f} per GPU;"
        f" beside {sizing.prompt_tokens_per_second:,} prompt tokens/s"
    )
    yield (
        f"  latency    {_time(sizing.time_to_first_token_ms)} to the first token,"
        f" {_time(sizing.time_per_output_token_ms)} per output token; the objective"
        f" ({wants.time_to_first_token:g} s, {wants.time_per_output_token * 1000:g} ms) is {met}"
    )
    if cost is not None:
        yield (
            f"  cost       {usd(cost.usd_per_million_output_tokens)} per million output tokens,"
            f" {usd(cost.usd_per_million_tokens)} per million of all tokens"
        )
        yield f"  price      {usd(cost.usd_per_gpu_hour)} per GPU-hour ({cost.source})"
    elif report.profile.resource_name:
        yield f"  price      none known for {plan.accelerator}"
    if load is not None:
        a_day = "" if load.usd_per_day is None else f", {usd(load.usd_per_day)} a day"
        yield (
            f"  load       {load.requests_per_second:g} requests/s: {count(load.groups, 'group')} of"
            f" {load.requests_per_second_per_group:.1f} requests/s each, {count(load.gpus, 'GPU')},"
            f" {load.gpu_hours_per_day:,} GPU-hours{a_day}"
        )


def _notes(report: PlanReport) -> Iterator[str]:
    for note in (*report.plan.notes, *security_notes(report.deployment, report.revision, report.site)):
        yield f"note: {note}"
    if report.nodes.assumed and report.profile.resource_name:
        yield (
            f"note: no cluster was asked; planned for nodes of {count(report.hardware.gpus_per_node, 'GPU')}"
            " as they usually are; --inventory FILE plans for yours"
        )
    if report.sizes is not None and report.sizes.wants.assumed:
        yield f"assumed: {'; '.join(report.sizes.wants.assumed)} (spec.objective says otherwise)"


def _time(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.0f} s"


def _command(report: PlanReport) -> list[str]:
    rows = ["vllm serve", *(f"    {' '.join(one.tokens())}" for one in report.arguments)]
    return [f"{row} \\" for row in rows[:-1]] + rows[-1:]
