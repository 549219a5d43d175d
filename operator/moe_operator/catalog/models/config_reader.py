"""Typed access to a `config.json` that a user may have cut or mistyped: every error names the field's path."""

from collections.abc import Mapping
from typing import Any

#: Largest value of any size: guards the arithmetic (and the reader) against nonsense.
_LARGEST = 2**40


class ConfigError(ValueError):
    """A config.json that cannot be used: the message begins with the path of the field."""


_ABSENT: Any = object()


class ConfigReader:
    """One JSON object of a config with the path that leads to it."""

    def __init__(self, data: Mapping[str, Any], path: str = "") -> None:
        self._data = data
        self._path = path

    def path(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def integer(self, key: str, default: int = _ABSENT, *, least: int = 1) -> int:
        """A whole number of at least `least`. A null counts as absent."""
        value = self._data.get(key)
        if value is None:
            if default is _ABSENT:
                raise ConfigError(f"{self.path(key)}: is missing; a whole number is needed")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self.path(key)}: {value!r} is not a whole number")
        if not least <= value <= _LARGEST:
            raise ConfigError(f"{self.path(key)}: {value} is not between {least} and {_LARGEST}")
        return value

    def flag(self, key: str, default: bool = _ABSENT) -> bool:
        """true or false."""
        value = self._data.get(key)
        if value is None:
            if default is _ABSENT:
                raise ConfigError(f"{self.path(key)}: is missing; true or false is needed")
            return default
        if not isinstance(value, bool):
            raise ConfigError(f"{self.path(key)}: {value!r} is neither true nor false")
        return value

    def text(self, key: str, default: str = _ABSENT) -> str:
        """A string."""
        value = self._data.get(key)
        if value is None:
            if default is _ABSENT:
                raise ConfigError(f"{self.path(key)}: is missing; a text is needed")
            return default
        if not isinstance(value, str):
            raise ConfigError(f"{self.path(key)}: {value!r} is not a text")
        return value

    def items(self, key: str) -> list[Any] | None:
        """A list, or None where it is absent."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, list):
            raise ConfigError(f"{self.path(key)}: {value!r} is not a list")
        return value

    def texts(self, key: str) -> list[str] | None:
        """A list of strings, or None where it is absent."""
        found = self.items(key)
        for index, item in enumerate(found or ()):
            if not isinstance(item, str):
                raise ConfigError(f"{self.path(key)}[{index}]: {item!r} is not a text")
        return found

    def within(self, key: str) -> "ConfigReader | None":
        """The object under `key`, or None where it is absent."""
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ConfigError(f"{self.path(key)}: is not an object")
        return ConfigReader(value, self.path(key))
