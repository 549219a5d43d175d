"""A move to groups of another width on a real control plane: API server, LeaderWorkerSet, EndpointSlices and the
operator's processes are real; nodes, containers and engines are played.

Lost if it fails: what the fault tests promise of an API server and a LeaderWorkerSet that are made for them. A status
that the CRD refuses is a choice that is made anew at every look, and groups that come and go for it; what was seen in
hours would be seen anew after every restart.
"""

import asyncio
import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.played_nodes import PlayedKubelet
from bench.sightings import Sightings
from cluster.played_engines import PlayedEngines
from cluster.replica import Replica
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, drop_namespace, make_namespace, until
from cluster.simulated_fleet import SimulatedFleet
from factories.deployments import manifest
from factories.memories import always_asked, memory
from harness.history import watched
from harness.kubectl import kubectl
from localcluster.kubelet.apiclient import ApiClient, Obj
from moe_operator.api import names, reasons
from moe_operator.api.times import format_time
from moe_operator.autoscaler.auto import Profile
from moe_operator.autoscaler.memory_text import version, written
from moe_operator.autoscaler.width import FOR, Leaning
from moe_operator.controller.kube import EVENT, MODEL_DEPLOYMENT
from moe_operator.planner.wants import TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)

#: By what they may do with the width: groups of four GPUs by plan, of which one would do.
MOVES, SAYS = "moves", "says"
POLICIES = {MOVES: "Auto", SAYS: "Recommend"}
WIDE, NARROW = 4, 1
#: Of a group that is full: nearly nothing is asked, so that nothing is to be waited for when a group drains.
LOAD = 0.02
#: Seconds without any change that are taken for rest: several looks at metrics, and passes.
REST = 10.0


def _deployment(namespace: str, name: str) -> Obj:
    """Two to four groups of one pod."""
    return manifest(
        name,
        namespace,
        model={"name": "openai/gpt-oss-120b"},
        hardware={"accelerator": "B200"},
        scaling={"mode": "Auto", "minGroups": 2, "maxGroups": 4, "width": POLICIES[name]},
    )


def _engine(group: Obj) -> Obj:
    containers = group["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"]
    return next(one for one in containers if one["name"] == names.ENGINE_CONTAINER)  # type: ignore[no-any-return]


def _width(group: Obj) -> int:
    """GPUs of its one pod."""
    return int(_engine(group)["resources"]["limits"]["nvidia.com/gpu"])


def _remembered(group: Obj) -> Obj:
    """What an operator before has seen of groups like this: for a day next to nothing was asked of them, and narrow
    ones were about to be recommended."""
    said = _engine(group)["args"]
    slots = next(one.partition("=")[2] for one in said if one.startswith("--max-num-seqs="))
    profile = Profile(
        ranks=int(group["metadata"]["annotations"][names.ANNOTATION_RANKS_PER_POD]),
        slots=int(slots),
        ttft=TIME_TO_FIRST_TOKEN,
        tpot=TIME_PER_OUTPUT_TOKEN,
        gpus=_width(group),
    )
    state = written(memory(profile, asked=always_asked(LOAD, Leaning(NARROW, FOR))))
    return {"time": format_time(time.time()), "version": version(), "state": state}


class Scene:
    """Both deployments, as watches show them."""

    def __init__(self, client: AioKubeClient, namespace: str, seen: Sightings) -> None:
        self._client = client
        self._namespace = namespace
        self.seen = seen
        self.there: list[tuple[int, ...]] = []
        """GPUs of the groups of the one that moves, whenever that changed."""
        self.least = 2
        """The fewest of its groups that served."""

    def serving(self, name: str) -> int:
        """Groups whose pod is a ready endpoint."""
        routed = self.seen.routed(name)
        pods = [self.seen.of_group(group["metadata"]["name"]) for group in self.seen.of_deployment(name)]
        return sum(bool(own) and {p["metadata"]["uid"] for p in own} <= routed for own in pods)

    def look(self) -> tuple[int, ...]:
        """Note how it is; GPUs of the groups."""
        now = tuple(sorted(_width(group) for group in self.seen.of_deployment(MOVES)))
        if not self.there or self.there[-1] != now:
            self.there.append(now)
        self.least = min(self.least, self.serving(MOVES))
        return now

    def moved(self) -> bool:
        return self.look() == (NARROW, NARROW) and self.serving(MOVES) == 2

    async def status(self, name: str) -> dict[str, Any]:
        found = await self._client.get(MODEL_DEPLOYMENT, self._namespace, name)
        return (found or {}).get("status") or {}

    async def ready(self) -> bool:
        conditions = (await self.status(MOVES)).get("conditions") or []
        return any(c["type"] == reasons.READY and c["status"] == "True" for c in conditions)

    async def recommended(self) -> bool:
        scaling = (await self.status(SAYS)).get("scaling") or {}
        return bool(scaling.get("recommendedWidth") == NARROW)

    async def remember(self, name: str) -> None:
        """As if an operator before had written it."""
        scaling = {"learned": _remembered(self.seen.of_deployment(name)[0])}
        patch = ("--type=merge", "-p", json.dumps({"status": {"scaling": scaling}}))
        where = ("mdep", name, "-n", self._namespace, "--subresource=status")
        await asyncio.to_thread(kubectl, "patch", *where, *patch)


