"""What all API models share: camelCase on the wire, snake_case in Python, durations as Kubernetes writes them."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_DURATION = re.compile(r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

#: Pattern of a duration in the CRD: hours, minutes, seconds, milliseconds, in this order, at least one.
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"


class ApiModel(BaseModel):
    """A part of the API object. Unknown fields are ignored: a newer version may have stored them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def wire(self) -> dict[str, Any]:
        """The object as JSON on the wire: camelCase, absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `2s`, `50ms` or `1h30m`.

    Raises ValueError for anything else, an empty string included.
    """
    match = _DURATION.match(text)
    if not text or not match:
        raise ValueError(f"{text!r} is not a duration: write for example 30s, 5m, 1h30m or 50ms")
    seconds = 0.0
    for number, unit in re.findall(r"([0-9]+)(ms|h|m|s)", text):
        seconds += int(number) * _UNITS[unit]
    return seconds


def _check_duration(value: object) -> object:
    if isinstance(value, str):
        parse_duration(value)
    return value


#: A duration as the user wrote it; `parse_duration` gives seconds.
Duration = Annotated[
    str, BeforeValidator(_check_duration), Field(pattern=DURATION_PATTERN, min_length=2, max_length=32)
]
