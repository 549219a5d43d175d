"""The KV cache pages of single layers, as vLLM 0.32's attention layers specify them.

A page is what one layer keeps for one block: so many tokens' keys and values, or one request's recurrent state.
Sources: `get_kv_cache_spec` of vLLM's attention, MLA, indexer and Mamba layers; `kv_cache_interface.py` for the
bytes of a page; `platforms/interface.py` (`_align_hybrid_block_size`) for the alignment of hybrid models.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from moe_operator.catalog.models.architecture import AttentionCache, Cache, LatentCache, StateCache

_DTYPE_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
PACKED_LATENT = "fp8_ds_mla"
# FlashMLA's packed tokens of sparse MLA. FP8: 512 latents, four FP32 scales, 64 BF16 rotary values. NVFP4: 512 FP4
# latents with an FP8 scale per 16, 64 FP8 rotary values.
_PACKED_LATENT_BYTES = {PACKED_LATENT: 656, "nvfp4_ds_mla": 352}
_PACKED_LATENT_SIZES = (512, 64)
# FlashInfer's NVFP4 keys and values: FP4 elements, and one FP8 scale per so many.
_NVFP4 = "nvfp4"
_NVFP4_GROUP = 16
# vLLM quantises indexer keys in groups of so many elements, with one FP32 scale each.
_INDEXER_GROUP = 128


class PageKind(StrEnum):
    """What a page holds, and so how many pages a request needs."""

    FULL = "Full"
    """Keys and values of every token."""
    LATENT = "Latent"
    """MLA's compressed vector of every token."""
    INDEXER = "Indexer"
    """Sparse attention's index key of every token."""
    WINDOW = "Window"
    """Keys and values of the last tokens only."""
    CHUNK = "Chunk"
    """Keys and values of the current chunk of tokens only."""
    STATE = "State"
    """A recurrent state, whatever the request's length."""


@dataclass(frozen=True, slots=True)
class Page:
    """One layer's page; layers with equal pages can share block tables."""

    kind: PageKind
    tokens: int
    """Tokens per page; 0 for a state."""
    bytes: int
    """On each GPU of a rank."""
    window: int = 0
    """Tokens that are attended to, of a window or a chunk; 0: all."""

    @property
    def of_every_token(self) -> bool:
        return self.kind in (PageKind.FULL, PageKind.LATENT, PageKind.INDEXER)


@dataclass(frozen=True, slots=True)
class PageSettings:
    """What decides pages besides the architecture; see `kv_cache.KvSettings`."""

    tensor: int
    cache_dtype: str
    model_dtype: str
    block_size: int
    speculative_tokens: int

    def element_bytes(self, dtype: str) -> int:
        """Bytes of one cached element; `auto` is the model's precision.

        Raises:
            ValueError: a cache precision whose layout is not known here.
        """
        name = self.model_dtype if dtype == "auto" else dtype
        if name not in _DTYPE_BYTES:
            known = ", ".join(["auto", *_DTYPE_BYTES, _NVFP4, *_PACKED_LATENT_BYTES])
            raise ValueError(f"the KV cache of precision {name!r} cannot be sized; known are {known}")
        return _DTYPE_BYTES[name]


def layer_pages(caches: Iterable[Cache], settings: PageSettings) -> dict[Page, int]:
    """Every kind of page and how many layers have it, in the caches' order.

    Hybrid models come back aligned: vLLM enlarges the block of attention until its page holds a recurrent state,
    and pads the state's page to the same size.

    Raises:
        ValueError: a cache that vLLM refuses (heads that GPUs do not divide) or that cannot be sized here.
    """
    caches = tuple(caches)
    settings = _aligned(caches, settings)
    # vLLM turns its hybrid cache manager off for chunked attention with a draft model: every layer then keeps
    # every token.
    chunked = any(isinstance(cache, AttentionCache) and cache.chunk for cache in caches)
    keep_all = chunked and settings.speculative_tokens > 0
    found: dict[Page, int] = {}
    for cache in caches:
        for page, layers in _pages(cache, settings):
            if keep_all and page.kind in (PageKind.WINDOW, PageKind.CHUNK):
                page = replace(page, kind=PageKind.FULL, window=0)
            if layers:
                found[page] = found.get(page, 0) + layers
    return found


