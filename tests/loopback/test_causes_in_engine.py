"""The causes of real vLLM's ends, read from what it leaves: its texts change with each version, and a user would be
told "the engine exited" for a typing error and a damaged file alike."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.tiny_model import tiny_model
from loopback.group import PORT, Layout, group
from moe_operator.api import reasons
from moe_operator.controller.engine_errors import EngineError, read
from moe_operator.controller.evidence import LINES

pytestmark = pytest.mark.timeout(300)

#: What a kubelet takes of a log where the termination message is empty (FallbackToLogsOnError): 80 lines, 2048 bytes.
_KUBELET_LINES, _KUBELET_BYTES = 80, 2048


def ended(
    number: int,
    *,
    arguments: list[str] | None = None,
    environment: Mapping[str, str] | None = None,
    model: Path | None = None,
    agent: bool = True,
) -> tuple[EngineError, EngineError]:
    """What the status of a pod says whose engine cannot start, and what its log says."""
    layout = Layout(subnet=f"127.30.{number}")
    made = group(layout, arguments=arguments or [], environment=environment, model=model, agent=agent)
    with made as one:
        (pod,) = one.pods
        assert pod.process.wait(timeout=240) != 0
        lines = pod.log.splitlines()
        message = pod.termination_message
    assert agent or not message
    tail = "\n".join(lines[-_KUBELET_LINES:])[-_KUBELET_BYTES:]
    return read(message or tail), read("\n".join(lines[-LINES:]))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def renamed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"q_norm", b"x_norm"))


def changed_model(folder: Path, change: Callable[[Path], None]) -> Path:
    """The tiny model with its weights changed."""
    shutil.copytree(tiny_model(), folder)
    for path in folder.glob("*.safetensors"):
        change(path)
    return folder


@pytest.mark.parametrize(
    ("number", "arguments", "part"),
    [
        (11, ["--max-batch-tokens", "7"], "unrecognized arguments: --max-batch-tokens 7"),
        (
            12,
            ["--gpu-memory-utilization", "1.7"],
            "1 validation error for CacheConfig gpu_memory_utilization",
        ),
    ],
    ids=["parser", "check"],
)
def test_an_argument_that_vllm_refuses(number: int, arguments: list[str], part: str) -> None:
    for found in ended(number, arguments=arguments):
        assert (found.reason, part in found.text) == (reasons.ARGUMENT_REFUSED, True), found


@pytest.mark.parametrize(
    ("number", "change", "part"),
    [
        (13, truncated, "incomplete metadata, file not fully covered"),
        (14, renamed, "self_attn.x_norm"),
        (15, Path.unlink, "Cannot find any model weights"),
    ],
    ids=["truncated", "other tensors", "missing"],
)
def test_weights_that_cannot_be_read(
    tmp_path: Path, number: int, change: Callable[[Path], None], part: str
) -> None:
    """The first process to tell is a worker; the server's last words only point at it."""
    for found in ended(number, model=changed_model(tmp_path / "model", change)):
        assert (found.reason, part in found.text) == (reasons.WEIGHTS_UNREADABLE, True), found
        assert "See root cause above" in found.output[-1]


def test_without_the_agent_the_log_tells(tmp_path: Path) -> None:
    """What the kubelet keeps of the log is the server's traceback alone; the operator reads on."""
    kept, found = ended(16, model=changed_model(tmp_path / "model", truncated), agent=False)
    assert kept.reason == reasons.ENGINE_EXITED
    assert "See root cause above" in kept.text
    assert found.reason == reasons.WEIGHTS_UNREADABLE, found


def test_a_port_that_is_taken() -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind((Layout(subnet="127.30.17").address(0), PORT))
        taken.listen()
        for found in ended(17):
            assert (found.reason, "Address already in use" in found.text) == (reasons.PORT_TAKEN, True), found


def test_main_memory_that_does_not_suffice() -> None:
    for found in ended(18, environment={"VLLM_CPU_KVCACHE_SPACE": "900000"}):
        assert (found.reason, "(900000.0 GiB)" in found.text) == (reasons.OUT_OF_MEMORY, True), found
