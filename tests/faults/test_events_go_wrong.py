"""Events that are lost, late, doubled or out of order, answers that never come: the end is the same, only later."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from fakecluster.engines import EngineSettings
from fakecluster.faults import Call, FaultPlan, WatchFaults
from fakecluster.harness import NAMESPACE, Harness, differences, manifest, play
from moe_operator.api import names, reasons
from moe_operator.controller.kube import (
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NODE,
    POD,
    SERVICE,
    ForbiddenError,
    KubeError,
)
from moe_operator.runtime.resync import INTERVAL

pytestmark = pytest.mark.timeout(600)

#: Seconds within which a resync has happened for sure.
_RESYNC = INTERVAL[1] + 60.0


async def _story(h: Harness) -> None:
    """Create, lose a group, scale up and down."""
    h.apply(manifest())
    await h.serve(within=900)
    h.world.crash_engine("tiny-g0-0", "boom")
    await h.until(lambda: h.status()["recovery"]["failures"] == 1, _RESYNC)
    await h.serve(within=_RESYNC + 120)
    h.edit(replicas=2)
    await h.serve(2, within=_RESYNC + 120)
    h.edit(replicas=1)
    await h.serve(1, within=2 * _RESYNC)
    await h.settle()


def _end(scenario: Callable[[Harness], Any], **more: Any) -> dict[str, Any]:
    state: dict[str, Any] = {}

    async def run(h: Harness) -> None:
        await scenario(h)
        state.update(h.end_state())

    play(run, **more)
    return state


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """Where the story ends when nothing goes wrong."""
    return _end(_story)


@pytest.mark.parametrize(
    ("what", "faults"),
    [
        ("every event twice", WatchFaults(double=1.0)),
        ("pods five seconds late", WatchFaults(delay={POD: 5.0})),
        ("groups five seconds late", WatchFaults(delay={LEADER_WORKER_SET: 5.0})),
        (
            "everything three seconds late",
            WatchFaults(delay={POD: 3.0, LEADER_WORKER_SET: 3.0, MODEL_DEPLOYMENT: 3.0}),
        ),
        ("the deployment's own events late", WatchFaults(delay={MODEL_DEPLOYMENT: 5.0})),
        ("kinds out of order", WatchFaults(jitter=3.0, double=0.3, seed=11)),
        ("kinds out of order, otherwise", WatchFaults(jitter=3.0, double=0.3, seed=12)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_late_and_doubled_events_lead_to_the_same_end(
    what: str, faults: WatchFaults, undisturbed: dict[str, Any]
) -> None:
    """Lost: groups created twice or deleted for what was true seconds ago."""

    async def scenario(h: Harness) -> None:
        h.invariants.lag = 5.0
        h.operator.feed.faults = faults
        await _story(h)

    wrong = differences(undisturbed, _end(scenario))
    assert not wrong, (what, f"seed {faults.seed}", wrong)


@pytest.mark.parametrize(
    "kind", [POD, LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, SERVICE], ids=lambda k: k.kind
)
def test_changes_lost_in_a_watch_gap_are_found_by_the_resync(kind: Any) -> None:
    """Lost for good otherwise: a watch that begins anew never tells what was deleted while it was broken."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.serve(2)
        await h.settle()
        h.invariants.lag = (
            _RESYNC  # the operator is deaf to this kind: only the agents' probes help meanwhile
        )
        h.operator.feed.break_watch(kind)
        if kind == NODE:
            h.world.nodes.remove(h.world.pod("tiny-g0-0")["spec"]["nodeName"])
        elif kind == SERVICE:
            h.world.server.delete(SERVICE, NAMESPACE, "tiny", "somebody")
        elif kind == MODEL_DEPLOYMENT:
            h.edit(replicas=1)
        elif kind == LEADER_WORKER_SET:
            h.world.server.delete(
                LEADER_WORKER_SET, NAMESPACE, "tiny-g0", "somebody", propagation="Foreground"
            )
        else:
            h.world.delete_pod("tiny-g0-0-1")
        await h.settle(quiet=20)
        h.operator.feed.mend_watch()
        wanted = 1 if kind == MODEL_DEPLOYMENT else 2
        await h.serve(wanted, within=_RESYNC + 300)

    play(scenario)


