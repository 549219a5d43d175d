"""How much context fits into the memory left for the KV cache, in vLLM 0.32's own arithmetic.

vLLM divides the memory into blocks and counts in blocks, so that a formula of bytes per token is wrong where it
matters: hybrid models, sliding windows, more GPUs than heads. Here the same integers come out as in the engine's
`num_gpu_blocks` and `kv_cache_size_tokens` (compared with the engine itself by `python -m verify.kv_cache`).
"""

from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Architecture, Section
from moe_operator.planner.kv_compressed import compressed_pages, is_compressed, pack_layers
from moe_operator.planner.kv_groups import KvGroup, group_layers
from moe_operator.planner.kv_layers import PageKind, PageSettings, layer_pages

_PARTIAL = (PageKind.STATE, PageKind.WINDOW, PageKind.CHUNK)


@dataclass(frozen=True)
class KvSettings:
    """What decides the layout besides the architecture."""

    tensor: int
    """GPUs of a rank."""
    cache_dtype: str
    """As `--kv-cache-dtype`: `auto` (the model's precision), `fp8`, ...; `fp8_ds_mla` where vLLM stores sparse
    MLA packed (`kv_backend.attention_backend` says where)."""
    model_dtype: str
    """`bfloat16`, `float16` or `float32`, as vLLM resolves `--dtype`: `auto` serves a float32 checkpoint in
    bfloat16."""
    block_size: int
    """Tokens per block that the attention backend prefers, before alignment (`kv_backend.attention_backend`)."""
    prefix_caching: bool
    """Costs a hybrid model one more state per request."""
    speculative_tokens: int
    max_batched_tokens: int
    """`--max-num-batched-tokens`: sliding windows keep the tokens in flight too."""
    concurrent_batches: int = 2
    """Batches in flight: two with asynchronous scheduling, vLLM's default; one on CPU, which has none."""


@dataclass(frozen=True)
class KvCacheLayout:
    """The blocks of one rank's KV cache."""

    block_size: int
    """Tokens per block of the layers that keep every token, after vLLM's alignment of hybrid models; of the
    first group where no layer does."""
    bytes_per_block: int
    """On each GPU of a rank; 0 for a model without a KV cache."""
    groups: tuple[KvGroup, ...]
    tokens_in_flight: int
    """Kept beyond a window, as blocks are freed only when a batch has ended."""
    states_per_request: int

    def request_blocks(self, tokens: int) -> int:
        """Blocks that one request of this length may hold, over all groups
        (`get_max_concurrency_for_kv_cache_config`)."""
        return sum(self._group_blocks(group, tokens) for group in self.groups)

    def request_bytes(self, tokens: int) -> int:
        """The same in bytes, on each GPU of a rank."""
        return self.request_blocks(tokens) * self.bytes_per_block

    def blocks(self, kv_bytes: int) -> int:
        """vLLM's `num_gpu_blocks` for so many bytes on each GPU."""
        return max(0, kv_bytes) // self.bytes_per_block if self.bytes_per_block else 0

    def concurrency(self, kv_bytes: int, context_length: int) -> float:
        """Requests of `context_length` tokens that fit at once (`kv_cache_max_concurrency`); less than one means
        that vLLM refuses to start."""
        per_request = self.request_blocks(context_length)
        return self.blocks(kv_bytes) / per_request if per_request else 0.0

    def capacity_tokens(self, kv_bytes: int, context_length: int) -> int:
        """vLLM's `kv_cache_size_tokens`: tokens of all requests together, if each has `context_length`."""
        return int(self.concurrency(kv_bytes, context_length) * context_length)

    def largest_context(self, kv_bytes: int, native: int) -> int:
        """The longest request, up to `native` tokens, with which vLLM starts; 0: not even one token. One block
        of the pool stays empty (the null block), so vLLM counts without it."""
        usable = self.blocks(kv_bytes) - 1
        if self.request_blocks(1) > usable:
            return 0
        low, high = 1, max(1, native)
        while low < high:
            middle = (low + high + 1) // 2
            if self.request_blocks(middle) <= usable:
                low = middle
            else:
                high = middle - 1
        return low

    def _group_blocks(self, group: KvGroup, tokens: int) -> int:
        if group.kind is PageKind.STATE:
            return self.states_per_request
        if group.kind is PageKind.WINDOW:
            kept = min(group.window - 1 + self.tokens_in_flight, tokens)
            # One more, as a window need not begin where a block does.
            return -(-kept // group.block_size) + 1
        if group.kind is PageKind.CHUNK:
            return -(-min(group.window + self.tokens_in_flight, tokens) // group.block_size)
        return -(-tokens // group.block_size)


def kv_cache_layout(architecture: Architecture, settings: KvSettings, *, with_mtp: bool) -> KvCacheLayout:
    """The layout of one rank. `with_mtp` loads the model's own prediction layers, which have a cache too.

    Raises:
        ValueError: GPUs that vLLM cannot divide the heads over, a precision or a cache that cannot be sized.
    """
    sections = {Section.MAIN, Section.MTP} if with_mtp else {Section.MAIN}
    caches = tuple(c for c in architecture.caches if getattr(c, "section", Section.MAIN) in sections)
    page_settings = PageSettings(
        settings.tensor,
        settings.cache_dtype,
        settings.model_dtype,
        settings.block_size,
        settings.speculative_tokens,
    )
    if is_compressed(caches):
        groups = pack_layers(compressed_pages(caches, page_settings))
    else:
        groups = group_layers(layer_pages(caches, page_settings))
    whole = [group.block_size for group in groups if group.kind not in _PARTIAL]
    return KvCacheLayout(
        block_size=(whole or [group.block_size for group in groups] or [settings.block_size])[0],
        bytes_per_block=max((group.bytes for group in groups), default=0),
        groups=groups,
        tokens_in_flight=settings.concurrent_batches * settings.max_batched_tokens
        + _retained(architecture, settings, with_mtp),
        states_per_request=(2 if settings.prefix_caching else 1) + settings.speculative_tokens,
    )


def _retained(architecture: Architecture, settings: KvSettings, with_mtp: bool) -> int:
    """Tokens that several prediction layers may read once more, and that windows keep for them."""
    several = with_mtp and min(architecture.mtp_layers, settings.speculative_tokens) > 1
    return settings.speculative_tokens - 1 if several else 0
