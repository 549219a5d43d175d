"""An API server for tests of `kubectl moe`, made of answers in a table."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spoken:
    """An answer that is not the API server's own."""

    code: int
    body: bytes


class Answers:
    """An API server that answers GETs from a table; what is not in it is 404, a number is that status, bytes are what
    somebody behind it says, and a `Spoken` is that with a status. Of a list the answers come one after another."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        """Paths of GETs."""
        self.queries: list[str] = []
        """Their queries."""
        self.patches: list[tuple[str, Any]] = []
        """Path with query, and body, of PATCHes. They answer with the object as it is; else `PATCH` lists, for one
        after another, the status and the object as it is from then on."""


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "List", "metadata": {}, "items": list(items)}
