"""The entry point that vLLM calls in each of its processes."""

from __future__ import annotations

import logging

from . import (
    compile_cache,
    cpu_expert_parallel,
    cpu_fork,
    cpu_waiting,
    keep_alive,
    phases,
    shared_memory,
    termination,
)

_log = logging.getLogger("vllm.moe_agent")


def register() -> None:
    """Install the agent's parts. vLLM may call this more than once in a process.

    A part that fails is reported and left out: serving without it beats not serving.
    """
    if not termination.install():
        _log.info("No termination log to write to: the causes of failures are in the container's log alone.")
    for part in (
        phases.install,
        keep_alive.install,
        shared_memory.apply,
        compile_cache.apply,
        cpu_expert_parallel.apply,
        cpu_fork.apply,
        cpu_waiting.apply,
    ):
        try:
            part()
        except Exception:
            _log.exception("%s could not be set up; this vLLM differs from the one expected", part.__module__)