def test_a_deployment_deleted_in_a_watch_gap_is_forgotten_and_can_come_back() -> None:
    """Lost: a name that can never be used again until the operator restarts."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(deletion={"groups": "Immediate"}))
        await h.serve()
        h.operator.feed.break_watch(MODEL_DEPLOYMENT, LEADER_WORKER_SET, POD)
        h.delete()
        await h.until(lambda: not h.end_state(), 90)
        h.operator.feed.mend_watch()
        before = h.writes
        store = h.operator.store
        await h.until(
            lambda: not store.keys() and not store.all(LEADER_WORKER_SET), _RESYNC, "the cache forgets it"
        )
        assert h.operator.counting.lost > 0
        assert h.writes - before < 5, "children were made for an owner that is gone"
        h.apply(manifest())
        await h.serve()

    play(scenario)


def test_a_deletion_that_was_missed_is_carried_out_at_the_next_resync() -> None:
    """Lost: GPUs, to a ModelDeployment that its finalizer keeps for ever."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()
        h.operator.feed.break_watch(MODEL_DEPLOYMENT)
        h.delete()
        await h.rest(10)
        h.operator.feed.mend_watch()
        await h.until(lambda: not h.end_state(), _RESYNC + 120)

    play(scenario)


def test_an_api_server_that_is_away_for_minutes_stops_nothing_that_serves() -> None:
    """Lost: a healthy service, to an upgrade of the control plane."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.serve(2)
        await h.settle()
        uids = [g["metadata"]["uid"] for g in h.groups()]
        h.world.cut_off()
        await h.settle(quiet=300)
        assert len(h.serving()) == 2
        h.world.reconnect()
        await h.settle(quiet=60)
        assert [g["metadata"]["uid"] for g in h.groups()] == uids
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: h.status()["recovery"]["failures"] == 1, 60, "it works again")
        await h.serve(2)

    play(scenario)


def test_a_group_that_breaks_while_the_operator_is_away_is_replaced_when_it_returns() -> None:
    """Lost: capacity, for good, if only events were acted upon."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()
        h.kill_operators()
        h.world.crash_engine("tiny-g0-0", "while nobody looked")
        await h.until(lambda: not h.serving(), 5, "its own probes take it out of the Service")
        await h.settle(quiet=60)
        h.supervised = True
        h.start_operator()
        await h.until(lambda: h.status()["recovery"]["failures"] == 1, 20, "the dead one's lease has run out")
        assert "while nobody looked" in h.status()["recovery"]["lastCause"]["message"]
        await h.serve()

    play(scenario)


@pytest.mark.parametrize("status", [409, 429, 500, 0])
def test_writes_that_fail_for_a_minute_delay_and_change_nothing_else(
    status: int, undisturbed: dict[str, Any]
) -> None:
    """Lost: half of a change, when the API server or a webhook has a bad minute."""

    async def scenario(h: Harness) -> None:
        begin = h.world.clock.elapsed

        def refuse(call: Call) -> KubeError | None:
            bad = call.write_number and 40 < h.world.clock.elapsed - begin < 100
            return KubeError(status, "Injected", "a bad minute") if bad else None

        h.operator.faults.refuse = refuse
        await _story(h)

    wrong = differences(undisturbed, _end(scenario))
    assert not wrong, wrong


def test_a_right_that_is_missing_is_told_and_used_once_granted() -> None:
    """Lost: hours of looking at a deployment that says nothing about the quota that refuses its groups."""

    async def scenario(h: Harness) -> None:
        granted = False

        def refuse(call: Call) -> KubeError | None:
            if call.verb == "create" and call.kind == LEADER_WORKER_SET and not granted:
                return ForbiddenError(403, "Forbidden", 'exceeded quota: gpus, requested: 16, limited: "8"')
            return None

        h.operator.faults.refuse = refuse
        h.apply(manifest())
        await h.until(lambda: (h.condition(reasons.STALLED) or {}).get("reason") == reasons.FORBIDDEN, 30)
        assert "exceeded quota: gpus" in h.condition(reasons.STALLED)["message"]  # type: ignore[index]
        granted = True
        await h.serve()
        assert h.condition(reasons.STALLED) is None

    play(scenario)


