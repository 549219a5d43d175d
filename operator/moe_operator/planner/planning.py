"""Spec, inventory and catalogue to a plan: the best layout that fits, or the nearest that does not and what would.

Accelerators are tried in the order that the spec gives; the first on which the model fits is taken, one with room for
a group before one without. What the spec says is obeyed or refused, never changed.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import Goal, ModelDeploymentSpec
from moe_operator.catalog.accelerators import Catalog
from moe_operator.catalog.fabrics import Reach
from moe_operator.catalog.models.architecture import Section, Split, StateCache
from moe_operator.catalog.models.catalog import Checkpoint, Model, ModelCatalog, load_models
from moe_operator.catalog.models.storage import checkpoint_bytes
from moe_operator.planner.checkpoints import CheckpointError, choose_checkpoint, override_dtype
from moe_operator.planner.fabric import Choice
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.memory import GIB
from moe_operator.planner.misfits import impossible, misfit
from moe_operator.planner.nodes import Hardware, hardware_options
from moe_operator.planner.plan import Plan, Refusal, Sizing, Transport
from moe_operator.planner.refusals import does_not_fit, no_such_context, unusable_shapes
from moe_operator.planner.roofline import DRAFTS_RIGHT, idle_step, prefill_rate
from moe_operator.planner.room import groups_with_room
from moe_operator.planner.shape import GroupShape, given_shape, possible_shapes
from moe_operator.planner.sizing import Shortage, Sized, size
from moe_operator.planner.transports import Transports
from moe_operator.planner.usable import no_engine
from moe_operator.planner.wants import Wants, WantsError, wants_of

#: A group that spans more nodes than it must is slower and lost with any of them: it is taken where its estimate is
#: this many times the narrower one's output per GPU.
_PAYS = 1.5


def plan(
    deployment: ModelDeployment,
    inventory: Inventory,
    catalog: Catalog,
    models: ModelCatalog | None = None,
    config: Model | None = None,
) -> Plan | Refusal:
    """The layout of one group of this deployment on these nodes, or why there is none.

    `config`: the model of the spec's config.json. Without it the catalogue is asked; a model that is not in it is
    laid out without being sized.
    """
    spec = deployment.spec
    options = hardware_options(spec, inventory, catalog)
    if isinstance(options, Refusal):
        return options
    models = models or load_models()
    model = config or models.find(spec.model.name)
    if model is None:
        return _unsized(spec, options[0])
    try:
        return _sized_plan(spec, options, inventory, model, models, wants_of(spec))
    except WantsError as error:
        return Refusal(reasons.INVALID_SPEC, str(error))


def _unsized(spec: ModelDeploymentSpec, hardware: Hardware) -> Plan | Refusal:
    shape = given_shape(spec, hardware)
    if isinstance(shape, Refusal):
        return shape
    transports = Transports(spec, hardware)
    link = transports.link(shape)
    if isinstance(link, Refusal):
        return link
    # Of a model that nobody described it is not known whether it has experts: as for one that has.
    backend = link.backend(None, balanced=False) if link is not None and shape.data > 1 else None
    notes = transports.notes(shape, backend, None)
    note = f"not sized: the catalogue has no model {spec.model.name!r}; give its config.json with model.configFrom"
    return _plan_of(
        hardware,
        shape,
        shape.width > 1,
        (*hardware.notes, *notes, note),
        None,
        transports.transport(shape, backend),
    )


def _sized_plan(
    spec: ModelDeploymentSpec,
    options: Sequence[Hardware],
    inventory: Inventory,
    model: Model,
    models: ModelCatalog,
    wants: Wants,
) -> Plan | Refusal:
    fitting: list[tuple[Hardware, Sized, tuple[str, ...], bool]] = []
    refusal: Refusal | None = None
    for hardware in options:
        if why := no_engine(model.architecture, hardware.profile):
            where = f"{model.name} on {hardware.profile.name}"
            refusal = refusal or Refusal(reasons.DOES_NOT_FIT, f"{where}: {why}")
            continue
        try:
            checkpoint, notes = choose_checkpoint(model, spec.model, hardware.profile, models)
        except CheckpointError as error:
            refusal = refusal or Refusal(reasons.INVALID_SPEC, str(error))
            continue
        if why := impossible(model, checkpoint, hardware.profile, wants):
            refusal = refusal or Refusal(reasons.INVALID_SPEC, why)
            continue
        transports = Transports(spec, hardware)
        found = best_layout(spec, hardware, model, checkpoint, wants, transports)
        if isinstance(found, Refusal):
            refusal = refusal or found
            continue
        transport = transports.transport(found.shape, found.backend)
        room = groups_with_room(spec, hardware, inventory, found.shape, transport) != 0
        fitting.append(
            (hardware, found, (*notes, *transports.notes(found.shape, found.backend, found)), room)
        )
        if room:
            break
    if not fitting:
        assert refusal is not None  # there is at least one option
        return refusal
    # Without room anywhere the first that fits waits for it.
    hardware, sized, notes, _ = fitting[-1] if fitting[-1][3] else fitting[0]
    passed = [option.profile.name for option in options[: options.index(hardware)]]
    if passed:
        why = f"{hardware.profile.name} was taken as {', '.join(passed)} cannot hold the model or has no room"
        notes = (why, *notes)
    return _plan_of(
        hardware,
        sized.shape,
        model.architecture.is_moe and sized.shape.width > 1,
        (*hardware.notes, *notes, *_remarks(sized, wants)),
        _sizing(sized, wants),
        Transports(spec, hardware).transport(sized.shape, sized.backend),
    )


def best_layout(
    spec: ModelDeploymentSpec,
    hardware: Hardware,
    model: Model,
    checkpoint: Checkpoint,
    wants: Wants,
    transports: Transports | None = None,
) -> Sized | Refusal:
    """The best layout on this hardware by the spec's goal, or why none fits."""
    transports = transports or Transports(spec, hardware)
    architecture = model.architecture
    if wants.context_length is not None and (refused := no_such_context(model, wants.context_length)):
        return refused
    explicit = given_shape(spec, hardware)
    shapes = list(possible_shapes(spec, hardware, whole_rank=not architecture.is_moe))
    usable = [shape for shape in shapes if not misfit(architecture, checkpoint, shape, wants.features)]
    if not usable:
        if isinstance(explicit, Refusal) and not shapes:
            return explicit
        return unusable_shapes(model, checkpoint, shapes, wants)
    # The KV cache of `cpu` is sized by itself; for GPUs without a known size there is nothing to plan with.
    capacity = hardware.memory_bytes
    sized: list[Sized] = []
    short: list[Shortage] = []
    unlinked: Refusal | None = None
    reach = _natural_reach(hardware, transports)
    for width, alike in groupby(usable, key=lambda shape: shape.width):
        best = min(sized, key=lambda one: _rank(one, wants.goal)) if sized else None
        beyond = best is not None and width > reach
        if best is not None and beyond and not _starved(best, width, hardware, wants.goal):
            break
        found: list[Sized | Shortage] = []
        for shape in alike:
            link = transports.link(shape)
            if isinstance(link, Refusal):
                unlinked = unlinked or link
                continue
            found.append(
                size(
                    model, checkpoint, hardware.profile, capacity, hardware.gpus_per_node, shape, wants, link
                )
            )
        fit = [one for one in found if isinstance(one, Sized)]
        if best is not None and beyond:
            fit = [one for one in fit if _per_gpu(one) >= _PAYS * _per_gpu(best)]
            if not fit:
                break
        sized += fit
        short += [one for one in found if isinstance(one, Shortage)]
    if not sized and unlinked is not None:
        return unlinked
    if not sized:
        return does_not_fit(spec, hardware, model, checkpoint, wants, short)
    return min(sized, key=lambda one: _rank(one, wants.goal))


