"""The KV cache of compressed attention (DeepSeek V4), whose layers' pages differ in size and lie side by side in
a block.

Sources in vLLM 0.32: `models/deepseek_v4/attention.py` and `compressor.py`, `mla/sparse_swa.py` for the pages;
`_get_packed_kv_cache_groups` and `_approximate_gcd` in `kv_cache_utils.py` for the groups.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from moe_operator.catalog.models.architecture import AttentionCache, Cache, LatentCache
from moe_operator.planner.kv_groups import KvGroup
from moe_operator.planner.kv_layers import PACKED_LATENT, Page, PageKind, PageSettings, index_bytes

# One packed vector: 448 FP8 elements, 64 BF16 rotary ones, 8 bytes of scales.
_VECTOR_BYTES, _VECTOR_SIZE = 584, 512
_ALIGNMENT = 576
_WINDOW_BLOCK = 64
# Compressor states are FP32, in blocks of few tokens, so that their pages fit beside the vectors'.
_STATE_BLOCK = {4: 4, 128: 8}
# With this ratio, compressed groups overlap: twice the state over twice the tokens.
_OVERLAPPING = 4


def is_compressed(caches: Iterable[Cache]) -> bool:
    """Whether these are DeepSeek V4's."""
    return any(isinstance(cache, LatentCache) and cache.compression > 1 for cache in caches)


def compressed_pages(caches: Iterable[Cache], settings: PageSettings) -> dict[Page, int]:
    """Every kind of page and how many layers have it.

    Raises:
        ValueError: another format than FlashMLA's packed one, or sizes that its kernels do not have.
    """
    if settings.cache_dtype != PACKED_LATENT:
        raise ValueError(
            f"the KV cache of compressed attention is sized for {PACKED_LATENT} only, not {settings.cache_dtype}"
        )
    found: defaultdict[Page, int] = defaultdict(int)
    for cache in caches:
        for page, layers in _pages(cache, settings.block_size):
            if layers:
                found[page] += layers
    return dict(found)


def _pages(cache: Cache, block: int) -> list[tuple[Page, int]]:
    if isinstance(cache, AttentionCache) and cache.window and cache.head_size == _VECTOR_SIZE:
        size = _aligned(_WINDOW_BLOCK * _VECTOR_BYTES)
        return [(Page(PageKind.WINDOW, _WINDOW_BLOCK, size, cache.window), cache.layers)]
    if not isinstance(cache, LatentCache) or cache.compression not in _STATE_BLOCK:
        raise ValueError(f"vLLM's compressed attention has no such cache: {cache}")
    ratio, size = cache.compression, cache.latent_size + cache.rope_size
    if size != _VECTOR_SIZE or block % ratio:
        raise ValueError(
            f"compressed attention needs vectors of {_VECTOR_SIZE} elements and blocks of a multiple of {ratio}"
            f" tokens; these are {size} and {block}"
        )
    vectors = block // ratio
    return [
        (Page(PageKind.LATENT, block, _aligned(vectors * _VECTOR_BYTES)), cache.layers),
        (Page(PageKind.INDEXER, block, _aligned(vectors * index_bytes(cache))), cache.indexer_layers),
        (_state(ratio, size), cache.layers),
        (_state(ratio, cache.indexer_size), cache.indexer_layers),
    ]


def _state(ratio: int, size: int) -> Page:
    """The compressor's sums and scores of the tokens that are not compressed yet."""
    times = 2 if ratio == _OVERLAPPING else 1
    tokens = _STATE_BLOCK[ratio]
    return Page(PageKind.WINDOW, tokens, _aligned(tokens * 2 * times * size * 4), times * ratio)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def pack_layers(pages: Mapping[Page, int]) -> tuple[KvGroup, ...]:
    """The groups of layers whose pages are packed side by side.

    Layers that need equal blocks form a bucket. A bucket with equally many pages of each size repeats a pattern
    and can be split into groups of fewer repeats; all splits use one number of repeats, that which pads least.
    """
    buckets: defaultdict[tuple[PageKind, int, int], dict[int, int]] = defaultdict(dict)
    for page, layers in pages.items():
        kind = PageKind.LATENT if page.of_every_token else page.kind
        sizes = buckets[kind, page.tokens, page.window]
        sizes[page.bytes] = sizes.get(page.bytes, 0) + layers
    even = [sizes for sizes in buckets.values() if len(set(sizes.values())) == 1]
    mixed = [max(sizes.values()) for sizes in even if len(sizes) > 1]
    repeats = _least_padding([max(sizes.values()) for sizes in even], max(mixed)) if mixed else None
    if repeats is None:
        raise ValueError("these layers repeat no pattern that vLLM packs")
    groups = []
    for (kind, tokens, window), sizes in buckets.items():
        layers = max(sizes.values())
        number = -(-layers // repeats) if sizes in even else 1
        for index in range(number):
            share = {size: len(range(index, count, number)) for size, count in sizes.items()}
            total = sum(size * count for size, count in share.items())
            groups.append(KvGroup(kind, sum(share.values()), tokens, total, window))
    return tuple(groups)


def _least_padding(counts: list[int], least: int) -> int:
    """The number, of at least `least`, to whose multiples these are rounded up with the least sum; the larger of
    two equal ones."""
    return min(
        range(least, max(counts) + 1),
        key=lambda number: (sum(-count % number for count in counts), -number),
        default=least,
    )
