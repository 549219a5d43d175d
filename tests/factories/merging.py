"""What an API server makes of a JSON merge patch."""

from typing import Any


def json_merged(live: Any, patch: Any) -> Any:
    """RFC 7396, as its section 2 has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = json_merged(result.get(key), value)
    return result
