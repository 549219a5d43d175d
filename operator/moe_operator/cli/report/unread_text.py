"""What could not be read, in a record's text. Pure."""

from collections.abc import Iterator, Sequence

from moe_operator.cli.report.blocks import Block, Heading, Items
from moe_operator.cli.report.data import UNKNOWN, Unread


def unread_blocks(unread: Sequence[Unread]) -> Iterator[Block]:
    """With a heading; nothing where all was read."""
    if unread:
        yield Heading(2, "What could not be read")
        yield Items(tuple(f"{one.section}: {one.message}" for one in unread))


def why(section: str, unread: Sequence[Unread]) -> str:
    """Why a part is not there."""
    return next((one.message for one in unread if one.section.split(" (")[0] == section), UNKNOWN)
