"""What the autoscaler learned outlives the operator: lost otherwise, for two hours after every restart and upgrade, are
GPUs to a margin for a stranger, or requests to one that was learned elsewhere."""

import math
from itertools import pairwise
from typing import Any

import pytest

from fakecluster.engines import EngineSettings, State
from fakecluster.harness import NAME, NAMESPACE, Harness, manifest, play
from moe_operator.api.scaling import LearnedStatus
from moe_operator.api.times import parse_time
from moe_operator.autoscaler.memory_text import LONGEST, version
from moe_operator.controller.kube import MODEL_DEPLOYMENT

#: Groups of one pod, which take less of a test's time.
SPEC: dict[str, Any] = {
    "hardware": {"accelerator": "B200", "gpusPerGroup": 8},
    "scaling": {"mode": "Auto", "minGroups": 1, "maxGroups": 6},
}
#: Requests in flight in all groups together, from which on one more is worth having: the KV cache of one holds 100.
MEAN = 130
_ROUND, _LOOK = 15.0, 60.0


class Day:
    """Requests in flight that come and go in waves of twenty minutes, spread over the groups that serve; and how many
    groups were wanted, once a minute."""

    def __init__(self, h: Harness) -> None:
        self._h = h
        self.level = 1.0
        self.wanted: list[tuple[float, int]] = []
        h.world.timers.every(_ROUND, self._spread)
        h.world.timers.every(_LOOK, self._note)

    def _spread(self) -> None:
        now = self._h.world.clock.elapsed
        whole = MEAN * self.level * (1 + 0.35 * math.sin(2 * math.pi * now / 1200))
        engines = self._h.world.engines
        busy = [e for e in engines.by_pod.values() if e.state is State.UP and e.running]
        each = max(1, round(whole / max(1, len(busy))))
        engines.settings.requests = each
        for engine in busy:
            engines.count(engine)
            engine.running = each

    def _note(self) -> None:
        scaling = self._h.status().get("scaling") if NAME in _names(self._h) else None
        if scaling:
            self.wanted.append((self._h.world.clock.elapsed, scaling["desired"]))

    def since(self, at: float) -> list[int]:
        return [groups for time, groups in self.wanted if time > at]


def ask(h: Harness, requests: int) -> None:
    """From now on every endpoint is kept busy with so many requests."""
    engines = h.world.engines
    engines.settings.requests = requests
    for engine in engines.by_pod.values():
        if engine.state is State.UP and engine.size:
            engines.count(engine)
            engine.running = requests


def _names(h: Harness) -> list[str]:
    return [obj["metadata"]["name"] for obj in h.world.server.list(MODEL_DEPLOYMENT, NAMESPACE)]


def learned(h: Harness) -> LearnedStatus | None:
    found = (h.status().get("scaling") or {}).get("learned")
    return None if found is None else LearnedStatus.model_validate(found)


def _edit(h: Harness, fields: dict[str, str] | None) -> None:
    """Change what is remembered, as somebody who edits the status by hand; None: nothing is."""
    patch = {"status": {"scaling": {"learned": fields}}}
    h.world.server.patch(MODEL_DEPLOYMENT, NAMESPACE, NAME, patch, "somebody", "status")


def _course(end: str) -> tuple[list[int], Harness]:
    """Groups wanted in the 35 minutes that begin ten after the operator ended: `killed`, `forgetting` (killed, and what
    it learned is lost) or `not` at all."""
    found: list[int] = []

    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve(1)
        day = Day(h)
        await h.rest(5400)
        middle = h.world.clock.elapsed
        if end != "not":
            h.operator.kill()
        if end == "forgetting":
            _edit(h, None)
        await h.rest(1200)
        day.level = 1.5
        await h.rest(1500)
        found.extend(day.since(middle + 600))

    return found, play(scenario, settings=EngineSettings(requests=2))


