"""Qwen3 MoE: grouped-query attention with a norm per head, experts in (nearly) every layer, none shared."""

from moe_operator.catalog.models.architecture import Architecture, Component
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import (
    Dimensions,
    decoder,
    read_dimensions,
    read_experts,
    routed_experts,
)

ARCHITECTURES = ("Qwen3MoeForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config)
    # transformers 5 writes the count as num_local_experts.
    experts, active = read_experts(config, "num_experts", "num_local_experts")
    intermediate = config.integer("moe_intermediate_size")
    dense = _dense_layers(config, sizes)
    sparse = tuple(index for index in sizes.every if index not in dense)
    widest = active * intermediate if sparse else 0
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
            head_norms=True,
            biases="qkvo" if config.flag("attention_bias", False) else "",
        ),
        *parts.norms(layer, ("input_layernorm", "post_attention_layernorm"), sizes.every, sizes.hidden),
        *parts.router(mlp + "gate", sparse, hidden=sizes.hidden, experts=experts),
        *parts.gated_ffn(
            mlp + "experts.{expert}.",
            sparse,
            hidden=sizes.hidden,
            intermediate=intermediate,
            component=Component.ROUTED_EXPERTS,
            experts=experts,
        ),
    ]
    if dense:
        width = config.integer("intermediate_size")
        widest = max(widest, width)
        tensors += parts.gated_ffn(mlp, sorted(dense), hidden=sizes.hidden, intermediate=width)
    return decoder(
        sizes,
        name=name,
        family="Qwen3 MoE",
        experts=routed_experts(
            sizes,
            count=experts,
            active=active,
            layers=len(sparse),
            intermediate=intermediate,
        ),
        tensors=tuple(tensors),
        widest_ffn=widest,
    )


def _dense_layers(config: ConfigReader, sizes: Dimensions) -> frozenset[int]:
    """Layers with a plain feed-forward: those of `mlp_only_layers`, and all but each `decoder_sparse_step`-th."""
    step = config.integer("decoder_sparse_step", 1)
    dense = {index for index in sizes.every if (index + 1) % step}
    for position, index in enumerate(config.items("mlp_only_layers") or ()):
        if isinstance(index, bool) or not isinstance(index, int) or index not in sizes.every:
            raise ConfigError(
                f"{config.path('mlp_only_layers')}[{position}]: {index!r} is not a layer's index "
                f"(0 to {sizes.layers - 1})"
            )
        dense.add(index)
    return frozenset(dense)
