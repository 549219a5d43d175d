"""Two replicas and one lease: somebody always works, never two for long, and nothing is restarted for it."""

from fakecluster.harness import Harness, manifest, play
from moe_operator.api import names
from moe_operator.controller.kube import EVENT, LEASE


async def _serving(h: Harness) -> None:
    h.supervised = False
    h.apply(manifest())
    await h.serve()
    await h.settle()


def _writers(h: Harness) -> list[str]:
    return [o.name for o in h.operators if o.leads]


def test_a_killed_leader_is_followed_by_the_standby_within_the_leases_duration() -> None:
    """Lost: recovery, for as long as nobody works."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        standby = h.start_operator()
        await h.rest(5)
        assert _writers(h) == ["operator-0"]
        h.operators[0].kill()
        h.world.crash_engine("tiny-g0-0", "boom")
        took = await h.until(lambda: standby.leads, 30, "the standby leads")
        assert took < 18, took
        await h.serve()
        assert h.status()["recovery"]["failures"] == 1

    play(scenario)


def test_a_leader_that_stops_cleanly_hands_over_in_a_second_or_two() -> None:
    """Lost: fifteen seconds of nobody working, at each upgrade of the operator."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        standby = h.start_operator()
        await h.rest(5)
        before = h.writes
        await h.operators[0].stop()
        took = await h.until(lambda: standby.leads, 5)
        assert took < 2, took
        await h.settle(quiet=120)
        assert h.writes == before, h.written(before)

    play(scenario)


def test_a_leader_that_loses_the_api_server_stops_before_another_may_begin() -> None:
    """Lost: one and the same decision, taken twice on two views of the world."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        leader, standby = h.operators[0], h.start_operator()
        await h.rest(5)
        both = 0.0

        def watch_leaders() -> None:
            nonlocal both
            both += 0.1 * (len(_writers(h)) > 1)

        h.world.timers.every(0.1, watch_leaders)
        h.world.cut_off()
        took = await h.until(lambda: leader.ended.is_set(), 20)
        assert took < 13, took
        assert "could not be renewed" in leader.lost_lease
        h.world.reconnect()
        await h.until(lambda: standby.leads, 20)
        await h.serve()
        assert both == 0.0

    play(scenario)


def test_leadership_costs_one_write_every_two_seconds_and_events_only_on_news() -> None:
    """Lost: etcd, to a heartbeat."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        h.start_operator()
        await h.rest(60)
        since = len(h.world.server.writes)
        await h.rest(600)
        written = [w for w in h.world.server.writes[since:] if w.manager.startswith(names.FIELD_MANAGER)]
        leases = [w for w in written if w.kind == LEASE]
        assert 200 < len(leases) < 400, len(leases)
        assert [str(w) for w in written if w.kind != LEASE] == []
        told = [str(w.body["note"]) for w in h.world.server.writes if w.kind == EVENT and w.verb == "create"]
        assert told == ["created group tiny-g0", "group tiny-g0 serves"]

    play(scenario)
