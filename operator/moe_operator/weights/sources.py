"""From an address to the files that are wanted."""

from moe_operator.catalog.weights_layout import Reason, SourceAddress
from moe_operator.weights import names
from moe_operator.weights.errors import FetchError
from moe_operator.weights.http import Http
from moe_operator.weights.hub import Hub
from moe_operator.weights.source import Listing, Source


def open_source(address: SourceAddress, endpoint: str | None, connections: int) -> Source:
    """The source of an address; nothing is asked yet."""
    http = Http(connections)
    if address.scheme == "hf":
        return Hub(address, http, endpoint)
    from moe_operator.weights.s3 import Bucket

    return Bucket(address, http, endpoint)


def wanted(source: Source, address: SourceAddress, revision: str | None, include: tuple[str, ...]) -> Listing:
    """What an engine needs of the source, with digests. Raises FetchError or TransientError."""
    listing = source.listing(revision)
    chosen = names.selected([file.name for file in listing.files], include)
    if not names.has_weights(chosen):
        raise FetchError(
            Reason.BAD_SOURCE,
            f"{address} has no weights for an engine among its {len(listing.files)} files: wanted are *.safetensors, "
            "or *.bin, at its top level",
        )
    for name in chosen:
        if fault := names.unsafe(name):
            raise FetchError(Reason.BAD_SOURCE, f"{address}: the name {name!r} is refused: {fault}")
    if clash := names.conflicting(chosen):
        raise FetchError(Reason.BAD_SOURCE, f"{address} lists {clash}")
    keep = set(chosen)
    return Listing(
        listing.commit, tuple(source.described([file for file in listing.files if file.name in keep]))
    )
