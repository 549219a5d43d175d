"""The kubelet's contract on a real API server, row by row.

The kubelet under test is one of its own, with its own nodes, so that it can be failed, killed and restarted without
touching what else runs in the cluster.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.contract_kubelet import (
    NODES,
    PYTHON,
    SHELL,
    Api,
    ContractKubelet,
    condition,
    container_status,
    phase,
    python,
    ready,
    restarts,
    shell,
)
from cluster.tcp_proxy import TcpProxy
from kubelet_contract import row
from localcluster.namespace import INSIDE

pytestmark = pytest.mark.skipif(
    INSIDE not in os.environ, reason="tests of the local cluster's kubelet; another cluster is in use"
)
Obj = dict[str, Any]
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
SLEEP = "trap 'exit 0' TERM; sleep 600 & wait"


@pytest.fixture(scope="module")
def kubelet() -> Iterator[ContractKubelet]:
    under_test = ContractKubelet()
    under_test.start()
    yield under_test
    under_test.close()


@pytest.fixture
async def api(kubelet: ContractKubelet) -> AsyncIterator[Api]:
    made = await Api.make(kubelet.kubeconfig)
    yield made
    await made.close()


def running(pod: Obj) -> bool:
    return "running" in container_status(pod).get("state", {})


def waiting_reason(pod: Obj, container: str = "main") -> str:
    state = container_status(pod, container).get("state", {})
    return str(state.get("waiting", {}).get("reason", ""))


def last_end(pod: Obj, container: str = "main") -> Obj:
    found: Obj = container_status(pod, container).get("lastState", {}).get("terminated", {})
    return found


def end(pod: Obj, container: str = "main") -> Obj:
    found: Obj = container_status(pod, container).get("state", {}).get("terminated", {})
    return found


# -- nodes -----------------------------------------------------------------------------------------------------------


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


# -- what a container finds ------------------------------------------------------------------------------------------


@row("pod-watch", "pod-address")
async def test_pods_have_addresses_of_their_node_and_reach_each_other(api: Api) -> None:
    serve = "import os; from http import server; "
    serve += "server.test(server.SimpleHTTPRequestHandler, port=8080, bind=os.environ['POD_IP'])"
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    for number, node in enumerate(NODES):
        await api.run(f"web-{number}", python(serve, env=[POD_IP], readinessProbe=probe), node=node)
    pods = [await api.until_pod(f"web-{number}", ready) for number in range(2)]
    addresses = [pod["status"]["podIP"] for pod in pods]
    assert addresses[0].startswith("10.244.193.")
    assert addresses[1].startswith("10.244.194.")
    fetch = f"import urllib.request; print(urllib.request.urlopen('http://{addresses[0]}:8080').status)"
    await api.run("client", python(fetch), node=NODES[1], restartPolicy="Never")
    assert await api.output("client") == "200\n"
    await api.run("host", shell("echo $POD_IP", env=[POD_IP]), hostNetwork=True, restartPolicy="Never")
    assert await api.output("host") == "10.244.193.1\n"


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


@row("env", "env-expansion", "service-env")
async def test_a_container_finds_its_environment(api: Api) -> None:
    await api.create("ConfigMap", "settings", data={"a": "1"})
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        POD_IP,
        {"name": "URL", "value": "http://$(POD_IP):$(KUBERNETES_SERVICE_PORT)"},
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    resources = {"limits": {"memory": "256Mi"}}
    container = shell("env; echo args $0 $1", env=env, resources=resources, args=["$(A)", "$$(A)"])
    pod = await api.run("env", container, restartPolicy="Never")
    lines = (await api.output("env")).splitlines()
    address = (await api.pod("env") or pod)["status"]["podIP"]
    wanted = ["NAME=env", f"POD_IP={address}", f"URL=http://{address}:443", "A=1", "MEM=256", "args 1 $(A)"]
    wanted += [
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "HOSTNAME=env",
        "FROM_IMAGE=yes",
    ]
    assert [line for line in wanted if line not in lines] == []


@row("service-env")
async def test_services_of_the_namespace_show_unless_switched_off(api: Api) -> None:
    await api.create("Service", "engine", spec={"selector": {"a": "b"}, "ports": [{"port": 8000}]})
    await api.until(
        lambda: api.client.get(api.path("services", "engine")), lambda found: found["spec"].get("clusterIP")
    )
    found = ""
    deadline = time.monotonic() + 10
    number = 0
    while "ENGINE_PORT=tcp://" not in found:  # the kubelet learns of the Service by a watch of its own
        assert time.monotonic() < deadline, found
        number += 1
        await api.run(f"links-{number}", shell("env"), restartPolicy="Never")
        found = await api.output(f"links-{number}")
    await api.run("plain", shell("env"), restartPolicy="Never", enableServiceLinks=False)
    assert "ENGINE_" not in await api.output("plain")


@row("config-errors")
async def test_a_container_waits_for_its_config_map(api: Api) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    await api.run("late", shell("echo $A; sleep 600", env=env))
    pod = await api.until_pod("late", lambda pod: waiting_reason(pod) == "CreateContainerConfigError")
    assert container_status(pod)["state"]["waiting"]["message"] == 'configmap "late" not found'
    began = time.monotonic()
    await api.create("ConfigMap", "late", data={"a": "here"})
    await api.until_pod("late", running)
    assert time.monotonic() - began < 5, "it must be told, not look by itself"
    assert await api.logs("late") == "here\n"


@row("image-errors")
async def test_an_image_that_is_not_in_the_table_cannot_be_pulled(api: Api, kubelet: ContractKubelet) -> None:
    await api.run("pull", {"name": "main", "image": "elsewhere/engine:v1", "command": ["sleep", "600"]})
    seen: set[str] = set()

    def both(pod: Obj) -> bool:
        seen.add(waiting_reason(pod))
        return {"ErrImagePull", "ImagePullBackOff"} <= seen

    await api.until_pod("pull", both)
    kubelet.set_images({"elsewhere/*": {}})
    await api.until_pod("pull", running, 30)


@row("exit-states", "image-errors")
async def test_commands_come_from_the_image_unless_the_pod_gives_one(api: Api) -> None:
    await api.run("entry", {"name": "main", "image": "contract/entry:1"})
    await api.run("none", {"name": "main", "image": SHELL})
    await api.until_pod("entry", running)
    pod = await api.until_pod("none", lambda pod: waiting_reason(pod) == "CreateContainerConfigError")
    assert "no command specified" in container_status(pod)["state"]["waiting"]["message"]
    assert await api.logs("entry") == "from-image\n"


# -- volumes ---------------------------------------------------------------------------------------------------------


@row("volume-emptydir", "shm")
async def test_scratch_volumes_are_shared_and_outlive_a_restart(api: Api) -> None:
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "3Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}]
    write = "echo x >> /disk/count; dd if=/dev/zero of=/memory/big bs=1M count=8 2>/dev/null; stat -c %s /memory/big; "
    write += "if [ $(wc -l < /disk/count) -lt 2 ]; then exit 1; fi; sleep 600"
    shm = [{"name": "shm", "mountPath": "/dev/shm"}]
    own = shell("df -m --output=size /dev/shm | tail -1; sleep 600", "own")
    big = shell(
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>/dev/null; stat -c %s /dev/shm/x; sleep 600",
        "big",
        volumeMounts=shm,
    )
    read = shell(
        "until [ -e /disk/count ]; do sleep 0.05; done; echo seen; sleep 600", "read", volumeMounts=mounts
    )
    await api.run("scratch", shell(write, volumeMounts=mounts), own, big, read, volumes=volumes)
    await api.until_pod("scratch", lambda pod: restarts(pod) == 1 and ready(pod))

    async def logs() -> list[str]:
        return [(await api.logs("scratch", name)).strip() for name in ("main", "own", "big", "read")]

    await api.until(logs, lambda found: found == [str(3 * 2**20), "64", str(100 * 2**20), "seen"])


@row("volume-config")
async def test_a_changed_config_map_reaches_running_containers(api: Api) -> None:
    await api.create("ConfigMap", "settings", data={"a": "old", "b": "old"})
    await api.create("Secret", "secret", stringData={"k": "hidden"})
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volumes = [
        {
            "name": "map",
            "configMap": {"name": "settings", "items": [{"key": "a", "path": "deep/a", "mode": 256}]},
        },
        {
            "name": "all",
            "projected": {"sources": [{"configMap": {"name": "settings"}}, {"secret": {"name": "secret"}}]},
        },
        {"name": "me", "downwardAPI": {"items": items}},
    ]
    mounts = [{"name": name, "mountPath": f"/etc/contract/{name}"} for name in ("map", "all", "me")]
    script = "cd /etc/contract; stat -Lc %a map/deep/a; touch map/x 2>&1; cat all/k me/labels; echo; "
    script += 'while :; do echo "$(cat map/deep/a) $(cat all/a) $(cat me/labels)"; sleep 0.1; done'
    await api.run("config", shell(script, volumeMounts=mounts), volumes=volumes, labels={"x": "1"})
    await api.until_pod("config", ready)
    first = await api.until(lambda: api.logs("config"), lambda text: 'old old x="1"' in text)
    assert "400\n" in first
    assert "Read-only file system" in first
    assert "hidden" in first
    change = {"data": {"a": "new", "b": "new"}}
    await api.client.patch(api.path("configmaps", "settings"), change)
    await api.client.patch(api.path("pods", "config"), {"metadata": {"labels": {"x": "2"}}})
    await api.until(lambda: api.logs("config", tail="1"), lambda text: text == 'new new x="2"\n', 10)


@row("volume-token")
async def test_a_pod_may_talk_to_the_api_server_with_its_own_account(api: Api) -> None:
    """The operator's own pod lives by this."""
    code = """
import json, ssl, urllib.request, urllib.error
base = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, namespace = open(base + "token").read(), open(base + "namespace").read()
context = ssl.create_default_context(cafile=base + "ca.crt")
body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
request = urllib.request.Request("https://10.96.0.1/apis/authentication.k8s.io/v1/selfsubjectreviews", body,
    {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
try:
    answer = json.loads(urllib.request.urlopen(request, context=context, timeout=10).read())
except urllib.error.HTTPError as error:
    raise SystemExit(error.read())
print(answer["status"]["userInfo"]["username"], namespace)
"""
    sources = [{"serviceAccountToken": {"path": "short", "audience": "somebody", "expirationSeconds": 600}}]
    volumes = [{"name": "extra", "projected": {"sources": sources}}]
    mounts = [{"name": "extra", "mountPath": "/extra"}]
    await api.run("account", python(code, volumeMounts=mounts), volumes=volumes, restartPolicy="OnFailure")
    account = f"system:serviceaccount:{api.namespace}:default {api.namespace}\n"
    assert await api.output("account") == account