@pytest.mark.parametrize("seed", range(4))
def test_everything_goes_wrong_at_random_and_still_ends_well(seed: int) -> None:
    """Half an hour in which engines crash and hang, pods and nodes go, the operator dies, writes fail and events come
    late; then everything wanted serves. Reproduce with the seed in the test's name."""

    async def scenario(h: Harness) -> None:
        dice = random.Random(seed)
        h.invariants.lag = 8.0
        h.watch_faults = lambda: WatchFaults(jitter=1.0, double=0.1, seed=dice.randrange(1 << 30))
        h.next_faults = lambda: FaultPlan(
            lose_answers={dice.randrange(1, 60)}, fail_writes={dice.randrange(1, 60): 500}
        )
        h.apply(manifest(2))
        silent: list[str] = []

        def some_pod() -> str | None:
            pods = [p["metadata"]["name"] for p in h.world.server.list(POD, NAMESPACE)]
            return dice.choice(pods) if pods else None

        def engines(do: Callable[[str], None]) -> None:
            pod = some_pod()
            if pod and h.world.pod(pod)["metadata"]["uid"] in h.world.engines.by_pod:
                do(pod)

        def silence() -> None:
            pod = some_pod()
            node = h.world.pod(pod)["spec"].get("nodeName") if pod else None
            if node and node not in silent and len(silent) < 2:
                silent.append(node)
                h.world.nodes.silence(node)

        def crash_operator() -> None:
            h.operator.faults.crash_after = h.operator.client.attempts + dice.randrange(1, 4)

        def delete_group() -> None:
            names_ = [g["metadata"]["name"] for g in h.groups()]
            if names_:
                h.world.server.delete(
                    LEADER_WORKER_SET, NAMESPACE, dice.choice(names_), "somebody", propagation="Foreground"
                )

        mischief: list[Callable[[], Any]] = [
            lambda: engines(lambda pod: h.world.crash_engine(pod, "bad luck")),
            lambda: engines(h.world.hang_engine),
            lambda: h.world.delete_pod(pod) if (pod := some_pod()) else None,
            silence,
            lambda: h.world.nodes.bring_back(silent.pop()) if silent else None,
            crash_operator,
            delete_group,
            lambda: h.edit(replicas=dice.randrange(1, 4)),
            lambda: h.edit(engine={"args": {"max-num-seqs": str(dice.randrange(32, 64))}}),
        ]
        end = h.world.clock.elapsed + 1800
        while h.world.clock.elapsed < end:
            dice.choice(mischief)()
            await h.rest(dice.uniform(1, 120))
        for node in silent:
            h.world.nodes.bring_back(node)
        h.next_faults = lambda: None
        h.operator.client.faults = FaultPlan()
        h.edit(replicas=2)
        await h.serve(2, within=1800)
        await h.settle()
        carriers = h.world.server.list(POD, NAMESPACE, f"{names.LABEL_TRAFFIC}={names.TRAFFIC_ON}")
        assert len(carriers) == 4

    play(scenario, seed=seed, nodes=10, settings=EngineSettings(requests=4))


def test_a_group_that_cannot_be_deleted_yet_is_out_of_traffic_all_the_same() -> None:
    """Lost: every request to a hung group, while a webhook or a quota of the API server refuses its deletion."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()

        def refuse(call: Call) -> KubeError | None:
            refused = call.verb == "delete" and call.kind == LEADER_WORKER_SET
            return KubeError(500, "InternalError", "failed calling webhook") if refused else None

        h.operator.faults.refuse = refuse
        h.world.hang_engine("tiny-g0-0")
        await h.until(lambda: not h.serving(), 140, "out of the Service")
        assert h.status()["recovery"]["lastCause"]["reason"] == reasons.ENGINE_STALLED
        await h.rest(30)
        assert not h.serving()
        h.operator.faults.refuse = lambda call: None
        await h.serve()
        assert h.status()["recovery"]["failures"] == 1, "asked again and again, it is one failure"

    play(scenario, settings=EngineSettings(requests=4))


def test_a_pod_that_took_the_place_of_the_admitted_one_in_the_last_moment_gets_no_traffic() -> None:
    """Lost: requests to an engine that is still loading, because its pod has the name of one that was ready."""

    async def scenario(h: Harness) -> None:
        h.operator.feed.faults = WatchFaults(delay={POD: 3.0})
        h.invariants.lag = 3.0
        replaced: list[str] = []

        def replace(call: Call) -> None:
            if call.verb == "patch" and call.kind == POD and not replaced:
                replaced.append(call.name)
                h.world.server.delete(POD, NAMESPACE, call.name, "somebody", grace_seconds=0)
                h.world.stateful_sets.sync((NAMESPACE, call.name.rpartition("-")[0]))

        h.operator.faults.refuse = replace
        h.apply(manifest())
        await h.until(lambda: replaced, 90)
        # That it never gets the label is what the invariants say.
        await h.serve()
        assert h.status()["recovery"]["lastCause"]["reason"] == reasons.POD_LOST

    play(scenario)
