"""Qwen3-Next: hybrid attention, experts in every layer, text only."""

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.hybrid_attention import read_hybrid

ARCHITECTURES = ("Qwen3NextForCausalLM",)


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless.

    The published configs do not say how many prediction layers there are; the checkpoints have one, and vLLM
    takes one where `num_nextn_predict_layers` is absent. They name no `mamba_ssm_dtype` either, so that vLLM
    keeps the recurrent state in the model's precision.
    """
    mtp = config.integer("num_nextn_predict_layers", 1, least=0)
    decoder = read_hybrid(config, sparse_model=True, mtp_layers=mtp)
    tied = config.flag("tie_word_embeddings", False)
    return Architecture(
        name=name,
        family="Qwen3-Next",
        layers=decoder.layers,
        hidden=decoder.hidden,
        heads=decoder.heads,
        kv_heads=decoder.kv_heads,
        vocabulary=decoder.vocabulary,
        experts=decoder.experts,
        tensors=(
            *parts.embeddings(decoder.vocabulary, decoder.hidden, tied=tied),
            *decoder.tensors("model.", fused=True),
        ),
        caches=decoder.caches,
        context_length=config.integer("max_position_embeddings"),
        dtype=config.text("torch_dtype", config.text("dtype", "bfloat16")),
        tied_embeddings=tied,
        mtp_layers=mtp,
        widest_ffn=decoder.widest_ffn,
        tensor_divides=decoder.divides,
    )
