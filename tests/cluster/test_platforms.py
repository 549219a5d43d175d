"""What the examples are rendered to, given to a real API server, LeaderWorkerSet and scheduler: a manifest that only
looks right in a review is found out here, and not on nodes that cost a hundred dollars an hour. In a cluster of its
own, as nodes, classes and CRDs are the whole cluster's."""

import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import dra

INSIDE = Path(__file__).with_name("with_platforms.py")


@pytest.mark.outside
@pytest.mark.timeout(480)
def test_the_examples_are_accepted_and_their_pods_find_the_platforms_nodes() -> None:
    # Fetched here: inside of a cluster nothing outside can be reached.
    dra.crds()
    done = subprocess.run(
        [sys.executable, "-m", "localcluster", "run", "--name", "with-platforms", "--",
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", str(INSIDE)],
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
