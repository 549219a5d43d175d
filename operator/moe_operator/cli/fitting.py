"""Tables that fit a terminal: the least important columns go first, names are shortened last, nothing wraps. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

#: Columns between two cells.
_GAP = 2
#: What is left of a shortened name at least.
_LEAST_NAME = 8
_CUT = ".."


class Style(Enum):
    """How a piece of text stands out, as the parameter of an SGR sequence (ECMA-48, 8.3.117)."""

    HEADER = "1"
    FAINT = "2"
    ALARM = "31"
    WARNING = "33"


@dataclass(frozen=True)
class Piece:
    """Some text in one style."""

    text: str
    style: Style | None = None


#: One line of text.
Line = tuple[Piece, ...]


@dataclass(frozen=True)
class Shape:
    """How a column behaves."""

    title: str
    importance: int
    """The column with the highest goes first; of 0 it stays."""
    name: bool = False
    """It may be shortened, and stands at the left."""
    left: bool = False
    """It stands at the left."""


def clean(text: str) -> str:
    """The text with only what a terminal shows in one column each: whatever else is there becomes `?`."""
    return "".join(one if " " <= one <= "~" else "?" for one in text)


def table_lines(shapes: Sequence[Shape], rows: Sequence[Sequence[Piece]], width: int | None) -> list[Line]:
    """The table with its header, in at most `width` columns. Texts must be clean."""
    sizes = [
        max(len(shape.title), *(len(row[i].text) for row in rows)) if rows else len(shape.title)
        for i, shape in enumerate(shapes)
    ]
    kept = list(range(len(shapes)))

    def total() -> int:
        return sum(sizes[i] for i in kept) + _GAP * (len(kept) - 1)

    if width is not None:
        for i in sorted(kept, key=lambda i: -shapes[i].importance):
            if total() <= width or shapes[i].importance == 0:
                break
            kept.remove(i)
        names = [i for i in kept if shapes[i].name]
        while total() > width:
            longest = max(names, key=lambda i: sizes[i], default=None)
            if longest is None or sizes[longest] <= _LEAST_NAME:
                break
            sizes[longest] -= 1
    header = [Piece(shape.title, Style.HEADER) for shape in shapes]
    lines = [_line(shapes, row, kept, sizes) for row in (header, *rows)]
    return [cut_line(line, width) for line in lines]


def _line(shapes: Sequence[Shape], row: Sequence[Piece], kept: Sequence[int], sizes: Sequence[int]) -> Line:
    pieces = []
    for i in kept:
        text, size = row[i].text, sizes[i]
        fill = " " * (size - len(text))
        gap = "" if i == kept[0] else " " * _GAP
        if shapes[i].name or shapes[i].left:
            last = i == kept[-1]
            pieces += [Piece(gap), Piece(shorten(text, size), row[i].style), Piece("" if last else fill)]
        else:
            pieces += [Piece(gap + fill), row[i]]
    return tuple(piece for piece in pieces if piece.text)


def shorten(name: str, width: int) -> str:
    """The name in so many columns at most. Its end stays, by which groups of one deployment are told apart."""
    if len(name) <= width:
        return name
    room = width - len(_CUT)
    if room < 2:
        return name[: max(width, 0)]
    tail = room // 2
    return f"{name[: room - tail]}{_CUT}{name[-tail:]}"


def cut_line(line: Line, width: int | None) -> Line:
    """Its beginning, in so many columns at most."""
    if width is None:
        return line
    pieces, room = [], width
    for piece in line:
        if room > 0:
            pieces.append(Piece(piece.text[:room], piece.style))
        room -= len(piece.text)
    return tuple(pieces)


def painted(line: Line, *, colour: bool) -> str:
    """The line as it is written."""
    return "".join(
        f"\x1b[{piece.style.value}m{piece.text}\x1b[0m" if colour and piece.style else piece.text
        for piece in line
    ).rstrip()
