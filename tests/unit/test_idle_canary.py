"""Canaries of idle groups. Asked too often they are load; judged too quickly a healthy group is lost; never asked, one
that hangs is found by the first user."""

import asyncio
from dataclasses import replace

from factories.groups import NOW, admitted, change_pod, group, view
from moe_operator.api import reasons
from moe_operator.controller.canary import Asker
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.idle_canary import ATTEMPTS, RETRY, IdleCanaries
from moe_operator.controller.observed import GroupFacts
from moe_operator.telemetry.engine import CanaryResult
from moe_operator.telemetry.own_requests import OwnRequests

KEY = ("serving", "tiny")
UIDS = {"10.244.0.1": "uid-tiny-g0-0", "10.244.0.2": "uid-tiny-g0-0-1"}
SERVES = admitted(group(served_name="org/tiny", ranks_per_pod=4))


class Bench:
    """Idle canaries on a clock of their own."""

    def __init__(self) -> None:
        self.now = NOW
        self.asked: list[tuple[str, str, int, float]] = []
        self.answers: dict[str, CanaryResult] = {}
        self.enqueued: list[tuple[str, str]] = []
        self.own = OwnRequests()
        self.busy_meanwhile: list[int] = []
        self.idle = IdleCanaries(Asker(self, self.own), self.enqueued.append, lambda: self.now)

    async def canary(
        self,
        host: str,
        port: int,
        model: str,
        ranks: int,
        first_rank: int,
        *,
        deadline: float,
        token: str | None = None,
    ) -> CanaryResult:
        self.asked.append((host, model, ranks, deadline))
        self.busy_meanwhile.append(self.own.of(UIDS[host]).in_flight)
        return self.answers.get(host, CanaryResult(True, output_tokens=ranks))

    async def drain(self, host: str, port: int, token: str | None = None) -> bool:
        raise AssertionError

    async def undrain(self, host: str, port: int, token: str | None = None) -> bool:
        raise AssertionError

    async def look(self, *views: GroupView, period: float = 60.0, after: float = 0.0) -> float | None:
        """Look, and let what was started end."""
        self.now += after
        wait = self.idle.look(KEY, views, period, lambda facts: f"token of {facts.name}")
        for _ in range(5):
            await asyncio.sleep(0)
        return wait

    def cause(self, facts: GroupFacts = SERVES) -> str | None:
        found = self.idle.causes(KEY, [facts]).get(facts.name)
        return found.reason if found else None


def _idle(quiet: float | None = 60.0, requests: int | None = 0, facts: GroupFacts = SERVES) -> GroupView:
    return replace(view(facts, requests=requests), quiet=quiet)


FAILS = {"10.244.0.2": CanaryResult(False, "rank 4 at 10.244.0.2:8000: no token within 30 s")}


def test_each_rank_is_asked_once_in_a_period_by_the_groups_own_name() -> None:
    async def scenario() -> None:
        bench = Bench()
        assert await bench.look(_idle(20)) == 40
        assert bench.asked == []
        assert await bench.look(_idle(60), after=40) == 60
        assert bench.asked == [("10.244.0.1", "org/tiny", 4, 30.0), ("10.244.0.2", "org/tiny", 4, 30.0)]
        for _ in range(11):
            await bench.look(_idle(65), after=5)
        assert len(bench.asked) == 2
        await bench.look(_idle(120), after=5)
        assert len(bench.asked) == 4
        assert bench.enqueued == [], "what passes is no news"
        assert bench.busy_meanwhile == [4, 4, 4, 4], "while it is open telemetry leaves it out"

    asyncio.run(scenario())


def test_three_failures_in_a_row_five_seconds_apart_and_the_group_is_lost() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.answers = FAILS
        for attempt in range(ATTEMPTS):
            assert bench.cause() is None
            await bench.look(_idle(60 + 5 * attempt), after=5)
            assert len(bench.enqueued) == attempt + 1
        assert len(bench.asked) == 2 * ATTEMPTS
        cause = bench.idle.causes(KEY, [SERVES])["tiny-g0"]
        assert cause.reason == reasons.IDLE_CANARY_FAILED
        assert (
            "3 canaries of the idle group failed in a row: rank 4 at 10.244.0.2:8000: no token"
            in cause.message
        )
        assert (cause.pod, cause.node) == ("tiny-g0-0-1", "node-1")
        bench.answers = {}
        assert RETRY == 5

    asyncio.run(scenario())


def test_where_all_pods_fail_no_node_is_blamed() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.answers = {f"10.244.0.{i}": CanaryResult(False, "no token") for i in (1, 2)}
        for _ in range(ATTEMPTS):
            await bench.look(_idle(), after=5)
        assert bench.idle.causes(KEY, [SERVES])["tiny-g0"].node is None

    asyncio.run(scenario())


def test_a_failure_between_is_forgotten() -> None:
    async def scenario() -> None:
        bench = Bench()
        for answers in (FAILS, FAILS, {}, FAILS, FAILS):
            bench.answers = answers
            await bench.look(_idle(1000), after=60)
        assert bench.cause() is None

    asyncio.run(scenario())


def test_requests_that_come_meanwhile_leave_it_to_progress() -> None:
    async def scenario() -> None:
        for meanwhile in (_idle(0, requests=3), _idle(quiet=2)):
            bench = Bench()
            bench.answers = FAILS
            for seen in (_idle(70), _idle(75), meanwhile, _idle(100), _idle(105)):
                await bench.look(seen, after=5)
            assert bench.cause() is None

    asyncio.run(scenario())


def test_an_engine_that_refuses_the_request_as_such_is_no_failure() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.answers = {"10.244.0.2": CanaryResult(False, "HTTP 404: no such model", refused=True)}
        for _ in range(10):
            await bench.look(_idle(), after=60)
        assert bench.cause() is None
        assert bench.enqueued == []

    asyncio.run(scenario())


def test_only_groups_that_serve_and_are_known_to_be_idle_are_asked() -> None:
    async def scenario() -> None:
        bench = Bench()
        starts = group(served_name="org/tiny")
        drains = replace(SERVES, draining_since=NOW)
        suspect = change_pod(SERVES, 1, ready=False)
        for seen in (_idle(None, None), _idle(0, 1), *(_idle(facts=f) for f in (starts, drains, suspect))):
            await bench.look(seen, after=120)
        assert bench.asked == []
        assert await bench.look(_idle(None, None)) == 60, "telemetry may know again"

    asyncio.run(scenario())


def test_off_means_never_and_a_short_period_is_bounded() -> None:
    async def scenario() -> None:
        bench = Bench()
        assert await bench.look(_idle(9000), period=0) is None
        assert bench.asked == []
        assert await bench.look(_idle(4), period=1) == 6

    asyncio.run(scenario())


def test_what_was_found_holds_for_that_incarnation_alone() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.answers = FAILS
        for _ in range(ATTEMPTS):
            await bench.look(_idle(), after=5)
        assert bench.cause() is not None
        assert bench.cause(replace(SERVES, draining_since=NOW)) is None
        assert bench.cause(change_pod(SERVES, 1, ready=False)) is None
        assert bench.cause(change_pod(SERVES, 1, traffic=False)) is not None, "the label is the first to go"
        assert bench.cause(admitted(change_pod(SERVES, 1, uid="another"))) is None
        bench.idle.forget(KEY)
        assert bench.cause() is None

    asyncio.run(scenario())
