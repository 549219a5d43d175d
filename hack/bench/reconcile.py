"""`make bench-reconcile`: from a ModelDeployment's creation to its group's LeaderWorkerSet in the API.

Runs inside a local cluster with the operator installed by its chart, two replicas, its own ServiceAccount.
Times are taken by one client process: from sending the create to the watch event of the LeaderWorkerSet.
As a yardstick the same client creates bare LeaderWorkerSets and times their watch events.
"""

import json
import os
import platform
import threading
import time
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

from kubernetes import client, config, watch

from harness.install import install_operator, namespace
from harness.kubectl import run
from moe_operator.api import names

NAMESPACE = "bench"
SINGLE_RUNS = 30
AT_ONCE = 100
_LWS = ("leaderworkerset.x-k8s.io", "v1", NAMESPACE, "leaderworkersets")
_MD = (names.GROUP, names.VERSION, NAMESPACE, names.PLURAL)


class Arrivals:
    """When each LeaderWorkerSet was first seen by a watch."""

    def __init__(self, api: client.CustomObjectsApi) -> None:
        self._api = api
        self._at: dict[str, float] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        stream: Any = watch.Watch()  # type: ignore[no-untyped-call]
        for event in stream.stream(self._api.list_namespaced_custom_object, *_LWS):
            now = time.perf_counter()
            with self._changed:
                self._at.setdefault(event["object"]["metadata"]["name"], now)
                self._changed.notify_all()

    def wait(self, name: str, seconds: float = 60) -> float:
        """Time of arrival. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: name in self._at, seconds):
                raise TimeoutError(f"LeaderWorkerSet {name} did not come within {seconds:g} s")
            return self._at[name]


def deployment(name: str) -> dict[str, Any]:
    """A ten-line ModelDeployment on the CPU profile. No groups' pods need to run for this measurement."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "tiny-moe", "source": "pvc://tiny-moe"},
            "hardware": {"accelerator": "cpu", "gpusPerNode": 1},
            # No node has this label: pods stay pending and cost the machine nothing.
            "podTemplate": {"nodeSelector": {"bench": "nowhere"}},
        },
    }


def bare_group(name: str) -> dict[str, Any]:
    """A LeaderWorkerSet of our own, for the yardstick."""
    pod = {"spec": {"containers": [{"name": "c", "image": "none"}], "nodeSelector": {"bench": "nowhere"}}}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 2, "workerTemplate": pod}},
    }


def line(what: str, seconds: list[float]) -> str:
    """Median, 99th percentile and maximum in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return (
        f"{what:<44} n={len(seconds):<4} median {median(seconds) * 1e3:7.0f} ms   "
        f"p99 {cuts[98] * 1e3:7.0f} ms   max {max(seconds) * 1e3:7.0f} ms"
    )


def main() -> None:
    """Print the figures, and one JSON line to keep."""
    install_operator()
    namespace(NAMESPACE)
    config.load_kube_config()  # type: ignore[no-untyped-call]
    api = client.CustomObjectsApi()
    arrivals = Arrivals(api)

    def time_one(name: str) -> float:
        begun = time.perf_counter()
        api.create_namespaced_custom_object(*_MD, deployment(name))
        return arrivals.wait(f"{name}-g0") - begun

    def time_bare(name: str) -> float:
        begun = time.perf_counter()
        api.create_namespaced_custom_object(*_LWS, bare_group(name))
        return arrivals.wait(name) - begun

    bare = [time_bare(f"bare-{i}") for i in range(SINGLE_RUNS)]
    time_one("warm-up")
    single = [time_one(f"one-{i}") for i in range(SINGLE_RUNS)]

    begun = time.perf_counter()
    starts: dict[str, float] = {}
    for i in range(AT_ONCE):
        starts[f"many-{i}"] = time.perf_counter()
        api.create_namespaced_custom_object(*_MD, deployment(f"many-{i}"))
    sent = time.perf_counter() - begun
    many = [arrivals.wait(f"{name}-g0", 180) - started for name, started in starts.items()]
    total = max(starts[f"many-{i}"] + many[i] for i in range(AT_ONCE)) - begun

    print(line("create of a bare LeaderWorkerSet -> watch event", bare))
    print(line("ModelDeployment -> LeaderWorkerSet, one by one", single))
    print(line(f"ModelDeployment -> LeaderWorkerSet, {AT_ONCE} at once", many))
    print(f"{AT_ONCE} created in {sent:.1f} s, all groups there after {total:.1f} s")
    print(f"ratio of the medians, one by one / bare: {median(single) / median(bare):.1f}")
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": run("git", "rev-parse", "--short", "HEAD", check=False).strip(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "bare_median_ms": round(median(bare) * 1e3),
        "single_median_ms": round(median(single) * 1e3),
        "at_once_median_ms": round(median(many) * 1e3),
        "at_once_total_s": round(total, 1),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
