"""To zero and back, and floors by the time of the day, in the whole operator.

What a user would lose: GPUs held all night for nobody; a model taken away from those who use it; a morning that begins
with minutes without one; or a group made for nothing at each restart of the operator.
"""

from typing import Any

import pytest

from fakecluster.clock import EPOCH
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, Witness, manifest, play
from kstatus import verdict
from moe_operator.api import names, reasons
from moe_operator.api.times import format_time
from moe_operator.controller.kube import EVENT, SERVICE

#: Seconds of `scaleToZeroAfter`.
WINDOW = 600.0
ZERO: dict[str, Any] = {"minGroups": 0, "maxGroups": 3, "scaleToZeroAfter": "10m"}
#: Seconds from the end of the window until nothing is left: a drain without requests, connections that end.
GOING = 30.0
#: Seconds from a wish until a group serves.
START = 75.0


def _none(h: Harness) -> bool:
    return not h.groups()


async def _serving(h: Harness, scaling: dict[str, Any] = ZERO, **spec: Any) -> float:
    """Since when a group serves, on the world's clock."""
    h.apply(manifest(scaling=scaling, **spec))
    await h.serve(1)
    return h.world.clock.elapsed


async def _asleep(h: Harness, scaling: dict[str, Any] = ZERO) -> None:
    await _serving(h, scaling)
    await h.until(lambda: _none(h), WINDOW + 60)
    await h.settle()


def _in(h: Harness, seconds: float) -> str:
    return format_time(h.world.clock() + seconds)


def _ask(h: Harness) -> None:
    """One request at every endpoint, of three seconds."""
    for engine in h.world.engines.by_pod.values():
        h.world.engines.count(engine)
        engine.running = 1

    def end() -> None:
        for engine in h.world.engines.by_pod.values():
            h.world.engines.count(engine)
            engine.running = 0

    h.world.timers.after(3.0, end)


def _events(h: Harness, action: str = "Scale") -> list[tuple[str, str, str]]:
    found = [e for e in h.world.server.list(EVENT, NAMESPACE) if e["action"] == action]
    return [(e["type"], e["reason"], e["note"]) for e in found]


# --- To zero and back ----------------------------------------------------------------------------


def test_an_idle_model_goes_is_woken_and_goes_again() -> None:
    async def scenario(h: Harness) -> None:
        since = await _serving(h)
        await h.until(lambda: _none(h), WINDOW + 60)
        assert WINDOW <= h.world.clock.elapsed - since <= WINDOW + GOING
        scaling = h.status()["scaling"]
        assert (scaling["desired"], scaling["reason"]) == (0, "Idle")
        assert "no request came for 10m (scaling.scaleToZeroAfter)" in scaling["message"]
        ready = h.condition(reasons.READY) or {}
        assert (ready["status"], ready["reason"]) == ("True", reasons.SCALED_TO_ZERO)
        assert h.condition(reasons.RECONCILING) is h.condition(reasons.STALLED) is None
        assert verdict(h.deployment()) == "Current", "a GitOps wait ends"
        assert h.world.server.get(SERVICE, NAMESPACE, "tiny") is not None
        await h.settle()
        asked = h.world.clock.elapsed
        h.wake(_in(h, 1200))
        await h.rest(5)
        ready = h.condition(reasons.READY) or {}
        assert (ready["status"], ready["reason"]) == ("False", reasons.STARTING), "kubectl wait waits for it"
        assert (h.condition(reasons.GROUPS_READY) or {})["reason"] == reasons.SCALING, "nothing was lost"
        assert h.condition(reasons.RECONCILING) is None
        await h.serve(1, within=START)
        assert "moe-operator.dev/wake-until" in h.status()["scaling"]["floor"]["message"]
        assert "at least 1 until" in (h.condition(reasons.SCALING_ACTIVE) or {})["message"]
        await h.until(lambda: _none(h), 3600)
        assert 1200 + WINDOW <= h.world.clock.elapsed - asked <= 1200 + WINDOW + GOING, (
            "the window counts anew"
        )
        await h.settle()
        assert "floor" not in h.status()["scaling"]
        assert {reason for _, reason, _ in _events(h)} == {"Idle", "Woken"}

    play(scenario)


def test_who_uses_it_keeps_it() -> None:
    """One request every nine minutes, seen or not by a reconcile."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        for _ in range(8):
            await h.rest(540)
            _ask(h)
        assert h.serving() == ["tiny-g0"]
        last = h.world.clock.elapsed
        await h.until(lambda: _none(h), WINDOW + 60)
        assert h.world.clock.elapsed - last >= WINDOW

    play(scenario)


def test_the_operators_own_canaries_are_no_requests() -> None:
    """One for each rank every ten seconds."""

    async def scenario(h: Harness) -> None:
        since = await _serving(h, recovery={"idleCanary": "10s"})
        await h.until(lambda: _none(h), WINDOW + 60)
        assert h.world.clock.elapsed - since <= WINDOW + GOING
        assert _events(h)[0][1] == "Idle"

    play(scenario)


@pytest.mark.parametrize("used", [False, True])
def test_nothing_goes_while_figures_are_missing(used: bool) -> None:
    """When they are back, counters say whether somebody came meanwhile."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        await h.rest(120)
        collector = h.operator._collector
        get = collector._get

        async def nothing(*_: Any) -> None:
            return None

        collector._get = nothing  # type: ignore[method-assign]
        await h.rest(1800)
        if used:
            _ask(h)
        await h.rest(1800)
        assert len(h.groups()) == 1
        collector._get = get  # type: ignore[method-assign]
        took = await h.until(lambda: _none(h), WINDOW + 120)
        assert (took > WINDOW) is used, took

    play(scenario)


