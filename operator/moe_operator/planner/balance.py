"""How routed experts are placed over the GPUs of a group, and how many busy ones get copies (EPLB)."""

from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Architecture

#: From this width on, one expert more per GPU pays for its memory: with few experts per GPU the busiest GPU is what
#: every step waits for. Published wide-EP deployments use 32 copies for 32 GPUs.
BALANCED_FROM = 16

#: Architectures whose implementation in vLLM 0.32 can move experts (it implements `MixtureOfExperts`); gpt-oss,
#: MiniMax and Qwen2 MoE cannot.
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


def can_balance(architecture: Architecture) -> bool:
    """Whether vLLM can move this architecture's experts."""
    return any(architecture.name.startswith(f"{name}For") for name in _BALANCED)


def placement(architecture: Architecture, width: int) -> Placement:
    """One of each expert per group; copies where they make the number divisible, or where the group is wide.

    Without EPLB vLLM takes uneven numbers: the first GPUs hold one expert more.
    """
    experts = architecture.experts
    if experts is None:
        return Placement(0, 0, balanced=False, even=True)
    if width == 1 or not can_balance(architecture):
        return Placement(-(-experts.count // width), 0, balanced=False, even=experts.count % width == 0)
    redundant = -experts.count % width
    if redundant == 0 and width >= BALANCED_FROM:
        redundant = width
    total = experts.count + redundant
    return Placement(total // width, redundant, balanced=redundant > 0, even=True)
