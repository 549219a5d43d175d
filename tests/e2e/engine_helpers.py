"""Asking a running vLLM server, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

RANK_HEADER = "X-data-parallel-rank"


def greedy_tokens(
    base_url: str,
    prompt: str,
    n: int,
    *,
    rank: int | None = None,
    model: str = "tiny",
    timeout: float = 120.0,
) -> list[int]:
    """The ids of exactly `n` greedily chosen tokens; `rank` pins one of the pod's own ranks, from 0.

    Raises:
        urllib.error.HTTPError: if the server refuses.
        OSError: if it cannot be reached, or breaks off, or does not answer within `timeout` seconds.
    """
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": n,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    headers = {} if rank is None else {RANK_HEADER: str(rank)}
    answer = post_json(base_url, "/v1/completions", body, headers=headers, timeout=timeout)
    return [int(token) for token in answer["choices"][0]["token_ids"]]


def post_json(
    base_url: str,
    path: str,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> dict[str, Any]:
    """POST a JSON object and return the JSON object that comes back."""
    request = urllib.request.Request(
        base_url + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def get(base_url: str, path: str, *, timeout: float = 5.0) -> tuple[int, str]:
    """Status and body of a GET; 0 and the error where nobody answers."""
    try:
        with urllib.request.urlopen(base_url + path, timeout=timeout) as answer:
            return int(answer.status), answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)


def get_json(base_url: str, path: str, *, timeout: float = 5.0) -> dict[str, Any]:
    """The JSON object at a path, whatever the status; empty where nobody answers."""
    _, body = get(base_url, path, timeout=timeout)
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def metric(page: str, name: str, /, **labels: str) -> float | None:
    """The sum of a metric's samples that carry these labels, or None if there is none."""
    found = None
    for line in page.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
            found = (found or 0.0) + float(value)
    return found
