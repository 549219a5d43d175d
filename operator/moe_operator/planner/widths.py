"""The widths in which groups of a deployment could run where it runs, and what each would take.

For each width the layout is the one that the planner would choose with `hardware.gpusPerGroup` set to it. Precision and
accelerator are those that run, and no width is offered that would shorten the longest request.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.accelerators import Catalog
from moe_operator.catalog.models.catalog import Checkpoint, Model, ModelCatalog, load_models
from moe_operator.planner.checkpoints import CheckpointError, choose_checkpoint
from moe_operator.planner.group_capacity import GroupCapacity, GroupSize, RequestMix, group_capacity
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.nodes import Hardware, hardware_options
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.planner.planning import best_layout
from moe_operator.planner.room import groups_with_room
from moe_operator.planner.shape import possible_shapes
from moe_operator.planner.sizing import Sized
from moe_operator.planner.step_times import StepTimes, step_times
from moe_operator.planner.transports import Transports
from moe_operator.planner.wants import Wants, WantsError, wants_of

#: Layouts that run on both sides of a change share nodes evenly only where one width holds the other whole; further
#: than this from the present one none is looked at.
_FURTHEST = 8


@dataclass(frozen=True)
class Width:
    """One width."""

    gpus: int
    """Of a group."""
    size: GroupSize
    times: StepTimes
    kv_tokens: int
    """Of the whole group."""
    context_length: int
    room: int | None
    """Groups that find free GPUs now; None where that is not known."""

    def capacity(self, mix: RequestMix, time_per_output_token: float) -> GroupCapacity:
        """What a group takes of a mix."""
        return group_capacity(self.size, self.times, mix, time_per_output_token)


def with_width(deployment: ModelDeployment, gpus: int) -> ModelDeployment:
    """The deployment as if its user had asked for groups of so many GPUs."""
    hardware = deployment.spec.hardware.model_copy(update={"gpus_per_group": gpus})
    return replace(deployment, spec=deployment.spec.model_copy(update={"hardware": hardware}))


def width_is_given(spec: ModelDeploymentSpec) -> bool:
    """Whether the spec says how wide groups are, or how they are laid out."""
    return (
        spec.hardware.gpus_per_group is not None
        or spec.parallelism.tensor is not None
        or spec.parallelism.data is not None
    )


def widths(
    deployment: ModelDeployment,
    present: Plan,
    inventory: Inventory,
    catalog: Catalog,
    models: ModelCatalog | None = None,
    config: Model | None = None,
) -> tuple[Width, ...]:
    """The present width and those that are possible beside it, narrow ones first; empty where sizes are not known, as
    of a model that nobody described and on `cpu`."""
    models = models or load_models()
    model = config or models.find(deployment.spec.model.name)
    hardware = _hardware(deployment, present, inventory, catalog)
    if model is None or present.sizing is None or hardware is None:
        return ()
    try:
        wants = wants_of(deployment.spec)
        checkpoint, _ = choose_checkpoint(model, deployment.spec.model, hardware.profile, models)
    except (WantsError, CheckpointError):
        return ()
    if checkpoint.precision.value != present.sizing.precision:
        return ()  # chosen by an earlier version of the catalogue: capacities would compare two checkpoints
    found = []
    for gpus in _candidates(deployment.spec, hardware, model, present.width):
        sized = _sized(deployment, hardware, model, checkpoint, wants, gpus, present)
        if sized is not None and sized.context_length >= present.sizing.context_length:
            found.append(_width(deployment.spec, hardware, inventory, sized, wants))
    return tuple(found) if any(one.gpus == present.width for one in found) else ()


def _hardware(
    deployment: ModelDeployment, present: Plan, inventory: Inventory, catalog: Catalog
) -> Hardware | None:
    options = hardware_options(deployment.spec, inventory, catalog)
    if isinstance(options, Refusal):
        return None
    found = next((one for one in options if one.profile.name == present.accelerator), None)
    return found if found is not None and found.profile.resource_name is not None else None


def _candidates(spec: ModelDeploymentSpec, hardware: Hardware, model: Model, present: int) -> Iterator[int]:
    """Widths of which the present one is a multiple, or that are one of it; such as the nodes can hold."""
    shapes = possible_shapes(spec, hardware, whole_rank=not model.architecture.is_moe)
    nodes = len(hardware.nodes)
    for gpus in sorted({present, *(shape.width for shape in shapes)}):
        wider, narrower = max(gpus, present), min(gpus, present)
        fits = gpus <= hardware.gpus_per_node or not nodes or gpus // hardware.gpus_per_node <= nodes
        if gpus == present or (wider % narrower == 0 and wider // narrower <= _FURTHEST and fits):
            yield gpus


def _sized(
    deployment: ModelDeployment,
    hardware: Hardware,
    model: Model,
    checkpoint: Checkpoint,
    wants: Wants,
    gpus: int,
    present: Plan,
) -> Sized | None:
    spec = with_width(deployment, gpus).spec
    if gpus == present.width:
        # As it runs, whatever would be chosen today.
        parallelism = spec.parallelism.model_copy(update={"tensor": present.tensor, "data": present.data})
        spec = spec.model_copy(update={"parallelism": parallelism})
    sized = best_layout(spec, hardware, model, checkpoint, wants)
    return None if isinstance(sized, Refusal) else sized


def _width(
    spec: ModelDeploymentSpec, hardware: Hardware, inventory: Inventory, sized: Sized, wants: Wants
) -> Width:
    kv_tokens = sized.kv_tokens(min(wants.request_tokens, sized.context_length))
    shape = sized.shape
    transport = Transports(spec, hardware).transport(shape, sized.backend)
    return Width(
        gpus=shape.width,
        size=GroupSize(
            ranks=shape.data,
            slots=min(sized.sizes.max_sequences, sized.sizes.max_batched_tokens),
            batch_tokens=sized.sizes.max_batched_tokens,
            kv_tokens=kv_tokens // shape.data,
        ),
        times=step_times(sized, wants),
        kv_tokens=kv_tokens,
        context_length=sized.context_length,
        room=groups_with_room(spec, hardware, inventory, shape, transport),
    )
