"""The simulator's engine against vLLM's own scheduler, KV cache and kernels: were they to differ, every verdict on a
policy would be on an engine that does not exist.

A short version of `make verify-simulator`: below and above what the engine sustains, and with too small a cache.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HACK = Path(__file__).parents[2] / "hack"


@pytest.mark.timeout(900)
def test_it_serves_as_vllm_does_within_15_percent() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "verify.simulator", "--short"],
        env={**os.environ, "PYTHONPATH": str(HACK)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
