"""The decoder that Qwen3-Next and Qwen3.5 share: most layers with GatedDeltaNet, every fourth with full attention,
and either experts or a dense network after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_operator.catalog.models.architecture import (
    AttentionCache,
    Cache,
    Component,
    Experts,
    Section,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.gated_delta_net import GatedDeltaNet, read_gated_delta_net

FULL, LINEAR = "full_attention", "linear_attention"


@dataclass(frozen=True, slots=True)
class HybridDecoder:
    """What the config says about the decoder, with its multi-token prediction layers."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    full: tuple[int, ...]
    """Indexes of the layers with full attention."""
    linear: tuple[int, ...]
    """Indexes of the layers with GatedDeltaNet."""
    delta: GatedDeltaNet
    sparse: tuple[int, ...]
    """Indexes of the layers with experts."""
    dense: tuple[int, ...]
    intermediate: int
    """Width of a dense layer's network; 0 where every layer has experts."""
    experts: Experts | None
    shared: int
    """Width of the shared expert."""
    mtp_layers: int
    float32_state: bool

    @property
    def widest_ffn(self) -> int:
        routed = self.experts.active * self.experts.intermediate if self.experts else 0
        return max(self.intermediate, self.shared, routed)

    @property
    def divides(self) -> tuple[tuple[str, int], ...]:
        widths = (("shared expert width", self.shared), ("feed-forward width", self.intermediate))
        return (*self.delta.divides, *((what, width) for what, width in widths if width))

    @property
    def caches(self) -> tuple[Cache, ...]:
        found: list[Cache] = []
        if self.full:
            found.append(self._attention_cache(len(self.full), Section.MAIN))
        if self.linear:
            found.append(self.delta.cache(len(self.linear), float32_state=self.float32_state))
        if self.mtp_layers:
            found.append(self._attention_cache(self.mtp_layers, Section.MTP))
        return tuple(found)

    def _attention_cache(self, layers: int, section: Section) -> AttentionCache:
        return AttentionCache(layers, self.kv_heads, self.head_size, self.head_size, section=section)

    def tensors(self, prefix: str, *, fused: bool) -> list[Tensor]:
        """Layers and their multi-token prediction, without embeddings. `fused`: see GatedDeltaNet.tensors."""
        block = prefix + "layers.{layer}."
        return [
            *self._full_attention(block, self.full, Section.MAIN),
            *self.delta.tensors(block + "linear_attn.", self.linear, fused=fused),
            *self._ffn(block, self.sparse, self.dense, Section.MAIN),
            *self._norms(block, range(self.layers), Section.MAIN),
            *self._prediction(),
        ]

    def _prediction(self) -> list[Tensor]:
        """The prediction layers have full attention and share the model's embedding and head."""
        if not self.mtp_layers:
            return []
        section, once, every = Section.MTP, (0,), range(self.mtp_layers)
        block = "mtp.layers.{layer}."
        sparse = tuple(every) if self.experts else ()
        return [
            Tensor("mtp.fc", Component.PROJECTION, self.hidden, 2 * self.hidden, once, section=section),
            *parts.norms(
                "mtp.", ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"), once, self.hidden, section
            ),
            *self._full_attention(block, every, section),
            *self._ffn(block, sparse, () if sparse else tuple(every), section),
            *self._norms(block, every, section),
        ]

    def _norms(self, block: str, layers: Sequence[int], section: Section) -> list[Tensor]:
        return parts.norms(
            block, ("input_layernorm", "post_attention_layernorm"), layers, self.hidden, section
        )

    def _full_attention(self, block: str, layers: Sequence[int], section: Section) -> list[Tensor]:
        if not layers:
            return []
        return parts.grouped_query_attention(
            block + "self_attn.",
            layers,
            hidden=self.hidden,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            gated_output=True,
            head_norms=True,
            section=section,
        )

    def _ffn(self, block: str, sparse: Sequence[int], dense: Sequence[int], section: Section) -> list[Tensor]:
        found: list[Tensor] = []
        mlp, hidden = block + "mlp.", self.hidden
        if dense:
            found += parts.gated_ffn(
                mlp, dense, hidden=hidden, intermediate=self.intermediate, section=section
            )
        if sparse and self.experts:
            found += parts.router(
                mlp + "gate", sparse, hidden=hidden, experts=self.experts.count, section=section
            )
            # Checkpoints in BF16 hold all experts of a layer in two 3-D tensors, quantised ones each by itself.
            found += parts.gated_ffn(
                mlp + "experts.{expert}.",
                sparse,
                hidden=hidden,
                intermediate=self.experts.intermediate,
                component=Component.ROUTED_EXPERTS,
                experts=self.experts.count,
                section=section,
            )
        if sparse and self.shared:
            found += parts.gated_ffn(
                mlp + "shared_expert.",
                sparse,
                hidden=hidden,
                intermediate=self.shared,
                component=Component.SHARED_EXPERTS,
                section=section,
            )
            # One number per token, never quantised.
            found.append(
                parts.vector(
                    mlp + "shared_expert_gate", hidden, sparse, Component.SHARED_EXPERTS, section=section
                )
            )
        return found


