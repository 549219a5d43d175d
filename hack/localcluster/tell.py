"""Run a long command that must not be silent."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localcluster import linux

_TELL_EVERY_S = 5.0


def run_telling(
    command: Sequence[str],
    log: Path,
    tell: Callable[[float], None],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run ``command`` with its output in ``log``; returns its exit status.

    ``tell`` is called every few seconds with the seconds since the start. The command ends with this process, however
    this process ends.
    """
    started = told = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            list(command),
            cwd=directory,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=linux.die_with_parent,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=max(0.1, told + _TELL_EVERY_S - time.monotonic()))
            told = time.monotonic()
            tell(told - started)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
