"""DeepSeek V4's attention: one key/value head of the last tokens, and of the tokens before them one vector per 4
(chosen from by an indexer) or per 128."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.catalog.models.architecture import (
    AttentionCache,
    Cache,
    Component,
    LatentCache,
    Section,
    Split,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts

_INDEXED = 4
"""The ratio whose layers have an indexer, and whose compressor looks at two overlapping groups of tokens."""


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """Sizes of one layer."""

    hidden: int
    heads: int
    head_size: int
    rope: int
    query_rank: int
    output_rank: int
    """o_lora_rank: the output is compressed to this, in each of `output_groups` groups of heads."""
    output_groups: int
    window: int
    indexer_heads: int
    indexer_size: int

    def tensors(self, prefix: str, ratios: dict[int, int], section: Section = Section.MAIN) -> list[Tensor]:
        """The weights of the layers whose compression `ratios` gives (0: none, only the window)."""
        every, kind = tuple(ratios), Component.ATTENTION
        width = self.heads * self.head_size
        grouped = self.output_groups * self.output_rank
        found = [
            Tensor(prefix + name, kind, rows, cols, every, split=split, section=section)
            for name, rows, cols, split in (
                ("wq_a", self.query_rank, self.hidden, Split.REPLICATED),
                ("wq_b", width, self.query_rank, Split.TENSOR),
                ("wkv", self.head_size, self.hidden, Split.REPLICATED),
                ("wo_a", grouped, width // self.output_groups, Split.TENSOR),
                ("wo_b", self.hidden, grouped, Split.TENSOR),
            )
        ]
        found += [
            parts.vector(prefix + "q_norm", self.query_rank, every, kind, section=section),
            parts.vector(prefix + "kv_norm", self.head_size, every, kind, section=section),
            parts.vector(prefix + "attn_sink", self.heads, every, kind, section=section, split=Split.TENSOR),
        ]
        for ratio in sorted(set(ratios.values()) - {0}):
            layers = tuple(layer for layer, found_ratio in ratios.items() if found_ratio == ratio)
            found += self._compressor(prefix + "compressor.", layers, ratio, self.head_size, section)
            if ratio == _INDEXED:
                found += self._indexer(prefix + "indexer.", layers, section)
        return found

    def _compressor(
        self, prefix: str, layers: Sequence[int], ratio: int, size: int, section: Section
    ) -> list[Tensor]:
        every, kind = tuple(layers), Component.ATTENTION
        wide = size * (2 if ratio == _INDEXED else 1)
        return [
            Tensor(prefix + "wkv", kind, wide, self.hidden, every, section=section),
            Tensor(prefix + "wgate", kind, wide, self.hidden, every, section=section),
            Tensor(prefix + "ape", kind, ratio, wide, every, section=section, linear=False),
            parts.vector(prefix + "norm", size, every, kind, section=section),
        ]

    def _indexer(self, prefix: str, layers: Sequence[int], section: Section) -> list[Tensor]:
        every, kind = tuple(layers), Component.ATTENTION
        queries = self.indexer_heads * self.indexer_size
        return [
            Tensor(prefix + "wq_b", kind, queries, self.query_rank, every, section=section),
            Tensor(prefix + "weights_proj", kind, self.indexer_heads, self.hidden, every, section=section),
            *self._compressor(prefix + "compressor.", layers, _INDEXED, self.indexer_size, section),
        ]

    def caches(self, ratios: Sequence[int], section: Section = Section.MAIN) -> tuple[Cache, ...]:
        """The window of every layer (keys and values are one vector), and the compressed vectors by ratio."""
        found: list[Cache] = [
            AttentionCache(len(ratios), 1, self.head_size, 0, window=self.window, section=section)
        ]
        for ratio in sorted(set(ratios) - {0}):
            count = sum(1 for found_ratio in ratios if found_ratio == ratio)
            indexed = ratio == _INDEXED
            found.append(
                LatentCache(
                    layers=count,
                    latent_size=self.head_size - self.rope,
                    rope_size=self.rope,
                    indexer_size=self.indexer_size if indexed else 0,
                    indexer_layers=count if indexed else 0,
                    compression=ratio,
                    section=section,
                )
            )
        return tuple(found)


def read_compressed_attention(config: ConfigReader, hidden: int) -> CompressedAttention:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    heads, groups = config.integer("num_attention_heads"), config.integer("o_groups")
    if heads % groups:
        raise ConfigError(f"{config.path('o_groups')}: {groups} does not divide {heads} num_attention_heads")
    size, rope = config.integer("head_dim"), config.integer("qk_rope_head_dim")
    if rope > size:
        raise ConfigError(f"{config.path('qk_rope_head_dim')}: {rope} is more than head_dim, {size}")
    return CompressedAttention(
        hidden=hidden,
        heads=heads,
        head_size=size,
        rope=rope,
        query_rank=config.integer("q_lora_rank"),
        output_rank=config.integer("o_lora_rank"),
        output_groups=groups,
        window=config.integer("sliding_window"),
        indexer_heads=config.integer("index_n_heads"),
        indexer_size=config.integer("index_head_dim"),
    )


def read_ratios(config: ConfigReader, layers: int) -> tuple[int, ...]:
    """Compression of each main layer: 0 (none) or a number of tokens. The list may go on for the prediction
    layers, which vLLM never compresses."""
    found = config.items("compress_ratios")
    where = config.path("compress_ratios")
    if found is None:
        raise ConfigError(f"{where}: is missing; a list with a number per layer is needed")
    if len(found) < layers:
        raise ConfigError(f"{where}: has {len(found)} entries for {layers} layers (num_hidden_layers)")
    for layer, ratio in enumerate(found):
        if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 0:
            raise ConfigError(f"{where}[{layer}]: {ratio!r} is not a whole number of at least 0")
    return tuple(found[:layers])
