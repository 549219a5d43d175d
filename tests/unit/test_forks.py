"""Branches of an exploration end with it. Lost otherwise: a processor for each branch of a run that was killed, for as
long as its story takes, and with it the time that other runs on the machine have."""

import os
import signal
import subprocess
import sys

import pytest

_RUN = """
import asyncio, os, signal
from fakecluster.forks import Forks

async def main():
    if Forks().fork("a branch"):
        print(os.getpid(), flush=True)
    signal.pause()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_branch_ends_with_a_run_that_is_killed() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout is not None
    branch = int(run.stdout.readline())
    run.kill()
    try:
        # The branch holds the other end of the pipe: nothing more comes out of it once both are gone.
        assert run.communicate(timeout=30) == (b"", None)
    except subprocess.TimeoutExpired:
        os.kill(branch, signal.SIGKILL)
        pytest.fail("the branch outlived its run")