async def test_groups_move_and_what_only_recommends_says_so(client: AioKubeClient, tmp_path: Path) -> None:
    namespace = await make_namespace(client)
    api = ApiClient.from_kubeconfig(Path(os.environ["KUBECONFIG"]))
    machines = [f"{namespace}-{number}" for number in range(3)]
    kubelet = PlayedKubelet(api, machines)
    seen = Sightings(api, namespace, kubelet.pod)
    scene = Scene(client, namespace, seen)
    async with SimulatedFleet(client, namespace) as fleet:
        for name in machines:
            await fleet.hgx(name, "zone-a")
        seen.start()
        first = replica = await Replica.start(namespace, "first", tmp_path)
        try:
            for name in POLICIES:
                await client.create(MODEL_DEPLOYMENT, _deployment(namespace, name))
            await seen.until(lambda: all(len(seen.of_deployment(name)) == 2 for name in POLICIES), "groups")
            for name in POLICIES:
                await scene.remember(name)
            kept = {group["metadata"]["uid"] for group in seen.of_deployment(SAYS)}
            with watched(names.PLURAL, namespace) as history:
                async with PlayedEngines(LOAD).running():
                    await seen.until(lambda: scene.serving(MOVES) == 2, "two groups serve", 60)
                    await seen.until(lambda: NARROW in scene.look(), "one of one GPU is made", 60)
                    await until(scene.recommended, "the other is recommended it")
                    anew = await first.count("moe_operator_autoscalers_learning_anew_total")
                    # In the middle of the move another takes over.
                    first.process.terminate()
                    await first.process.wait()
                    replica = await Replica.start(namespace, "second", tmp_path)
                    await seen.until(scene.moved, "groups of one GPU serve", 60)
                    await until(scene.ready, "it is ready")
                    ended = len(scene.there)
                    with pytest.raises(TimeoutError):
                        await seen.until(lambda: not scene.moved(), "nothing moves any more", REST)
                versions = list(history.seen)
            table = await asyncio.to_thread(kubectl, "get", "mdep", "-n", namespace)
            events = await client.list(EVENT, namespace)
            uids = {group["metadata"]["uid"] for group in seen.of_deployment(SAYS)}
        finally:
            await replica.kill()
            await drop_namespace(client, namespace)
            await seen.until(lambda: not seen.pods, "the pods are gone", 60)
            await seen.stop()
    await api.close()
    print(f"GPUs of the groups: {scene.there}; fewest that served: {scene.least}")
    assert anew == 0, "what was remembered was used"
    assert scene.least == 2
    assert len(scene.there) == ended
    assert max(map(sum, scene.there)) <= 3 * WIDE, "one more than there were"
    for before, after in pairwise(scene.there):
        assert before.count(WIDE) >= after.count(WIDE), "none comes back"
        assert before.count(NARROW) <= after.count(NARROW) <= 2, "none is made in vain"
    assert uids == kept

    last = {name: _versions(versions, name)[-1]["status"] for name in POLICIES}
    chosen = [v["status"]["scaling"].get("chosenWidth") for v in _versions(versions, MOVES)]
    told = [one for before, one in pairwise([None, *chosen]) if one != before]
    assert [(one and (one["gpus"], one["before"], one["groups"])) for one in told] == [(NARROW, WIDE, 2)], (
        "once"
    )
    assert "GPU-hours a day" in last[MOVES]["scaling"]["widthMessage"]
    assert last[SAYS]["plan"]["width"] == WIDE
    assert "chosenWidth" not in last[SAYS]["scaling"]
    notes = {(e["regarding"]["name"], e["reason"]): e["note"] for e in events if "Width" in e["reason"]}
    assert notes.keys() == {(MOVES, reasons.WIDTH_CHOSEN), (SAYS, reasons.WIDTH_RECOMMENDED)}
    assert notes[MOVES, reasons.WIDTH_CHOSEN].startswith("groups move from 4 to 1 GPUs, as in a rollout: for")
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    at = rows["NAME"].index("WIDTH")
    assert (rows[MOVES][at], rows[SAYS][at]) == (str(NARROW), str(WIDE))
    assert (rows[MOVES][at - 1], rows[SAYS][at - 1]) == ("2/2", "2/2")


def _versions(versions: list[Obj], name: str) -> list[Obj]:
    """Those with a decision, oldest first."""
    found = [v for v in versions if v["metadata"]["name"] == name]
    return [v for v in found if (v.get("status") or {}).get("scaling")]
