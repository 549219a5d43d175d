"""Forking vLLM's processes on the CPU: only where asked for and safe; elsewhere ranks would hang in OpenMP."""

import pytest

from moe_operator.agent.cpu_fork import START_METHOD, is_safe, keep_start_method

SAFE = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.mark.parametrize(
    ("changes", "safe"),
    [
        ({}, True),
        ({"OMP_NUM_THREADS": "8"}, False),
        ({"OMP_NUM_THREADS": ""}, False),
        ({"VLLM_CPU_OMP_THREADS_BIND": "auto"}, False),
        ({"VLLM_CPU_OMP_THREADS_BIND": "0-7"}, False),
    ],
)
def test_a_fork_is_safe_with_one_unbound_thread_only(changes: dict[str, str], safe: bool) -> None:
    """A user who gives ranks more threads must get new interpreters: a fork loses OpenMP's threads."""
    assert is_safe({**SAFE, **changes}) is safe


def test_the_platform_no_longer_overrules_the_environment() -> None:
    """Every rank would spend half a minute of a core on imports, three times over."""
    environ = {START_METHOD: "fork"}
    seen: list[str] = []

    class Platform:
        @classmethod
        def check_and_update_config(cls, config: str) -> None:
            seen.append(config)
            environ[START_METHOD] = "spawn"

    keep_start_method(Platform, environ)
    keep_start_method(Platform, environ)
    Platform.check_and_update_config("config")
    assert (seen, environ[START_METHOD]) == (["config"], "fork")
