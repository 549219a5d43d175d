"""What the operator writes: nothing once all is well, nothing of the user's, nothing of anybody else's."""

from functools import partial
from typing import Any

import pytest

from fakecluster.api_server import Write
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, manifest, play
from moe_operator.api import names, reasons
from moe_operator.controller.kube import (
    CONFIG_MAP,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
    Obj,
)

KEY = (NAMESPACE, "tiny")


async def _serving(h: Harness, groups: int = 1, **spec: Any) -> None:
    h.apply(manifest(groups, **spec))
    await h.serve(groups)
    await h.settle()


def _ours(h: Harness, since: int) -> list[Write]:
    return [w for w in h.world.server.writes[since:] if w.manager.startswith(names.FIELD_MANAGER)]


def test_reconciling_again_what_is_settled_writes_nothing() -> None:
    """Lost: an API server that has to answer for every resync of every deployment."""

    async def scenario(h: Harness) -> None:
        for stalled in (False, True):
            h.apply(manifest(2))
            await h.serve(2)
            if stalled:
                h.edit(engine={"args": {"data-parallel-size": "3"}})
            await h.settle()
            before = h.writes
            for _ in range(3):
                await h.operator.reconciler.reconcile(KEY)
            assert h.writes == before, h.written(before)

    play(scenario)


@pytest.mark.parametrize("mode", ["Auto", "Advisory", "External"])
@pytest.mark.parametrize(("requests", "most"), [(0, 0), (4, 4)], ids=["idle", "busy"])
def test_an_hour_in_which_nothing_happens_has_no_writes(requests: int, most: int, mode: str) -> None:
    """Lost: etcd, to status updates about nothing; and drift in every GitOps tool.

    What is learned under load is written less and less often.
    """

    async def scenario(h: Harness) -> None:
        await _serving(h, 2, scaling={"mode": mode, "minGroups": 2, "maxGroups": 4})
        before, reconciles = h.writes, h.operator.counting.reconciles
        await h.rest(3600)
        assert h.writes <= before + most, h.written(before)
        assert h.operator.counting.reconciles >= reconciles + 5, "every resync has it look"

    play(scenario, settings=EngineSettings(requests=requests))


def test_a_restart_of_the_operator_writes_nothing() -> None:
    """Lost: everything that serves, at each upgrade of the operator."""

    async def scenario(h: Harness) -> None:
        await _serving(h, 2)
        await h.operator.stop()
        h.supervised = False
        h.start_operator()
        await h.settle(quiet=120)
        assert h.operator.client.writes == [], h.written()

    play(scenario)


@pytest.mark.parametrize("moment", ["creation", "failure", "recovery", "rollout", "scaling"])
def test_applying_the_same_manifest_again_changes_nothing(moment: str) -> None:
    """Lost: GitOps, which applies the same manifest every few minutes, whatever the operator is at."""

    async def story(h: Harness, again: bool) -> list[tuple[str, str, str]]:
        spec: dict[str, Any] = {}
        h.apply(manifest(), "argocd")
        if moment != "creation":
            await h.serve()
            await h.settle()
        since = len(h.world.server.writes)
        if moment in ("failure", "recovery"):
            h.world.crash_engine("tiny-g0-0", "boom")
            if moment == "recovery":
                await h.until(lambda: len(h.groups()) == 2, 30)
        elif moment == "rollout":
            spec = {"engine": {"args": {"max-num-seqs": "64"}}}
            h.apply(manifest(**spec), "argocd")
        elif moment == "scaling":
            spec = {"replicas": 2}
            h.apply(manifest(**spec), "argocd")
        if again:
            for n in range(20):
                # Every two seconds: now by the one that applied it first, now by another.
                manager = "argocd" if n % 2 else "kubectl"
                h.world.timers.after(2.0 * n, partial(h.apply, manifest(**spec), manager))
        await h.serve(2 if moment == "scaling" else 1)
        await h.settle()
        return [(w.verb, w.kind.kind, w.name) for w in _ours(h, since)]

    written: dict[bool, list[tuple[str, str, str]]] = {}
    states: dict[bool, dict[str, Any]] = {}
    for again in (False, True):

        async def run(h: Harness, again: bool = again) -> None:
            written[again] = await story(h, again)
            states[again] = h.end_state()

        play(run)
    assert written[False] == written[True]
    assert states[False] == states[True]


