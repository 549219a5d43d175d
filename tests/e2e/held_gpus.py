"""Held GPUs by a watch of the pods and a client's own notes, with nothing of what the operator says of them."""

import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from moe_operator.api import names
from traffic.watch import documents

Span = tuple[float, float]
STATES = ("starting", "serving", "idle", "draining")


@dataclass
class PodTimes:
    """Of one pod, in seconds since the epoch as its events came in; None: not yet."""

    name: str
    begun: float
    """When it had a node."""
    on: float | None = None
    """When it first took traffic."""
    off: float | None = None
    """When it last lost it, or was told to end."""
    gone: float | None = None


class HeldGpus:
    """Follows the pods of a deployment while the block runs. A pod holds one GPU: a rank."""

    def __init__(self, deployment: str, namespace: str) -> None:
        selector = f"{names.LABEL_DEPLOYMENT}={deployment},{names.LABEL_GROUP}"
        self._command = ["kubectl", "-n", namespace, "get", "pods", "-l", selector]
        self.pods: dict[str, PodTimes] = {}
        """By uid."""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        watch = [*self._command, "--watch", "--output-watch-events", "-o", "json"]
        self._process = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._reader.join(10)
        self._process.wait(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for event in documents(self._process.stdout):
            with self._lock:
                self.see(time.time(), event)

    def see(self, at: float, event: dict[str, Any]) -> None:
        """Take up an event of a watch: {type, object}."""
        meta, spec = event["object"]["metadata"], event["object"].get("spec") or {}
        if not spec.get("nodeName"):
            return
        pod = self.pods.setdefault(meta["uid"], PodTimes(meta["name"], at))
        serves = (meta.get("labels") or {}).get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON
        gone = event["type"] == "DELETED"
        if serves and "deletionTimestamp" not in meta:
            pod.on, pod.off = at if pod.on is None else pod.on, None
        elif pod.on is not None and pod.off is None:
            pod.off = at
        if gone:
            pod.gone = at

    def seconds(self, until: float, busy: Iterable[Span]) -> dict[str, float]:
        """GPU-seconds by state, up to a moment. `busy`: when each group in traffic had a request."""
        found = dict.fromkeys(STATES, 0.0)
        with self._lock:
            for pod in self.pods.values():
                end = _first(pod.gone, until)
                on, off = _first(pod.on, end), _first(pod.off, end)
                serving = sum(max(0.0, min(b, off) - max(a, on)) for a, b in busy)
                found["starting"] += max(0.0, on - pod.begun)
                found["serving"] += serving
                found["idle"] += max(0.0, off - on) - serving
                found["draining"] += max(0.0, end - off)
        return found

    def ends(self) -> list[float]:
        """When pods were gone."""
        with self._lock:
            return [pod.gone for pod in self.pods.values() if pod.gone is not None]

    def there(self) -> int:
        """Pods that hold a GPU now."""
        with self._lock:
            return sum(pod.gone is None for pod in self.pods.values())


def _first(at: float | None, limit: float) -> float:
    return limit if at is None else min(at, limit)
