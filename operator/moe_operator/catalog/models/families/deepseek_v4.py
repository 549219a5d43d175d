"""DeepSeek V4: compressed attention, experts in every layer, and several residual streams that are mixed around
each block (hyper-connections).

Names are the checkpoint's, shapes those of vLLM 0.32 and transformers 5.19, which agree. Some small weights (the
mixing of streams, the compressors' positions) are stored in FP32 and the table of the layers that route by token
as integers; here they count in the model's precision, which loses a few hundredths of a percent of the bytes.
"""

from collections.abc import Sequence

from moe_operator.catalog.models.architecture import (
    Architecture,
    Component,
    Experts,
    Section,
    Split,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.compressed_attention import (
    CompressedAttention,
    read_compressed_attention,
    read_ratios,
)

ARCHITECTURES = ("DeepseekV4ForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    hidden, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    vocabulary, streams = config.integer("vocab_size"), config.integer("hc_mult")
    attention = read_compressed_attention(config, hidden)
    ratios = read_ratios(config, layers)
    width, shared = config.integer("moe_intermediate_size"), config.integer("n_shared_experts", 0, least=0)
    active = config.integer("num_experts_per_tok")
    hashed = config.integer("num_hash_layers", 0, least=0)
    mtp = config.integer("num_nextn_predict_layers", 0, least=0)
    experts = Experts(
        count=config.integer("n_routed_experts"),
        active=active,
        shared=shared,
        layers=layers,
        intermediate=width,
        parameters=3 * hidden * width,
        hidden=hidden,
    )
    block, every = "layers.{layer}.", range(layers)
    embedding = (Component.EMBEDDINGS, vocabulary, hidden)
    tensors = [
        Tensor("embed", *embedding, split=Split.TENSOR, linear=False),
        Tensor("head", *embedding, split=Split.TENSOR),
        parts.vector("norm", hidden, (0,), Component.NORMS),
        *_joined_streams("", (0,), hidden, streams, Section.MAIN),
        *attention.tensors(block + "attn.", dict(enumerate(ratios))),
        *_block(block, every, experts, streams, Section.MAIN),
        *_table(block, range(min(hashed, layers)), vocabulary, active),
        parts.vector(block + "ffn.gate.bias", experts.count, range(hashed, layers), Component.ROUTER),
        *_prediction(attention, experts, streams, range(mtp)),
    ]
    return Architecture(
        name=name,
        family="DeepSeek V4",
        layers=layers,
        hidden=hidden,
        heads=attention.heads,
        kv_heads=1,
        vocabulary=vocabulary,
        experts=experts,
        tensors=tuple(tensors),
        caches=(*attention.caches(ratios), *(attention.caches((0,) * mtp, Section.MTP) if mtp else ())),
        context_length=config.integer("max_position_embeddings"),
        dtype=config.text("torch_dtype", config.text("dtype", "bfloat16")),
        mtp_layers=mtp,
        widest_ffn=max(shared, active) * width,
        tensor_divides=(("output groups", attention.output_groups), ("shared expert width", shared * width)),
    )


def _block(
    block: str, layers: Sequence[int], experts: Experts, streams: int, section: Section
) -> list[Tensor]:
    """All of these layers but their attention."""
    hidden, ffn, every = experts.hidden, block + "ffn.", tuple(layers)
    # What enters the block, what leaves it, and how streams mix in between.
    mixed = (2 + streams) * streams
    found = [
        *parts.norms(block, ("attn_norm", "ffn_norm"), layers, hidden, section),
        *parts.router(ffn + "gate", layers, hidden=hidden, experts=experts.count, section=section),
        *parts.gated_ffn(
            ffn + "experts.{expert}.",
            layers,
            hidden=hidden,
            intermediate=experts.intermediate,
            component=Component.ROUTED_EXPERTS,
            experts=experts.count,
            section=section,
            names=("w1", "w3", "w2"),
        ),
    ]
    for part in ("hc_attn", "hc_ffn"):
        found += [
            _mixing(f"{block}{part}_fn", mixed, streams * hidden, every, section),
            _mixing(f"{block}{part}_base", 1, mixed, every, section),
            _mixing(f"{block}{part}_scale", 1, 3, every, section),
        ]
    if experts.shared:
        found += parts.gated_ffn(
            ffn + "shared_experts.",
            layers,
            hidden=hidden,
            intermediate=experts.shared * experts.intermediate,
            component=Component.SHARED_EXPERTS,
            section=section,
            names=("w1", "w3", "w2"),
        )
    return found


def _table(block: str, layers: Sequence[int], vocabulary: int, active: int) -> list[Tensor]:
    """The experts of each token, in the first layers, which do not score."""
    if not layers:
        return []
    name = block + "ffn.gate.tid2eid"
    return [Tensor(name, Component.ROUTER, vocabulary, active, tuple(layers), linear=False)]


def _joined_streams(
    prefix: str, layers: Sequence[int], hidden: int, streams: int, section: Section
) -> list[Tensor]:
    """Joins the streams into one before a head."""
    every = tuple(layers)
    return [
        _mixing(prefix + "hc_head_fn", streams, streams * hidden, every, section),
        _mixing(prefix + "hc_head_base", 1, streams, every, section),
        _mixing(prefix + "hc_head_scale", 1, 1, every, section),
    ]


def _mixing(name: str, rows: int, cols: int, layers: tuple[int, ...], section: Section) -> Tensor:
    # They work on the residual stream, as norms do, and are as small.
    return Tensor(name, Component.NORMS, rows, cols, layers, section=section, linear=False)


def _prediction(
    attention: CompressedAttention, experts: Experts, streams: int, layers: Sequence[int]
) -> list[Tensor]:
    """Multi-token prediction: a layer without compression that shares the model's embedding and head."""
    if not layers:
        return []
    section, hidden, every, block = Section.MTP, experts.hidden, tuple(layers), "mtp.{layer}."
    return [
        *attention.tensors(block + "attn.", dict.fromkeys(layers, 0), section),
        *_block(block, layers, experts, streams, section),
        parts.vector(block + "ffn.gate.bias", experts.count, layers, Component.ROUTER, section=section),
        *_joined_streams(block, layers, hidden, streams, section),
        *parts.norms(block, ("enorm", "hnorm", "norm"), layers, hidden, section),
        *(
            Tensor(block + name, Component.PROJECTION, hidden, hidden, every, section=section)
            for name in ("e_proj", "h_proj")
        ),
    ]