def test_a_request_that_comes_as_the_last_group_goes_has_it_back() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        (group,) = h.groups()

        def draining() -> bool:
            return any(
                names.ANNOTATION_DRAINING in (g["metadata"].get("annotations") or {}) for g in h.groups()
            )

        await h.until(draining, WINDOW + 60)
        _ask(h)  # on a connection that was still open
        witness = Witness(h)
        await h.until(lambda: h.status()["scaling"]["reason"] == "Woken", 10)
        took = await h.until(lambda: h.serving() == ["tiny-g0"], 10)
        assert took <= 5
        assert h.groups()[0]["metadata"]["uid"] == group["metadata"]["uid"], "it is the same, and warm"
        assert not witness.lost_requests
        await h.until(lambda: _none(h), WINDOW + 60)

    play(scenario)


def test_waking_while_it_drains_has_the_warm_group_back() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        uid = h.groups()[0]["metadata"]["uid"]
        await h.until(lambda: h.status()["scaling"]["desired"] == 0, WINDOW + 60)
        h.wake(_in(h, 300))
        await h.serve(1, within=10)
        assert h.groups()[0]["metadata"]["uid"] == uid

    play(scenario)


def test_at_zero_an_hour_has_no_write_and_a_restart_makes_no_group() -> None:
    async def scenario(h: Harness) -> None:
        await _asleep(h)
        before = h.writes
        await h.settle(quiet=3600, within=3700)
        assert h.writes == before, h.written(before)
        await h.operator.stop()
        h.supervised = False
        h.start_operator()
        await h.settle(quiet=1800, within=1900)
        assert h.operator.client.writes == [], h.written()
        assert _none(h)

    play(scenario)


def test_a_restart_begins_the_window_anew() -> None:
    """The successor knows of no request before it."""

    async def scenario(h: Harness) -> None:
        await _serving(h)
        await h.rest(500)
        h.operator.kill()
        killed = h.world.clock.elapsed
        h.start_operator()
        await h.until(lambda: _none(h), 2 * WINDOW)
        assert h.world.clock.elapsed - killed >= WINDOW

    play(scenario)


def test_a_wake_up_survives_the_operator() -> None:
    async def scenario(h: Harness) -> None:
        await _asleep(h)
        h.wake(_in(h, 1200))
        h.operator.kill()
        h.start_operator()
        await h.serve(1, within=120)

    play(scenario)


def test_what_cannot_be_read_is_told_once_and_ignored() -> None:
    async def scenario(h: Harness) -> None:
        await _asleep(h)
        h.wake("tomorrow")
        await h.rest(5)
        writes = h.writes
        assert "'tomorrow' is no time: write it as" in h.status()["scaling"]["ignored"]
        assert "'tomorrow' is no time" in (h.condition(reasons.SCALING_ACTIVE) or {})["message"]
        await h.rest(1200)
        h.operator.kill()
        h.start_operator()
        await h.rest(1200)
        assert h.writes == writes, h.written(writes)
        told = [(type_, reason) for type_, reason, _ in _events(h) if reason != "Idle"]
        assert told == [("Warning", reasons.WAKE_UNREADABLE)]
        assert _none(h)
        h.wake(_in(h, 600))
        await h.serve(1, within=START)
        assert "ignored" not in h.status()["scaling"]

    play(scenario)


def test_advice_says_zero_and_keeps_the_group() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h, {**ZERO, "mode": "Advisory"})
        await h.until(lambda: h.status()["scaling"].get("advised") == 0, WINDOW + 60)
        assert "Auto would have 0 (Idle:" in h.status()["scaling"]["message"]
        await h.rest(600)
        assert len(h.groups()) == 1

    play(scenario)


# --- Schedules -----------------------------------------------------------------------------------


def _office(begins: str = "09:00", ends: str = "10:00", groups: int = 2, **more: Any) -> dict[str, Any]:
    return {"name": "office", "from": begins, "to": ends, "minGroups": groups, **more}


class _Readiness:
    """Sees every second whether the deployment is Ready."""

    def __init__(self, h: Harness) -> None:
        self.unready: list[float] = []
        h.world.timers.every(1.0, lambda: None if h.ready() else self.unready.append(h.world.clock.elapsed))


