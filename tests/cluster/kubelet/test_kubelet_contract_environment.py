"""What a container finds around it: addresses, variables, files of its own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from cluster.kubelet.harness import (
    NODES,
    POD_IP,
    SHELL,
    Api,
    ContractKubelet,
    Obj,
    container_status,
    python,
    ready,
    restarts,
    running,
    shell,
    waiting_reason,
)
from kubelet_contract import row


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


@row("read-only-root")
async def test_a_volume_over_a_private_folder_of_a_read_only_root_can_be_written(api: Api) -> None:
    """What runs confined has its /tmp in a volume; without it no engine starts there."""
    script = "echo x > /tmp/f && cat /tmp/f; touch /run/x || echo refused"
    container = shell(script) | {
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [{"name": "tmp", "emptyDir": {}}]
    await api.run("confined", container, volumes=volumes, restartPolicy="Never")
    lines = (await api.output("confined")).splitlines()
    assert lines[0] == "x"
    assert "refused" in lines  # what touch says and what the shell says come by two pipes


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
