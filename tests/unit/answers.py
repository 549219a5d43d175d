"""An API server for tests of `kubectl moe`, made of answers in a table."""

from typing import Any


class Answers:
    """An API server that answers GETs from a table; what is not in it is 404, and a number is that status."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        """Paths of GETs."""
        self.patches: list[tuple[str, Any]] = []
        """Path with query, and body, of PATCHes. They answer with the object as it is; else `PATCH` lists, for one
        after another, the status and the object as it is from then on."""


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "List", "metadata": {}, "items": list(items)}
