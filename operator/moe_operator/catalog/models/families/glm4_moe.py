"""GLM-4.5, 4.6 and 4.7: grouped-query attention, a few dense layers first, then routed and shared experts.

One more layer, at the index after the last, predicts a further token. GLM-4.5 and 4.7 ship an embedding and an
output head of its own with it, GLM-4.6 does not. No field of the publisher's configs tells them apart, so an entry
of the catalogue says it in a field that only this reader knows, `mtp_own_embeddings`; unsaid, they are counted.
"""

from collections.abc import Sequence

from moe_operator.catalog.models.architecture import (
    Architecture,
    AttentionCache,
    Component,
    Experts,
    Section,
    Split,
    Tensor,
)
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader
from moe_operator.catalog.models.families import parts
from moe_operator.catalog.models.families.dimensions import Dimensions, read_dimensions, read_experts

ARCHITECTURES = ("Glm4MoeForCausalLM",)

_LAYER = "model.layers.{layer}."


def build(config: ConfigReader, name: str) -> Architecture:
    """Raises ConfigError with the path of a field that is missing or senseless."""
    sizes = read_dimensions(config)
    experts, active = read_experts(config, "n_routed_experts", "num_local_experts")
    shared = config.integer("n_shared_experts", 0, least=0)
    width, dense_width = config.integer("moe_intermediate_size"), config.integer("intermediate_size")
    first = config.integer("first_k_dense_replace", 0, least=0)
    if first >= sizes.layers:
        raise ConfigError(
            f"{config.path('first_k_dense_replace')}: {first} leaves no layer of {sizes.layers} with experts"
        )
    predictors = config.integer("num_nextn_predict_layers", 0, least=0)
    if predictors > sizes.layers:
        raise ConfigError(
            f"{config.path('num_nextn_predict_layers')}: {predictors} is more than the model's layers"
        )
    layer = _Layer(
        sizes,
        biases="qkv" if config.flag("attention_bias", False) else "",
        head_norms=config.flag("use_qk_norm", False),
        experts=experts,
        shared=shared,
        width=width,
    )
    tensors = [
        *parts.embeddings(sizes.vocabulary, sizes.hidden, tied=sizes.tied),
        *layer.attention(sizes.every, Section.MAIN),
        *parts.gated_ffn(_LAYER + "mlp.", range(first), hidden=sizes.hidden, intermediate=dense_width),
        *layer.mixture(range(first, sizes.layers), Section.MAIN),
    ]
    caches = [AttentionCache(sizes.layers, sizes.kv_heads, sizes.head_size, sizes.head_size)]
    if predictors:
        indexes = range(sizes.layers, sizes.layers + predictors)
        tensors += [
            *layer.attention(indexes, Section.MTP),
            *layer.mixture(indexes, Section.MTP),
            *_prediction(sizes, indexes, own_embeddings=config.flag("mtp_own_embeddings", True)),
        ]
        caches.append(
            AttentionCache(predictors, sizes.kv_heads, sizes.head_size, sizes.head_size, section=Section.MTP)
        )
    return Architecture(
        name=name,
        family="GLM-4 MoE",
        layers=sizes.layers,
        hidden=sizes.hidden,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        vocabulary=sizes.vocabulary,
        experts=Experts(
            count=experts,
            active=active,
            shared=shared,
            layers=sizes.layers - first,
            intermediate=width,
            parameters=3 * sizes.hidden * width,
            hidden=sizes.hidden,
            groups=config.integer("n_group", 1),
        ),
        tensors=tuple(tensor for tensor in tensors if tensor.layers),
        caches=tuple(caches),
        context_length=sizes.context_length,
        dtype=sizes.dtype,
        tied_embeddings=sizes.tied,
        mtp_layers=predictors,
        widest_ffn=max(active * width, shared * width, dense_width if first else 0),
    )


class _Layer:
    """The parts that layers of the model and of its prediction have alike."""

    def __init__(
        self,
        sizes: Dimensions,
        *,
        biases: str,
        head_norms: bool,
        experts: int,
        shared: int,
        width: int,
    ) -> None:
        self._sizes, self._biases, self._head_norms = sizes, biases, head_norms
        self._experts, self._shared, self._width = experts, shared, width

    def attention(self, layers: Sequence[int], section: Section) -> list[Tensor]:
        """Attention and the layer's two norms."""
        sizes = self._sizes
        return [
            *parts.grouped_query_attention(
                _LAYER + "self_attn.",
                layers,
                hidden=sizes.hidden,
                heads=sizes.heads,
                kv_heads=sizes.kv_heads,
                head_size=sizes.head_size,
                head_norms=self._head_norms,
                biases=self._biases,
                section=section,
            ),
            *parts.norms(
                _LAYER, ("input_layernorm", "post_attention_layernorm"), layers, sizes.hidden, section
            ),
        ]

    def mixture(self, layers: Sequence[int], section: Section) -> list[Tensor]:
        """Router with its correction, routed experts, and the shared ones as one of their joint width."""
        hidden = self._sizes.hidden
        found = [
            *parts.router(
                _LAYER + "mlp.gate",
                layers,
                hidden=hidden,
                experts=self._experts,
                section=section,
                bias=_LAYER + "mlp.gate.e_score_correction_bias",
            ),
            *parts.gated_ffn(
                _LAYER + "mlp.experts.{expert}.",
                layers,
                hidden=hidden,
                intermediate=self._width,
                component=Component.ROUTED_EXPERTS,
                experts=self._experts,
                section=section,
            ),
        ]
        if self._shared:
            found += parts.gated_ffn(
                _LAYER + "mlp.shared_experts.",
                layers,
                hidden=hidden,
                intermediate=self._shared * self._width,
                component=Component.SHARED_EXPERTS,
                section=section,
            )
        return found


def _prediction(sizes: Dimensions, layers: Sequence[int], *, own_embeddings: bool) -> list[Tensor]:
    """What joins the last hidden state with the next token's embedding, and the way out."""
    indexes, section = tuple(layers), Section.MTP
    found = [
        Tensor(
            _LAYER + "eh_proj", Component.PROJECTION, sizes.hidden, 2 * sizes.hidden, indexes, section=section
        ),
        *parts.norms(_LAYER, ("enorm", "hnorm", "shared_head.norm"), indexes, sizes.hidden, section),
    ]
    if own_embeddings:
        for part, linear in (("embed_tokens", False), ("shared_head.head", True)):
            found.append(
                Tensor(
                    _LAYER + part,
                    Component.EMBEDDINGS,
                    sizes.vocabulary,
                    sizes.hidden,
                    indexes,
                    split=Split.TENSOR,
                    section=section,
                    linear=linear,
                )
            )
    return found
