"""The fields that nearly every decoder's config has, read and checked once."""

from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Architecture, AttentionCache, Cache, Experts, Tensor
from moe_operator.catalog.models.config_reader import ConfigError, ConfigReader

#: More layers than any model has: a mistyped count must not become a list of that length.
MOST_LAYERS = 4096


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of a decoder with grouped-query attention."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    """Elements of one head, of queries, keys and values alike."""
    vocabulary: int
    tied: bool
    """The output head is the embedding's matrix."""
    context_length: int
    dtype: str

    @property
    def every(self) -> range:
        """The indexes of all layers."""
        return range(self.layers)


def read_dimensions(
    config: ConfigReader, *, outer: ConfigReader | None = None, tied: bool = False
) -> Dimensions:
    """Raises ConfigError with the path of a field that is missing or senseless.

    `outer` is the whole config where `config` is a part of it (`text_config`): the dtype may stand there.
    `tied` is what the family assumes where the config does not say whether embeddings are tied.
    """
    hidden, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    if layers > MOST_LAYERS:
        raise ConfigError(f"{config.path('num_hidden_layers')}: {layers} is more than {MOST_LAYERS}")
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ConfigError(
            f"{config.path('num_key_value_heads')}: {kv_heads} does not divide num_attention_heads ({heads})"
        )
    if "head_dim" not in config and hidden % heads:
        raise ConfigError(
            f"{config.path('num_attention_heads')}: {heads} does not divide hidden_size ({hidden}); "
            "without head_dim it must"
        )
    return Dimensions(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=config.integer("head_dim", hidden // heads),
        vocabulary=config.integer("vocab_size"),
        tied=config.flag("tie_word_embeddings", tied),
        # vLLM prefers this key where a config has it (Command R states its context there).
        context_length=config.integer("model_max_length", 0, least=0)
        or config.integer("max_position_embeddings"),
        dtype=read_dtype(config, outer),
    )


def read_dtype(config: ConfigReader, outer: ConfigReader | None = None) -> str:
    """The precision that the weights compute in; configs name it `torch_dtype` or, since transformers 5,
    `dtype`."""
    for reader in (config, outer):
        for key in ("torch_dtype", "dtype"):
            if reader is not None and key in reader:
                found = reader.text(key).removeprefix("torch.")
                if found not in ("bfloat16", "float16", "float32"):
                    raise ConfigError(
                        f"{reader.path(key)}: {found!r} is not one of bfloat16, float16, float32"
                    )
                return found
    return "bfloat16"


def read_experts(config: ConfigReader, *keys: str, active: str = "num_experts_per_tok") -> tuple[int, int]:
    """(experts per layer, experts per token). `keys` are the names that the count goes by; the first is what
    an error names."""
    key = next((key for key in keys if key in config), keys[0])
    count, chosen = config.integer(key), config.integer(active)
    if chosen > count:
        raise ConfigError(f"{config.path(active)}: {chosen} is more than {key} ({count})")
    return count, chosen


def layers_of_kinds(
    config: ConfigReader, layers: int, kinds: tuple[str, ...], default: tuple[str, ...]
) -> tuple[str, ...]:
    """The kind of every layer's attention by `layer_types`, or `default` where the config has none.

    Raises ConfigError when the list is of another length than the layers, or names a kind not among `kinds`.
    """
    found = config.texts("layer_types")
    if found is None:
        return default
    if len(found) != layers:
        raise ConfigError(
            f"{config.path('layer_types')}: has {len(found)} entries; num_hidden_layers is {layers}"
        )
    for index, kind in enumerate(found):
        if kind not in kinds:
            raise ConfigError(
                f"{config.path('layer_types')}[{index}]: {kind!r} is not one of {', '.join(kinds)}"
            )
    return tuple(found)


def decoder(
    sizes: Dimensions,
    *,
    name: str,
    family: str,
    tensors: tuple[Tensor, ...],
    widest_ffn: int,
    experts: Experts | None = None,
    caches: tuple[Cache, ...] | None = None,
    tensor_divides: tuple[tuple[str, int], ...] = (),
) -> Architecture:
    """The architecture of a decoder of these sizes. Without `caches` every layer keeps all keys and values."""
    whole = (AttentionCache(sizes.layers, sizes.kv_heads, sizes.head_size, sizes.head_size),)
    return Architecture(
        name=name,
        family=family,
        layers=sizes.layers,
        hidden=sizes.hidden,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        vocabulary=sizes.vocabulary,
        experts=experts,
        tensors=tensors,
        caches=whole if caches is None else caches,
        context_length=sizes.context_length,
        dtype=sizes.dtype,
        tied_embeddings=sizes.tied,
        widest_ffn=widest_ffn,
        tensor_divides=tensor_divides,
    )


def routed_experts(
    sizes: Dimensions,
    *,
    count: int,
    active: int,
    layers: int,
    intermediate: int,
    shared: int = 0,
    biases: int = 0,
) -> Experts:
    """Experts of three matrices, as in a gated feed-forward; `biases`: their elements in one expert."""
    return Experts(
        count=count,
        active=active,
        shared=shared,
        layers=layers,
        intermediate=intermediate,
        parameters=3 * sizes.hidden * intermediate + biases,
        hidden=sizes.hidden,
    )
