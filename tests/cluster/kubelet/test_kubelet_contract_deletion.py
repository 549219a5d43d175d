"""The end of pods: in time, whole, and no process left."""

from __future__ import annotations

import time
from pathlib import Path

from cluster.kubelet.harness import (
    PYTHON,
    SLEEP,
    Api,
    ContractKubelet,
    ready,
    restarts,
    running,
    shell,
)
from kubelet_contract import row


@row("hooks", "deletion")
async def test_a_slow_hook_uses_up_the_grace_period_and_no_more(api: Api) -> None:
    await api.run("slow", shell(SLEEP, lifecycle={"preStop": {"exec": {"command": ["sleep", "60"]}}}))
    await api.until_pod("slow", ready)
    began = time.monotonic()
    await api.delete("slow", 2)
    await api.until_gone("slow")
    assert 1.9 < time.monotonic() - began < 8


@row("deletion", "status-writes")
async def test_a_stubborn_container_gets_its_grace_and_then_ends(api: Api) -> None:
    await api.run(
        "stubborn", shell("trap '' TERM; while :; do sleep 1; done"), terminationGracePeriodSeconds=3
    )
    await api.until_pod("stubborn", ready)
    began = time.monotonic()
    await api.delete("stubborn")
    pod = await api.until_pod("stubborn", lambda pod: "deletionTimestamp" in pod["metadata"])
    assert running(pod)
    await api.until_gone("stubborn")
    assert 2.9 < time.monotonic() - began < 8


@row("deletion")
async def test_a_second_deletion_shortens_the_grace_period(api: Api) -> None:
    await api.run(
        "patient", shell("trap '' TERM; while :; do sleep 1; done"), terminationGracePeriodSeconds=600
    )
    await api.until_pod("patient", ready)
    await api.delete("patient")
    await api.until_pod("patient", lambda pod: "deletionTimestamp" in pod["metadata"])
    began = time.monotonic()
    await api.delete("patient", 1)
    await api.until_gone("patient", 15)
    assert time.monotonic() - began < 8


DETACHED = """
import os, sys, time
for depth in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            code = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
            os.execvp("python", ["python", "-c", code, sys.argv[1]])
        os._exit(0)
print("up", flush=True)
time.sleep(600)
"""


def marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"python" and mark.encode() in words:
            found.append(int(entry.name))
    return found


@row("no-escape")
async def test_no_process_of_a_container_outlives_it(api: Api, kubelet: ContractKubelet) -> None:
    """An engine's children that survive it would hold the GPUs' memory and the ports of its successor."""
    mark = f"mark-{api.namespace}"
    container = {"name": "main", "image": PYTHON, "command": ["python", "-u", "-c", DETACHED, mark]}
    await api.run("brood", container)

    async def brood() -> list[int]:
        return marked(mark)

    await api.until(brood, lambda found: len(found) == 4)
    first = await brood()
    kubelet.control(op="signal", namespace=api.namespace, pod="brood", signal="KILL")
    await api.until_pod("brood", lambda pod: restarts(pod) == 1)
    await api.until(brood, lambda found: len(found) == 4 and not set(found) & set(first))
    await api.delete("brood", 1)
    await api.until_gone("brood")
    assert await brood() == []


@row("forced-deletion")
async def test_a_pod_deleted_by_force_is_ended_all_the_same(api: Api) -> None:
    mark = f"mark-{api.namespace}"
    container = {"name": "main", "image": PYTHON, "command": ["python", "-u", "-c", DETACHED, mark]}
    await api.run("forced", container, terminationGracePeriodSeconds=600)

    async def left() -> list[int]:
        return marked(mark)

    await api.until(left, lambda found: len(found) == 4)
    await api.delete("forced", 0)
    await api.until_gone("forced", 2)
    await api.until(left, lambda found: not found, 5)
