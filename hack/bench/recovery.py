"""`make bench-recovery`: the operator's own share when a group is lost or added, beside a bare LeaderWorkerSet.

Runs inside a local cluster with the operator installed by its chart, two replicas, its own ServiceAccount. Control
plane, scheduler, EndpointSlices and LeaderWorkerSet are real; nodes, containers and engines are played, and take no
time. So what is left is what the operator and the control plane do. A group is lost by the one write by which a kubelet
says that an engine ended; times run from the moment before it is sent to the watch events of the same client. The
yardstick is a LeaderWorkerSet with restartPolicy RecreateGroupOnPodRestart, lost and grown in the same way in the same
run.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from bench.audited import operators_writes, within
from bench.played_engines import RANKS
from bench.played_nodes import LABEL, PlayedKubelet, nodes
from bench.sightings import Sightings
from harness.install import OPERATOR_NAMESPACE, install_operator, namespace
from harness.kubectl import items, kubectl, run
from localcluster.kubelet.apiclient import MERGE, ApiClient, Obj
from moe_operator.api import names

NAMESPACE = "bench"
PODS = 2
#: Groups that are lost at the same time.
AT_ONCE = 20
#: Seconds over which the operator's processor time is taken.
IDLE = 60.0
_BARE = "leaderworkerset.sigs.k8s.io/name"
#: Limits of the medians, in seconds; the second is of the operator's own share: what is left without the API server's
#: answers to its writes; of a group that is added all until it is posted, as LeaderWorkerSet makes its pods.
OFF_LIMIT, SHARE_LIMIT = 0.100, 0.250

Times = dict[str, list[float]]
OFF, UNROUTED = "loss -> traffic label off all pods", "loss -> no endpoint of the group"
DELETED, POSTED = "loss -> old group on its way out", "loss -> successor posted"
OWN = "loss -> successor posted, own share"
PODS_MADE, SERVES = "loss -> pods of the successor made", "loss -> all of them take requests"
GROWN, GROWN_PODS = "spec.replicas -> group posted", "spec.replicas -> its pods made"


def deployment(name: str) -> Obj:
    """One group over two whole nodes."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "org/tiny-moe"},
            "hardware": {"accelerator": "B200", "gpusPerGroup": PODS * RANKS},
            "scaling": {"mode": "External", "maxGroups": 8},
            "replicas": 1,
            "podTemplate": {"nodeSelector": {LABEL: "true"}},
        },
    }


def bare(name: str) -> list[Obj]:
    """A LeaderWorkerSet of the same size with a Service over its pods."""
    resources = {"limits": {"nvidia.com/gpu": str(RANKS)}}
    pod = {
        "nodeSelector": {LABEL: "true"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": names.ENGINE_CONTAINER, "image": "none", "resources": resources}],
    }
    worker = {
        "size": PODS,
        "restartPolicy": "RecreateGroupOnPodRestart",
        "workerTemplate": {"spec": pod},
    }
    meta = {"name": name, "namespace": NAMESPACE}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-all", "namespace": NAMESPACE},
        "spec": {"selector": {_BARE: name}, "ports": [{"port": names.HTTP_PORT}]},
    }
    group = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": meta,
        "spec": {"replicas": 1, "leaderWorkerTemplate": worker},
    }
    return [service, group]


