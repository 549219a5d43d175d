"""What an architecture is made of: its weights, tensor by tensor, and what it keeps per request.

A family's builder turns a `config.json` into one `Architecture`; everything later (parameter totals, checkpoint
bytes, bytes per rank, KV cache) is arithmetic over it, so that no size is written down by hand anywhere.
Layers that are alike share one entry; the largest model has about forty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Component(StrEnum):
    """What a weight is for, as reports name it."""

    ROUTED_EXPERTS = "RoutedExperts"
    SHARED_EXPERTS = "SharedExperts"
    ROUTER = "Router"
    ATTENTION = "Attention"
    """Of all kinds: grouped-query, latent (MLA) with its sparse indexer (DSA), linear (GatedDeltaNet)."""
    DENSE_FFN = "DenseFFN"
    EMBEDDINGS = "Embeddings"
    """The token embedding, and the output head where it is not tied to it."""
    NORMS = "Norms"
    VISION = "Vision"
    PROJECTION = "Projection"
    """Joins the last hidden state and the next token's embedding in a multi-token prediction layer."""


class Section(StrEnum):
    """Which part of the model a weight belongs to. Parts other than MAIN need not be loaded."""

    MAIN = "Main"
    MTP = "MTP"
    """Multi-token prediction: loaded only for speculative decoding with it."""
    VISION = "Vision"
    """Encoder of images and projector: left out when only text is served."""


class Split(StrEnum):
    """How vLLM 0.32 divides a weight over the GPUs of a group."""

    EXPERTS = "Experts"
    """Whole experts, over all GPUs of the group (expert parallelism); without it, each expert's width over all
    of them."""
    TENSOR = "Tensor"
    """Evenly over the GPUs of a rank (tensor parallelism); each rank has all of it."""
    KV_HEADS = "KVHeads"
    """By key/value heads over the GPUs of a rank; with more GPUs than heads, heads are copied."""
    REPLICATED = "Replicated"
    """Whole on every GPU."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Weights of one shape: `len(layers) * experts` matrices of rows x cols (vectors have one row)."""

    name: str
    """As in the checkpoint, `{layer}` and `{expert}` for the indexes: quantisation rules match on it."""
    component: Component
    rows: int
    """Output features; 1 for a vector."""
    cols: int
    """Input features; the length of a vector."""
    layers: tuple[int, ...] = (0,)
    """The layers that have one, by their index in the checkpoint's names; (0,) for what exists once."""
    experts: int = 1
    """Matrices per layer; more than 1 only for routed experts."""
    split: Split = Split.REPLICATED
    section: Section = Section.MAIN
    linear: bool = True
    """A matrix of a linear layer, which a quantised checkpoint may store in a narrow format; norms, biases,
    convolutions and embeddings are not."""

    @property
    def matrices(self) -> int:
        return len(self.layers) * self.experts

    @property
    def parameters(self) -> int:
        return self.rows * self.cols * self.matrices


# --- What a request keeps in memory -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttentionCache:
    """Keys and values of `layers` grouped-query attention layers."""

    layers: int
    kv_heads: int
    head_size: int
    """Elements of one head's key; values have `value_head_size`."""
    value_head_size: int
    window: int | None = None
    """Only so many last tokens are attended to (sliding window); None: all."""
    chunk: int | None = None
    """Attention is within chunks of so many tokens (Llama 4); None: not chunked."""
    section: Section = Section.MAIN


@dataclass(frozen=True, slots=True)
class LatentCache:
    """The compressed keys and values of `layers` multi-head latent attention (MLA) layers: one vector per
    token, the same on every GPU of a rank."""

    layers: int
    latent_size: int
    """kv_lora_rank."""
    rope_size: int
    """qk_rope_head_dim, kept beside the latent."""
    indexer_size: int = 0
    """Elements of the sparse indexer's key per token (DSA), stored as FP8 with one FP32 scale; 0: none."""
    indexer_layers: int = 0
    """Layers with an indexer of their own."""
    compression: int = 1
    """One vector (and one indexer key) is kept per so many tokens (DeepSeek V4)."""
    section: Section = Section.MAIN


