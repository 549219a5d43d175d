"""Lets vLLM's processes on the CPU be forked, where that is safe: a rank then starts in a third of the time.

Each rank is three processes, and each spends about 10 s of a core on imports when it starts as a new Python
interpreter. vLLM forks on GPUs as a library, but its CPU platform asks for new interpreters whatever the
environment says (vLLM 0.32, `CpuPlatform.check_and_update_config`), for two reasons: the threads of OpenMP
do not survive a fork, and threads are bound to cores by variables that only a new process reads. Neither
holds with one thread per rank and no binding, which is how the operator runs ranks on the CPU.

A fourth interpreter, which looks at the model's class so that the first does not initialise CUDA, is spared
too: a pod begins without the cache that would spare it.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
_T = TypeVar("_T")
_PATCHED = "_moe_agent_forks"


def apply(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Keep the start method "fork" that the environment asks for, if vLLM runs on the CPU and forking is safe.

    Whether it is kept.
    """
    if environ.get(START_METHOD) != "fork" or not is_safe(environ):
        return False
    platform = importlib.import_module("vllm.platforms").current_platform
    if not platform.is_cpu():
        return False
    keep_start_method(type(platform), environ)
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    if not callable(registry._run_in_subprocess):
        raise TypeError("registry._run_in_subprocess is no function")
    registry._run_in_subprocess = _run_here
    return True


def _run_here(function: Callable[[], _T]) -> _T:
    return function()


def is_safe(environ: MutableMapping[str, str]) -> bool:
    """Whether ranks have one thread each, bound to no core."""
    return environ.get("OMP_NUM_THREADS") == "1" and environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind"


def keep_start_method(platform: type[Any], environ: MutableMapping[str, str]) -> None:
    """Make a platform's `check_and_update_config` leave the start method "fork" in place."""
    if _PATCHED in vars(platform):
        return
    original = platform.check_and_update_config

    @functools.wraps(original)
    def check_and_update_config(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        environ[START_METHOD] = "fork"

    platform.check_and_update_config = staticmethod(check_and_update_config)
    setattr(platform, _PATCHED, True)
