"""What is asked of an engine that vLLM 0.32 cannot do with a model, on a kind of GPU or in a shape: said before there
is a pod that ends as it starts, with what can be done instead."""

from moe_operator.api.features import BalancingMode
from moe_operator.catalog.models.architecture import Architecture, Section
from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.adapters import changes_experts, takes_adapters, unknown_modules
from moe_operator.planner.balance import can_balance, uneven
from moe_operator.planner.checkpoints import runs_on
from moe_operator.planner.features import Adapters, Features
from moe_operator.planner.identity import ByIdentity
from moe_operator.planner.kv_backend import Platform, platform_of
from moe_operator.planner.kv_precision import no_such_cache, precision_of, precisions_on
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.usable import unusable
from moe_operator.planner.wants import Wants
from moe_operator.planner.weights import stored_weights


def impossible(model: Model, checkpoint: Checkpoint, profile: AcceleratorProfile, wants: Wants) -> str | None:
    """Why this cannot be had on this kind of GPU in any shape, and what can, or None."""
    features = wants.features
    return (
        _no_cache(model, checkpoint, profile, wants)
        or _no_drafts(model, checkpoint, profile, features)
        or _no_balance(model, checkpoint, profile, features)
        or (_no_adapters(model, profile, features.adapters, features) if features.adapters else None)
    )


def misfit(
    architecture: Architecture, checkpoint: Checkpoint, shape: GroupShape, features: Features
) -> str | None:
    """Why vLLM would refuse this model in this shape, with what is asked besides, or None."""
    if why := unusable(architecture, checkpoint, shape):
        return why
    if architecture.is_moe and (why := uneven(architecture, shape.width, features.balancing)):
        return why
    split = architecture.is_moe and shape.tensor > 1 and shape.data > 1
    if (
        split
        and features.adapters is not None
        and changes_experts(ByIdentity(architecture), features.adapters)
    ):
        return (
            f"with {shape.data} ranks of {shape.tensor} GPUs each GPU passes its own share of a rank's tokens through"
            " the experts, which vLLM cannot do with adapters of experts: set parallelism.tensor to 1, or name the"
            " adapters' other modules in model.adapters[].targetModules"
        )
    return None


def _no_cache(model: Model, checkpoint: Checkpoint, profile: AcceleratorProfile, wants: Wants) -> str | None:
    asked = wants.kv_cache_precision
    if asked is None:
        return None
    architecture = model.architecture
    why = no_such_cache(architecture, profile, precision_of(asked), checkpoint.dtype(architecture))
    if why is None:
        return None
    others = " or ".join(precisions_on(architecture, profile))
    return f"model.kvCachePrecision is {asked}, but {why}: set it to {others}"


def _no_drafts(
    model: Model, checkpoint: Checkpoint, profile: AcceleratorProfile, features: Features
) -> str | None:
    if not features.own_drafts:
        return None
    layers, drafted = model.architecture.mtp_layers, features.drafted(model.architecture)
    where = (
        "engine.args.speculative-config"
        if features.drafts and features.drafts.from_args
        else "engine.speculation"
    )
    if layers == 0:
        return f"{model.name} has no prediction layers for MTP: leave {where} out"
    if Section.MTP in checkpoint.without:
        held = dict.fromkeys(
            other.precision.value
            for other in model.checkpoints
            if Section.MTP not in other.without and runs_on(other, profile)
        )
        way = f", or set model.precision to {' or '.join(held)}, which has them" if held else ""
        return (
            f"{checkpoint.repository or model.name} holds no weights of the prediction layers for MTP: leave {where}"
            f" out{way}"
        )
    if drafted > layers and drafted % layers:
        return (
            f"{drafted} tokens are to be drafted by {layers} prediction layers, which vLLM runs in turn: set"
            f" {where}.tokens to at most {layers}, or to a multiple of it"
        )
    return None


def _no_balance(
    model: Model, checkpoint: Checkpoint, profile: AcceleratorProfile, features: Features
) -> str | None:
    if features.balancing.mode is not BalancingMode.ENABLED:
        return None
    architecture = model.architecture
    if not architecture.is_moe:
        return f"{model.name} has no experts to balance: leave engine.expertBalancing out"
    if platform_of(profile) is Platform.CPU:
        return "vLLM balances experts on GPUs only: leave engine.expertBalancing out on cpu"
    formats = stored_weights(model, checkpoint, (Section.MAIN,)).expert_formats
    if not can_balance(architecture, formats, platform_of(profile)):
        return (
            f"vLLM cannot move the experts of {architecture.name} stored as {', '.join(sorted(formats))} on"
            f" {profile.name}: leave engine.expertBalancing out"
        )
    return None


def _no_adapters(
    model: Model, profile: AcceleratorProfile, adapters: Adapters, features: Features
) -> str | None:
    architecture = model.architecture
    if architecture.is_moe and platform_of(profile) is Platform.CPU:
        # It starts, and answers the first request with an error: the experts' kernels that take adapters are Triton's.
        return "vLLM serves models with experts with adapters on GPUs only: leave model.adapters out on cpu"
    if not takes_adapters(architecture):
        return f"vLLM takes no LoRA adapters for {architecture.name} that a plan can count: leave model.adapters out"
    if unknown := unknown_modules(architecture, adapters):
        return (
            f"{model.name} has no {', '.join(unknown)} for adapters to change: correct"
            " model.adapters[].targetModules as their adapter_config.json has them"
        )
    if features.balancing.mode is BalancingMode.ENABLED and changes_experts(
        ByIdentity(architecture), adapters
    ):
        return (
            "experts that are moved leave their adapters behind: set engine.expertBalancing.mode to Disabled, or name"
            " the adapters' other modules in model.adapters[].targetModules"
        )
    return None
