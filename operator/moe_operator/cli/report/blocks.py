"""What a page of any markup is made of: headings, fields, tables and lines. Text in them is as it was read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """`level` 1 is the page's title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Fields:
    """Names and values."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Items:
    """A list."""

    texts: tuple[str, ...]


Block = Heading | Paragraph | Fields | Table | Items
