"""Which layers share a block table, as vLLM 0.32 groups them (`get_kv_cache_groups` in `kv_cache_utils.py`).

All groups draw blocks from one pool, so a block has the bytes of the largest group, and a request holds blocks
of each group: layers of a smaller group waste the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moe_operator.planner.kv_layers import Page, PageKind

# A second kind with fewer than so many times the layers of the first is padded up to it instead of split.
_PAD_BELOW = 1.5


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers that share one block table."""

    kind: PageKind
    layers: int
    block_size: int
    """Tokens per block; 0 where a block holds a state."""
    bytes: int
    """Pages of all its layers for one block, on each GPU of a rank."""
    window: int = 0


def group_layers(pages: Mapping[Page, int]) -> tuple[KvGroup, ...]:
    """The groups of these layers (page -> number of layers).

    Raises:
        ValueError: pages of different sizes that vLLM cannot bring to one size.
    """
    if not pages:
        return ()
    if _alike(pages):
        first = next(iter(pages))
        total = sum(page.bytes * layers for page, layers in pages.items())
        kind = first.kind if len(pages) == 1 or first.kind is not PageKind.INDEXER else PageKind.LATENT
        return (KvGroup(kind, sum(pages.values()), first.tokens, total, first.window),)
    unified: dict[Page, int] = {}
    largest = max(page.bytes for page in pages)
    for page, layers in pages.items():
        same = _of_size(page, largest)
        unified[same] = unified.get(same, 0) + layers
    size = _group_size(list(unified.values()))
    groups = []
    for page, layers in unified.items():
        number = -(-layers // size)
        for index in range(number):
            # Dealt round, so that groups differ by one layer at most.
            share = len(range(index, layers, number))
            groups.append(KvGroup(page.kind, share, page.tokens, share * page.bytes, page.window))
    return tuple(groups)


def _alike(pages: Mapping[Page, int]) -> bool:
    """Whether all layers always need the same blocks, so that one table serves them, whatever their pages' sizes."""
    first = next(iter(pages))
    if len(pages) == 1:
        return True
    if any(page.tokens != first.tokens for page in pages):
        return False
    if all(page.of_every_token for page in pages):
        return True
    return all(
        page.kind is first.kind is not PageKind.STATE and page.window == first.window for page in pages
    )


def _of_size(page: Page, size: int) -> Page:
    """The page with `size` bytes: states are padded to the size of attention's pages."""
    if page.bytes == size:
        return page
    if page.kind is not PageKind.STATE:
        raise ValueError(
            f"attention layers that need {page.bytes} and {size} bytes per block, one kind with a window, cannot"
            " be sized"
        )
    return replace(page, bytes=size)


def _group_size(layers: list[int]) -> int:
    """Layers of a full group: the rarest kind's, or the commonest's where the two are close."""
    fewest, most = min(layers), max(layers)
    return most if most < fewest * _PAD_BELOW else fewest
