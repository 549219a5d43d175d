"""GLM-5: DeepSeek V3.2's structure; from GLM-5.2 on, most layers reuse the tokens that an earlier layer chose."""

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import deepseek_v3

ARCHITECTURES = ("GlmMoeDsaForCausalLM",)

_OWN, _REUSED = "full", "shared"


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    return deepseek_v3.assemble(
        config,
        name,
        family="GLM-5",
        sparse=True,
        own_embeddings=False,
        indexed=_indexed_layers(config, config.integer("num_hidden_layers")),
    )


def _indexed_layers(config: ConfigReader, layers: int) -> tuple[int, ...]:
    """Layers with an indexer of their own: by `indexer_types` or the pattern (`FSSS...`), else by frequency and
    offset, with vLLM's rule and its defaults (every layer)."""
    kinds = config.texts("indexer_types")
    if kinds is None and "index_topk_pattern" in config:
        pattern = config.text("index_topk_pattern")
        return tuple(layer for layer in range(layers) if pattern[layer : layer + 1] != "S")
    if kinds is None:
        frequency = config.integer("index_topk_freq", 1)
        offset = config.integer("index_skip_topk_offset", 2, least=0)
        return tuple(layer for layer in range(layers) if max(layer - offset + 1, 0) % frequency == 0)
    where = config.path("indexer_types")
    if len(kinds) != layers:
        raise ConfigError(f"{where}: has {len(kinds)} entries for {layers} layers (num_hidden_layers)")
    for layer, kind in enumerate(kinds):
        if kind not in (_OWN, _REUSED):
            raise ConfigError(f"{where}[{layer}]: {kind!r} is neither {_OWN!r} nor {_REUSED!r}")
    return tuple(layer for layer, kind in enumerate(kinds) if kind == _OWN)
