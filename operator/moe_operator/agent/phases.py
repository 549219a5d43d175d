"""How long the engine took over each part of its start, as vLLM says in its log.

vLLM has no metric for it. Each process appends the spans that it logs to one file of the pod; a file belongs to one
start of the container, which may be restarted in place.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from . import records
from .settings import read_settings

#: Set by the first process of the container, inherited by all others: when it started, in nanoseconds.
_BOOT = "MOE_AGENT_BOOT"
_PREFIX = "phases-"
#: Beginning of a message's template -> (phase, which of its arguments is the span in seconds). vLLM 0.32.
_SPANS = (
    ("Loading weights took", "weights", 0),
    ("Graph capturing finished", "graphs", 0),
    ("init engine (profile", "init", 0),
    # The same message again: of its span, what was compilation. There only where something was compiled.
    ("init engine (profile", "compile", 1),
)
_installed = False  # a forked child has its parent's, and keeps it


def install(environ: Mapping[str, str] = os.environ) -> None:
    """Start recording in this process. Called again, it changes nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    os.environ.setdefault(_BOOT, str(time.time_ns()))
    path = _path(read_settings(environ).directory, environ)
    records.watch(lambda record: _consider(record, path))


def read(directory: Path, environ: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Seconds by phase of this start, the slowest process's; nothing for what vLLM has not said (yet).

    `init` is everything between the weights and the first request (profiling, KV cache, warm-up); `compile` and
    `graphs` are parts of it.
    """
    try:
        text = _path(directory, environ).read_text(encoding="ascii")
    except (OSError, ValueError):
        return {}
    spans: dict[str, float] = {}
    for line in text.splitlines():
        phase, _, seconds = line.partition(" ")
        if phase and seconds:
            spans[phase] = max(spans.get(phase, 0.0), float(seconds))
    return spans


def _consider(record: logging.LogRecord, path: Path) -> None:
    if not isinstance(record.msg, str) or not isinstance(record.args, tuple):
        return
    for beginning, phase, index in _SPANS:
        if record.msg.startswith(beginning) and index < len(record.args):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Short lines in append mode: processes do not mix them up.
            with path.open("a", encoding="ascii") as file:
                file.write(f"{phase} {float(str(record.args[index])):.2f}\n")


def _path(directory: Path, environ: Mapping[str, str]) -> Path:
    return directory / f"{_PREFIX}{environ.get(_BOOT, '')}"
