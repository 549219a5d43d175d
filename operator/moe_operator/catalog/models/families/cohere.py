"""Cohere Command R and R+: dense; attention and feed-forward side by side behind one norm, tied embeddings.

Tensors as in transformers' CohereForCausalLM: LayerNorms have a scale and no bias, and where `use_qk_norm` is set
(R+) queries and keys have one over all heads. The logits' scale is a number in the config, not a weight.
"""

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import decoder, read_dimensions

ARCHITECTURES = ("CohereForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config, tied=True)
    intermediate = config.integer("intermediate_size")
    layer = "model.layers.{layer}."
    tensors = [
        *parts.embeddings(sizes.vocabulary, sizes.hidden, tied=sizes.tied),
        *parts.grouped_query_attention(
            layer + "self_attn.",
            sizes.every,
            hidden=sizes.hidden,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_size=sizes.head_size,
            biases="qkvo" if config.flag("attention_bias", False) else "",
        ),
        *parts.gated_ffn(layer + "mlp.", sizes.every, hidden=sizes.hidden, intermediate=intermediate),
        *parts.norms(layer, ("input_layernorm",), sizes.every, sizes.hidden),
    ]
    if config.flag("use_qk_norm", False):
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
        family="Cohere Command R",
        tensors=tuple(tensors),
        widest_ffn=intermediate,
    )
