"""Memory of real engines in the status, as their node's kubelet measures it, beside the kernel's own figures.

What a user would lose: the figure by which they size nodes; and a right that opens more of a kubelet than its metrics.
"""

from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import NAMESPACE
from e2e.conftest import STEADY as NAME
from harness.deployments import deployment, engine_pods
from harness.engines import processes
from harness.install import OPERATOR_NAMESPACE
from harness.kubectl import CommandError, kubectl
from harness.wait import wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("steady")]

MIB = 2**20
#: Share by which the status may be off.
WITHIN = 0.05


def hbm() -> dict[str, Any]:
    return deployment(NAME, NAMESPACE)["status"].get("hbm") or {}


def proportional(pod: str) -> int:
    """Bytes of a pod's processes by the kernel, with pages that processes share divided among them."""
    total = 0
    for process in processes(pod):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def test_the_status_has_what_the_kernel_says() -> None:
    wait_for("a measurement", lambda: hbm().get("source") == "Measured", seconds=60)
    (pod,) = engine_pods(NAME, NAMESPACE)

    # Figures may be one interval and one write old: compare until they meet.
    def off() -> float:
        kernel = proportional(pod["metadata"]["name"])
        return abs(float(hbm()["usedMib"]) * MIB - kernel) / kernel

    wait_for(f"figures within {WITHIN:.0%}", lambda: off() <= WITHIN, seconds=90)
    kernel = proportional(pod["metadata"]["name"])
    print(f"status: {hbm()['usedMib']} MiB, kernel: {kernel / MIB:.0f} MiB, off by {off():.2%}")
    assert hbm()["worst"]["pod"] == pod["metadata"]["name"]
    row = kubectl("get", "modeldeployments", NAME, "-n", NAMESPACE)
    assert "HBM" in row
    assert hbm()["summary"] in row
    assert not hbm()["summary"].startswith("~")


def test_the_operator_may_read_kubelets_metrics_and_nothing_else_of_them() -> None:
    who = f"--as=system:serviceaccount:{OPERATOR_NAMESPACE}:moe-operator"
    # `nodes/metrics` would be a node of that name.
    may = ("auth", "can-i", "get", "nodes", who)
    assert kubectl(*may, "--subresource=metrics").strip() == "yes"
    for other in ("proxy", "log", "stats"):
        with pytest.raises(CommandError):
            kubectl(*may, f"--subresource={other}")