@row("volume-folders")
async def test_claims_and_host_folders_keep_their_files(api: Api, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the machine")
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    await api.create("PersistentVolumeClaim", "weights", spec=claim)
    volumes: list[Obj] = [
        {"name": "claim", "persistentVolumeClaim": {"claimName": "weights"}},
        {"name": "host", "hostPath": {"path": str(tmp_path), "type": "Directory"}},
        {"name": "made", "hostPath": {"path": str(tmp_path / "made"), "type": "DirectoryOrCreate"}},
    ]
    mounts = [{"name": name, "mountPath": f"/v/{name}"} for name in ("claim", "host", "made")]
    script = "cat /v/host/given; echo kept > /v/claim/file; echo out > /v/made/file"
    await api.run("writer", shell(script, volumeMounts=mounts), volumes=volumes, restartPolicy="Never")
    assert await api.output("writer") == "from the machine"
    assert (tmp_path / "made" / "file").read_text() == "out\n"
    reader = shell("cat /v/claim/file", volumeMounts=mounts[:1])
    await api.run("reader", reader, volumes=volumes[:1], restartPolicy="Never", node=NODES[1])
    assert await api.output("reader") == "kept\n"
    volumes[1]["hostPath"] = {"path": str(tmp_path / "none"), "type": "Directory"}
    await api.run("missing", shell(SLEEP, volumeMounts=mounts), volumes=volumes)
    missing = str(tmp_path / "none")
    await api.until(lambda: api.events("FailedMount"), lambda found: any(missing in text for text in found))
    pod = await api.pod("missing")
    assert pod is not None
    assert waiting_reason(pod) == "ContainerCreating"


@row("volume-subpath")
async def test_one_folder_of_a_volume_can_be_mounted(api: Api) -> None:
    await api.create("ConfigMap", "settings", data={"a.conf": "one file"})
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "settings"}}]
    env = [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    mounts = [
        {"name": "v", "mountPath": "/whole"},
        {"name": "v", "mountPath": "/part", "subPath": "a/b"},
        {"name": "v", "mountPath": "/named", "subPathExpr": "by/$(NAME)"},
        {"name": "v", "mountPath": "/frozen", "subPath": "a", "readOnly": True},
        {"name": "c", "mountPath": "/etc/a.conf", "subPath": "a.conf"},
    ]
    script = "echo 1 > /part/f; echo 2 > /named/f; cat /whole/a/b/f /whole/by/sub/f /frozen/b/f /etc/a.conf; "
    script += "touch /frozen/x 2>&1; true"
    await api.run("sub", shell(script, env=env, volumeMounts=mounts), volumes=volumes, restartPolicy="Never")
    output = await api.output("sub")
    assert output.startswith("1\n2\n1\none file")
    assert "Read-only file system" in output
    escape = [{"name": "v", "mountPath": "/out", "subPath": "link"}]
    link = shell("ln -s /etc /whole/link", "link", volumeMounts=mounts[:1])
    await api.run("escape", shell("ls /out", volumeMounts=escape), volumes=volumes, initContainers=[link])
    pod = await api.until_pod("escape", lambda pod: waiting_reason(pod) == "CreateContainerError")
    assert "leads out of its volume" in container_status(pod)["state"]["waiting"]["message"]


def there(*paths: str) -> list[str]:
    return [path for path in paths if Path(path).exists()]


@row("private-root", "read-only-root")
async def test_the_machine_stays_as_it_is(api: Api, kubelet: ContractKubelet) -> None:
    """A container that could write to the machine would break the next test, or the machine."""
    mark = f"kubelet-contract-{os.getpid()}"
    places = [
        "/",
        "/etc/",
        "/usr/",
        "/tmp/",
        "/run/",
        "/var/tmp/",
        "/root/",
        "/opt/new/",
        f"{Path(__file__).parent}/",
    ]
    script = "mkdir -p /opt/new; " + "; ".join(f"touch {place}{mark} && echo {place}" for place in places)
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [
        {"name": "v", "mountPath": f"/srv/{mark}/deep"},
        {"name": "v", "mountPath": f"/etc/{mark}-volume"},
    ]
    first = shell(script + "; rm -rf /usr/share; sleep 600", volumeMounts=mounts)
    second = shell(
        f"ls / /tmp /etc; touch /etc/x /tmp/x; echo w > /srv/{mark}/deep/w; echo done; sleep 600", "second"
    )
    second |= {"securityContext": {"readOnlyRootFilesystem": True}, "volumeMounts": mounts}
    await api.run("private", first, second, volumes=volumes)
    await api.until_pod("private", ready)
    written = await api.until(lambda: api.logs("private"), lambda text: len(text.splitlines()) >= len(places))
    assert written.split() == places
    seen = await api.until(lambda: api.logs("private", "second"), lambda text: "done" in text)
    assert seen.count("Read-only file system") == 2
    assert f"{mark}\n" not in seen.split("/tmp:")[1]
    assert await asyncio.to_thread(there, *(place + mark for place in places)) == []
    assert await asyncio.to_thread(there, f"/srv/{mark}", f"/etc/{mark}-volume") == []
    assert await asyncio.to_thread(there, "/usr/share") == ["/usr/share"]
    kubelet.control(op="signal", namespace=api.namespace, pod="private", container="main", signal="KILL")
    await api.until_pod("private", lambda pod: restarts(pod) == 1 and ready(pod))


@row("pod-files")
async def test_a_pod_has_names_of_its_own(api: Api) -> None:
    script = "hostname; cat /etc/hostname; cat /etc/hosts /etc/resolv.conf"
    aliases = [{"ip": "10.9.8.7", "hostnames": ["friend"]}]
    spec: Obj = {"hostname": "rank-0", "subdomain": "group", "hostAliases": aliases, "restartPolicy": "Never"}
    await api.run("names", shell(script), **spec)
    lines = (await api.output("names")).splitlines()
    pod = await api.pod("names")
    assert pod is not None
    full = f"rank-0.group.{api.namespace}.svc.cluster.local"
    assert lines[:2] == ["rank-0", "rank-0"]
    assert f"{pod['status']['podIP']}\t{full}\trank-0" in lines
    assert "10.9.8.7\tfriend" in lines
    assert f"search {api.namespace}.svc.cluster.local svc.cluster.local cluster.local" in lines


# -- life of containers ----------------------------------------------------------------------------------------------


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


# -- probes and hooks ------------------------------------------------------------------------------------------------


@row("probes", "conditions", "events")
async def test_readiness_follows_its_probe_and_is_told_once(api: Api) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    probe = {"exec": {"command": ["test", "-e", "/v/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    mounts = [{"name": "v", "mountPath": "/v"}]
    main = shell(SLEEP, readinessProbe=probe, volumeMounts=mounts)
    switch = shell("sleep 2; touch /v/ok; sleep 3; rm /v/ok; sleep 600", "switch", volumeMounts=mounts)
    await api.run("flip", main, switch, volumes=volumes)
    await api.until_pod("flip", lambda pod: running(pod) and not ready(pod))
    await api.until_pod("flip", ready)
    pod = await api.until_pod("flip", lambda pod: not ready(pod))
    assert restarts(pod) == 0
    messages = await api.until(lambda: api.events("Unhealthy"), bool)
    assert all(message.startswith("Readiness probe failed") for message in messages)


@row("probes")
async def test_a_failed_liveness_probe_restarts_and_a_startup_probe_protects(api: Api) -> None:
    alive_probe = {
        "exec": {"command": ["test", "!", "-e", "/tmp/sick"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    await api.run("sick", shell("sleep 1.5; touch /tmp/sick; sleep 600", livenessProbe=alive_probe))
    slow = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    strict = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1}
    await api.run(
        "slow", shell("sleep 2.5; touch /tmp/up; sleep 600", startupProbe=slow, livenessProbe=strict)
    )
    never = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 2}
    await api.run("never", shell(SLEEP, startupProbe=never))
    sick = await api.until_pod("sick", lambda pod: restarts(pod) >= 1)
    assert last_end(sick)["exitCode"] == 137  # sh as the first process ignores SIGTERM
    messages = await api.events("Killing")
    assert "Container main failed liveness probe, will be restarted" in messages
    pod = await api.until_pod("slow", ready)
    assert restarts(pod) == 0
    await api.until_pod("never", lambda pod: restarts(pod) >= 1)


@row("probes", "server-access")
async def test_an_http_probe_reaches_the_pods_own_address(api: Api) -> None:
    code = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" and self.headers["X-Probe"] == "yes" else 500)
        self.end_headers()
http.server.HTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
    get = {"port": "http", "path": "/ready", "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}
    ports = [{"name": "http", "containerPort": 8080}]
    good = python(code, env=[POD_IP], ports=ports, readinessProbe={"httpGet": get, "periodSeconds": 1})
    await api.run("good", good)
    await api.run(
        "wrong", python(code, env=[POD_IP], readinessProbe={"httpGet": {"port": 8080}, "periodSeconds": 1})
    )
    await api.until_pod("good", ready)
    messages = await api.until(
        lambda: api.events("Unhealthy"), lambda found: any("500" in text for text in found)
    )
    assert "Readiness probe failed: HTTP probe failed with statuscode: 500" in messages
    wrong = await api.pod("wrong")
    assert wrong is not None
    assert not ready(wrong)


@row("hooks")
async def test_hooks_run_at_the_start_and_before_the_end(api: Api, tmp_path: Path) -> None:
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path), "type": "Directory"}}]

    def note(word: str) -> Obj:
        return {"exec": {"command": ["sh", "-c", f"echo {word} >> /v/notes"]}}

    hooks = {"postStart": note("start"), "preStop": note("stop")}
    script = "trap 'echo term >> /v/notes; exit 0' TERM; sleep 600 & wait"
    await api.run(
        "hooks",
        shell(script, lifecycle=hooks, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=volumes,
    )
    await api.until_pod("hooks", ready)
    await api.delete("hooks", 20)
    await api.until_gone("hooks")
    assert (tmp_path / "notes").read_text().split() == ["start", "stop", "term"]
    bad = {"postStart": {"exec": {"command": ["false"]}}}
    await api.run("bad", shell(SLEEP, lifecycle=bad))
    await api.until_pod("bad", lambda pod: restarts(pod) >= 1)
    assert await api.events("FailedPostStartHook")


@row("hooks", "deletion")
async def test_a_slow_hook_uses_up_the_grace_period_and_no_more(api: Api) -> None:
    await api.run("slow", shell(SLEEP, lifecycle={"preStop": {"exec": {"command": ["sleep", "60"]}}}))
    await api.until_pod("slow", ready)
    began = time.monotonic()
    await api.delete("slow", 2)
    await api.until_gone("slow")
    assert 1.9 < time.monotonic() - began < 8


# -- the end ---------------------------------------------------------------------------------------------------------


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


# -- conditions and status -------------------------------------------------------------------------------------------


@row("conditions")
async def test_a_readiness_gate_is_waited_for(api: Api) -> None:
    await api.run("gated", shell(SLEEP), readinessGates=[{"conditionType": "contract/gate"}])
    await api.until_pod("gated", lambda pod: condition(pod, "ContainersReady") == "True")
    pod = await api.pod("gated")
    assert pod is not None
    assert not ready(pod)
    gate = {"type": "contract/gate", "status": "True"}
    await api.client.patch(api.path("pods", "gated") + "/status", {"status": {"conditions": [gate]}})
    pod = await api.until_pod("gated", ready)
    assert condition(pod, "contract/gate") == "True"


@row("status-writes")
async def test_a_settled_pod_is_not_written_and_a_wrong_status_is_put_right(api: Api) -> None:
    await api.run("settled", shell(SLEEP))
    before = await api.until_pod("settled", ready)
    await api.run("other", shell(SLEEP))
    await api.until_pod("other", ready)
    after = await api.pod("settled")
    assert after is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    lie = {"type": "Ready", "status": "False"}
    await api.client.patch(api.path("pods", "settled") + "/status", {"status": {"conditions": [lie]}})
    await api.until_pod("settled", ready, 10)


# -- the node's server -----------------------------------------------------------------------------------------------


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
    assert share < 0.02


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
