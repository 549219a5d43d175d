"""Llama 3: dense, grouped-query attention."""

from moe_operator.catalog.models.architecture import Architecture, Component, Split
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import decoder, read_dimensions

ARCHITECTURES = ("LlamaForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config)
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
        *parts.norms(layer, ("input_layernorm", "post_attention_layernorm"), sizes.every, sizes.hidden),
    ]
    if config.flag("mlp_bias", False):
        tensors += [
            parts.vector(
                f"{layer}mlp.{part}_proj.bias", length, sizes.every, Component.DENSE_FFN, split=split
            )
            for part, length, split in (
                ("gate", intermediate, Split.TENSOR),
                ("up", intermediate, Split.TENSOR),
                ("down", sizes.hidden, Split.REPLICATED),
            )
        ]
    return decoder(
        sizes,
        name=name,
        family="Llama",
        tensors=tuple(tensors),
        widest_ffn=intermediate,
    )
