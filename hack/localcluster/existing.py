"""``USE_EXISTING_CLUSTER=true``: use the cluster that KUBECONFIG names instead of starting one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from localcluster.errors import LocalClusterError

#: The API that the operator needs; served from LeaderWorkerSet 0.4 on, tested with the version of
#: hack/addons.
_LWS_API = "leaderworkerset.x-k8s.io/v1"


def wanted() -> bool:
    """Whether the environment asks for an existing cluster."""
    return os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true"


def check() -> str:
    """Make sure that the cluster can be used; returns its version. Raises LocalClusterError saying what
    is missing.
    """
    named = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(each).is_file() for each in named.split(os.pathsep)):
        raise LocalClusterError(
            f"USE_EXISTING_CLUSTER=true, but there is no kubeconfig at {named}: set KUBECONFIG to the cluster's."
        )
    if shutil.which("kubectl") is None:
        raise LocalClusterError(
            "USE_EXISTING_CLUSTER=true needs kubectl on PATH. Install it, or build one with "
            "`python -m localcluster build`, which prints the directory to add."
        )
    version = _kubectl("get", "--raw", "/version")
    apis = _kubectl("api-versions").split()
    if _LWS_API not in apis:
        raise LocalClusterError(
            f"the cluster answers, but does not serve {_LWS_API}: LeaderWorkerSet is not installed. "
            "Install version 0.9.0 or newer as its documentation says "
            "(https://lws.sigs.k8s.io/docs/installation/) and try again."
        )
    return version


def run(command: Sequence[str]) -> int:
    """Run a command against the existing cluster; returns its exit status."""
    try:
        code = subprocess.run(list(command), check=False).returncode
    except FileNotFoundError as error:
        raise LocalClusterError(f"{command[0]}: no such program") from error
    return code if code >= 0 else 128 - code


def _kubectl(*arguments: str) -> str:
    done = subprocess.run(
        ["kubectl", "--request-timeout=10s", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LocalClusterError(
            "USE_EXISTING_CLUSTER=true, but the cluster of "
            f"KUBECONFIG={os.environ.get('KUBECONFIG', '')} does not answer: {done.stderr.strip()}"
        )
    return done.stdout
