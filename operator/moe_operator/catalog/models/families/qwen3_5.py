"""Qwen3.5 and Qwen3.6: hybrid attention, dense or with experts, with or without an encoder of images."""

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.hybrid_attention import read_hybrid
from moe_operator.catalog.models.families.vision_qwen import vision_divides, vision_tensors

_SPARSE = ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM")
_MULTIMODAL = ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5ForConditionalGeneration")

ARCHITECTURES = (*_SPARSE, "Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless: `text_config.hidden_size`.

    A multimodal model's config holds the decoder's under `text_config` and the encoder's under
    `vision_config`; a text-only model's holds the decoder's at the top, and its weights lack the
    `language_model.` in their names.
    """
    multimodal = name in _MULTIMODAL
    text = _within(config, "text_config") if multimodal else config
    mtp = text.integer("mtp_num_hidden_layers", 0, least=0)
    decoder = read_hybrid(text, sparse_model=name in _SPARSE, mtp_layers=mtp)
    tied = config.flag("tie_word_embeddings", text.flag("tie_word_embeddings", False))
    prefix = "model.language_model." if multimodal else "model."
    vision = _within(config, "vision_config") if multimodal else None
    top_dtype = config.text("torch_dtype", config.text("dtype", "bfloat16"))
    return Architecture(
        name=name,
        family="Qwen3.5 MoE" if name in _SPARSE else "Qwen3.5",
        layers=decoder.layers,
        hidden=decoder.hidden,
        heads=decoder.heads,
        kv_heads=decoder.kv_heads,
        vocabulary=decoder.vocabulary,
        experts=decoder.experts,
        tensors=(
            *parts.embeddings(decoder.vocabulary, decoder.hidden, tied=tied, prefix=prefix),
            *decoder.tensors(prefix, fused=False),
            *(vision_tensors(vision) if vision is not None else ()),
        ),
        caches=decoder.caches,
        context_length=text.integer("max_position_embeddings"),
        dtype=text.text("torch_dtype", text.text("dtype", top_dtype)),
        tied_embeddings=tied,
        mtp_layers=mtp,
        widest_ffn=decoder.widest_ffn,
        tensor_divides=(*decoder.divides, *(vision_divides(vision) if vision is not None else ())),
    )


def _within(config: ConfigReader, key: str) -> ConfigReader:
    inner = config.within(key)
    if inner is None:
        raise ConfigError(
            f"{config.path(key)}: is missing; a multimodal config has it "
            "(a text-only model's class is Qwen3_5MoeForCausalLM or Qwen3_5ForCausalLM)"
        )
    return inner
