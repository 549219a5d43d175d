"""MiniMax M2: grouped-query attention with a norm over all heads, experts in every layer, none shared.

The configs announce multi-token prediction (`use_mtp`), but the repositories ship no weights for it: their totals
are met to the unit without. So it cannot be offered.
"""

from moe_operator.catalog.models.architecture import (
    Architecture,
    Component,
)
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import (
    decoder,
    read_dimensions,
    read_experts,
    routed_experts,
)

ARCHITECTURES = ("MiniMaxM2ForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config)
    experts, active = read_experts(config, "num_local_experts", "num_experts")
    intermediate = config.integer("intermediate_size")
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
        *parts.norms(layer, ("input_layernorm", "post_attention_layernorm"), sizes.every, sizes.hidden),
        *parts.router(
            moe + "gate",
            sizes.every,
            hidden=sizes.hidden,
            experts=experts,
            bias=moe + "e_score_correction_bias",
        ),
        *parts.gated_ffn(
            moe + "experts.{expert}.",
            sizes.every,
            hidden=sizes.hidden,
            intermediate=intermediate,
            component=Component.ROUTED_EXPERTS,
            experts=experts,
            names=("w1", "w3", "w2"),
        ),
    ]
    if config.flag("use_qk_norm", True):
        tensors += parts.whole_head_norms(
            layer + "self_attn.",
            sizes.every,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_size=sizes.head_size,
        )
    return decoder(
        sizes,
        name=name,
        family="MiniMax M2",
        experts=routed_experts(
            sizes,
            count=experts,
            active=active,
            layers=sizes.layers,
            intermediate=intermediate,
        ),
        tensors=tuple(tensors),
        widest_ffn=active * intermediate,
    )
