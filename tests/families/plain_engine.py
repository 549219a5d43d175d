"""`vllm serve` as anybody would start it, without an operator: what groups are compared with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from e2e.engine_helpers import get
from engine.install import vllm_command
from harness.wait import wait_for

_ADDRESS = "127.0.0.1"


@contextmanager
def plain_engine(
    model: Path, served: str, *, dtype: str, context_length: int, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """The base URL of one ready engine without expert parallelism; it is ended afterwards. `arguments`: further
    ones."""
    port = _free_port()
    command = [str(vllm_command()), "serve", str(model), "--served-model-name", served]
    command += ["--host", _ADDRESS, "--port", str(port), "--dtype", dtype, "--seed", "0"]
    command += ["--enforce-eager", "--max-model-len", str(context_length), "--max-num-seqs", "8", *arguments]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": _ADDRESS,
        "VLLM_NO_USAGE_STATS": "1",
    }
    base = f"http://{_ADDRESS}:{port}"
    with tempfile.TemporaryFile() as log:
        # A session of its own, so that its workers end with it.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

        def ready() -> bool:
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(
                    f"the plain engine ended:\n{log.read().decode(errors='replace')[-4000:]}"
                )
            return get(base, "/health")[0] == 200

        try:
            wait_for("the plain engine", ready, seconds=300, every=0.5)
            yield base
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
