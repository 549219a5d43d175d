"""GPUs by claims, and ComputeDomains: a cluster of its own, as classes, slices and CRDs are the whole cluster's."""

import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import dra

INSIDE = Path(__file__).with_name("with_dra.py")


@pytest.mark.outside
@pytest.mark.timeout(480)
def test_gpus_are_claimed_and_domains_shared_on_a_real_control_plane() -> None:
    # Fetched here: inside of a cluster nothing outside can be reached.
    crds = dra.crds()
    assert [path.stem.rpartition("_")[2] for path in crds] == ["computedomaincliques", "computedomains"]
    done = subprocess.run(
        [sys.executable, "-m", "localcluster", "run", "--name", "with-dra", "--nodes", "dra", "--",
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INSIDE)],
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