def _apart(one: list[int], other: list[int]) -> list[int]:
    return [abs(mine - theirs) for mine, theirs in zip(one, other, strict=True)]


@pytest.mark.timeout(900)
def test_a_successor_decides_as_one_that_was_never_killed() -> None:
    """Before, in and after a surge. One that learns anew does not, so that it is not the load that makes them alike."""
    never, whole = _course("not")
    killed, _ = _course("killed")
    anew, _ = _course("forgetting")
    assert len(never) > 30
    assert len(set(never)) > 1, "there was something to decide"
    apart = _apart(never, killed)
    # Windows begin anew, and of two forecasters that are as good the other may be used.
    assert sum(apart) <= len(apart), (never, killed)
    assert sum(_apart(never, anew)) >= 1.5 * sum(apart), (never, anew)

    told = [w.body["status"]["scaling"] for w in whole.world.server.writes if w.verb == "apply_status"]
    times = [time for one in told if (time := parse_time((one.get("learned") or {}).get("time"))) is not None]
    written = sorted(set(times))
    assert 3 <= len(written) <= 10, "seldom, and less and less"
    assert min(later - earlier for earlier, later in pairwise(written)) >= 600 - _LOOK / 4


def test_what_is_settled_is_learned_once() -> None:
    """Lost: etcd, to deployments at which nothing happens."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve(1)
        await h.rest(1500)
        ask(h, 0)
        await h.rest(2000)
        assert learned(h) is not None
        before = len(h.operator.client.writes)
        said = {k: v for k, v in h.status().items() if k != "cost"}
        await h.rest(3600)
        # What a token costs goes up while nobody asks for any; that is told every ten minutes.
        written = h.operator.client.writes[before:]
        assert len(written) <= 6, h.written(before)
        for write in written:
            assert {k: v for k, v in write.body["status"].items() if k != "cost"} == said

    play(scenario, settings=EngineSettings(requests=30))


def test_who_ends_cleanly_hands_over_what_it_learned_since_the_last_write() -> None:
    """Lost: ten minutes of learning, at each upgrade."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve(1)
        await h.rest(1000)
        before = learned(h)
        ask(h, 80)
        await h.rest(400)
        await h.operator.stop()
        after = learned(h)
        assert before is not None
        assert after is not None
        now = h.world.clock()
        assert now - (parse_time(after.time) or 0) < 2
        assert after.version == version()
        assert len(after.state) <= LONGEST
        h.start_operator()
        await h.rest(120)
        assert h.operator.counting.learned_anew == []
        assert learned(h) == after

    play(scenario, settings=EngineSettings(requests=30))


def test_what_cannot_be_used_is_counted_and_learned_anew() -> None:
    """Lost: scaling, and every pass of the reconcile, to a status that somebody edited or another version wrote."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(**SPEC))
        await h.serve(1)
        await h.until(lambda: learned(h), 1200, "something is remembered")
        found = learned(h)
        assert found is not None
        for reason, fields in (
            ("OtherVersion", {"version": "99-zz"}),
            ("Damaged", {"state": found.state[:-40]}),
            ("Damaged", {"time": "noon"}),
            ("FromTheFuture", {"time": "2099-01-01T00:00:00Z"}),
        ):
            h.operator.kill()
            _edit(h, found.model_dump(by_alias=True, exclude_none=True) | fields)
            there = len(h.operators)
            await h.until(
                lambda there=there: len(h.operators) > there and h.operator.counting.learned_anew, 120, reason
            )
            assert h.operator.counting.learned_anew == [reason]
            assert h.operator.counting.errors == 0
        ahead = learned(h)
        await h.until(lambda: learned(h) != ahead, 1500, "it is written anew")
        h.edit(objective={"timePerOutputToken": "20ms"})
        await h.until(lambda: h.operator.counting.learned_anew[1:], 120, "another objective")
        assert h.operator.counting.learned_anew[1:] == ["OtherGroups"]

    play(scenario, settings=EngineSettings(requests=30))
