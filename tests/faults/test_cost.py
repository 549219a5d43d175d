"""What is told of GPU-hours, tokens and money, whatever happens to the operator. Lost otherwise: bills that nobody can
check, and a budget that holds in one process only."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from fakecluster.crashes import Story, explore
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, manifest, play
from fakecluster.objects import labels_of
from moe_operator.api import names, reasons
from moe_operator.api.times import parse_time
from moe_operator.controller.kube import EVENT, POD
from moe_operator.costs import text
from moe_operator.costs.holdings import GpuState
from moe_operator.runtime.reporting import accounts

pytestmark = pytest.mark.timeout(900)

PRICE = "3.60"  # a thousandth per GPU-second
BUSY = EngineSettings(requests=4)


@dataclass
class Witness:
    """An account of its own, from the pods alone: eight GPUs from a pod's node until it is gone."""

    harness: Harness
    begun: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    tokens: dict[tuple[str, int], float] = field(default_factory=dict)
    exported: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)
    """By metric and labels: what was said last, by whichever operator."""
    fell: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.harness.world.timers.every(0.25, self.look)
        self.harness.world.timers.every(1.0, self.scrape)

    def scrape(self) -> None:
        """A counter that falls is a restart to Prometheus, and what it had is counted again: an operator that starts
        again in its pod goes on with the series."""
        if self.harness.operator.crash is not None:
            return
        for name, labels, value in accounts(self.harness.operator.reconciler.accounts()):
            at = (name, labels)
            if name.endswith("_total") and value < self.exported.get(at, 0.0):
                self.fell.append(f"{at}: {self.exported[at]} -> {value}")
            self.exported[at] = value

    def look(self) -> None:
        world, now = self.harness.world, self.harness.world.clock()
        there = set()
        for pod in world.server.list(POD, NAMESPACE):
            if names.LABEL_GROUP in labels_of(pod) and pod["spec"].get("nodeName"):
                there.add(pod["metadata"]["uid"])
                self.begun.setdefault(pod["metadata"]["uid"], now)
        for uid in set(self.begun) - there:
            self.gone.setdefault(uid, now)
        for engine in world.engines.by_pod.values():
            world.engines.count(engine)
            self.tokens[engine.identity] = engine.tokens

    def gpu_hours(self, until: float) -> float:
        ends = {uid: min(self.gone.get(uid, until), until) for uid in self.begun}
        return sum(8 * max(0.0, ends[uid] - begun) for uid, begun in self.begun.items()) / 3600


def _cost(h: Harness) -> dict[str, Any]:
    return h.status()["cost"]  # type: ignore[no-any-return]


def _told(h: Harness) -> tuple[float, float]:
    """GPU-hours and money by now, of the ledger as the status has it."""
    ledger = _cost(h)["ledger"]
    now = h.world.clock()
    accounts = text.read(ledger["state"], ledger["version"], now).accounts_at(now)
    return accounts.total_seconds / 3600, accounts.total_money


def _check(h: Harness, witness: Witness, away: float = 0.0) -> None:
    """To one percent. A group that went while no operator was there for `away` seconds may count until one came."""
    assert not witness.fell
    hours, money = _told(h)
    expected = witness.gpu_hours(h.world.clock())
    assert 0.99 * expected <= hours <= 1.01 * expected + 16 * away / 3600, (hours, expected)
    assert money == pytest.approx(hours * 3.6, rel=0.001)


def _priced(replicas: int = 1, **spec: Any) -> dict[str, Any]:
    return manifest(replicas, **{"cost": {"pricePerGPUHour": PRICE}, **spec})


async def _crash(h: Harness, away: float) -> None:
    """The operator is gone for so long."""
    h.kill_operators()
    await h.rest(away)
    _begin_again(h)


def _begin_again(h: Harness) -> None:
    """After a time without an operator."""
    h.supervised = True
    h.start_operator()


def test_the_ledger_is_right_across_a_lost_group_and_two_restarts() -> None:
    async def scenario(h: Harness) -> None:
        witness = Witness(h)
        h.apply(_priced(2))
        await h.serve(2)
        await h.settle()
        _check(h, witness)
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: "tiny-g0" not in h.serving(), 30)
        await h.serve(2)
        await h.settle()
        _check(h, witness)
        await _crash(h, 900)
        await h.rest(120)
        _check(h, witness)
        await _crash(h, 60)
        h.edit(replicas=1)
        await h.serve(1)
        await h.settle()
        _check(h, witness)
        await h.rest(3600)
        _check(h, witness)
        counted, true = _cost(h)["total"]["tokens"]["output"], sum(witness.tokens.values())
        # Up to half an hour of a group's tokens is in no status yet; the engine still has them.
        assert counted == pytest.approx(true, rel=0.35)

    play(scenario, settings=BUSY)


