"""Groups whose pods are refused, or whose LeaderWorkerSet nobody acts on.

What a user would lose: the words of whoever refuses, and the way back by itself once he no longer does.
"""

from typing import Any

from fakecluster.engines import EngineSettings
from fakecluster.faults import Call, FaultPlan
from fakecluster.harness import Harness, Witness, manifest, play
from moe_operator.api import reasons
from moe_operator.controller.kube import CORE_EVENT, LEADER_WORKER_SET, ForbiddenError, KubeError

QUOTA = 'pods "tiny-g0-0" is forbidden: exceeded quota: team'
AWAY = (
    'Internal error occurred: failed calling webhook "mleaderworkerset.kb.io": failed to call webhook: Post'
    ' "https://lws-webhook-service.lws-system.svc:443/mutate?timeout=10s": connect: connection refused'
)


def _unhealthy(h: Harness) -> dict[str, Any]:
    return ((h.status().get("groups") or {}).get("unhealthy") or [{}])[0]


def _message(h: Harness, type_: str) -> str:
    return (h.condition(type_) or {}).get("message", "")


def test_a_quotas_words_are_in_the_status_and_the_group_is_kept() -> None:
    async def scenario(h: Harness) -> None:
        h.world.stateful_sets.refuse = lambda pod: QUOTA
        h.apply(manifest())
        took = await h.until(lambda: _unhealthy(h).get("reason") == reasons.PODS_REFUSED, 40)
        assert took < 25
        assert QUOTA in _unhealthy(h)["message"]
        assert QUOTA in _message(h, reasons.GROUPS_READY)
        uid = h.groups()[0]["metadata"]["uid"]
        writes = h.writes
        await h.rest(600)
        assert h.writes == writes, "a standing refusal is written once"
        assert [g["metadata"]["uid"] for g in h.groups()] == [uid], "it holds nothing, and is not lost"
        h.world.stateful_sets.refuse = lambda pod: None
        await h.serve(within=1200)
        await h.settle()
        assert not (h.status()["groups"].get("unhealthy"))
        assert h.status()["recovery"]["failures"] == 0

    play(scenario)


def test_workers_that_are_refused_give_their_leaders_node_back_with_the_words() -> None:
    async def scenario(h: Harness) -> None:
        h.world.stateful_sets.refuse = lambda pod: QUOTA if pod.count("-") > 2 else None
        h.apply(manifest(recovery={"placementLimit": "1m"}))
        await h.until(lambda: _unhealthy(h).get("reason") == reasons.PODS_REFUSED, 60)
        await h.until(lambda: (h.status().get("recovery") or {}).get("lastCause"), 120)
        cause = h.status()["recovery"]["lastCause"]
        assert cause["reason"] == reasons.PLACED_IN_PART
        assert QUOTA in cause["message"]

    play(scenario)


def test_a_controller_that_is_away_is_named() -> None:
    async def scenario(h: Harness) -> None:
        h.world.leader_worker_sets.away = True
        h.apply(manifest())
        await h.until(lambda: _unhealthy(h).get("reason") == reasons.LEADER_WORKER_SET_SILENT, 40)
        assert "lws-controller-manager" in _message(h, reasons.GROUPS_READY)
        h.world.leader_worker_sets.away = False
        await h.serve()

    play(scenario)


def test_without_the_right_on_events_all_else_goes_on() -> None:
    def refuse(call: Call) -> KubeError | None:
        return ForbiddenError(403, "Forbidden", "no events") if call.kind == CORE_EVENT else None

    async def scenario(h: Harness) -> None:
        h.operator.faults = FaultPlan(refuse=refuse)
        h.world.stateful_sets.refuse = lambda pod: QUOTA
        h.apply(manifest())
        await h.rest(60)
        assert _unhealthy(h)["message"] == "0 of 2 pods exist"
        assert h.operator.counting.errors == 0
        h.world.stateful_sets.refuse = lambda pod: None
        await h.serve(within=300)

    play(scenario)


class TestWebhookAway:
    """The API server cannot ask LeaderWorkerSet's webhook."""

    @staticmethod
    def _away(h: Harness) -> None:
        def refuse(call: Call) -> KubeError | None:
            gone = call.kind == LEADER_WORKER_SET and call.verb in ("create", "patch")
            return KubeError(500, "InternalError", AWAY) if gone else None

        h.operator.faults = FaultPlan(refuse=refuse)

    def test_it_is_told_at_once_and_goes_away_by_itself(self) -> None:
        async def scenario(h: Harness) -> None:
            await h.rest(5)
            self._away(h)
            h.apply(manifest())
            took = await h.until(
                lambda: (
                    (h.condition(reasons.READY) or {}).get("reason") == reasons.LEADER_WORKER_SET_UNAVAILABLE
                ),
                5,
            )
            assert took < 1
            assert "Service lws-webhook-service in namespace lws-system" in _message(h, reasons.READY)
            assert "connection refused" in _message(h, reasons.GROUPS_READY)
            assert h.condition(reasons.STALLED) is None, "nobody has to change the spec"
            writes = h.writes
            await h.rest(120)
            assert h.writes == writes
            h.operator.faults = FaultPlan()
            back = await h.until(h.groups, 10, "the group is made")
            assert back < 6
            await h.serve()

        play(scenario)

    def test_groups_that_are_there_are_admitted_meanwhile(self) -> None:
        async def scenario(h: Harness) -> None:
            h.apply(manifest(1))
            await h.serve(1)
            h.edit(replicas=2)
            await h.until(lambda: len(h.groups()) == 2, 10)
            witness = Witness(h)
            self._away(h)
            h.edit(replicas=3)
            await h.until(lambda: len(h.serving()) == 2, 120, "the second is admitted meanwhile")
            assert "2 of 3 groups serve" in _message(h, reasons.READY)
            assert "connection refused" in _message(h, reasons.GROUPS_READY)
            h.operator.faults = FaultPlan()
            await h.serve(3)
            await h.settle()
            assert "refused" not in _message(h, reasons.GROUPS_READY)
            assert not witness.lost_requests

        play(scenario, settings=EngineSettings(requests=4))

    def test_a_deletion_says_what_its_drain_waits_for(self) -> None:
        async def scenario(h: Harness) -> None:
            h.apply(manifest())
            await h.serve()
            self._away(h)
            h.delete()
            await h.until(lambda: "connection refused" in _message(h, reasons.READY), 10)
            h.operator.faults = FaultPlan()
            await h.until(lambda: not h.groups(), 120)

        play(scenario)
