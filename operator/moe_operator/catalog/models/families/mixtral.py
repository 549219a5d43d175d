"""Mixtral: grouped-query attention and experts in every layer."""

from moe_operator.catalog.models.architecture import Architecture, AttentionCache, Component
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import (
    decoder,
    read_dimensions,
    read_experts,
    routed_experts,
)

ARCHITECTURES = ("MixtralForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config)
    experts, active = read_experts(config, "num_local_experts")
    intermediate = config.integer("intermediate_size")
    window = config.integer("sliding_window") if "sliding_window" in config else None
    layer, moe = "model.layers.{layer}.", "model.layers.{layer}.block_sparse_moe."
    tensors = [
        *parts.embeddings(sizes.vocabulary, sizes.hidden, tied=sizes.tied),
        *parts.grouped_query_attention(
            layer + "self_attn.",
            sizes.every,
            hidden=sizes.hidden,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_size=sizes.head_size,
        ),
        *parts.router(moe + "gate", sizes.every, hidden=sizes.hidden, experts=experts),
        *parts.gated_ffn(
            moe + "experts.{expert}.",
            sizes.every,
            hidden=sizes.hidden,
            intermediate=intermediate,
            component=Component.ROUTED_EXPERTS,
            experts=experts,
            names=("w1", "w3", "w2"),
        ),
        *parts.norms(layer, ("input_layernorm", "post_attention_layernorm"), sizes.every, sizes.hidden),
    ]
    return decoder(
        sizes,
        name=name,
        family="Mixtral",
        experts=routed_experts(
            sizes,
            count=experts,
            active=active,
            layers=sizes.layers,
            intermediate=intermediate,
        ),
        tensors=tuple(tensors),
        caches=(
            AttentionCache(sizes.layers, sizes.kv_heads, sizes.head_size, sizes.head_size, window=window),
        ),
        widest_ffn=active * intermediate,
    )
