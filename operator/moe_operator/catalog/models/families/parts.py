"""Parts that many families share: each gives the tensors of one kind of layer.

Names are those of the checkpoints, as quantisation rules match on them. `prefix` is what precedes a layer's own
names, with `{layer}` for its index.
"""

from collections.abc import Sequence

from moe_operator.catalog.models.architecture import Component, Section, Split, Tensor

Layers = Sequence[int]


def embeddings(
    vocabulary: int, hidden: int, *, tied: bool, prefix: str = "model.", head: str = "lm_head"
) -> list[Tensor]:
    """The token embedding, the output head unless it is the same matrix, and the final norm."""
    found = [
        Tensor(
            f"{prefix}embed_tokens",
            Component.EMBEDDINGS,
            vocabulary,
            hidden,
            split=Split.TENSOR,
            linear=False,
        ),
        vector(f"{prefix}norm", hidden, (0,), Component.NORMS),
    ]
    if not tied:
        found.append(Tensor(head, Component.EMBEDDINGS, vocabulary, hidden, split=Split.TENSOR))
    return found


def vector(
    name: str,
    length: int,
    layers: Layers,
    component: Component,
    *,
    section: Section = Section.MAIN,
    split: Split = Split.REPLICATED,
) -> Tensor:
    """A norm's scale, a bias or the like."""
    return Tensor(name, component, 1, length, tuple(layers), split=split, section=section, linear=False)


def grouped_query_attention(
    prefix: str,
    layers: Layers,
    *,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_size: int,
    gated_output: bool = False,
    head_norms: bool = False,
    biases: Sequence[str] = (),
    section: Section = Section.MAIN,
) -> list[Tensor]:
    """q, k, v and o of grouped-query attention.

    `gated_output` doubles q (Qwen3.5, Qwen3-Next), `head_norms` adds one norm of head_size for queries and one
    for keys, `biases` names the projections (of `q`, `k`, `v`, `o`) that have one.
    """
    queries = heads * head_size * (2 if gated_output else 1)
    shapes = {
        "q": (queries, hidden, Split.TENSOR),
        "k": (kv_heads * head_size, hidden, Split.KV_HEADS),
        "v": (kv_heads * head_size, hidden, Split.KV_HEADS),
        "o": (hidden, heads * head_size, Split.TENSOR),
    }
    attention = Component.ATTENTION
    found = [
        Tensor(f"{prefix}{part}_proj", attention, rows, cols, tuple(layers), split=split, section=section)
        for part, (rows, cols, split) in shapes.items()
    ]
    for part in biases:
        rows, _, split = shapes[part]
        # The output's bias is added once, so it is whole on every GPU.
        where = Split.REPLICATED if part == "o" else split
        found.append(
            vector(f"{prefix}{part}_proj.bias", rows, layers, attention, section=section, split=where)
        )
    if head_norms:
        found += [
            vector(f"{prefix}{part}_norm", head_size, layers, attention, section=section) for part in "qk"
        ]
    return found


def whole_head_norms(
    prefix: str, layers: Layers, *, heads: int, kv_heads: int, head_size: int
) -> list[Tensor]:
    """One norm over all heads of the queries and one over those of the keys, divided like their projections."""
    return [
        vector(f"{prefix}{part}_norm", count * head_size, layers, Component.ATTENTION, split=split)
        for part, count, split in (("q", heads, Split.TENSOR), ("k", kv_heads, Split.KV_HEADS))
    ]


def gated_ffn(
    prefix: str,
    layers: Layers,
    *,
    hidden: int,
    intermediate: int,
    component: Component = Component.DENSE_FFN,
    experts: int = 1,
    section: Section = Section.MAIN,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> list[Tensor]:
    """Gate, up and down of a gated feed-forward network; of every routed expert where `experts` says so (the
    prefix then has `{expert}`)."""
    split = Split.EXPERTS if component is Component.ROUTED_EXPERTS else Split.TENSOR
    gate, up, down = names
    return [
        Tensor(
            prefix + name, component, rows, cols, tuple(layers), experts=experts, split=split, section=section
        )
        for name, rows, cols in (
            (gate, intermediate, hidden),
            (up, intermediate, hidden),
            (down, hidden, intermediate),
        )
    ]


def router(
    name: str,
    layers: Layers,
    *,
    hidden: int,
    experts: int,
    section: Section = Section.MAIN,
    bias: str | None = None,
) -> list[Tensor]:
    """The matrix that scores experts, and a bias or correction per expert. Never quantised, whole on every GPU."""
    found = [Tensor(name, Component.ROUTER, experts, hidden, tuple(layers), section=section, linear=False)]
    if bias:
        found.append(vector(bias, experts, layers, Component.ROUTER, section=section))
    return found


def norms(
    prefix: str, names: Sequence[str], layers: Layers, hidden: int, section: Section = Section.MAIN
) -> list[Tensor]:
    """Layer norms of width `hidden`."""
    return [vector(prefix + name, hidden, layers, Component.NORMS, section=section) for name in names]
