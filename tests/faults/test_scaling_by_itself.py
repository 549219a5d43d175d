"""Mode Auto from the engines' metrics to groups: without it a deployment keeps paying for groups that nobody needs, or
lets requests wait while GPUs are free."""

from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, Witness, manifest, play
from moe_operator.api import reasons
from moe_operator.controller.kube import EVENT

AUTO = {"mode": "Auto", "minGroups": 1, "maxGroups": 3}
#: Requests in flight at every endpoint: the KV cache is nearly full, or as good as empty.
FULL, CALM = 85, 2


def _ask(h: Harness, requests: int) -> None:
    """From now on every endpoint is kept busy with so many requests."""
    h.world.engines.settings.requests = requests
    for engine in h.world.engines.by_pod.values():
        if engine.running:
            h.world.engines.count(engine)
            engine.running = requests


def test_groups_come_with_the_load_and_go_with_it() -> None:
    """Lost: requests while the load grows, GPUs when it has gone; and with each that drains, its requests."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(scaling=AUTO))
        await h.serve(1)
        witness = Witness(h)
        _ask(h, FULL)
        await h.serve(3, within=1200)
        assert h.status()["scaling"]["reason"] in ("AtMaximum", "DemandGrows", "RequestsWaiting")
        assert "by KV cache" in h.status()["scaling"]["message"]
        _ask(h, CALM)
        await h.serve(1, within=3600)
        assert h.status()["scaling"]["desired"] == 1
        assert h.status()["scaling"]["reason"] != "NoGroupServes"
        every = sorted(h.world.server.list(EVENT, NAMESPACE), key=lambda e: str(e["eventTime"]))
        told = [e["note"] for e in every if e["action"] == "Scale"]
        assert told[0].startswith("1 → ")
        assert told[-1].split(" groups: ")[0].endswith("→ 1")
        assert not witness.lost_requests

    play(scenario, settings=EngineSettings(requests=CALM))


def test_a_successor_goes_on_with_the_number_that_there_was() -> None:
    """Lost: a group at every restart of the operator, as it has learned nothing yet."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(scaling=AUTO))
        await h.serve(1)
        _ask(h, FULL)
        await h.serve(3, within=1200)
        uids = {group["metadata"]["uid"] for group in h.groups()}
        h.operator.kill()
        await h.rest(900)
        assert {group["metadata"]["uid"] for group in h.groups()} == uids

    play(scenario, settings=EngineSettings(requests=CALM))


def test_advice_changes_nothing_but_the_status() -> None:
    """Lost: trust, if what only advises acts."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(scaling={**AUTO, "mode": "Advisory"}))
        await h.serve(1)
        _ask(h, FULL)
        await h.until(lambda: (h.status()["scaling"].get("advised") or 0) > 1, 600, "advice")
        await h.rest(600)
        assert len(h.groups()) == 1
        assert h.status()["scaling"]["desired"] == 1

    play(scenario, settings=EngineSettings(requests=CALM))


def test_whoever_follows_the_recommendation_gets_what_auto_would_do() -> None:
    """Lost: HPA and KEDA, by whose hand it is to happen. Here they look every 15 s and do as they are told."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(scaling={**AUTO, "mode": "External"}))
        await h.serve(1)
        witness, told = Witness(h), list[int]()

        def follow() -> None:
            for advice in h.operator.reconciler.advice():
                told.append(advice.groups)
                if h.deployment()["spec"]["replicas"] != advice.groups:
                    h.edit(replicas=advice.groups)

        h.world.timers.every(15.0, follow)
        _ask(h, FULL)
        await h.serve(3, within=1200)
        assert h.status()["scaling"]["reason"] == "Replicas"
        _ask(h, 0)
        await h.serve(1, within=3600)
        assert set(told) <= {1, 2, 3}
        assert not witness.lost_requests
        h.delete()
        await h.until(lambda: not h.groups(), 600, "all gone")
        assert not list(h.operator.reconciler.advice())

    play(scenario, settings=EngineSettings(requests=CALM))


def test_a_spec_that_cannot_be_read_leaves_the_groups_as_they_are() -> None:
    """Lost: all groups but one, to a value that only another version of the operator knows."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(3))
        await h.serve(3)
        await h.settle()
        uids = {group["metadata"]["uid"] for group in h.groups()}
        h.world.server.validates = False
        h.edit(scaling={"mode": "Manual"})
        await h.until(lambda: h.condition(reasons.STALLED), 10)
        assert "the stored spec cannot be read" in (h.condition(reasons.STALLED) or {})["message"]
        await h.rest(900)
        assert {group["metadata"]["uid"] for group in h.groups()} == uids
        assert len(h.serving()) == 3
        h.edit(scaling={"mode": "External"})
        await h.serve(3, within=30)
        assert {group["metadata"]["uid"] for group in h.groups()} == uids

    play(scenario)
