"""Requests to engines, over the standard library: what a client sees."""

import json
import urllib.request
from typing import Any


def complete(
    base_url: str, model: str, prompt: str, max_tokens: int, *, timeout: float = 120, **fields: Any
) -> dict[str, Any]:
    """One completion. Raises OSError (URLError, HTTPError) when the engine refuses or is away."""
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **fields}
    request = urllib.request.Request(
        f"{base_url}/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