@dataclass(frozen=True, slots=True)
class StateCache:
    """The recurrent state of `layers` linear attention (GatedDeltaNet) layers: per request, whatever its
    length."""

    layers: int
    key_heads: int
    key_head_size: int
    value_heads: int
    value_head_size: int
    convolution: int
    """Kernel size of the short convolution: kernel - 1 columns are kept."""
    float32_state: bool
    """The recurrent part is kept in 32 bits (the config's `mamba_ssm_dtype`); else in the model's precision."""


Cache = AttentionCache | LatentCache | StateCache


@dataclass(frozen=True, slots=True)
class Experts:
    """The routed experts of a mixture-of-experts model."""

    count: int
    """Per layer."""
    active: int
    """Per token."""
    shared: int
    """Experts that every token passes, in units of the routed ones' number (`n_shared_experts`)."""
    layers: int
    """Layers with experts, multi-token prediction aside."""
    intermediate: int
    """Width of one routed expert."""
    parameters: int
    """Of one routed expert in one layer."""
    hidden: int
    groups: int = 1
    """Groups of experts that the router chooses among first (`n_group`)."""


class RopeScaling(StrEnum):
    """How far positions can be stretched past the native context."""

    NONE = "None"
    YARN = "Yarn"
    """YaRN, set by vLLM's `--hf-overrides`; the card of the model says up to what factor."""


@dataclass(frozen=True)
class Architecture:
    """One model's structure, from its `config.json`."""

    name: str
    """`architectures[0]`, by which vLLM finds its implementation."""
    family: str
    """The builder that read it, for messages: `Qwen3.5 MoE`, `DeepSeek V3`."""
    layers: int
    hidden: int
    heads: int
    """Query heads: divisible by the GPUs of a rank."""
    kv_heads: int
    """Key/value heads; 1 for latent attention."""
    vocabulary: int
    experts: Experts | None
    """None for a dense model."""
    tensors: tuple[Tensor, ...]
    caches: tuple[Cache, ...]
    context_length: int
    """Longest sequence without stretching positions, in tokens."""
    dtype: str
    """Precision that the checkpoint computes in: `bfloat16`, `float16` or `float32`."""
    tied_embeddings: bool = False
    mtp_layers: int = 0
    """Tokens that the model's own prediction layers can propose in one step."""
    widest_ffn: int = 0
    """Widest intermediate activation of one token on one layer, for the peak of activations: dense FFN,
    shared experts, or routed experts x active."""
    tensor_divides: tuple[tuple[str, int], ...] = ()
    """(what, number): numbers besides `heads` that the GPUs of a rank must divide, as vLLM asserts when it
    builds the model, for example ("linear attention value heads", 64)."""

    @property
    def is_moe(self) -> bool:
        return self.experts is not None

    @cached_property
    def total_parameters(self) -> int:
        """All weights, every section: what the Hugging Face hub counts for an unquantised repository."""
        return sum(tensor.parameters for tensor in self.tensors)

    @cached_property
    def active_parameters(self) -> int:
        """Weights of the main section that one token passes, embeddings included."""
        total = 0
        for tensor in self.of(Section.MAIN):
            if tensor.split is Split.EXPERTS and self.experts is not None:
                total += tensor.parameters * self.experts.active // self.experts.count
            else:
                total += tensor.parameters
        return total

    def of(self, *sections: Section) -> Iterator[Tensor]:
        """The tensors of these sections."""
        return (tensor for tensor in self.tensors if tensor.section in sections)

    def parameters(self, *components: Component, section: Section = Section.MAIN) -> int:
        """Parameters of these components in one section."""
        return sum(t.parameters for t in self.of(section) if t.component in components)