def _aligned(caches: tuple[Cache, ...], settings: PageSettings) -> PageSettings:
    """With the block size of a hybrid model: the smallest multiple whose attention page holds a state."""
    states = [cache for cache in caches if isinstance(cache, StateCache)]
    if not states:
        return settings
    attention = [c for c in caches if isinstance(c, AttentionCache) and not c.window and not c.chunk]
    if not attention or any(isinstance(cache, LatentCache) for cache in caches):
        raise ValueError("linear attention layers are sized only beside grouped-query attention layers")
    state = max(_state_bytes(cache, settings) for cache in states)
    token = _token_bytes(attention[0], settings)
    blocks = -(-state // (settings.block_size * token))
    return replace(settings, block_size=settings.block_size * blocks)


def _pages(cache: Cache, settings: PageSettings) -> list[tuple[Page, int]]:
    tokens = settings.block_size
    if isinstance(cache, AttentionCache):
        kind = PageKind.WINDOW if cache.window else PageKind.CHUNK if cache.chunk else PageKind.FULL
        size = tokens * _token_bytes(cache, settings)
        return [(Page(kind, tokens, size, cache.window or cache.chunk or 0), cache.layers)]
    if isinstance(cache, StateCache):
        # Padded to the attention's page when layers are grouped.
        return [(Page(PageKind.STATE, 0, _state_bytes(cache, settings)), cache.layers)]
    return [
        (Page(PageKind.LATENT, tokens, tokens * _latent_bytes(cache, settings)), cache.layers),
        (Page(PageKind.INDEXER, tokens, tokens * index_bytes(cache)), cache.indexer_layers),
    ]


def index_bytes(cache: LatentCache) -> int:
    """One index key of the sparse indexer: FP8 elements and their scales."""
    return cache.indexer_size + 4 * (cache.indexer_size // _INDEXER_GROUP)


def _token_bytes(cache: AttentionCache, settings: PageSettings) -> int:
    """One token in one layer: keys and values of the heads on one GPU, at least one head."""
    heads, gpus = cache.kv_heads, settings.tensor
    if heads % gpus and gpus % heads:
        raise ValueError(
            f"{heads} key/value heads cannot be divided over {gpus} GPUs of a rank, nor copied evenly;"
            " one number must divide the other"
        )
    held = max(1, heads // gpus)
    if settings.cache_dtype == _NVFP4:
        sizes = (cache.head_size, cache.value_head_size)
        return held * sum(size // 2 + size // _NVFP4_GROUP for size in sizes)
    return held * (cache.head_size + cache.value_head_size) * settings.element_bytes(settings.cache_dtype)


def _latent_bytes(cache: LatentCache, settings: PageSettings) -> int:
    """One token in one layer, the same on every GPU of a rank."""
    packed = _PACKED_LATENT_BYTES.get(settings.cache_dtype)
    if packed is None:
        return (cache.latent_size + cache.rope_size) * settings.element_bytes(settings.cache_dtype)
    if (cache.latent_size, cache.rope_size) != _PACKED_LATENT_SIZES or not cache.indexer_size:
        raise ValueError(
            f"{settings.cache_dtype} is a format of sparse MLA with latents of 512 + 64 elements only"
        )
    return packed


def _state_bytes(cache: StateCache, settings: PageSettings) -> int:
    """One request's state in one layer: the last columns of the convolution, one more per speculative token, in
    the model's precision; and the recurrent matrix per value head. Both do not follow the cache's precision."""
    columns = cache.convolution - 1 + settings.speculative_tokens
    channels = 2 * cache.key_heads * cache.key_head_size + cache.value_heads * cache.value_head_size
    for what, number in (("channels", channels), ("value heads", cache.value_heads)):
        if number % settings.tensor:
            raise ValueError(
                f"{number} linear attention {what} cannot be divided over {settings.tensor} GPUs of a rank"
            )
    model = settings.element_bytes("auto")
    matrix = cache.value_heads // settings.tensor * cache.value_head_size * cache.key_head_size
    return channels // settings.tensor * columns * model + matrix * (4 if cache.float32_state else model)
