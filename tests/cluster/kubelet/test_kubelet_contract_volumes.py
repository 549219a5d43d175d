"""Volumes, as containers see them."""

from __future__ import annotations

from pathlib import Path

from cluster.kubelet.harness import (
    NODES,
    SLEEP,
    Api,
    Obj,
    container_status,
    python,
    ready,
    restarts,
    shell,
    waiting_reason,
)
from kubelet_contract import row


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
