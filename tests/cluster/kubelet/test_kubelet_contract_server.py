"""A node's own server: logs, figures, commands, and who may ask."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path

from cluster.kubelet.harness import (
    NODES,
    SLEEP,
    Api,
    ContractKubelet,
    python,
    ready,
    restarts,
    shell,
    waiting_reason,
)
from kubelet_contract import row


@row("logs")
async def test_logs_in_all_the_ways_that_kubectl_asks(api: Api) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; [ -e /v/x ] || { touch /v/x; exit 1; }; "
    script += "sleep 0.7; echo late; sleep 600"
    volumes, mounts = [{"name": "v", "emptyDir": {}}], [{"name": "v", "mountPath": "/v"}]
    await api.run("talk", shell(script, volumeMounts=mounts), volumes=volumes)
    await api.until_pod("talk", lambda pod: restarts(pod) == 1 and ready(pod))
    assert await api.logs("talk", previous="true") == "".join(f"line {number}\n" for number in range(1, 6))
    followed = asyncio.create_task(api.logs("talk", follow="true"))
    await api.until(lambda: api.logs("talk", tail="1"), lambda text: text == "late\n")
    assert await api.logs("talk", tail="2") == "line 5\nlate\n"
    assert await api.logs("talk", limit_bytes="6") == "line 1"
    stamped = await api.logs("talk", timestamps="true", tail="1")
    assert stamped.endswith("Z late\n")
    assert stamped.startswith("20")
    assert await api.logs("talk", since="1h") == await api.logs("talk")
    await api.delete("talk", 1)
    assert (await followed).endswith("line 5\nlate\n")


@row("logs")
async def test_logs_that_are_not_there_are_explained(api: Api) -> None:
    await api.run("unpulled", {"name": "main", "image": "nowhere:1", "command": ["x"]})
    await api.until_pod("unpulled", lambda pod: waiting_reason(pod) == "ImagePullBackOff")
    assert "is waiting to start" in await api.logs("unpulled")
    assert "not found" in await api.logs("unpulled", previous="true")


@row("resource-metrics")
async def test_memory_and_processor_time_are_measured(api: Api) -> None:
    code = "import time\nblock = bytearray(80 << 20)\nfor i in range(0, len(block), 4096): block[i] = 1\n"
    code += "end = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
    code += "print('ready', flush=True)\ntime.sleep(600)"
    await api.run("heavy", python(code))
    await api.until(lambda: api.logs("heavy"), lambda text: text == "ready\n")
    page = await api.kubectl("get", "--raw", f"/api/v1/nodes/{NODES[0]}/proxy/metrics/resource")
    found = {}
    for line in page.splitlines():
        if f'namespace="{api.namespace}",pod="heavy"' in line:
            found[line.split("{")[0]] = float(line.split()[1])
    assert 80 * 2**20 < found["container_memory_working_set_bytes"] < 120 * 2**20
    assert 0.5 <= found["container_cpu_usage_seconds_total"] < 5
    assert found["pod_memory_working_set_bytes"] == found["container_memory_working_set_bytes"]


@row("exec")
async def test_commands_run_inside_a_container(api: Api, tmp_path: Path) -> None:
    await api.run("box", shell(SLEEP))
    await api.until_pod("box", ready)
    script = "hostname; pwd; echo $FROM_IMAGE"
    assert await api.kubectl("exec", "box", "--", "sh", "-c", script) == "box\n/\nyes\n"
    assert "exit code 3" in await api.kubectl("exec", "box", "--", "sh", "-c", "exit 3")
    assert "executable file not found" in await api.kubectl("exec", "box", "--", "no-such-program")
    data = os.urandom(3_000_000)
    await asyncio.to_thread((tmp_path / "file").write_bytes, data)
    await api.kubectl("cp", f"{tmp_path}/file", "box:/tmp/there")
    assert await api.kubectl("exec", "box", "--", "sh", "-c", "wc -c < /tmp/there") == "3000000\n"
    await api.kubectl("cp", "box:/tmp/there", f"{tmp_path}/back")
    assert await asyncio.to_thread((tmp_path / "back").read_bytes) == data


TERMINAL = """
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execvp("kubectl", ["kubectl", *sys.argv[1:]])
os.write(master, b"tty && stty size && echo typed-$((40+2)); exit 5\\n")
out = b""
try:
    while data := os.read(master, 4096):
        out += data
except OSError:
    pass
print(out.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@row("exec")
async def test_a_terminal_is_a_terminal_inside_too(api: Api) -> None:
    await api.run("box", shell(SLEEP))
    await api.until_pod("box", ready)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TERMINAL, "-n", api.namespace, "exec", "-it", "box", "--", "sh"),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert b"typed-42" in output, output
    assert output.strip().endswith(b" 5")


@row("attach")
async def test_what_needs_other_streams_is_refused_with_a_way_out(api: Api) -> None:
    await api.run("plain", shell(SLEEP))
    await api.until_pod("plain", ready)
    refused = await api.kubectl("attach", "plain")
    assert "attach is not supported by the local cluster's kubelet" in refused
    url = f"/api/v1/nodes/{NODES[0]}/proxy/run/{api.namespace}/plain/main?cmd=echo&cmd=from+inside"
    assert "from inside" in await api.kubectl("create", "--raw", url, "-f", "/dev/null")


@row("server-access")
async def test_the_nodes_server_asks_who_is_there(api: Api, kubelet: ContractKubelet) -> None:
    """A missing rule in the chart must show here, not first on a real cluster."""
    account = {"kind": "ServiceAccount", "name": "default", "namespace": api.namespace}

    def get(token: str | None) -> int:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("10.244.193.1", 10250), 10) as plain,
            context.wrap_socket(plain) as secure,
        ):
            head = f"Authorization: Bearer {token}\r\n" if token else ""
            secure.sendall(
                f"GET /metrics/resource HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n\r\n".encode()
            )
            return int(secure.recv(64).split()[1])

    answer = await api.client.post(api.path("serviceaccounts", "default") + "/token", {"spec": {}})
    token = answer["status"]["token"]
    assert await asyncio.to_thread(get, None) == 401
    assert await asyncio.to_thread(get, "nonsense") == 401
    assert await asyncio.to_thread(get, token) == 403
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
    await api.client.post(f"{rbac}/clusterroles", {"metadata": {"name": api.namespace}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": api.namespace}
    binding = {"metadata": {"name": api.namespace}, "roleRef": reference, "subjects": [account]}
    await api.client.post(f"{rbac}/clusterrolebindings", binding)
    try:
        # The refusal is remembered for half a minute; another account of the same rights is asked about afresh.
        await api.create("ServiceAccount", "second")
        subjects = [{**account, "name": "second"}]
        await api.client.patch(f"{rbac}/clusterrolebindings/{api.namespace}", {"subjects": subjects})
        answer = await api.client.post(api.path("serviceaccounts", "second") + "/token", {"spec": {}})

        async def status() -> int:
            return await asyncio.to_thread(get, answer["status"]["token"])

        await api.until(status, lambda code: code == 200, 60)
    finally:
        for plural in ("clusterrolebindings", "clusterroles"):
            await api.client.delete(f"{rbac}/{plural}/{api.namespace}", {})
