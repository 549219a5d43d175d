"""gpt-oss: attention with biases and sinks, every other layer over a sliding window; experts in every layer.

The experts of a layer are fused in the checkpoint: one matrix of gate and up, one of down, each with a bias. Only
these two matrices are MXFP4 in the publisher's repositories.
"""

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    Component,
    Split,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import (
    Dimensions,
    decoder,
    layers_of_kinds,
    read_dimensions,
    read_experts,
    routed_experts,
)

ARCHITECTURES = ("GptOssForCausalLM",)

_SLIDING, _FULL = "sliding_attention", "full_attention"


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config)
    experts, active = read_experts(config, "num_local_experts", "num_experts")
    intermediate = config.integer("intermediate_size")
    biased = config.flag("attention_bias", True)
    layer, mlp = "model.layers.{layer}.", "model.layers.{layer}.mlp."
    tensors = [
        *parts.embeddings(sizes.vocabulary, sizes.hidden, tied=sizes.tied),
        *parts.grouped_query_attention(
            layer + "self_attn.",
            sizes.every,
            hidden=sizes.hidden,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_size=sizes.head_size,
            biases="qkvo" if biased else "",
        ),
        parts.vector(
            layer + "self_attn.sinks", sizes.heads, sizes.every, Component.ATTENTION, split=Split.TENSOR
        ),
        *parts.norms(layer, ("input_layernorm", "post_attention_layernorm"), sizes.every, sizes.hidden),
        *parts.router(
            mlp + "router", sizes.every, hidden=sizes.hidden, experts=experts, bias=mlp + "router.bias"
        ),
        *_experts(mlp + "experts.", sizes, experts=experts, intermediate=intermediate),
    ]
    return decoder(
        sizes,
        name=name,
        family="gpt-oss",
        experts=routed_experts(
            sizes,
            count=experts,
            active=active,
            layers=sizes.layers,
            intermediate=intermediate,
            biases=2 * intermediate + sizes.hidden,
        ),
        tensors=tuple(tensors),
        caches=_caches(config, sizes),
        widest_ffn=active * intermediate,
        # vLLM's gpt_oss.py divides the key/value width by the rank's GPUs and does not copy heads.
        tensor_divides=(("key/value heads", sizes.kv_heads),),
    )


def _experts(prefix: str, sizes: Dimensions, *, experts: int, intermediate: int) -> list[Tensor]:
    """The fused experts: matrices as (output, input), whichever way round the checkpoint stores them."""
    found: list[Tensor] = []
    for part, rows, cols in (
        ("gate_up_proj", 2 * intermediate, sizes.hidden),
        ("down_proj", sizes.hidden, intermediate),
    ):
        for suffix, shape in (("", (rows, cols)), ("_bias", (1, rows))):
            found.append(
                Tensor(
                    prefix + part + suffix,
                    Component.ROUTED_EXPERTS,
                    *shape,
                    tuple(sizes.every),
                    experts=experts,
                    split=Split.EXPERTS,
                    linear=not suffix,
                )
            )
    return found


def _caches(config: ConfigReader, sizes: Dimensions) -> tuple[AttentionCache, ...]:
    """By `layer_types`; without it, even layers slide, as transformers fills it in and vLLM assumes."""
    default = tuple(_FULL if index % 2 else _SLIDING for index in sizes.every)
    kinds = layers_of_kinds(config, sizes.layers, (_SLIDING, _FULL), default)
    window = config.integer("sliding_window", 128)
    found = (
        AttentionCache(kinds.count(kind), sizes.kv_heads, sizes.head_size, sizes.head_size, window=reach)
        for kind, reach in ((_FULL, None), (_SLIDING, window))
    )
    return tuple(cache for cache in found if cache.layers)
