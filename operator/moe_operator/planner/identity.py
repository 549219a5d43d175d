"""Remembering by identity what would be slow to compare."""

from typing import Generic, TypeVar

_T = TypeVar("_T")


class ByIdentity(Generic[_T]):
    """A key for `lru_cache`: equal only to one of the same object, which it keeps alive. Architectures and profiles are
    read once and shared, and comparing all of their fields takes longer than what is remembered."""

    __slots__ = ("value",)

    def __init__(self, value: _T) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and other.value is self.value
