"""DeepSeek V3, R1, V3.1 and V3.2, and Kimi K2: latent attention, a few dense layers, then experts."""

from collections.abc import Sequence

from moe_operator.catalog.models.architecture import (
    Architecture,
    Component,
    Experts,
    LatentCache,
    Section,
    Split,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.latent_attention import LatentAttention, read_latent_attention

_SPARSE_ATTENTION = "DeepseekV32ForCausalLM"

ARCHITECTURES = ("DeepseekV3ForCausalLM", _SPARSE_ATTENTION)

_BLOCK = "model.layers.{layer}."


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sparse = name == _SPARSE_ATTENTION
    return assemble(
        config, name, family="DeepSeek V3.2" if sparse else "DeepSeek V3", sparse=sparse, own_embeddings=True
    )


def assemble(
    config: ConfigReader,
    name: str,
    *,
    family: str,
    sparse: bool,
    own_embeddings: bool,
    indexed: Sequence[int] | None = None,
) -> Architecture:
    """The structure that DeepSeek and GLM-5 share.

    `sparse`: attention has an indexer, in the layers `indexed` (None: in all); the prediction layers always
    have their own. `own_embeddings`: prediction layers carry a copy of the embedding and of the head.
    """
    hidden, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    vocabulary = config.integer("vocab_size")
    attention = read_latent_attention(config, hidden, sparse=sparse)
    experts = config.integer("n_routed_experts")
    shared = config.integer("n_shared_experts", 0, least=0)
    active, width = config.integer("num_experts_per_tok"), config.integer("moe_intermediate_size")
    dense_layers = config.integer("first_k_dense_replace", 0, least=0)
    frequency = config.integer("moe_layer_freq", 1)
    moe = tuple(layer for layer in range(layers) if layer >= dense_layers and layer % frequency == 0)
    dense = tuple(layer for layer in range(layers) if layer not in set(moe))
    intermediate = config.integer("intermediate_size") if dense else 0
    mtp = config.integer("num_nextn_predict_layers", 0, least=0)
    tied = config.flag("tie_word_embeddings", False)
    sizes = Experts(
        count=experts,
        active=active,
        shared=shared,
        layers=len(moe),
        intermediate=width,
        parameters=3 * hidden * width,
        hidden=hidden,
        groups=config.integer("n_group", 1),
    )
    every = range(layers)
    own = tuple(every if indexed is None else indexed)
    tensors = [
        *parts.embeddings(vocabulary, hidden, tied=tied),
        *attention.tensors(_BLOCK + "self_attn.", every, indexed=own),
        *parts.norms(_BLOCK, ("input_layernorm", "post_attention_layernorm"), every, hidden),
        *expert_layers(sizes, moe, Section.MAIN),
        *_prediction(attention, sizes, range(layers, layers + mtp), vocabulary, own_embeddings),
    ]
    if dense:
        tensors += parts.gated_ffn(_BLOCK + "mlp.", dense, hidden=hidden, intermediate=intermediate)
    widths = (("shared expert width", shared * width), ("feed-forward width", intermediate))
    return Architecture(
        name=name,
        family=family,
        layers=layers,
        hidden=hidden,
        heads=attention.heads,
        kv_heads=1,
        vocabulary=vocabulary,
        experts=sizes,
        tensors=tuple(tensors),
        caches=_caches(attention, layers, len(own) if sparse else 0, mtp),
        context_length=config.integer("max_position_embeddings"),
        dtype=config.text("torch_dtype", config.text("dtype", "bfloat16")),
        tied_embeddings=tied,
        mtp_layers=mtp,
        widest_ffn=max(intermediate, shared * width, active * width),
        tensor_divides=tuple((what, size) for what, size in widths if size),
    )


def _caches(attention: LatentAttention, layers: int, indexed: int, mtp: int) -> tuple[LatentCache, ...]:
    main = attention.cache(layers, indexed=indexed)
    if not mtp:
        return (main,)
    return (main, attention.cache(mtp, indexed=mtp if indexed else 0, section=Section.MTP))


def expert_layers(sizes: Experts, layers: Sequence[int], section: Section) -> list[Tensor]:
    """Router, routed and shared experts of these layers. The router has a correction per expert, which moves
    load between experts without a loss term (`noaux_tc`)."""
    if not layers:
        return []
    mlp = _BLOCK + "mlp."
    found = [
        *parts.router(
            mlp + "gate",
            layers,
            hidden=sizes.hidden,
            experts=sizes.count,
            section=section,
            bias=mlp + "gate.e_score_correction_bias",
        ),
        *parts.gated_ffn(
            mlp + "experts.{expert}.",
            layers,
            hidden=sizes.hidden,
            intermediate=sizes.intermediate,
            component=Component.ROUTED_EXPERTS,
            experts=sizes.count,
            section=section,
        ),
    ]
    if sizes.shared:
        found += parts.gated_ffn(
            mlp + "shared_experts.",
            layers,
            hidden=sizes.hidden,
            intermediate=sizes.shared * sizes.intermediate,
            component=Component.SHARED_EXPERTS,
            section=section,
        )
    return found


def _prediction(
    attention: LatentAttention,
    sizes: Experts,
    layers: Sequence[int],
    vocabulary: int,
    own_embeddings: bool,
) -> list[Tensor]:
    """Multi-token prediction: a layer with experts, numbered on from the main ones."""
    if not layers:
        return []
    section, hidden, every = Section.MTP, attention.hidden, tuple(layers)
    found = [
        *attention.tensors(_BLOCK + "self_attn.", layers, section=section),
        *expert_layers(sizes, layers, section),
        *parts.norms(
            _BLOCK,
            ("input_layernorm", "post_attention_layernorm", "enorm", "hnorm", "shared_head.norm"),
            layers,
            hidden,
            section,
        ),
        Tensor(_BLOCK + "eh_proj", Component.PROJECTION, hidden, 2 * hidden, every, section=section),
    ]
    if own_embeddings:
        found += [
            Tensor(
                _BLOCK + name,
                Component.EMBEDDINGS,
                vocabulary,
                hidden,
                every,
                split=Split.TENSOR,
                section=section,
                linear=False,
            )
            for name in ("embed_tokens", "shared_head.head")
        ]
    return found
