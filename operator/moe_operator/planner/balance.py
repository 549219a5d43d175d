"""How routed experts are placed over the GPUs of a group, and how many busy ones get copies (EPLB)."""

from collections.abc import Iterable
from dataclasses import dataclass

from moe_operator.api.features import BalancingMode
from moe_operator.catalog.models.architecture import Architecture
from moe_operator.planner.features import AUTO, Balancing
from moe_operator.planner.kv_backend import Platform

#: From this width on, one expert more per GPU pays for its memory: with few experts per GPU the busiest GPU is what
#: every step waits for. Published wide-EP deployments use 32 copies for 32 GPUs.
BALANCED_FROM = 16

#: Architectures whose implementation in vLLM 0.32 can move experts (it implements `MixtureOfExperts`); gpt-oss and
#: MiniMax cannot.
_BALANCED = (
    "DeepseekV2",
    "DeepseekV3",
    "DeepseekV32",
    "DeepseekV4",
    "Glm4Moe",
    "GlmMoeDsa",
    "Llama4",
    "Mixtral",
    "Qwen3Moe",
    "Qwen3Next",
    "Qwen3_5Moe",
)
#: Implemented for NVIDIA only: its module for AMD lacks what moves experts.
_ON_CUDA_ONLY = ("DeepseekV4",)

#: Formats of routed experts whose kernels take moved experts (`supports_eplb` of vLLM's methods): unquantised, FP8 by
#: block or row, ModelOpt's NVFP4, MXFP4. Not integers (true of one kernel only, which is not the default), and not
#: FP8 with one scale per matrix, which NVIDIA's checkpoints have (`ModelOptFp8MoEMethod`).
_BALANCED_FORMATS = ("none", "fp8-block", "fp8-channel", "nvfp4", "mxfp4")


@dataclass(frozen=True)
class Placement:
    """Experts of one layer."""

    per_gpu: int
    """On the fullest GPU, copies included; 0 for a dense model."""
    redundant: int
    """Copies beyond one of each expert, in the group."""
    balanced: bool
    """Whether EPLB moves experts while the group serves."""
    even: bool
    """Whether all GPUs hold the same number."""


def can_balance(architecture: Architecture, formats: Iterable[str], platform: Platform) -> bool:
    """Whether vLLM can move this architecture's experts when they are stored in these formats (`Scheme.name`).

    Without it the engine ends with `EPLB is not supported` as it loads the model; on `cpu` it refuses the flag.
    """
    if platform is Platform.CPU or any(name not in _BALANCED_FORMATS for name in formats):
        return False
    return any(
        architecture.name.startswith(f"{name}For")
        for name in _BALANCED
        if platform is Platform.CUDA or name not in _ON_CUDA_ONLY
    )


def placement(architecture: Architecture, width: int, *, movable: bool, asked: Balancing = AUTO) -> Placement:
    """One of each expert per group; copies where they make the number divisible, or where the group is wide.

    `movable`: see `can_balance`. Without it vLLM takes uneven numbers: the first GPUs hold one expert more. What is
    `asked` goes before all of that; `uneven` says where it cannot be.
    """
    experts = architecture.experts
    if experts is None:
        return Placement(0, 0, balanced=False, even=True)
    off = asked.mode is BalancingMode.DISABLED or (asked.mode is BalancingMode.AUTO and asked.redundant == 0)
    if width == 1 or not movable or off:
        return Placement(-(-experts.count // width), 0, balanced=False, even=experts.count % width == 0)
    redundant = asked.redundant
    if redundant is None:
        redundant = -experts.count % width
        if redundant == 0 and width >= BALANCED_FROM:
            redundant = width
    total = experts.count + redundant
    balanced = redundant > 0 or asked.mode is BalancingMode.ENABLED
    return Placement(-(-total // width), redundant, balanced=balanced, even=total % width == 0)


def uneven(architecture: Architecture, width: int, asked: Balancing) -> str | None:
    """Why experts cannot be balanced as asked over so many GPUs, or None. vLLM says it only as it loads the model."""
    experts = architecture.experts
    if experts is None or asked.mode is not BalancingMode.ENABLED:
        return None
    if width == 1:
        return "experts are balanced over several GPUs, and a group of one has nowhere to move them"
    total = experts.count + (asked.redundant or 0)
    if asked.redundant is None or total % width == 0:
        return None
    fitting = -experts.count % width
    return (
        f"{experts.count} experts and {asked.redundant} copies do not divide over {width} GPUs: set"
        f" engine.expertBalancing.redundantExperts to {fitting}, {fitting + width} or another {width} more"
    )
