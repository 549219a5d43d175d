"""What a request keeps in memory, of a whole model in its own precision, before any division over GPUs."""

from fractions import Fraction

from moe_operator.catalog.models.architecture import AttentionCache, Cache, LatentCache

#: The indexer's key is FP8 with one FP32 scale.
_INDEXER_SCALE = 4


def token_bytes(cache: Cache, element: int) -> Fraction:
    """Bytes per token of context, however long it is; a fraction where several tokens share a vector. Nothing for
    caches that stop growing. `element`: bytes of one element."""
    match cache:
        case AttentionCache(window=None, chunk=None):
            return Fraction(cache.layers * _attention_token(cache, element))
        case LatentCache():
            latent = cache.layers * (cache.latent_size + cache.rope_size) * element
            indexer = cache.indexer_layers * (cache.indexer_size + _INDEXER_SCALE)
            return Fraction(latent + indexer, cache.compression)
    return Fraction(0)


def request_bytes(cache: Cache, element: int) -> int:
    """Largest bytes per request of caches that do not grow with its length: sliding windows, chunks, and the state
    of linear attention."""
    match cache:
        case AttentionCache():
            reach = cache.window or cache.chunk or 0
            return cache.layers * _attention_token(cache, element) * reach
        case LatentCache():
            return 0
    values = cache.value_heads * cache.value_head_size
    columns = 2 * cache.key_heads * cache.key_head_size + values
    state = values * cache.key_head_size * (4 if cache.float32_state else element)
    return cache.layers * (columns * (cache.convolution - 1) * element + state)


def _attention_token(cache: AttentionCache, element: int) -> int:
    return cache.kv_heads * (cache.head_size + cache.value_head_size) * element
