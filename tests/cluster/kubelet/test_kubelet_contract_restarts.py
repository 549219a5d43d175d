"""How containers start, end and start again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cluster.kubelet.harness import (
    SHELL,
    SLEEP,
    Api,
    ContractKubelet,
    Obj,
    condition,
    container_status,
    end,
    last_end,
    phase,
    python,
    ready,
    restarts,
    shell,
    waiting_reason,
)
from kubelet_contract import row


@row("init-containers", "sidecars")
async def test_containers_start_and_end_in_order(api: Api) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]

    def step(name: str, then: str = "", **more: Any) -> Obj:
        return shell(f"echo {name} >> /v/order; {then}", name, volumeMounts=mounts, **more)

    stay = "trap 'echo side-end >> /v/order; exit 0' TERM; sleep 600 & wait"
    probe = {"exec": {"command": ["grep", "side", "/v/order"]}, "periodSeconds": 1}
    inits = [
        step("first"),
        step("side", stay, restartPolicy="Always", startupProbe=probe),
        step("flaky", "[ $(grep -c flaky /v/order) -ge 2 ]"),
    ]
    main = shell("echo main >> /v/order; sleep 0.3; echo main-end >> /v/order", volumeMounts=mounts)
    await api.run("order", main, initContainers=inits, volumes=volumes, restartPolicy="OnFailure")
    pod = await api.until_pod("order", lambda pod: phase(pod) == "Succeeded")
    assert restarts(pod, "flaky") == 1
    assert end(pod, "side")["exitCode"] == 0
    assert condition(pod, "Initialized") == "True"
    await api.run("fails", shell("echo never"), initContainers=[shell("exit 3", "i")], restartPolicy="Never")
    pod = await api.until_pod("fails", lambda pod: phase(pod) == "Failed")
    assert end(pod, "i")["exitCode"] == 3
    assert waiting_reason(pod) == "PodInitializing"


@row("init-containers", "sidecars")
async def test_the_order_of_a_pod_that_shares_a_volume(api: Api, tmp_path: Path) -> None:
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path), "type": "Directory"}}]
    mounts = [{"name": "v", "mountPath": "/v"}]

    def step(name: str, then: str, **more: Any) -> Obj:
        return shell(f"echo {name} >> /v/order; {then}", name, volumeMounts=mounts, **more)

    def until_end(name: str) -> str:
        return f"trap 'echo {name}-end >> /v/order; exit 0' TERM; sleep 600 & wait"

    inits = [
        step("one", until_end("one"), restartPolicy="Always"),
        step("two", until_end("two"), restartPolicy="Always"),
        step("init", "true"),
    ]
    await api.run("order", step("main", until_end("main")), initContainers=inits, volumes=volumes)
    await api.until_pod("order", ready)
    await api.delete("order", 10)
    await api.until_gone("order")
    order = (tmp_path / "order").read_text().split()
    assert order == ["one", "two", "init", "main", "main-end", "two-end", "one-end"]


@row("restart-policy", "exit-states")
async def test_pods_complete_or_fail_by_their_policy(api: Api) -> None:
    await api.run("good", shell("exit 0"), restartPolicy="Never")
    await api.run("bad", shell("exit 7"), restartPolicy="Never")
    await api.run(
        "again",
        shell("[ -e /v/x ] || { touch /v/x; exit 1; }", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {}}],
        restartPolicy="OnFailure",
    )
    good = await api.until_pod("good", lambda pod: phase(pod) == "Succeeded")
    assert (end(good)["exitCode"], end(good)["reason"]) == (0, "Completed")
    bad = await api.until_pod("bad", lambda pod: phase(pod) == "Failed")
    assert (end(bad)["exitCode"], end(bad)["reason"]) == (7, "Error")
    again = await api.until_pod("again", lambda pod: phase(pod) == "Succeeded")
    assert restarts(again) == 1
    assert last_end(again)["exitCode"] == 1


@row("exit-states")
async def test_a_killed_engine_says_by_which_signal(api: Api, kubelet: ContractKubelet) -> None:
    child = "import subprocess,sys,time; subprocess.Popen(['sleep','600']); time.sleep(600)"
    await api.run("killed", python(child))
    await api.until_pod("killed", ready)
    where = {"namespace": api.namespace, "pod": "killed"}

    async def commands() -> list[str]:
        return [entry["command"] for entry in kubelet.control(op="processes", **where)["processes"]]

    await api.until(commands, lambda found: "sleep 600" in found)
    kubelet.control(op="signal", signal="SEGV", match="sleep 600", **where)
    kubelet.control(op="signal", signal="KILL", **where)
    pod = await api.until_pod("killed", lambda pod: restarts(pod) == 1)
    assert (last_end(pod)["exitCode"], last_end(pod)["signal"], last_end(pod)["reason"]) == (137, 9, "Error")
    assert last_end(pod)["startedAt"] <= last_end(pod)["finishedAt"]


@row("exit-states")
async def test_a_missing_program_is_a_start_error(api: Api) -> None:
    await api.run("missing", {"name": "main", "image": SHELL, "command": ["no-such-engine"]})
    pod = await api.until_pod("missing", lambda pod: last_end(pod))
    assert (last_end(pod)["exitCode"], last_end(pod)["reason"]) == (128, "StartError")
    assert 'exec: "no-such-engine": executable file not found in $PATH' in last_end(pod)["message"]


@row("crash-backoff", "termination-message")
async def test_a_crashing_container_is_restarted_in_place_ever_more_slowly(api: Api) -> None:
    crash = shell("echo out of memory on rank 3 > /dev/termination-log; exit 1")
    await api.run("crash", crash, shell(SLEEP, "other"))
    began = time.monotonic()
    pod = await api.until_pod(
        "crash", lambda pod: restarts(pod) == 1 and waiting_reason(pod) == "CrashLoopBackOff"
    )
    assert time.monotonic() - began < 8, "the first restart does not wait"
    assert (
        "back-off 10s restarting failed container=main"
        in container_status(pod)["state"]["waiting"]["message"]
    )
    assert last_end(pod)["message"] == "out of memory on rank 3\n"
    assert phase(pod) == "Running"
    assert condition(pod, "Ready") == "False"
    uid = pod["metadata"]["uid"]
    pod = await api.until_pod("crash", lambda pod: restarts(pod) == 2, 20)
    assert time.monotonic() - began > 9
    assert pod["metadata"]["uid"] == uid
    assert container_status(pod, "other")["restartCount"] == 0


@row("termination-message")
async def test_the_last_lines_of_the_log_stand_in_for_a_missing_message(api: Api) -> None:
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    await api.run("log", shell("echo first; echo CUDA error >&2; exit 2", **fallback), restartPolicy="Never")
    await api.run(
        "big",
        shell("head -c 9999 /dev/zero | tr '\\0' x > /tmp/why; exit 2", terminationMessagePath="/tmp/why"),
        restartPolicy="Never",
    )
    await api.run("fine", shell("echo nothing wrong", **fallback), restartPolicy="Never")
    log = await api.until_pod("log", end)
    assert sorted(end(log)["message"].splitlines()) == ["CUDA error", "first"]
    assert end(await api.until_pod("big", end))["message"] == "x" * 4096
    assert "message" not in end(await api.until_pod("fine", end))


@row("oom-killed")
async def test_memory_over_the_limit_ends_the_container(api: Api) -> None:
    code = "import time; time.sleep(0.5); block = bytearray(300 << 20); time.sleep(600)"
    small = python(code, resources={"limits": {"memory": "128Mi"}})
    await api.run(
        "greedy",
        small,
        python("import time; time.sleep(600)", "modest", resources={"limits": {"memory": "128Mi"}}),
    )
    pod = await api.until_pod("greedy", lambda pod: last_end(pod))
    assert (last_end(pod)["exitCode"], last_end(pod)["reason"]) == (137, "OOMKilled")
    assert restarts(pod, "modest") == 0


@row("deadline")
async def test_a_pod_past_its_deadline_fails(api: Api) -> None:
    await api.run("late", shell(SLEEP), activeDeadlineSeconds=1)
    pod = await api.until_pod("late", lambda pod: phase(pod) == "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
