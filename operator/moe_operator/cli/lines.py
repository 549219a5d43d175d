"""Lines for people: times as ages, fields and sections of at most 100 columns. Pure."""

import textwrap
from collections.abc import Sequence

from moe_operator.api.times import format_time, parse_time
from moe_operator.cli.spec_changes import cut
from moe_operator.cli.units import span

WIDTH = 100
#: Longest piece of one message; `-o json` has all of it.
_MESSAGE = 400


class When:
    """Times as ages, or as they are."""

    def __init__(self, now: float, absolute: bool) -> None:
        self._now, self.absolute = now, absolute

    def ago(self, at: float) -> str:
        return format_time(at) if self.absolute else f"{span(self._now - at)} ago"

    def age(self, at: float) -> str:
        return format_time(at) if self.absolute else span(self._now - at)

    @property
    def age_header(self) -> str:
        return "CREATED" if self.absolute else "AGE"

    def cell(self, at: float) -> str:
        """For tables: without the year."""
        return format_time(at)[5:] if self.absolute else span(self._now - at)

    def since(self, text: str | None) -> str:
        """` (3m ago)`, or nothing for a time that is not known."""
        at = parse_time(text)
        return "" if at is None else f" ({self.ago(at)})"


def wrapped(first: str, text: str) -> str:
    """The text behind `first`, in lines that begin below it."""
    return textwrap.fill(
        cut(" ".join(text.split()), _MESSAGE),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=True,
        break_on_hyphens=False,
    )


def item(text: str) -> str:
    return wrapped("  ", text)


def section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def field(name: str, text: str) -> str:
    """`  name        text`, in lines that begin below it."""
    return wrapped(f"  {name:<11} ", text)
