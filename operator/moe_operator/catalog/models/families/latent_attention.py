"""Multi-head latent attention (MLA) and the indexer that makes it sparse (DSA): DeepSeek V3, Kimi K2, GLM-5."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Component, LatentCache, Section, Split, Tensor
from moe_operator.catalog.models.config_reader import ConfigReader
from moe_operator.catalog.models.families import parts


@dataclass(frozen=True, slots=True)
class Indexer:
    """Scores earlier tokens to choose those that are attended to."""

    heads: int
    head_size: int


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Sizes of one layer."""

    hidden: int
    heads: int
    query_rank: int
    """q_lora_rank: queries are compressed to this first; 0: they are not."""
    latent: int
    """kv_lora_rank: what keys and values of all heads are computed from."""
    nope: int
    """Size of a query's and key's part without position."""
    rope: int
    """Size of the part with position, one for all heads' keys."""
    value: int
    indexer: Indexer | None = None

    def tensors(
        self,
        prefix: str,
        layers: Sequence[int],
        *,
        indexed: Sequence[int] | None = None,
        section: Section = Section.MAIN,
    ) -> list[Tensor]:
        """The weights of these layers. `indexed`: those with an indexer of their own (None: all, if the
        model has one); the others use what the layer before them chose.

        Matrices from the compressed queries and keys to heads are divided by heads, those that compress are
        whole on every GPU, and so is the indexer.
        """
        if not layers:
            return []
        every, kind = tuple(layers), Component.ATTENTION
        queries = self.heads * (self.nope + self.rope)
        shapes = [
            ("kv_a_proj_with_mqa", self.latent + self.rope, self.hidden, Split.REPLICATED),
            ("kv_b_proj", self.heads * (self.nope + self.value), self.latent, Split.TENSOR),
            ("o_proj", self.hidden, self.heads * self.value, Split.TENSOR),
        ]
        norms = {"kv_a_layernorm": self.latent}
        if self.query_rank:
            shapes += [
                ("q_a_proj", self.query_rank, self.hidden, Split.REPLICATED),
                ("q_b_proj", queries, self.query_rank, Split.TENSOR),
            ]
            norms["q_a_layernorm"] = self.query_rank
        else:
            shapes.append(("q_proj", queries, self.hidden, Split.TENSOR))
        found = [
            Tensor(prefix + name, kind, rows, cols, every, split=split, section=section)
            for name, rows, cols, split in shapes
        ]
        found += [
            parts.vector(prefix + name, size, every, kind, section=section) for name, size in norms.items()
        ]
        return found + self._indexer(prefix + "indexer.", every if indexed is None else indexed, section)

    def _indexer(self, prefix: str, layers: Sequence[int], section: Section) -> list[Tensor]:
        if self.indexer is None or not layers:
            return []
        every, kind = tuple(layers), Component.ATTENTION
        heads, size = self.indexer.heads, self.indexer.head_size
        return [
            *(
                Tensor(prefix + name, kind, rows, cols, every, section=section)
                for name, rows, cols in (
                    ("wq_b", heads * size, self.query_rank),
                    ("wk", size, self.hidden),
                    ("weights_proj", heads, self.hidden),
                )
            ),
            parts.vector(prefix + "k_norm", size, every, kind, section=section),
            parts.vector(prefix + "k_norm.bias", size, every, kind, section=section),
        ]

    def cache(self, layers: int, *, indexed: int, section: Section = Section.MAIN) -> LatentCache:
        """`indexed`: layers with an indexer of their own."""
        indexer = self.indexer if indexed else None
        return LatentCache(
            layers=layers,
            latent_size=self.latent,
            rope_size=self.rope,
            indexer_size=indexer.head_size if indexer else 0,
            indexer_layers=indexed if indexer else 0,
            section=section,
        )


def read_latent_attention(config: ConfigReader, hidden: int, *, sparse: bool) -> LatentAttention:
    """`sparse`: with an indexer, which needs compressed queries. Raises ConfigError with the path of a field
    that is missing or senseless."""
    return LatentAttention(
        hidden=hidden,
        heads=config.integer("num_attention_heads"),
        query_rank=config.integer("q_lora_rank") if sparse else config.integer("q_lora_rank", 0),
        latent=config.integer("kv_lora_rank"),
        nope=config.integer("qk_nope_head_dim"),
        rope=config.integer("qk_rope_head_dim"),
        value=config.integer("v_head_dim"),
        indexer=Indexer(config.integer("index_n_heads"), config.integer("index_head_dim"))
        if sparse
        else None,
    )
