"""Talks to the local cluster's kubelet: lets nodes fall silent and come back, signals containers."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from harness.kubectl import JsonObject


def control(operation: str, node: str, **options: Any) -> dict[str, Any]:
    """One command over the kubelet's control socket. Raises RuntimeError with its answer when it refuses."""
    kubeconfig = Path(os.environ["KUBECONFIG"])
    path = kubeconfig.parent / "kubelet" / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(json.dumps({"op": operation, "node": node, **options}).encode() + b"\n")
        with connection.makefile() as answers:
            answer: dict[str, Any] = json.loads(answers.readline())
    if not answer.get("ok", True) or "error" in answer:
        raise RuntimeError(f"{operation} {node}: {answer}")
    return answer


def signal_container(pod: JsonObject, container: str, name: str) -> None:
    """A signal (`TERM`) to a container's first process."""
    meta = pod["metadata"]
    where = {"namespace": meta["namespace"], "pod": meta["name"], "container": container}
    control("signal", pod["spec"]["nodeName"], **where, signal=name)
