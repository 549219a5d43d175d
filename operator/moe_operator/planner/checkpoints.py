"""Which of a model's checkpoints is served: the one asked for, or the default."""

from dataclasses import replace

from moe_operator.api.spec import ModelSpec
from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.catalog import Checkpoint, Model, ModelCatalog
from moe_operator.catalog.models.scheme import DTYPES, Precision
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.kv_backend import Platform, platform_of

_WIDE = frozenset(DTYPES)
_FOUR_BITS = frozenset({Precision.NVFP4, Precision.MXFP4, Precision.INT4})


class CheckpointError(ValueError):
    """No checkpoint of the model can be served so; the message says which there are."""


def choose_checkpoint(
    model: Model, spec: ModelSpec, profile: AcceleratorProfile, catalog: ModelCatalog
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The checkpoint and notes about it.

    Default: the publisher's, in 8 bits where the GPUs compute in 8 bits. 4 bits are taken only where the model
    comes so, or when asked for: what a third party's quantisation costs in quality is the user's to judge.

    Raises:
        CheckpointError: a precision that the model is not published in, or that the hardware cannot run.
    """
    source = _source_checkpoint(model, spec, catalog)
    if spec.precision is not None:
        wanted = Precision(spec.precision)
        found = source if source is not None and source.precision is wanted else _of(model, wanted)
        if found is None:
            known = ", ".join(dict.fromkeys(checkpoint.precision.value for checkpoint in model.checkpoints))
            raise CheckpointError(
                f"the catalogue has no {wanted.value} checkpoint of {model.name}, it has {known}: choose one of"
                " these in model.precision, or bring your own with model.source and model.configFrom"
            )
        return found, _runs(model, found, profile)
    if source is not None:
        return source, _runs(model, source, profile)
    notes: tuple[str, ...] = ()
    publisher = _publisher(model.name)
    own = [c for c in model.checkpoints if _publisher(c.repository) == publisher] or list(model.checkpoints)
    if spec.source is not None and len(model.checkpoints) > 1:
        notes = (
            f"the weights at {spec.source} are taken to be {own[0].precision.value}; say model.precision",
        )
        return own[0], (*notes, *_runs(model, own[0], profile))
    usable = [c for c in own if _native(c, profile) and (c.precision not in _FOUR_BITS or c is own[0])] or own
    chosen = min(usable, key=lambda c: _bits(c.precision))
    return chosen, _runs(model, chosen, profile)


def _of(model: Model, wanted: Precision) -> Checkpoint | None:
    """A published checkpoint of this precision; an unquantised one can be computed in any wide precision."""
    found = next((c for c in model.checkpoints if c.precision is wanted), None)
    if found is not None or wanted not in _WIDE:
        return found
    wide = next((c for c in model.checkpoints if c.precision in _WIDE), None)
    return None if wide is None else replace(wide, precision=wanted, published_gb=None)


def _source_checkpoint(model: Model, spec: ModelSpec, catalog: ModelCatalog) -> Checkpoint | None:
    """The checkpoint that a repository's name says: in model.name, or in model.source as hf://."""
    if model.named is not None:
        return model.named
    scheme, _, rest = (spec.source or "").partition("://")
    if scheme != "hf":
        return model.checkpoints[0] if model.custom else None
    found = catalog.find(rest.strip("/"))
    if found is None or found.name != model.name:
        return None
    return found.named or next((c for c in found.checkpoints if c.repository == found.name), None)


def override_dtype(architecture: Architecture, checkpoint: Checkpoint) -> str | None:
    """`--dtype` where vLLM would compute in another precision by itself: it takes the checkpoint's, but bfloat16 for
    one in 32 bits."""
    dtype = DTYPES.get(checkpoint.precision)
    return dtype if dtype is not None and (dtype != architecture.dtype or dtype == "float32") else None


def _runs(model: Model, checkpoint: Checkpoint, profile: AcceleratorProfile) -> tuple[str, ...]:
    precision = checkpoint.precision
    if not runs_on(checkpoint, profile):
        others = dict.fromkeys(c.precision.value for c in model.checkpoints if runs_on(c, profile))
        what = "runs unquantised weights only, not" if profile.resource_name is None else "cannot run"
        way = (
            f"set model.precision to {' or '.join(others)}"
            if others
            else "the catalogue has no checkpoint of it that does; bring one with model.source and model.configFrom"
        )
        raise CheckpointError(f"{profile.name} {what} {precision.value} ({model.name}): {way}")
    if not _native(checkpoint, profile):
        return (
            f"{profile.name} does not compute in {precision.value}: weights are widened to 16 bits as they are used,"
            " which saves memory but no time",
        )
    return ()


def runs_on(checkpoint: Checkpoint, profile: AcceleratorProfile) -> bool:
    """Whether vLLM serves this checkpoint there at all: on `cpu` unquantised weights only, and NVFP4 not on AMD."""
    platform = platform_of(profile)
    if platform is Platform.CPU:
        return checkpoint.precision in _WIDE
    return not (platform is Platform.ROCM and checkpoint.precision is Precision.NVFP4)


def _native(checkpoint: Checkpoint, profile: AcceleratorProfile) -> bool:
    """Whether the hardware computes in the checkpoint's precision."""
    precision, tflops = checkpoint.precision, profile.tflops
    if precision in _WIDE:
        return True
    if tflops is None:
        return False
    if precision is Precision.FP8:
        return tflops.fp8 is not None
    return precision in (Precision.NVFP4, Precision.MXFP4) and tflops.fp4 is not None


def _bits(precision: Precision) -> int:
    if precision in _FOUR_BITS:
        return 4
    if precision is Precision.FP32:
        return 32
    return 16 if precision in _WIDE else 8


def _publisher(repository: str | None) -> str:
    return (repository or "").partition("/")[0].casefold()
