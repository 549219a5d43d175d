"""Nodes and the kubelet itself: lost machines, and what survives whose end."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from cluster.kubelet.harness import (
    NODES,
    POD_IP,
    SLEEP,
    Api,
    ContractKubelet,
    condition,
    last_end,
    phase,
    python,
    ready,
    restarts,
    shell,
)
from cluster.tcp_proxy import TcpProxy
from harness.processes import cpu_seconds
from kubelet_contract import row


@row("node-object")
async def test_nodes_are_what_their_file_says(api: Api) -> None:
    """Without labels and capacity the scheduler and the planner see no machine."""
    node = await api.client.get(f"/api/v1/nodes/{NODES[0]}")
    assert node["metadata"]["labels"]["contract"] == "yes"
    assert {"key": "contract", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert condition(node, "Ready") == "True"
    assert node["status"]["capacity"]["pods"] == "110"


@row("node-heartbeat")
async def test_a_silent_node_turns_unknown_and_comes_back(api: Api, kubelet: ContractKubelet) -> None:
    """Everything that reacts to lost machines is tested against this."""
    lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODES[1]}"
    first = (await api.client.get(lease))["spec"]["renewTime"]
    await api.until(lambda: api.client.get(lease), lambda found: found["spec"]["renewTime"] != first, 15)
    await api.run("steady", shell(SLEEP), node=NODES[1])
    await api.until_pod("steady", ready)
    kubelet.control(op="node-fail", node=NODES[1], pods="stop")
    states = {entry["name"]: entry["failed"] for entry in kubelet.control(op="nodes")["nodes"]}
    assert states == {NODES[0]: False, NODES[1]: True}
    node = f"/api/v1/nodes/{NODES[1]}"
    await api.until(lambda: api.client.get(node), lambda found: condition(found, "Ready") == "Unknown", 90)
    await api.until_pod("steady", lambda pod: condition(pod, "Ready") == "False", 30)
    # Nobody is there to end it: it stays Terminating, as on a lost machine.
    await api.run("gone", shell(SLEEP), node=NODES[1])
    await api.delete("steady")
    kubelet.control(op="node-recover", node=NODES[1])
    await api.until(lambda: api.client.get(node), lambda found: condition(found, "Ready") == "True", 30)
    await api.until_pod("gone", ready)
    await api.until_gone("steady")


@row("node-heartbeat")
async def test_a_node_that_lost_power_starts_its_pods_again(api: Api, kubelet: ContractKubelet) -> None:
    await api.run("steady", shell(SLEEP), node=NODES[1])
    await api.until_pod("steady", ready)
    kubelet.control(op="node-fail", node=NODES[1], pods="kill")
    pod = await api.pod("steady")
    assert pod is not None
    assert ready(pod), "a dead node reports nothing"
    kubelet.control(op="node-recover", node=NODES[1])
    await api.until_pod("steady", lambda pod: restarts(pod) == 1 and ready(pod))


@row("node-lifecycle")
async def test_a_deleted_node_registers_again_only_when_told(api: Api, kubelet: ContractKubelet) -> None:
    node = f"/api/v1/nodes/{NODES[1]}"
    old = (await api.client.get(node))["metadata"]["uid"]
    await api.client.delete(node, {})
    # A heartbeat later it is still gone.
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"
    await api.until(lambda: api.client.get_or_none(lease + NODES[0]), bool)
    assert await api.client.get_or_none(node) is None
    kubelet.control(op="node-recover", node=NODES[1])
    again = await api.until(
        lambda: api.client.get_or_none(node), lambda found: found and condition(found, "Ready") == "True"
    )
    assert again["metadata"]["uid"] != old


@row("pod-watch", "kubelet-restart")
async def test_pods_made_while_the_kubelet_was_away_are_run_when_it_is_back(
    api: Api, kubelet: ContractKubelet
) -> None:
    """And those that it had are started again in place; those deleted meanwhile go; no process outlives it."""
    await api.run("old", python("import os,time; print(os.getpid()); time.sleep(600)"))
    await api.run("done", shell("echo yes"), restartPolicy="Never")
    await api.run("leaving", shell(SLEEP))
    await api.run("init", shell(SLEEP), initContainers=[shell("echo prepared", "i")])
    for name in ("old", "leaving", "init"):
        await api.until_pod(name, ready)
    await api.until_pod("done", lambda pod: phase(pod) == "Succeeded")
    pids = [
        entry["pid"]
        for entry in kubelet.control(op="processes", namespace=api.namespace, pod="old")["processes"]
    ]
    kubelet.stop(signal.SIGKILL)

    async def left() -> list[int]:
        return [pid for pid in pids if alive(pid)]

    await api.until(left, lambda found: not found, 5)
    await api.delete("leaving")
    await api.run("new", shell(SLEEP))
    kubelet.start()
    pod = await api.until_pod("old", lambda pod: restarts(pod) == 1 and ready(pod))
    assert last_end(pod)["reason"] == "ContainerStatusUnknown"
    await api.until_pod("new", ready)
    await api.until_pod("init", lambda pod: restarts(pod) == 1 and ready(pod))
    await api.until_gone("leaving")
    done = await api.pod("done")
    assert done is not None
    assert (phase(done), restarts(done)) == ("Succeeded", 0)


@row("pod-watch", "status-writes")
async def test_pods_live_on_while_the_api_server_is_away(api: Api, kubelet: ContractKubelet) -> None:
    """A restart of the control plane must not restart engines; what changed meanwhile is caught up with."""
    proxy = TcpProxy("127.0.0.1", 6443)
    port = await proxy.start()
    kubelet.stop()
    await asyncio.to_thread(kubelet.start, port)
    try:
        await api.run("steady", shell(SLEEP))
        await api.run("leaving", shell(SLEEP))
        await api.run("dying", shell("trap 'exit 4' TERM; sleep 600 & wait"))
        for name in ("steady", "leaving", "dying"):
            await api.until_pod(name, ready)
        proxy.refusing = True
        proxy.cut()
        await api.run("new", shell(SLEEP))
        await api.delete("leaving", 1)
        where = {"namespace": api.namespace, "pod": "dying"}
        await asyncio.to_thread(lambda: kubelet.control(op="signal", signal="TERM", **where))

        async def dead() -> list[int]:
            found = await asyncio.to_thread(lambda: kubelet.control(op="processes", **where)["processes"])
            return [entry["pid"] for entry in found]

        before = await dead()
        await api.until(dead, lambda found: found and found != before, 10)  # restarted without the API server
        stale = await api.pod("dying")
        assert stale is not None
        assert restarts(stale) == 0
        proxy.refusing = False
        await api.until_pod("new", ready)
        await api.until_gone("leaving")
        dying = await api.until_pod("dying", lambda pod: restarts(pod) == 1 and ready(pod))
        assert last_end(dying)["exitCode"] == 4
        steady = await api.pod("steady")
        assert steady is not None
        assert (restarts(steady), ready(steady)) == (0, True)
    finally:
        await asyncio.to_thread(kubelet.stop)
        await proxy.stop()
        await asyncio.to_thread(kubelet.start)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@row("idle-cost")
async def test_ten_probed_pods_cost_next_to_nothing(api: Api, kubelet: ContractKubelet) -> None:
    """The kubelet shares two cores with the engines it runs."""
    serve = python(
        "import http.server,os\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "  def do_GET(self): self.send_response(200); self.end_headers()\n"
        "  def log_message(self, *a): pass\n"
        "http.server.ThreadingHTTPServer((os.environ['POD_IP'], 8080), H).serve_forever()",
        env=[POD_IP],
        readinessProbe={"httpGet": {"port": 8080}, "periodSeconds": 1},
    )
    for number in range(10):
        await api.run(f"idle-{number}", serve, node=NODES[number % 2])
    for number in range(10):
        await api.until_pod(f"idle-{number}", ready)
    assert kubelet.process is not None
    pid = kubelet.process.pid
    began, used = time.monotonic(), cpu_seconds(pid)
    await asyncio.sleep(10)  # the measurement itself
    share = (cpu_seconds(pid) - used) / (time.monotonic() - began)
    print(f"kubelet with ten probed pods: {share:.2%} of a core")
    # About 1 % on an idle machine. Seconds of a core grow on one that is shared with engines; a loop that
    # polls takes all it gets.
    assert share < 0.25
