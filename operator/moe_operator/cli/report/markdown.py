"""The record as Markdown (GitHub's). Pure.

Text of others is escaped as a whole: characters with a meaning by a backslash or as entities, so that none makes a
table's cell, a link, an image or HTML.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from moe_operator.cli.report.blocks import Block, Fields, Heading, Items, Paragraph, Table
from moe_operator.cli.report.plain_text import plain

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
#: An underscore between letters or digits is one; elsewhere it may emphasise.
_MEANS = re.compile(r"[\\`*\[\]{}|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
#: What would begin a list, a heading or a rule at the begin of a line.
_BEGINS = re.compile(r"^(\d{1,9})([.)])(?=\s|$)|^(#+|[-+=]+)(?=\s|$)")


def markdown(blocks: Iterable[Block]) -> str:
    """The page, with a line break at its end."""
    return "\n\n".join("\n".join(_lines(block)) for block in blocks if not _empty(block)) + "\n"


def _empty(block: Block) -> bool:
    match block:
        case Fields(rows=()) | Table(rows=()) | Items(texts=()):
            return True
    return False


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f"{'#' * level} {escaped(text)}"
        case Paragraph(text):
            yield escaped(text)
        case Fields(rows):
            for name, value in rows:
                yield f"- **{escaped(name)}**: {escaped(value)}"
        case Items(texts):
            for text in texts:
                yield f"- {escaped(text)}"
        case Table(header, rows):
            yield _row(header)
            yield _row(["---"] * len(header), made=True)
            for row in rows:
                yield _row(row)


def _row(cells: Sequence[str], *, made: bool = False) -> str:
    return f"| {' | '.join(cell if made else escaped(cell) for cell in cells)} |"


def escaped(text: str) -> str:
    """One line of text that Markdown shows as it is."""
    line = "".join(_ENTITIES.get(one, one) for one in plain(text))
    line = _MEANS.sub(lambda found: f"\\{found[0]}", line)
    # A bare address would become a link to wherever somebody wrote in a message.
    line = re.sub(r"(?i)\b(https?|ftp)://", r"\1:\\//", line)
    line = re.sub(r"(?i)\bwww\.", lambda found: f"{found[0][:-1]}\\.", line)
    return _BEGINS.sub(lambda found: f"{found[1] or ''}\\{found[2] or found[3]}", line)