def test_groups_serve_when_the_window_begins_and_go_after_it() -> None:
    """The world begins at 08:00 UTC."""

    async def scenario(h: Harness) -> None:
        await _asleep(h, {**ZERO, "schedules": [_office()]})
        seen = _Readiness(h)
        await h.until(lambda: not _none(h), 3600)
        # 0.9 of the way from the start that was seen, of 42 s, to the 300 s of before, and 45 s.
        assert EPOCH + 3600 - 320 <= h.world.clock() <= EPOCH + 3600 - 318, "to the second"
        assert (
            "at least 2 from 09:00 until 10:00 UTC (schedule office), made ahead"
            in (h.status()["scaling"]["floor"]["message"])
        )
        await h.until(lambda: len(h.serving()) == 2, 600)
        assert h.world.clock() < EPOCH + 3600, "before it begins"
        await h.rest(EPOCH + 3660 - h.world.clock())
        floor = h.status()["scaling"]["floor"]
        assert floor == {
            "groups": 2,
            "message": "at least 2 until 10:00 UTC (schedule office)",
            "until": "2027-01-15T10:00:00Z",
        }
        await h.rest(EPOCH + 7190 - h.world.clock())
        assert len(h.serving()) == 2
        await h.rest(EPOCH + 7201 - h.world.clock())
        assert "floor" not in h.status()["scaling"]
        await h.until(lambda: _none(h), 3600)
        assert EPOCH + 7200 + WINDOW <= h.world.clock() <= EPOCH + 7200 + WINDOW + GOING
        assert not seen.unready, "nobody was promised a group before"
        assert "Scheduled" in [reason for _, reason, _ in _events(h)]

    play(scenario)


def test_a_window_without_gpus_is_not_ready_from_its_beginning() -> None:
    """Lost: the alert. Before that nobody was promised a group."""

    async def scenario(h: Harness) -> None:
        await _asleep(h, {**ZERO, "schedules": [_office()]})
        await h.rest(EPOCH + 3590 - h.world.clock())
        assert h.ready()
        await h.rest(60)
        ready = h.condition(reasons.READY) or {}
        assert ready["status"] == "False"
        assert "1 of 2 groups serve" in ready["message"]

    play(scenario, nodes=3)


def test_a_schedule_raises_what_others_decide() -> None:
    async def scenario(h: Harness) -> None:
        scaling = {"mode": "External", "maxGroups": 4, "schedules": [_office(groups=3)]}
        h.apply(manifest(1, scaling=scaling))
        await h.serve(1)
        await h.rest(EPOCH + 3600 - h.world.clock())
        await h.serve(3, within=10)
        assert h.status()["scaling"]["reason"] == "ReplicasLimited"
        await h.rest(EPOCH + 7200 - h.world.clock())
        await h.serve(1, within=60)

    play(scenario)


def test_the_ceiling_holds_and_is_named() -> None:
    async def scenario(h: Harness) -> None:
        scaling = {"minGroups": 1, "maxGroups": 2, "schedules": [_office("00:00", "00:00", 3)]}
        h.apply(manifest(scaling=scaling))
        await h.serve(2)
        message = "at least 3 (schedule office), but maxGroups is 2"
        assert h.status()["scaling"]["floor"] == {"groups": 3, "message": message}

    play(scenario)


def test_an_unknown_zone_stops_the_spec_and_nothing_that_runs() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h, {"minGroups": 1, "maxGroups": 3})
        h.edit(scaling={"schedules": [_office(timeZone="Europe/Nowhere")]})
        await h.until(lambda: h.condition(reasons.STALLED), 10)
        stalled = h.condition(reasons.STALLED) or {}
        assert stalled["reason"] == reasons.UNKNOWN_TIME_ZONE
        assert "office: the time zone database has no Europe/Nowhere" in stalled["message"]
        await h.settle()
        assert h.serving() == ["tiny-g0"]
        h.edit(scaling={"schedules": [_office("00:00", "00:00", timeZone="Europe/Berlin")]})
        await h.serve(2)

    play(scenario, settings=EngineSettings(requests=2))


@pytest.mark.parametrize("scheduled", [True, False])
def test_where_gpus_are_scarce_a_schedule_is_a_floor(scheduled: bool) -> None:
    """Three nodes, all of them held by a model of lower priority."""

    def wanted(name: str, replicas: int, **scaling: Any) -> Any:
        hardware = {"accelerator": "B200", "gpusPerGroup": 8}
        limits = {"mode": "External", "maxGroups": 6, **scaling}
        return manifest(replicas, name, hardware=hardware, scaling=limits)

    async def scenario(h: Harness) -> None:
        always = {"schedules": [_office("00:00", "00:00", 3)]} if scheduled else {}
        h.apply(wanted("tiny", 3, **always))
        await h.serve(3)
        h.apply(wanted("urgent", 1, priority=100))
        await h.rest(300)
        assert len(h.serving()) == (3 if scheduled else 2)
        assert len(h.serving("urgent")) == (0 if scheduled else 1)

    play(scenario, nodes=3)