class Bench:
    """What the stories share."""

    def __init__(self, api: ApiClient, seen: Sightings, kubelet: PlayedKubelet) -> None:
        self.api = api
        self.seen = seen
        self.kubelet = kubelet
        self.ours: Times = {}
        self.bare: Times = {}
        self.losses: list[tuple[float, float]] = []
        """When groups were lost and their successors seen, in seconds since the epoch."""

    # --- set up -------------------------------------------------------------------------------------------

    async def deploy(self, deployments: Iterable[str]) -> None:
        """Have these deployments serve."""
        wanted = list(deployments)
        for name in wanted:
            await self.api.post(_deployments(), deployment(name))
        for name in wanted:
            await self.seen.until(lambda name=name: self._serves(name), f"{name} serves", 300)  # type: ignore[misc]

    async def deploy_bare(self, groups: Iterable[str]) -> None:
        """Have these LeaderWorkerSets serve."""
        wanted = list(groups)
        for name in wanted:
            service, group = bare(name)
            await self.api.post(f"/api/v1/namespaces/{NAMESPACE}/services", service)
            await self.api.post(_groups(), group)
        for name in wanted:
            await self.seen.until(lambda name=name: self._bare_serves(name), f"{name} serves")  # type: ignore[misc]

    def _serves(self, name: str, groups: int = 1) -> bool:
        found = self.seen.of_deployment(name)
        pods = [pod for group in found for pod in self.seen.of_group(group["metadata"]["name"])]
        return len(found) == groups and len(pods) == groups * PODS and _uids(pods) == self.seen.routed(name)

    def _bare_serves(self, name: str, groups: int = 1) -> bool:
        pods = self.seen.of_group(name, _BARE)
        return len(pods) == groups * PODS and _uids(pods) == self.seen.routed(f"{name}-all")

    # --- a loss -------------------------------------------------------------------------------------------

    async def lose(self, name: str, victim: int) -> Times:
        """The engine of one pod of a deployment's only group ends."""
        seen = self.seen
        (group,) = seen.of_deployment(name)
        pods = sorted(seen.of_group(group["metadata"]["name"]), key=_name)
        old = _uids(pods)

        def after() -> list[Obj]:
            return [g for g in seen.of_deployment(name) if g["metadata"]["uid"] != group["metadata"]["uid"]]

        begun, since = time.perf_counter(), time.time()
        await self.kubelet.fail(pods[victim % PODS])
        await seen.until(lambda: old <= seen.unlabelled.keys(), f"traffic of {name} is off")
        await seen.until(lambda: old <= seen.unrouted.keys(), f"{name} has no endpoint")
        await seen.until(lambda: bool(after()), f"{name} has a successor")
        (successor,) = after()
        await seen.until(lambda: self._serves(name), f"the successor of {name} serves")
        fresh = _uids(seen.of_group(successor["metadata"]["name"]))
        # Endpoints come by another watch than pods, and may come before.
        await seen.until(lambda: fresh <= seen.labelled.keys(), f"the pods of {name} carry the label")
        at = {
            OFF: max(seen.unlabelled[uid] for uid in old),
            UNROUTED: max(seen.unrouted[uid] for uid in old),
            DELETED: seen.deleting[group["metadata"]["uid"]],
            POSTED: seen.seen[successor["metadata"]["uid"]],
            PODS_MADE: max(seen.seen[uid] for uid in fresh),
            SERVES: max(seen.labelled[uid] for uid in fresh),
        }
        self.losses.append((since, since + at[POSTED] - begun))
        return {what: [then - begun] for what, then in at.items()}

    async def lose_bare(self, name: str, victim: int) -> Times:
        """The same of a LeaderWorkerSet: it makes its pods anew."""
        seen = self.seen
        pods = sorted(seen.of_group(name, _BARE), key=_name)
        old = _uids(pods)
        begun = time.perf_counter()
        await self.kubelet.fail(pods[victim % PODS])
        await seen.until(lambda: old <= seen.unrouted.keys(), f"{name} has no endpoint")
        await seen.until(
            lambda: self._bare_serves(name) and not _uids(seen.of_group(name, _BARE)) & old,
            f"{name} serves again",
        )
        serves = time.perf_counter()
        fresh = _uids(seen.of_group(name, _BARE))
        at = {
            UNROUTED: max(seen.unrouted[uid] for uid in old),
            DELETED: min(seen.deleting[uid] for uid in old),
            PODS_MADE: max(seen.seen[uid] for uid in fresh),
            SERVES: serves,
        }
        return {what: [then - begun] for what, then in at.items()}

    # --- one more group -----------------------------------------------------------------------------------

    async def grow(self, name: str) -> Times:
        """From one group to two, and back."""
        seen, path = self.seen, f"{_deployments()}/{name}"
        old = _uids(seen.of_deployment(name))
        begun = time.perf_counter()
        await self.api.patch(path, {"spec": {"replicas": 2}}, MERGE)
        await seen.until(lambda: self._serves(name, 2), f"{name} has two groups")
        (new,) = (g for g in seen.of_deployment(name) if g["metadata"]["uid"] not in old)
        fresh = _uids(seen.of_group(new["metadata"]["name"]))
        posted = seen.seen[new["metadata"]["uid"]]
        made = max(seen.seen[uid] for uid in fresh)
        await self.api.patch(path, {"spec": {"replicas": 1}}, MERGE)
        await seen.until(lambda: self._serves(name), f"{name} has one group")
        return {GROWN: [posted - begun], GROWN_PODS: [made - begun]}

    async def grow_bare(self, name: str) -> Times:
        """The same of a LeaderWorkerSet."""
        seen, path = self.seen, f"{_groups()}/{name}"
        old = _uids(seen.of_group(name, _BARE))
        begun = time.perf_counter()
        await self.api.patch(path, {"spec": {"replicas": 2}}, MERGE)
        await seen.until(lambda: self._bare_serves(name, 2), f"{name} has two groups")
        made = max(seen.seen[uid] for uid in _uids(seen.of_group(name, _BARE)) - old)
        await self.api.patch(path, {"spec": {"replicas": 1}}, MERGE)
        await seen.until(lambda: self._bare_serves(name), f"{name} has one group")
        return {GROWN_PODS: [made - begun]}

    # --- runs ---------------------------------------------------------------------------------------------

    async def one(self, into: Times, what: Awaitable[Times]) -> None:
        """One run, and quiet after it."""
        _join(into, await what)
        await self.seen.quiet()


