"""How many requests of which length a plan holds, in each precision of the KV cache."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moe_operator.catalog.models.catalog import Checkpoint, Model
from moe_operator.planner.kv_precision import PRECISIONS, precisions_on
from moe_operator.planner.link import Link
from moe_operator.planner.nodes import Hardware
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import Shortage, Sized, size
from moe_operator.planner.wants import Wants

#: Lengths that people ask about, beside the model's own.
USUAL_LENGTHS = (8192, 32768, 131072)


@dataclass(frozen=True)
class ContextRow:
    """One length of requests in one precision of the KV cache."""

    context_length: int
    kv_cache_precision: str
    bytes_per_request: int
    """On each GPU of the request's rank."""
    requests_per_group: int
    """At the same time; bounded by `--max-num-seqs` too. 0: it does not fit."""
    stretched: bool
    """Beyond the model's own context."""

    @property
    def fits(self) -> bool:
        return self.requests_per_group > 0


def lengths(model: Model, planned: int) -> tuple[int, ...]:
    """The usual ones that the model reads, its own, the plan's and the stretched one."""
    native = model.architecture.context_length
    longest = max(native, model.stretch.up_to if model.stretch else 0)
    return tuple(sorted(n for n in {*USUAL_LENGTHS, native, longest, planned} if n <= max(longest, planned)))


def context_rows(
    model: Model,
    checkpoint: Checkpoint,
    hardware: Hardware,
    shape: GroupShape,
    wants: Wants,
    link: Link | None,
    planned: int,
) -> Iterator[ContextRow]:
    """Every length in every precision of the KV cache that the engine has on this hardware, lengths first."""
    found = (
        (one, resize(model, checkpoint, hardware, shape, replace(wants, kv_cache_precision=one), link))
        for one in _precisions(model, hardware)
    )
    sized = [(precision, one) for precision, one in found if one is not None]
    native = model.architecture.context_length
    for length in lengths(model, planned):
        for precision, one in sized:
            yield ContextRow(
                length,
                precision,
                one.kv_layout.request_bytes(length),
                _requests(one, length),
                length > native,
            )


def _precisions(model: Model, hardware: Hardware) -> tuple[str, ...]:
    """Those of which the hardware makes the most: a laptop's cache is not what limits it."""
    if hardware.profile.resource_name is None:
        return PRECISIONS[:1]
    return precisions_on(model.architecture, hardware.profile)


def resize(
    model: Model,
    checkpoint: Checkpoint,
    hardware: Hardware,
    shape: GroupShape,
    wants: Wants,
    link: Link | None,
) -> Sized | None:
    """The layout's sizes with other wants; None where it does not fit or vLLM has no such cache."""
    capacity = hardware.memory_bytes
    try:
        found = size(
            model, checkpoint, hardware.profile, capacity, hardware.gpus_per_node, shape, wants, link
        )
    except ValueError:
        return None
    return None if isinstance(found, Shortage) else found


def _requests(sized: Sized, length: int) -> int:
    layout, kv_bytes = sized.kv_layout, sized.memory.kv_cache
    # vLLM keeps one block of the pool empty, so a request must fit into the others.
    if layout.request_blocks(length) > layout.blocks(kv_bytes) - 1:
        return 0
    return min(int(layout.concurrency(kv_bytes, length)), sized.sizes.max_sequences) * sized.shape.data