def test_tokens_go_on_where_the_operator_before_had_got_to() -> None:
    async def scenario(h: Harness) -> None:
        witness = Witness(h)
        h.apply(_priced(1))
        await h.serve(1)
        for _ in range(3):
            await h.rest(1000)
            await h.operator.stop()
            h.supervised = False
            witness.look()
            true = sum(witness.tokens.values())
            told = _cost(h)["total"]["tokens"]
            assert told["output"] == pytest.approx(true, rel=0.01), "a clean end writes what was counted"
            assert told["input"] == pytest.approx(2 * true, rel=0.01)
            await h.rest(300)
            _begin_again(h)

    play(scenario, settings=BUSY)


def test_no_counter_falls_after_a_crash_while_a_group_comes_and_goes_between_serving_and_idle() -> None:
    """The status has neither the tokens of the last half hour nor the states of the last half minute."""

    async def scenario(h: Harness) -> None:
        witness = Witness(h)
        h.apply(_priced(1))
        await h.serve(1)
        for round_ in range(8):
            for requests in (0, 4):
                _ask(h, requests)
                await h.rest(7 * round_ + 1)
            tokens = witness.exported["tokens_total", ("serving", "tiny", "output")]
            h.world.engines.settings.telling = False
            await _crash(h, 3 * round_)
            await h.rest(15 * round_)
            h.world.engines.settings.telling = True
            await h.rest(90)
            assert not witness.fell
            assert witness.exported["tokens_total", ("serving", "tiny", "output")] > tokens, "told again"
            for state in ("serving", "idle"):
                assert ("gpu_seconds_total", ("serving", "tiny", state)) in witness.exported

    play(scenario, settings=replace(BUSY))


def _ask(h: Harness, requests: int) -> None:
    """So many requests are at work from now on."""
    h.world.engines.settings.requests = requests
    for engine in h.world.engines.by_pod.values():
        h.world.engines.count(engine)
        engine.running = requests


@pytest.mark.parametrize("after", [2, 20])
def test_no_counter_falls_where_the_operator_crashes_just_after_a_change(after: float) -> None:
    """Lost: all that a group was held for since its creation, which Prometheus counts once more."""

    async def scenario(h: Harness) -> None:
        witness = Witness(h)
        h.apply(_priced(1))
        await h.serve(1)
        await h.settle()
        for change in (partial(_ask, h, 0), partial(_ask, h, 4), partial(h.edit, replicas=2)):
            change()
            await h.rest(after)
            await _crash(h, 20)
            await h.rest(100)
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.rest(after)
        await _crash(h, 20)
        await h.rest(300)
        h.edit(replicas=1)
        await h.rest(after)
        await _crash(h, 20)
        await h.serve(1)
        await h.settle()
        _check(h, witness, away=50)

    play(scenario, settings=replace(BUSY))


def test_idle_hours_stay_idle_where_a_request_comes_while_no_operator_is_there() -> None:
    """Lost: the figure that says a group is not needed. Only the time that nobody saw may count as used."""

    async def scenario(h: Harness) -> None:
        witness = Witness(h)
        h.apply(_priced(1))
        await h.serve(1)
        await h.settle()
        _ask(h, 0)
        await h.rest(2 * 3600)
        h.kill_operators()
        for requests in (0, 4, 0):
            _ask(h, requests)
            await h.rest(60)
        _begin_again(h)
        await h.rest(120)
        _check(h, witness)
        idle = witness.exported["gpu_seconds_total", ("serving", "tiny", "idle")]
        assert idle >= 16 * (2 * 3600 - 60)
        serving = witness.exported["gpu_seconds_total", ("serving", "tiny", "serving")]
        assert serving <= 16 * 600

    play(scenario, settings=replace(BUSY))


def test_a_groups_gpus_are_idle_while_nobody_asks_anything() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(_priced(1))
        await h.serve(1)
        await h.settle()
        await h.rest(3600)
        await _crash(h, 600)
        await h.rest(60)
        written, now = _cost(h)["ledger"], h.world.clock()
        ledger = text.read(written["state"], written["version"], now)
        idle = ledger.accounts_at(now).gpu_seconds[GpuState.IDLE]
        assert idle == pytest.approx(16 * (now - ledger.since - 45), rel=0.01), "a start takes 45 s"

    play(scenario)


def test_a_deployment_without_a_price_has_its_hours_and_is_told_why() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, cost={"currency": "EUR"}))
        await h.serve(1)
        await h.settle()
        cost = _cost(h)
        assert "cost" not in cost["total"]
        assert float(cost["total"]["gpuHours"]["total"]) > 0
        assert "set spec.cost.pricePerGPUHour" in cost["price"]["message"]

    play(scenario)