def _per_gpu(sized: Sized) -> float:
    """Output tokens per second and GPU, estimated."""
    return sized.throughput.output_tokens_per_second / sized.shape.width


def _starved(best: Sized, width: int, hardware: Hardware, goal: Goal) -> bool:
    """Whether a group of `width`, wider than it must be, is worth a look: weights leave `best` a KV cache that ends its
    throughput before the latencies do, and the nodes for it are there."""
    cache_bound = best.throughput.sequences_per_rank >= best.concurrency
    nodes = width // hardware.gpus_per_node
    return cache_bound and nodes <= len(hardware.nodes) and goal is not Goal.FEWEST_GPUS


def _rank(sized: Sized, goal: Goal) -> tuple[float, ...]:
    """Order of preference. Ties go to the narrower group, of which fewer GPUs are lost at a time."""
    per_gpu = sized.shape.width / max(sized.throughput.output_tokens_per_second, 1e-9)
    late = 0.0 if sized.meets else 1.0
    if goal is Goal.FEWEST_GPUS:
        return (sized.shape.width, late, per_gpu, sized.shape.tensor)
    if goal is Goal.MOST_THROUGHPUT:
        return (per_gpu, sized.shape.width, sized.shape.tensor)
    return (late, round(per_gpu, 9), sized.shape.width, sized.shape.tensor)


def _natural_reach(hardware: Hardware, transports: Transports) -> int:
    """The widest group that is proposed while a narrower one fits: a node, or an NVLink domain of several, of
    which four nodes' worth is enough for the widest expert parallelism that pays."""
    node = hardware.gpus_per_node
    for nodes in (4, 2):
        choice = transports.choice(GroupShape(1, nodes * node, node))
        if isinstance(choice, Choice) and choice.profile.reach is Reach.DOMAIN:
            return max(node, min(hardware.profile.nvlink_domain, nodes * node))
    return node


def _remarks(sized: Sized, wants: Wants) -> Iterable[str]:
    if sized.context_length < sized.model.architecture.context_length and wants.context_length is None:
        yield (
            f"context {sized.context_length} of the model's {sized.model.architecture.context_length} tokens: more does"
            " not fit beside the weights"
        )
    if not sized.meets and wants.goal is not Goal.MOST_THROUGHPUT:
        yield (
            f"the objective is missed by estimate: time to first token"
            f" {sized.throughput.time_to_first_token:.2f} s (wanted {wants.time_to_first_token:g}), per output token"
            f" {sized.throughput.time_per_output_token * 1000:.0f} ms (wanted {wants.time_per_output_token * 1000:g})"
        )
        late = sized.throughput.time_per_output_token > wants.time_per_output_token
        holds_drafts = sized.model.architecture.mtp_layers and Section.MTP not in sized.checkpoint.without
        if late and holds_drafts and wants.features.drafts is None:
            yield (
                "the checkpoint holds prediction layers: engine.speculation.method MTP shortens the time per output"
                " token where few requests run"
            )
    if not sized.placement.even:
        yield "experts do not divide evenly over the group's GPUs: some hold one more"
    drafts = wants.features.drafts
    if drafts is not None and drafts.own_layers:
        yield f"estimated with {DRAFTS_RIGHT:.0%} of the drafts right; how many are depends on the requests"
    if drafts is not None and drafts.other_model:
        yield (
            f"the draft model {drafts.other_model} of engine.args is not sized: its weights and cache come out of the"
            f" KV cache's {sized.memory.kv_cache / GIB:.1f} GiB"
        )
    if wants.features.adapters is not None and sized.model.architecture.is_moe:
        yield "with adapters vLLM takes kernels for experts that are slower than its best: the estimate leaves that out"


def _plan_of(
    hardware: Hardware,
    shape: GroupShape,
    expert_parallel: bool,
    notes: tuple[str, ...],
    sizing: Sizing | None,
    transport: Transport | None,
) -> Plan:
    return Plan(
        accelerator=hardware.profile.name,
        width=shape.width,
        pods_per_group=shape.pods,
        ranks_per_pod=shape.ranks_per_pod,
        tensor=shape.tensor,
        data=shape.data,
        expert_parallel=expert_parallel,
        gpus_per_pod=shape.gpus_per_pod,
        notes=notes,
        sizing=sizing,
        transport=transport,
        claims=hardware.claims,
        device_products=_products(hardware),
    )


def _products(hardware: Hardware) -> tuple[str, ...]:
    """What the drivers of the planned nodes call these GPUs."""
    if not hardware.claims:
        return ()
    return tuple(sorted({product for node in hardware.nodes for product in node.products}))