def _foreign(kind: Kind, name: str) -> Obj:
    obj: Obj = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "theirs"}},
    }
    if kind == SERVICE:
        obj["spec"] = {"selector": {"app": "theirs"}, "ports": [{"port": 80, "protocol": "TCP"}]}
    elif kind == LEADER_WORKER_SET:
        template = {"metadata": {}, "spec": {"containers": [{"name": "engine", "image": "theirs"}]}}
        obj["spec"] = {"replicas": 0, "leaderWorkerTemplate": {"size": 1, "workerTemplate": template}}
    return obj


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (SERVICE, "tiny"),
        (SERVICE_ACCOUNT, "tiny-engine"),
        (POD_DISRUPTION_BUDGET, "tiny"),
        (NETWORK_POLICY, "tiny-engine"),
        (LEADER_WORKER_SET, "tiny-g0"),
    ],
    ids=lambda value: value.kind if isinstance(value, Kind) else "",
)
@pytest.mark.parametrize("labelled", [False, True], ids=["plain", "with our labels"])
def test_an_object_of_somebody_else_with_a_childs_name_is_never_written(
    kind: Kind, name: str, labelled: bool
) -> None:
    """Lost: another team's Service or group, taken over or deleted without a word."""

    async def scenario(h: Harness) -> None:
        theirs = _foreign(kind, name)
        if labelled:
            theirs["metadata"]["labels"] |= {
                names.LABEL_MANAGED_BY: names.MANAGED_BY,
                names.LABEL_DEPLOYMENT: "tiny",
            }
        made = h.world.server.create(kind, theirs, "somebody")
        h.apply(manifest())
        if kind == LEADER_WORKER_SET and labelled:
            # It can be seen, so its slot counts as taken.
            await h.until(lambda: h.serving() == ["tiny-g1"], 120)
        else:
            await h.until(
                lambda: (h.condition(reasons.STALLED) or {}).get("reason") == reasons.NAME_CONFLICT, 60
            )
            assert name in h.condition(reasons.STALLED)["message"]  # type: ignore[index]
        await h.settle(quiet=30)
        live = h.world.server.get(kind, NAMESPACE, name)
        assert live is not None
        assert live["metadata"]["uid"] == made["metadata"]["uid"]
        touched = [
            str(w)
            for w in h.world.server.writes
            if (w.kind, w.name) == (kind, name) and w.manager != "somebody"
        ]
        assert not [t for t in touched if names.FIELD_MANAGER in t], touched
        h.world.server.delete(kind, NAMESPACE, name, "somebody")
        await h.until(lambda: h.ready() and len(h.serving()) == 1, 300, "it goes on once the name is free")

    play(scenario)


def test_a_child_that_somebody_changes_or_deletes_is_made_right_again() -> None:
    """Lost: traffic, when somebody edits the Service's selector by hand."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.world.server.patch(
            SERVICE, NAMESPACE, "tiny", {"spec": {"selector": {names.LABEL_TRAFFIC: "off"}}}, "somebody"
        )

        def selector() -> Any:
            return h.world.server.get(SERVICE, NAMESPACE, "tiny")["spec"]["selector"]  # type: ignore[index]

        assert selector()[names.LABEL_TRAFFIC] == "off"
        await h.until(lambda: selector()[names.LABEL_TRAFFIC] == names.TRAFFIC_ON, 2, "the selector is back")
        for kind in (SERVICE, SERVICE_ACCOUNT, POD_DISRUPTION_BUDGET, NETWORK_POLICY, CONFIG_MAP):
            name = h.world.server.list(kind, NAMESPACE)[0]["metadata"]["name"]
            h.world.server.delete(kind, NAMESPACE, name, "somebody")
            await h.until(partial(h.world.server.get, kind, NAMESPACE, name), 5, f"{kind.kind} is back")
        await h.serve()
        assert h.status()["recovery"]["failures"] == 0

    play(scenario)


def test_two_leaders_for_a_moment_do_no_harm() -> None:
    """Lost: twice the GPUs, or the group that serves, when a lease changes hands slowly."""

    async def scenario(h: Harness) -> None:
        h.invariants.lag = 3.0
        h.start_operator(elected=False)
        # Each leaves its own canaries out of the figures, and would take the other's for load for as long as both lead.
        h.apply(manifest(2, recovery={"idleCanary": "0s"}))
        await h.serve(2)
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: h.status()["recovery"]["failures"] >= 1, 30)
        await h.serve(2)
        assert h.status()["recovery"]["failures"] == 1, "one failure is counted once"
        h.edit(engine={"args": {"max-num-seqs": "64"}})
        await h.until(lambda: (h.condition(reasons.READY) or {}).get("observedGeneration") == 2, 30)
        await h.serve(2, within=600)
        h.edit(replicas=1)
        await h.serve(1)
        await h.settle()
        before = h.writes
        await h.settle(quiet=600)
        assert h.writes == before, h.written(before)

    play(scenario)


def test_the_users_spec_and_metadata_are_never_written() -> None:
    """Lost: ownership of one's own manifest, and a GitOps tool that is never in sync."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: len(h.groups()) == 2, 30)
        await h.serve()
        ours = [w for w in h.world.server.writes if w.kind == MODEL_DEPLOYMENT and w.manager != "kubectl"]
        rest = [w.body for w in ours if w.verb != "apply_status"]
        assert [set(body["metadata"]) for body in rest] == [{"uid", "resourceVersion", "finalizers"}], (
            "its finalizer, once"
        )
        assert set(rest[0]) == {"metadata"}
        assert h.deployment()["metadata"]["generation"] == 1

    play(scenario)
