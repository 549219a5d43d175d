"""Memory that vLLM 0.32 makes for LoRA adapters before there is one: two narrow matrices beside every linear layer that
an adapter may change, for as many adapters as are in GPU memory at a time.

Sources: `create_lora_weights` of vLLM's LoRA layers. An input matrix A (rank x inputs) and an output matrix B
(outputs x rank), in 16 bits; of layers that are divided by outputs B is divided, by inputs A; of experts a GPU makes
room for those that it holds.
"""

from functools import lru_cache

from moe_operator.catalog.models.architecture import Architecture, Component, Section, Split, Tensor
from moe_operator.planner.features import Adapters
from moe_operator.planner.identity import ByIdentity
from moe_operator.planner.usable import INPUTS_DIVIDED

#: Bytes of one element, whatever the model's precision: vLLM takes what the model computes in.
_ELEMENT = 2

#: Besides linear layers: the embedding, and the router, which is one to vLLM.
_MATRICES = (Component.EMBEDDINGS, Component.ROUTER)

#: Names under which adapters know a module, by the name that this family's checkpoint has for it.
_ALSO = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}

#: Architectures whose implementation in vLLM 0.32 takes adapters (`SupportsLoRA`) and whose layers are those of the
#: catalogue. DeepSeek V4 is left out: what vLLM wraps of its compressed attention is not known here.
_WITH_ADAPTERS = (
    "CohereForCausalLM",
    "DeepseekV32ForCausalLM",
    "DeepseekV3ForCausalLM",
    "Glm4MoeForCausalLM",
    "GlmMoeDsaForCausalLM",
    "GptOssForCausalLM",
    "Llama4ForConditionalGeneration",
    "LlamaForCausalLM",
    "MiniMaxM2ForCausalLM",
    "MixtralForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3NextForCausalLM",
    "Qwen3_5ForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
)


def takes_adapters(architecture: Architecture) -> bool:
    """Whether vLLM serves this architecture with LoRA adapters."""
    return architecture.name in _WITH_ADAPTERS


@lru_cache(maxsize=512)
def changes_experts(architecture: ByIdentity[Architecture], adapters: Adapters) -> bool:
    """Whether the routed experts are among what adapters may change."""
    return any(
        tensor.split is Split.EXPERTS and _wrapped(tensor, adapters.modules)
        for tensor in architecture.value.of(Section.MAIN)
    )


def unknown_modules(architecture: Architecture, adapters: Adapters) -> tuple[str, ...]:
    """Modules that adapters name and the model does not have."""
    known = {name for tensor in architecture.of(Section.MAIN) for name in _names(tensor)}
    return tuple(name for name in adapters.modules or () if name.rpartition(".")[2] not in known)


@lru_cache(maxsize=512)
def adapter_bytes(
    architecture: ByIdentity[Architecture], adapters: Adapters, tensor: int, held_experts: int
) -> int:
    """On one GPU of a rank of `tensor` GPUs that holds so many routed experts of each layer."""
    total = 0
    for one in architecture.value.of(Section.MAIN):
        if not _wrapped(one, adapters.modules):
            continue
        layers = len(one.layers)
        if one.split is Split.EXPERTS:
            total += layers * held_experts * (one.rows + one.cols)
        elif one.component is Component.EMBEDDINGS or one.split is Split.REPLICATED:
            # Every GPU has the whole vocabulary's.
            total += layers * (one.rows + one.cols)
        elif _names(one)[0] in INPUTS_DIVIDED:
            total += layers * (one.rows + -(-one.cols // tensor))
        else:
            parts = min(tensor, architecture.value.kv_heads) if one.split is Split.KV_HEADS else tensor
            total += layers * (one.cols + -(-one.rows // parts))
    return total * adapters.slots * adapters.rank * _ELEMENT


def _names(tensor: Tensor) -> tuple[str, ...]:
    name = tensor.name.rpartition(".")[2]
    names = (name, _ALSO[name]) if name in _ALSO else (name,)
    # The routed experts are one module to vLLM; adapters may name it or its matrices.
    return (*names, "experts") if tensor.split is Split.EXPERTS else names


def _wrapped(tensor: Tensor, modules: tuple[str, ...] | None) -> bool:
    if not tensor.linear and not (tensor.component in _MATRICES and tensor.rows > 1):
        return False
    if modules is None:
        return True
    return any(name.rpartition(".")[2] in _names(tensor) for name in modules)