def read_hybrid(config: ConfigReader, *, sparse_model: bool, mtp_layers: int) -> HybridDecoder:
    """From a text config: raises ConfigError with the path of a field that is missing or senseless."""
    hidden, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    kinds = _layer_kinds(config, layers)
    sparse = _sparse_layers(config, layers) if sparse_model else ()
    dense = tuple(layer for layer in range(layers) if layer not in set(sparse))
    experts = None
    if sparse:
        width = config.integer("moe_intermediate_size")
        experts = Experts(
            count=config.integer("num_experts"),
            active=config.integer("num_experts_per_tok"),
            shared=1,
            layers=len(sparse),
            intermediate=width,
            parameters=3 * hidden * width,
            hidden=hidden,
        )
    return HybridDecoder(
        hidden=hidden,
        layers=layers,
        heads=config.integer("num_attention_heads"),
        kv_heads=config.integer("num_key_value_heads"),
        head_size=config.integer("head_dim"),
        vocabulary=config.integer("vocab_size"),
        full=tuple(layer for layer, kind in enumerate(kinds) if kind == FULL),
        linear=tuple(layer for layer, kind in enumerate(kinds) if kind == LINEAR),
        delta=read_gated_delta_net(config, hidden),
        sparse=sparse,
        dense=dense,
        intermediate=config.integer("intermediate_size") if dense else 0,
        experts=experts,
        shared=config.integer("shared_expert_intermediate_size") if sparse else 0,
        mtp_layers=mtp_layers,
        float32_state=config.text("mamba_ssm_dtype", "auto") == "float32",
    )


def _layer_kinds(config: ConfigReader, layers: int) -> list[str]:
    """By `layer_types`, else every `full_attention_interval`-th layer is full (the fourth, where that is absent
    too)."""
    kinds = config.texts("layer_types")
    if kinds is None:
        every = config.integer("full_attention_interval", 4)
        return [LINEAR if (layer + 1) % every else FULL for layer in range(layers)]
    if len(kinds) != layers:
        raise ConfigError(
            f"{config.path('layer_types')}: has {len(kinds)} entries for {layers} layers (num_hidden_layers)"
        )
    for layer, kind in enumerate(kinds):
        if kind not in (FULL, LINEAR):
            raise ConfigError(
                f"{config.path('layer_types')}[{layer}]: {kind!r} is neither {FULL!r} nor {LINEAR!r}"
            )
    return kinds


def _sparse_layers(config: ConfigReader, layers: int) -> tuple[int, ...]:
    """The layers with experts, as vLLM chooses them: all unless the config names others."""
    step = config.integer("decoder_sparse_step", 1)
    dense = set(config.items("mlp_only_layers") or ())
    return tuple(layer for layer in range(layers) if layer not in dense and (layer + 1) % step == 0)
