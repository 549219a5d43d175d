"""A cluster without LeaderWorkerSet: said in the status, no crash loop, and taken up once it is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = Path(__file__).with_name("without_lws.py")


@pytest.mark.outside
@pytest.mark.timeout(480)
def test_a_cluster_without_leader_worker_set_is_told_and_corrected() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "localcluster", "run", "--name", "no-lws", "--no-lws", "--",
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INSIDE)],
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
