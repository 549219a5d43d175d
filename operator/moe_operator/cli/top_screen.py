"""A table that is drawn again in its place, on a terminal that is as it was before when it ends."""

from collections.abc import Callable, Sequence
from types import TracebackType

from moe_operator.cli.fitting import Line, Piece, Style, cut_line, painted

# Private modes of xterm, which all terminals of today know: 1049 the other screen, 25 the cursor, 2026 that what comes
# belongs together (who does not know it ignores it).
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HOME = "\x1b[H"
_REST_OF_LINE, _REST_OF_SCREEN = "\x1b[K", "\x1b[J"


def frame(lines: Sequence[Line], columns: int, height: int, *, colour: bool) -> str:
    """What draws the lines over what was there: nothing is blank in between, nothing wraps, nothing scrolls."""
    shown = list(lines[:height])
    if len(lines) > height > 0:
        rest = f"and {len(lines) - height + 1} more lines: a higher window, NAME or --sort shows others"
        shown[-1] = (Piece(rest, Style.FAINT),)
    drawn = [_drawn(cut_line(line, columns), columns, colour=colour) for line in shown]
    return _BEGIN + _HOME + "\r\n".join(drawn) + _REST_OF_SCREEN + _END


def _drawn(line: Line, columns: int, *, colour: bool) -> str:
    """A line that fills its row has no rest: terminals would take its last character for it."""
    full = len("".join(piece.text for piece in line).rstrip()) >= columns
    return painted(line, colour=colour) + ("" if full else _REST_OF_LINE)


class Screen:
    """The terminal's other screen, for the length of a `with` block."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __enter__(self) -> "Screen":
        self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(_LEAVE)

    def draw(self, lines: Sequence[Line], columns: int, height: int, *, colour: bool) -> None:
        self._write(frame(lines, columns, height, colour=colour))
