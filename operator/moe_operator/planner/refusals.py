"""Saying why a model does not fit, by how much, and which single change would make it fit."""

from collections.abc import Iterator, Sequence

from moe_operator.api import reasons
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.models.architecture import RopeScaling
from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.planner.checkpoints import runs_on
from moe_operator.planner.memory import GIB
from moe_operator.planner.misfits import impossible, misfit
from moe_operator.planner.nodes import Hardware
from moe_operator.planner.plan import Lift, Refusal
from moe_operator.planner.shape import GroupShape, possible_shapes
from moe_operator.planner.sizing import Limit, Shortage, Sized, size
from moe_operator.planner.transports import Transports
from moe_operator.planner.usable import unusable
from moe_operator.planner.wants import Wants

_CONTEXT_STEP = 1024


def does_not_fit(
    spec: ModelDeploymentSpec,
    hardware: Hardware,
    model: Model,
    checkpoint: Checkpoint,
    wants: Wants,
    shortages: Sequence[Shortage],
) -> Refusal:
    """The refusal for the shape that misses least, with every single change that was found to help."""
    nearest = min(shortages, key=lambda s: (s.missing, s.shape.width))
    lifts = tuple(_lifts(spec, hardware, model, checkpoint, wants, nearest))
    what = (
        f"{model.name} in {checkpoint.precision.value} needs {_gib(nearest.needs)} per GPU in a group of"
        f" {nearest.shape.width} on {hardware.profile.name}, which gives an engine {_gib(nearest.has)}:"
        f" {_gib(nearest.missing)} too little"
    )
    if nearest.limit is Limit.CONTEXT:
        longest = (
            f"the longest that fits is {nearest.largest_context}" if nearest.largest_context else "none fits"
        )
        asked = wants.context_length or wants.request_tokens
        what += f" for the KV cache of one request of {asked} tokens ({longest})"
    else:
        what += " for the weights and what the engine needs beside them"
    ways = "; ".join(str(lift) for lift in lifts)
    advice = (
        f"what would fit: {ways}" if ways else "no wider group, narrower precision or shorter context helps"
    )
    return Refusal(reasons.DOES_NOT_FIT, f"{what}; {advice}", lifts=lifts)


def no_such_context(model: Model, wanted: int) -> Refusal | None:
    """Refuses a context beyond the model's own that its positions cannot be stretched to."""
    native = model.architecture.context_length
    if wanted <= native:
        return None
    stretch = model.stretch
    if stretch is not None and stretch.type is RopeScaling.YARN:
        if wanted <= stretch.up_to:
            return None
        return Refusal(
            reasons.INVALID_SPEC,
            f"model.contextLength is {wanted}, but {model.name} reads {native} tokens, and {stretch.up_to} with YaRN:"
            f" set it to at most {stretch.up_to}",
            lifts=(Lift("model.contextLength", str(stretch.up_to)),),
        )
    return Refusal(
        reasons.INVALID_SPEC,
        f"model.contextLength is {wanted}, but {model.name} reads {native} tokens, and its card names no way to"
        f" stretch that: set it to at most {native}",
        lifts=(Lift("model.contextLength", str(native)),),
    )


def unusable_shapes(
    model: Model, checkpoint: Checkpoint, shapes: Sequence[GroupShape], wants: Wants
) -> Refusal:
    """Refuses a shape that vLLM cannot divide the model over, in the engine's terms."""
    architecture, features = model.architecture, wants.features
    plain = [shape for shape in shapes if not unusable(architecture, checkpoint, shape)]
    if plain:
        # What is asked besides is what does not fit: said of a group that fills a node, where that is possible.
        on_a_node = [shape for shape in plain if shape.pods == 1]
        why = misfit(architecture, checkpoint, (on_a_node or plain)[-1], features)
        return Refusal(reasons.INVALID_LAYOUT, f"{model.name}: {why}")
    why = next(filter(None, (unusable(architecture, checkpoint, shape) for shape in shapes)), None)
    divisors = [n for n in (1, 2, 4, 8, 16) if not unusable(architecture, checkpoint, GroupShape(n, 1, n))]
    dense = not model.architecture.is_moe
    message = why or (
        "a dense model's group is one rank, whose GPUs are on one node; more groups (scaling.minGroups) serve more"
        if dense
        else "no layout of the wanted width is possible"
    )
    return Refusal(
        reasons.INVALID_LAYOUT,
        f"{model.name}: {message}; parallelism.tensor may be {', '.join(map(str, divisors))}",
    )


def _lifts(
    spec: ModelDeploymentSpec,
    hardware: Hardware,
    model: Model,
    checkpoint: Checkpoint,
    wants: Wants,
    nearest: Shortage,
) -> list[Lift]:
    """Single changes, each sized before it is named."""
    found: list[Lift] = []
    if wants.context_length is not None and nearest.largest_context >= _CONTEXT_STEP:
        context = nearest.largest_context // _CONTEXT_STEP * _CONTEXT_STEP
        found.append(Lift("model.contextLength", str(context)))
    for other in model.checkpoints:
        another = other.precision is not checkpoint.precision and other.repository is not None
        can = another and runs_on(other, hardware.profile)
        can = can and impossible(model, other, hardware.profile, wants) is None
        if can and _fits(spec, hardware, model, other, wants):
            found.append(Lift("model.precision", other.precision.value))
            break
    for lift, changed in _wider(spec, hardware):
        if _fits(changed, hardware, model, checkpoint, wants):
            found.append(lift)
            break
    return found


def _wider(spec: ModelDeploymentSpec, hardware: Hardware) -> Iterator[tuple[Lift, ModelDeploymentSpec]]:
    """The spec with one number larger that fixes the width; nothing where the plan tried all widths itself."""
    given, data = spec.hardware.gpus_per_group, spec.parallelism.data
    if given is not None:
        node = hardware.gpus_per_node
        widths = [w for w in range(given + 1, node + 1) if node % w == 0]
        for width in widths + [node * n for n in (2, 4, 8, 16) if node * n > given]:
            wider = spec.hardware.model_copy(update={"gpus_per_group": width})
            yield Lift("hardware.gpusPerGroup", str(width)), spec.model_copy(update={"hardware": wider})
    elif data is not None:
        for more in (data * 2, data * 4, data * 8, data * 16):
            ranks = spec.parallelism.model_copy(update={"data": more})
            yield Lift("parallelism.data", str(more)), spec.model_copy(update={"parallelism": ranks})


def _fits(
    spec: ModelDeploymentSpec, hardware: Hardware, model: Model, checkpoint: Checkpoint, wants: Wants
) -> bool:
    capacity, transports = hardware.memory_bytes, Transports(spec, hardware)
    for shape in possible_shapes(spec, hardware, whole_rank=not model.architecture.is_moe):
        if misfit(model.architecture, checkpoint, shape, wants.features):
            continue
        link = transports.link(shape)
        if isinstance(link, Refusal):
            continue
        found = size(
            model, checkpoint, hardware.profile, capacity, hardware.gpus_per_node, shape, wants, link
        )
        if isinstance(found, Sized):
            return True
    return False


def _gib(size_in_bytes: int) -> str:
    return f"{size_in_bytes / GIB:.1f} GiB"
