"""Llama 4: experts in every layer or every other one, one shared; three of four layers attend within chunks.

The layers without rotary positions (each `no_rope_layer_interval`-th) attend to everything, the others only within
chunks of `attention_chunk_size` tokens. Queries and keys are normalised without a weight. The experts of a layer
are fused in the checkpoint.
"""

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    Component,
    Split,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import (
    Dimensions,
    decoder,
    layers_of_kinds,
    read_dimensions,
    read_experts,
    routed_experts,
)
from moe_operator.catalog.models.families.vision_llama4 import vision_tower

ARCHITECTURES = ("Llama4ForConditionalGeneration", "Llama4ForCausalLM")

_CHUNKED, _FULL = "chunked_attention", "full_attention"


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    text = config.within("text_config")
    if text is None:
        if name == "Llama4ForConditionalGeneration":
            raise ConfigError(
                f"{config.path('text_config')}: is missing; the language model's sizes are there"
            )
        text = config
    vision = config.within("vision_config")
    prefix = "" if vision is None else "language_model."
    sizes = read_dimensions(text, outer=config)
    experts, active = read_experts(text, "num_local_experts", "num_experts")
    width = text.integer("intermediate_size")
    step = text.integer("interleave_moe_layer_step", 1)
    sparse = tuple(index for index in sizes.every if (index + 1) % step == 0)
    if not sparse:
        raise ConfigError(
            f"{text.path('interleave_moe_layer_step')}: {step} leaves no layer of {sizes.layers} with experts"
        )
    dense = tuple(index for index in sizes.every if (index + 1) % step)
    layer, ffn = prefix + "model.layers.{layer}.", prefix + "model.layers.{layer}.feed_forward."
    widest = max(active * width, width)
    tensors = [
        *parts.embeddings(
            sizes.vocabulary, sizes.hidden, tied=sizes.tied, prefix=prefix + "model.", head=prefix + "lm_head"
        ),
        *parts.grouped_query_attention(
            layer + "self_attn.",
            sizes.every,
            hidden=sizes.hidden,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_size=sizes.head_size,
            biases="qkvo" if text.flag("attention_bias", False) else "",
        ),
        *parts.norms(layer, ("input_layernorm", "post_attention_layernorm"), sizes.every, sizes.hidden),
        *parts.router(ffn + "router", sparse, hidden=sizes.hidden, experts=experts),
        *_experts(ffn + "experts.", sparse, sizes, experts=experts, width=width),
        *parts.gated_ffn(
            ffn + "shared_expert.",
            sparse,
            hidden=sizes.hidden,
            intermediate=width,
            component=Component.SHARED_EXPERTS,
        ),
    ]
    if dense:
        dense_width = text.integer("intermediate_size_mlp")
        widest = max(widest, dense_width)
        tensors += parts.gated_ffn(ffn, dense, hidden=sizes.hidden, intermediate=dense_width)
    divides: tuple[tuple[str, int], ...] = ()
    if vision is not None:
        tensors += vision_tower(vision, text_hidden=sizes.hidden)
        # vLLM's mllama4.py asserts it, unless the tower runs data parallel.
        divides = (("vision attention heads", vision.integer("num_attention_heads")),)
    return decoder(
        sizes,
        name=name,
        family="Llama 4",
        experts=routed_experts(
            sizes,
            count=experts,
            active=active,
            shared=1,
            layers=len(sparse),
            intermediate=width,
        ),
        tensors=tuple(tensors),
        caches=_caches(text, sizes),
        widest_ffn=widest,
        tensor_divides=divides,
    )


def _experts(
    prefix: str, layers: tuple[int, ...], sizes: Dimensions, *, experts: int, width: int
) -> list[Tensor]:
    """The fused experts: matrices as (output, input), whichever way round the checkpoint stores them."""
    return [
        Tensor(
            prefix + part,
            Component.ROUTED_EXPERTS,
            rows,
            cols,
            layers,
            experts=experts,
            split=Split.EXPERTS,
        )
        for part, rows, cols in (
            ("gate_up_proj", 2 * width, sizes.hidden),
            ("down_proj", sizes.hidden, width),
        )
    ]


def _caches(text: ConfigReader, sizes: Dimensions) -> tuple[AttentionCache, ...]:
    """By `layer_types`, else `no_rope_layers` (1: rotary, so chunked), else the interval."""
    interval = text.integer("no_rope_layer_interval", 4)
    default = tuple(_CHUNKED if (index + 1) % interval else _FULL for index in sizes.every)
    rotary = text.items("no_rope_layers")
    if rotary:
        if len(rotary) != sizes.layers or any(flag not in (0, 1) for flag in rotary):
            raise ConfigError(
                f"{text.path('no_rope_layers')}: must have a 0 or 1 for each of the {sizes.layers} layers"
            )
        default = tuple(_CHUNKED if flag else _FULL for flag in rotary)
    kinds = layers_of_kinds(text, sizes.layers, (_CHUNKED, _FULL), default)
    chunk = text.integer("attention_chunk_size") if "attention_chunk_size" in text else None
    if chunk is None:
        kinds = (_FULL,) * sizes.layers
    found = (
        AttentionCache(kinds.count(kind), sizes.kv_heads, sizes.head_size, sizes.head_size, chunk=reach)
        for kind, reach in ((_FULL, None), (_CHUNKED, chunk))
    )
    return tuple(cache for cache in found if cache.layers)
