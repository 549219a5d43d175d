"""A kubelet of the tests' own, with nodes of its own, beside the one that the cluster may have."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from localcluster.kubelet.apiclient import ApiClient, ApiError

Obj = dict[str, Any]
NODES = ("contract-0", "contract-1")
#: Far from the /24s of a cluster's own nodes, and of a range of which every address is local too.
POD_CIDR = "10.244.192.0/18"
SHELL = "contract/sh:1"
PYTHON = "contract/python:1"
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
SLEEP = "trap 'exit 0' TERM; sleep 600 & wait"


class ContractKubelet:
    """The process and its files. ``start`` and ``stop`` may alternate."""

    def __init__(self) -> None:
        self.kubeconfig = Path(os.environ["KUBECONFIG"])
        self._place = tempfile.TemporaryDirectory(prefix="kc")
        self.root = Path(self._place.name)
        self.images = self.root / "images.yaml"
        self.set_images({})
        labels = {"contract": "yes"}
        taints = [{"key": "contract", "effect": "NoSchedule"}]
        nodes = [{"name": name, "labels": labels, "taints": taints} for name in NODES]
        (self.root / "nodes.yaml").write_text(yaml.safe_dump(nodes))
        self.process: subprocess.Popen[bytes] | None = None

    def set_images(self, more: dict[str, Obj]) -> None:
        entries: list[Obj] = [
            {"match": "contract/sh:*", "env": {"FROM_IMAGE": "yes"}},
            {"match": "contract/python:*", "pathPrepend": [str(Path(sys.executable).parent)]},
            {"match": "contract/entry:*", "entrypoint": ["sh", "-c"], "cmd": ["echo from-image; sleep 600"]},
            *({"match": match, **entry} for match, entry in more.items()),
        ]
        self.images.write_text(yaml.safe_dump({"images": entries}))

    def start(self, port: int | None = None) -> None:
        """``port``: reach the API server through a proxy on this port."""
        pki = self.kubeconfig.parent / "pki"
        kubeconfig = self.kubeconfig
        if port is not None:
            document = yaml.safe_load(kubeconfig.read_text())
            document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
            kubeconfig = self.root / "kubeconfig"
            kubeconfig.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "localcluster.kubelet", f"--kubeconfig={kubeconfig}"]
        command += [f"--nodes={self.root / 'nodes.yaml'}", f"--images={self.images}", f"--root={self.root}"]
        command += [f"--ca-cert={pki / 'ca.crt'}", "--dns=10.96.0.10", f"--pod-cidr={POD_CIDR}"]
        command += [f"--serving-cert={pki / 'kubelet.crt'}", f"--serving-key={pki / 'kubelet.key'}"]
        hack = Path(__file__).resolve().parents[3] / "hack"
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": str(hack)}, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not (self.root / "ready").exists():
            assert self.process.poll() is None, (self.root / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.root / "log").read_text()[-3000:]
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def close(self) -> None:
        self.stop()
        self._place.cleanup()

    def control(self, **request: Any) -> Obj:
        """One request at the control socket; fails the test when it is refused."""

        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(20)
            channel.connect(str(self.root / "control.sock"))
            channel.sendall(json.dumps(request).encode() + b"\n")
            answer: Obj = json.loads(channel.makefile().readline())
        assert answer["ok"], answer
        return answer


class Api:
    """The API server as the tests use it: one namespace, pods on the contract's nodes."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    @classmethod
    async def make(cls, kubeconfig: Path) -> Api:
        client = ApiClient.from_kubeconfig(kubeconfig)
        namespace = f"kubelet-{uuid.uuid4().hex[:8]}"
        await client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        api = cls(client, namespace)
        await api.until(lambda: client.get_or_none(api.path("serviceaccounts", "default")), bool)
        return api

    async def close(self) -> None:
        """Ends every pod that a test left, so that the next test has the machine to itself."""
        for pod in (await self.client.get(self.path("pods")))["items"]:
            await self.delete(pod["metadata"]["name"], 0)
        await self.client.delete(f"/api/v1/namespaces/{self.namespace}", {})
        await self.client.close()

    def path(self, plural: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def create(self, kind: str, name: str, **body: Any) -> Obj:
        plural = kind.lower() + "s"
        entry = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, **body.pop("metadata", {})},
            **body,
        }
        return await self.client.post(self.path(plural), entry)

    async def run(self, name: str, *containers: Obj, node: str = NODES[0], **spec: Any) -> Obj:
        """A pod with a short grace period on one of the contract's nodes."""
        metadata = {"labels": spec.pop("labels", {}), "annotations": spec.pop("annotations", {})}
        whole = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [*containers], **spec}
        return await self.create("Pod", name, metadata=metadata, spec=whole)

    async def pod(self, name: str) -> Obj | None:
        return await self.client.get_or_none(self.path("pods", name))

    async def delete(self, name: str, seconds: int | None = None) -> None:
        body = {} if seconds is None else {"gracePeriodSeconds": seconds}
        try:
            await self.client.delete(self.path("pods", name), body)
        except ApiError as error:
            if error.status != 404:
                raise

    async def until(self, read: Callable[[], Any], good: Callable[[Any], Any], seconds: float = 30) -> Any:
        """Poll ``read`` until ``good`` accepts what it gives; fails with the last value at the deadline."""
        deadline = time.monotonic() + seconds
        while True:
            value = await read()
            if good(value):
                return value
            assert time.monotonic() < deadline, (
                f"not reached within {seconds} s; last: {json.dumps(value)[-3000:]}"
            )
            await asyncio.sleep(0.05)

    async def until_pod(self, name: str, good: Callable[[Obj], Any], seconds: float = 30) -> Obj:
        pod: Obj = await self.until(
            lambda: self.pod(name), lambda pod: pod is not None and good(pod), seconds
        )
        return pod

    async def until_gone(self, name: str, seconds: float = 30) -> None:
        await self.until(lambda: self.pod(name), lambda pod: pod is None, seconds)

    async def logs(self, name: str, container: str = "main", **options: str) -> str:
        """``kubectl logs`` with ``options``, such as tail="3"; what it complains about is part of the answer."""
        flags = [f"--{option.replace('_', '-')}={value}" for option, value in options.items()]
        return await self.kubectl("logs", name, "-c", container, *flags)

    async def kubectl(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            "-n",
            self.namespace,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        return output.decode()

    async def output(self, name: str, container: str = "main", seconds: float = 30) -> str:
        """All that a container wrote, once it has ended."""

        def ended(pod: Obj) -> bool:
            return bool(container_status(pod, container).get("state", {}).get("terminated"))

        await self.until_pod(name, ended, seconds)
        return await self.logs(name, container)

    async def events(self, reason: str) -> list[str]:
        items = (await self.client.get(self.path("events")))["items"]
        return [item["message"] for item in items if item["reason"] == reason]


def shell(script: str, name: str = "main", **more: Any) -> Obj:
    """A container that runs a script in sh."""
    return {"name": name, "image": SHELL, "command": ["sh", "-c", script], **more}


def python(code: str, name: str = "main", **more: Any) -> Obj:
    """A container that runs a program in Python."""
    return {"name": name, "image": PYTHON, "command": ["python", "-u", "-c", code], **more}


def container_status(pod: Obj, container: str = "main") -> Obj:
    status = pod.get("status") or {}
    for key in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(key) or []:
            if entry["name"] == container:
                found: Obj = entry
                return found
    return {}


def condition(pod: Obj, kind: str) -> str:
    entries = (pod.get("status") or {}).get("conditions") or []
    return next((str(entry["status"]) for entry in entries if entry["type"] == kind), "")


def ready(pod: Obj) -> bool:
    return condition(pod, "Ready") == "True"


def restarts(pod: Obj, container: str = "main") -> int:
    return int(container_status(pod, container).get("restartCount", 0))


def phase(pod: Obj) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


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
