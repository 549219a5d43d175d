"""What the tests of downloads on a real API server share: a namespace, the operator with its chart's rights, and
engines that only read their weights."""

import contextlib
import stat
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.replica import Replica
from cluster.runtime_helpers import until
from harness.deployments import condition, deployment
from harness.kubectl import JsonObject, apply, get, items, kubectl
from moe_operator.api import names
from tests.weights.hub_server import HubServer

NAME = "moe"
#: The image table of a local cluster maps it to the checkout's own programs.
IMAGE = "moe-operator:dev"

_ENGINE = '''\
#!/usr/bin/env python3
"""Stands for vLLM: reads every byte of its model, and answers one token."""
import hashlib, json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

model = sys.argv[2]
if not os.path.isfile(os.path.join(model, "config.json")):
    sys.exit(f"no config.json in {model}")
digest = hashlib.sha256()
for name in sorted(os.listdir(model)):
    with open(os.path.join(model, name), "rb") as file:
        digest.update(file.read())
print("read", digest.hexdigest(), flush=True)
for text in sys.argv:
    if text.startswith('{"name":'):
        adapter = json.loads(text)["path"]
        if os.environ["HF_HUB_OFFLINE"] != "1" or not os.path.isfile(adapter + "/adapter_model.safetensors"):
            sys.exit(f"no adapter in {adapter}")


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.say({"data": []})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        choice = {"text": "1", "finish_reason": "length", "logprobs": {"token_logprobs": [-0.1]}}
        self.say({"choices": [choice], "usage": {"completion_tokens": 1}})

    def say(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer((os.environ["POD_IP"], 8000), Handler).serve_forever()
'''


def engine_folder(folder: Path) -> Path:
    """A folder for PATH with the stand-in as `vllm`."""
    made = folder / "engine"
    made.mkdir()
    program = made / "vllm"
    program.write_text(_ENGINE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return made


def manifest(namespace: str, engine: Path, pods: int = 1, name: str = NAME, **spec: Any) -> JsonObject:
    """A deployment on CPU ranks, one in a pod, whose engines only read."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"name": "acme/moe"},
            "hardware": {"accelerator": "cpu", "gpusPerGroup": pods, "gpusPerNode": 1},
            "engine": {
                "image": "python:engine-that-reads",
                "agent": "Disabled",
                "env": [{"name": "PATH", "value": "/opt/engine:/usr/local/bin:/usr/bin:/bin"}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            },
            "podTemplate": {
                "volumes": [{"name": "engine", "hostPath": {"path": str(engine)}}],
                "volumeMounts": [{"name": "engine", "mountPath": "/opt/engine", "readOnly": True}],
            },
            "weights": {"cache": {"storageClassName": "local", "size": "1Gi"}},
            # Engines that count no requests are drained until the deadline.
            "deletion": {"groups": "Immediate"},
            **spec,
        },
    }


def config_file(folder: Path, hub: HubServer) -> Path:
    """The operator's configuration: its hub is the test's."""
    path = folder / "config.yaml"
    path.write_text(f"weights: {{image: '{IMAGE}', endpoint: '{hub.url}'}}\n")
    return path


def weights_ready(namespace: str, name: str = NAME) -> tuple[str, str, str]:
    """Status, reason and message of the condition."""
    found = condition(deployment(name, namespace), "WeightsReady") or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def weights(namespace: str, name: str = NAME) -> dict[str, Any]:
    """`status.weights`."""
    found: dict[str, Any] = deployment(name, namespace).get("status", {}).get("weights") or {}
    return found


async def reason(namespace: str, wanted: str, seconds: float = 60.0) -> str:
    """Wait for a reason of WeightsReady; gives its message."""
    await until(lambda: weights_ready(namespace)[1] == wanted, f"WeightsReady says {wanted}", seconds)
    return weights_ready(namespace)[2]


def fetch_pods(namespace: str) -> list[JsonObject]:
    """Pods of Jobs that download."""
    return items("pods", namespace, names.LABEL_WEIGHTS + ",batch.kubernetes.io/job-name")


def report(namespace: str, operator: Replica) -> str:
    """What a failed test shows."""
    shown = [kubectl("get", "pods,jobs,pvc", "-n", namespace, "-o", "wide")]
    for pod in items("pods", namespace):
        with contextlib.suppress(Exception):
            shown.append(
                kubectl("logs", pod["metadata"]["name"], "-n", namespace, "--all-containers", "--tail=5")
            )
    found = get(names.PLURAL, NAME, namespace) or {}
    shown.append(str(found.get("status")))
    shown.append("\n".join(operator.log.read_text().splitlines()[-15:]))
    return textwrap.indent("\n".join(shown), "  ")


@contextlib.contextmanager
def shown(namespace: str, operator: Replica) -> Iterator[None]:
    """Adds what is there to the failure of a test."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{report(namespace, operator)}") from error


def claim(namespace: str, name: str, *modes: str) -> None:
    """Make a claim of somebody's own."""
    spec = {
        "accessModes": list(modes),
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "local",
    }
    metadata = {"name": name, "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})


def claim_folder(namespace: str, name: str) -> Path:
    """What is on a claim: local clusters keep it in folders of this machine."""
    bound = get("persistentvolumeclaim", name, namespace) or {}
    volume = get("persistentvolume", bound["spec"]["volumeName"]) or {}
    return Path((volume["spec"].get("hostPath") or volume["spec"]["local"])["path"])


def secret(namespace: str, **values: str) -> None:
    """Make or correct the Secret `hub`."""
    apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hub", "namespace": namespace},
            "stringData": values,
        }
    )