def _join(into: Times, times: Times) -> None:
    for what, seconds in times.items():
        into.setdefault(what, []).extend(seconds)


def _name(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def _uids(objects: Iterable[Obj]) -> frozenset[str]:
    return frozenset(obj["metadata"]["uid"] for obj in objects)


def _deployments() -> str:
    return f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"


def _groups() -> str:
    return f"/apis/leaderworkerset.x-k8s.io/v1/namespaces/{NAMESPACE}/leaderworkersets"


# --- what the operator costs -------------------------------------------------------------------------------


def processor_time() -> dict[str, tuple[float, float]]:
    """Processor seconds of each pod of the operator by its node's kubelet, and when that was (Unix seconds)."""
    found: dict[str, tuple[float, float]] = {}
    for pod in items("pods", OPERATOR_NAMESPACE):
        page = kubectl("get", "--raw", f"/api/v1/nodes/{pod['spec']['nodeName']}/proxy/metrics/resource")
        name = re.escape(_name(pod))
        line = re.search(
            rf'^pod_cpu_usage_seconds_total{{[^}}]*pod="{name}"[^}}]*}} (\S+) (\d+)$', page, re.M
        )
        assert line is not None, f"the kubelet knows no pod {name}"
        found[_name(pod)] = float(line[1]), int(line[2]) / 1000
    return found


async def idle_share(seconds: float) -> list[float]:
    """Shares of one core that the operator's pods take over so many seconds, the leader's first."""
    before = await asyncio.to_thread(processor_time)
    await asyncio.sleep(seconds)
    after = await asyncio.to_thread(processor_time)
    shares = [(after[n][0] - before[n][0]) / (after[n][1] - before[n][1]) for n in before]
    return sorted(shares, reverse=True)


# --- report ------------------------------------------------------------------------------------------------


def figures(seconds: list[float]) -> dict[str, float]:
    """Number, and median, 99th percentile and maximum in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    ms = {"median_ms": median(seconds), "p99_ms": cuts[98], "max_ms": max(seconds)}
    return {"n": len(seconds)} | {key: round(value * 1e3, 1) for key, value in ms.items()}


def table(ours: Times, yardstick: Times) -> dict[str, dict[str, float]]:
    """Print a line for each figure; the same as a value, with the ratio of the medians."""
    report: dict[str, dict[str, float]] = {}
    for what, seconds in ours.items():
        row = figures(seconds)
        text = f"  {what:<38} n={row['n']:<3.0f} " + _milliseconds(row)
        if beside := yardstick.get(what):
            other = figures(beside)
            row |= {f"bare_{key}": value for key, value in other.items()}
            row["ratio"] = round(row["median_ms"] / other["median_ms"], 2)
            text += f"   bare {_milliseconds(other)}   ratio {row['ratio']:.2f}"
        print(text, flush=True)
        report[what] = row
    return report


def _milliseconds(row: dict[str, float]) -> str:
    return f"median {row['median_ms']:7.1f}  p99 {row['p99_ms']:7.1f}  max {row['max_ms']:7.1f} ms"


def load() -> str:
    """The machine's load over a minute, beside its cores."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


async def measure(bench: Bench, runs: int, settled: int) -> dict[str, object]:
    """All figures, printed as they come."""
    ours = [f"moe-{i}" for i in range(max(settled, runs + AT_ONCE + 2))]
    others = [f"bare-{i}" for i in range(AT_ONCE)]
    begun = time.perf_counter()
    await bench.deploy(ours)
    await bench.deploy_bare(others)
    print(
        f"{len(ours)} deployments and {len(others)} bare groups serve after {time.perf_counter() - begun:.0f} s"
    )
    await bench.seen.quiet(5.0)
    shares = await idle_share(IDLE if settled else 6.0)
    print(
        f"idle, {len(ours)} settled: leader {shares[0]:.1%} of a core, others {sum(shares[1:]):.1%}; {load()}"
    )

    warm, grown, *rest = ours
    single, at_once = rest[:runs], rest[runs : runs + AT_ONCE]
    await bench.one({}, bench.lose(warm, 0))
    await bench.one({}, bench.lose_bare(others[0], 0))
    loads = [load()]
    for i, name in enumerate(single):
        await bench.one(bench.bare, bench.lose_bare(others[0], i))
        await bench.one(bench.ours, bench.lose(name, i))
    for _ in range(runs):
        await bench.one(bench.bare, bench.grow_bare(others[0]))
        await bench.one(bench.ours, bench.grow(grown))
    loads.append(load())
    writes = operators_writes()
    # The first was lost to warm up.
    bench.ours[OWN] = [end - begin - within(writes, begin, end) for begin, end in bench.losses[1:]]
    print(f"one at a time ({loads[0]}, then {loads[1]}):")
    report: dict[str, object] = {"single": table(bench.ours, bench.bare)}

    many: Times = {}
    many_bare: Times = {}
    await _all(many_bare, (bench.lose_bare(name, 0) for name in others))
    await bench.seen.quiet(3.0)
    await _all(many, (bench.lose(name, 0) for name in at_once))
    print(f"{AT_ONCE} at once ({load()}):")
    report["at_once"] = table(many, many_bare)
    return report | {"idle_deployments": len(ours), "idle_leader_cores": round(shares[0], 4), "loads": loads}


async def _all(into: Times, runs: Iterable[Awaitable[Times]]) -> None:
    for times in await asyncio.gather(*runs):
        _join(into, times)


def verdict(report: dict[str, dict[str, float]]) -> list[str]:
    """Medians that miss their limit, in words."""
    medians = {what: row["median_ms"] for what, row in report.items()}
    shares = {
        OFF: (medians[OFF], OFF_LIMIT),
        f"{POSTED}, the operator's own share": (medians[OWN], SHARE_LIMIT),
        GROWN: (medians[GROWN], SHARE_LIMIT),
    }
    return [
        f"{what}: median {value:.0f} ms, the limit is {limit * 1e3:.0f} ms"
        for what, (value, limit) in shares.items()
        if value > limit * 1e3
    ]


async def _with_cluster(
    work: Callable[[Bench], Awaitable[dict[str, object]]], count: int
) -> dict[str, object]:
    engines = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.played_engines", stdout=asyncio.subprocess.PIPE
    )
    assert engines.stdout is not None
    api = ApiClient.from_kubeconfig(Path(os.environ["KUBECONFIG"]))
    try:
        assert await engines.stdout.readline() == b"ready\n", "the played engines did not start"
        made = nodes(count)
        for node in made:
            await api.post("/api/v1/nodes", node)
        kubelet = PlayedKubelet(api, [_name(node) for node in made])
        seen = Sightings(api, NAMESPACE, kubelet.pod)
        seen.start()
        try:
            return await work(Bench(api, seen, kubelet))
        finally:
            await seen.stop()
    finally:
        await api.close()
        with suppress(ProcessLookupError):
            engines.terminate()
        await engines.wait()


def main() -> int:
    """Print the figures, and one JSON line to keep. 1 if a median misses its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery")
    parser.add_argument("--runs", type=int, default=30, help="runs of each story, one at a time")
    parser.add_argument("--settled", type=int, default=100, help="deployments that serve beside")
    arguments = parser.parse_args()
    runs, settled = arguments.runs, arguments.settled
    groups = max(settled, runs + AT_ONCE + 2) + AT_ONCE
    install_operator()
    namespace(NAMESPACE)

    async def work(bench: Bench) -> dict[str, object]:
        return await measure(bench, runs, settled)

    # Successors find nodes while their predecessors end.
    report = asyncio.run(_with_cluster(work, PODS * (groups + AT_ONCE + 2)))
    single = report["single"]
    assert isinstance(single, dict)
    missed = verdict(single)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": run("git", "rev-parse", "--short", "HEAD", check=False).strip(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        **report,
    }
    print(json.dumps(record))
    for line in missed:
        print(f"MISSED  {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