def _sizing(sized: Sized, wants: Wants) -> Sizing:
    memory, speed, model = sized.memory, sized.throughput, sized.model
    return Sizing(
        model=model.name,
        precision=sized.checkpoint.precision.value,
        repository=sized.checkpoint.repository,
        dtype=override_dtype(model.architecture, sized.checkpoint),
        kv_cache_dtype=sized.kv_cache_dtype,
        context_length=sized.context_length,
        native_context=model.architecture.context_length,
        max_sequences=sized.sizes.max_sequences,
        max_batched_tokens=sized.sizes.max_batched_tokens,
        utilization=sized.sizes.utilization,
        redundant_experts=sized.placement.redundant,
        balanced=sized.placement.balanced,
        capacity_bytes=memory.capacity,
        weight_bytes=memory.weights.total,
        activation_bytes=memory.activations,
        buffer_bytes=memory.buffers,
        headroom_bytes=memory.headroom,
        kv_cache_bytes=memory.kv_cache,
        kv_block_tokens=sized.kv_layout.block_size,
        kv_block_bytes=sized.kv_layout.bytes_per_block,
        kv_cache_tokens=sized.kv_tokens(min(wants.request_tokens, sized.context_length)),
        concurrency=sized.concurrency,
        sequences_per_rank=speed.sequences_per_rank,
        output_tokens_per_second=round(speed.output_tokens_per_second),
        prompt_tokens_per_second=round(speed.prompt_tokens_per_second),
        time_to_first_token_ms=round(speed.time_to_first_token * 1000),
        time_per_output_token_ms=round(speed.time_per_output_token * 1000),
        meets_objective=sized.meets,
        tool_call_parser=model.parsers.tool_call,
        reasoning_parser=model.parsers.reasoning,
        multimodal=json.dumps(dict(model.multimodal), separators=(",", ":")) if model.multimodal else None,
        hf_overrides=_overrides(model, sized.context_length),
        prefix_caching=sized.features.shares_prefixes(
            model.architecture, on_cpu=sized.sizes.utilization == 0
        ),
        recurrent=any(isinstance(cache, StateCache) for cache in model.architecture.caches),
        speculative_tokens=sized.sizes.drafted,
        speculation=_speculation(sized),
        balancing_window=sized.features.balancing.window,
        balancing_interval=sized.features.balancing.interval,
        adapter_bytes=memory.weights.adapters,
        adapter_slots=sized.features.adapters.slots if sized.features.adapters else 0,
        adapter_rank=sized.features.adapters.rank if sized.features.adapters else 0,
        experts_apart=_experts_apart(model),
        checkpoint_bytes=checkpoint_bytes(model, sized.checkpoint),
        idle_step_microseconds=_idle_step(sized),
        prompt_time_permille=_prompt_time(sized, wants),
    )


def _idle_step(sized: Sized) -> int:
    """In microseconds. On `cpu`, of which nothing is known, 0."""
    on_cpu = sized.sizes.utilization == 0
    return 0 if on_cpu else round(idle_step(sized.model.architecture, sized.load) * 1e6)


def _prompt_time(sized: Sized, wants: Wants) -> int:
    """Share of the group's time that computing prompts takes at the working point, per mille: what is computed of them
    per second, of what the group would compute without other work. On `cpu`, of which nothing is known, 0."""
    if sized.sizes.utilization == 0:
        return 0
    alone = prefill_rate(sized.model.architecture, sized.load, wants.input_tokens)
    group = alone * sized.load.tensor * sized.load.data
    return min(1000, round(1000 * sized.throughput.prompt_tokens_per_second / group))


def _speculation(sized: Sized) -> str | None:
    """The method of drafts that the operator asks the engine for; None where `engine.args` does, or nobody."""
    drafts = sized.features.drafts
    return "mtp" if drafts is not None and not drafts.from_args else None


def _experts_apart(model: Model) -> bool:
    """Whether a checkpoint's routed experts are tensors of their own each, by the names of the published ones."""
    routed = [t.name for t in model.architecture.of(Section.MAIN) if t.split is Split.EXPERTS]
    return bool(routed) and all("{expert}" in name for name in routed)


def _overrides(model: Model, context_length: int) -> str | None:
    if model.stretch is None or context_length <= model.architecture.context_length:
        return None
    return model.stretch.hf_overrides(context_length)