def test_in_another_currency_metrics_begin_with_nothing_and_lack_no_price() -> None:
    def told(h: Harness, name: str) -> dict[tuple[str, ...], float]:
        known = accounts(h.operator.reconciler.accounts())
        return {labels[2:]: value for figure, labels, value in known if figure == name}

    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, cost={"pricePerGPUHour": PRICE, "currency": "USD"}))
        await h.serve(1)
        await h.rest(3600)
        dollars = sum(told(h, "cost_total").values())
        assert dollars > 50
        h.edit(cost={"currency": "EUR"})
        await h.until(lambda: any(at[0] == "EUR" for at in told(h, "cost_total")), 60)
        await h.rest(600)
        for _ in range(2):
            cost, unpriced = told(h, "cost_total"), told(h, "unpriced_gpu_seconds_total")
            assert {at[0] for at in cost} == {"EUR"}
            assert sum(cost.values()) == pytest.approx(9.6, abs=0.6)
            assert unpriced[()] <= 16 * 60, "the time since the look before at most"
            await _crash(h, 0)
            await h.rest(20)

    play(scenario, settings=BUSY)


# --- budgets ---------------------------------------------------------------------------------------

#: World time begins two hours before midnight there; a group of 16 GPUs takes 57.60 an hour.
_DAY = {"amount": "60", "period": "Day", "action": "Hold", "timeZone": "Pacific/Kiritimati"}
_BUDGET = {"pricePerGPUHour": PRICE, "budget": _DAY}


def _budget(h: Harness) -> str:
    return (_cost(h).get("budget") or {}).get("state", "")


def _told_of(h: Harness, reason: str) -> int:
    events = h.world.server.list(EVENT, NAMESPACE)
    return sum((e.get("series") or {}).get("count", 1) for e in events if e.get("reason") == reason)


def test_a_spent_budget_holds_scale_up_until_the_day_is_over_and_is_told_once() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, cost=_BUDGET))
        await h.serve(1)
        await h.until(lambda: _budget(h) == "Held", 3900, "the budget is spent within 63 minutes")
        h.edit(replicas=3)
        await h.until(lambda: h.status()["scaling"]["reason"] == "BudgetHolds", 30)
        await h.rest(900)
        assert len(h.groups()) == 1
        assert "cost.budget" in h.status()["scaling"]["message"]
        h.edit(scaling={"minGroups": 2})
        await h.serve(2, within=300)
        h.world.crash_engine("tiny-g0-0", "boom")
        await h.until(lambda: len(h.serving()) < 2, 60)
        await h.serve(2, within=300)  # what was lost is replaced
        await _crash(h, 120)
        await h.rest(600)
        assert len(h.groups()) == 2
        assert _told_of(h, reasons.BUDGET_SPENT) == 1
        resets = parse_time(_cost(h)["budget"]["resetsAt"])
        assert resets is not None
        await h.rest(resets - h.world.clock() - 60)
        assert len(h.groups()) == 2
        await h.until(lambda: len(h.groups()) == 3, 120, "it goes on by itself")
        assert _told_of(h, reasons.BUDGET_RESUMED) == 1

    play(scenario)


def test_a_raised_budget_lets_go_at_once() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, cost=_BUDGET))
        await h.serve(1)
        await h.until(lambda: _budget(h) == "Held", 3900)
        h.edit(replicas=2, cost={"budget": {"amount": "600"}})
        await h.serve(2)
        assert _budget(h) == "Within"

    play(scenario)


def test_warn_only_tells() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(1, cost={**_BUDGET, "budget": {**_DAY, "action": "Warn"}}))
        await h.serve(1)
        await h.until(lambda: _budget(h) == "Spent", 3900)
        h.edit(replicas=2)
        await h.serve(2)
        assert _told_of(h, reasons.BUDGET_SPENT) == 1

    play(scenario)


# --- a crash at every write ------------------------------------------------------------------------


async def _two(h: Harness) -> None:
    h.witness = Witness(h)  # type: ignore[attr-defined]
    h.apply(_priced(2))
    await h.serve(2)
    await h.settle()


async def _lose_one_and_shrink(h: Harness) -> None:
    h.world.crash_engine("tiny-g0-0", "boom")
    h.world.timers.after(90.0, partial(h.edit, replicas=1))


async def _one_is_left_and_the_ledger_is_right(h: Harness) -> None:
    await h.until(lambda: h.deployment()["spec"]["replicas"] == 1, 120)
    await h.serve(1)
    await h.settle()
    # Two seconds until it is started again, and the lease of the one before.
    _check(h, h.witness, away=30.0)  # type: ignore[attr-defined]


def test_a_crash_at_any_write_leaves_the_ledger_right() -> None:
    story = Story("lost, and fewer", _two, _lose_one_and_shrink, _one_is_left_and_the_ledger_is_right)
    report = explore(story, ("a crash before each write", "a crash after each write"))
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes
