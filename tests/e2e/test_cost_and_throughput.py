"""Tokens, GPU-hours and cost of real engines, beside a client's own count and an account from the pods alone.

What a user would lose: what a bill, a budget and a price per token are made of. Figures that lie by the loss of a
group or the end of an operator are believed until somebody pays for them.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.conftest import NAMESPACE, Maker
from e2e.engine_helpers import get as get_page
from e2e.engine_helpers import metric
from e2e.held_gpus import STATES, HeldGpus, Span
from e2e.steady_load import SteadyLoad
from harness.deployments import deployment, engine_pods, group_of
from harness.engines import engine_core
from harness.history import History, status_written_at, watched
from harness.kubectl import JsonObject, get, kubectl
from harness.leader import holder, leader_pod, operator_process
from harness.wait import wait_for
from moe_operator.api import names
from moe_operator.api.times import parse_time
from moe_operator.costs.counters import BEHIND
from moe_operator.telemetry.collector import INTERVAL as SCRAPE
from moe_operator.telemetry.window import WINDOW

pytestmark = pytest.mark.timeout(900)

NAME, MODEL = "accounted", "tiny-moe"
PRICE = 3.60  # a thousandth per GPU-second
#: Shares by which figures may be off: GPU-hours and cost; tokens a second in the status; tokens in all.
HOURS, RATE, TOKENS = 0.01, 0.03, 0.005
#: Seconds by which a change of state may be seen late: what a canary takes, and a pass.
SEEN = 3.0
#: Seconds between two looks at the most, on a busy machine.
LOOK = 20.0
#: Share of a load's time in which one of its groups has no request.
MOMENTS = 0.1
MINUTE = 60.0
#: Requests a second, and tokens of each: three times a second one of 160 to each of two engines is more than they make
#: for one request alone on a machine with nothing else to do (362 tokens a second), so that each always has some; and a
#: batch takes what a busy machine lacks in speed.
LOAD: dict[str, Any] = {"rate": 6.0, "tokens": 160}


class Story:
    """The deployment, what its pods held by themselves, and what the client counted."""

    def __init__(self, held: HeldGpus) -> None:
        self.held = held
        self.busy: list[Span] = []
        self.input = self.output = self.requests = 0
        self.led = 0.0
        """Since when the present operator leads."""

    def count(self, load: SteadyLoad) -> None:
        """Take up a load that is over."""
        self.busy.append(load.span)
        self.input += load.input
        self.output += load.output
        self.requests += len(load.streams)

    def gone(self, pod: JsonObject) -> float:
        """When a pod was gone, once it is."""
        times = self.held.pods[pod["metadata"]["uid"]]
        return wait_for(f"{times.name} gone", lambda: times.gone, seconds=90)

    def page(self) -> str:
        """The leader's metrics."""
        pod = get("pod", leader_pod(), "moe-system")
        assert pod is not None
        status, body = get_page(f"http://{pod['status']['podIP']}:9090", "/metrics")
        if status != 200:
            raise RuntimeError(f"metrics: {status} {body[:200]}")
        return body

    def told(self, figure: str, **labels: str) -> float:
        """One of the counters, on the leader's page."""
        return _counter(self.page(), figure, **labels)

    def kill_the_leader(self) -> None:
        """By its pid, and wait until another one leads."""
        before = holder()
        os.kill(operator_process(leader_pod()), signal.SIGKILL)
        wait_for("another leader", lambda: (now := holder()) and now != before, seconds=40, every=0.1)
        self.led = time.time()

    def check_tokens(self) -> None:
        """What the client counted, once the engines were asked again."""
        expected = {"input": self.input, "output": self.output}

        def off() -> float:
            page = self.page()
            told.update({kind: _counter(page, "tokens_total", kind=kind) for kind in expected})
            return max(abs(told[kind] - count) / count for kind, count in expected.items())

        told: dict[str, float] = {}
        wait_for("the client's count of tokens", lambda: off() <= TOKENS, seconds=60, every=1)
        done = self.told("requests_total", outcome="completed")
        print(f"tokens: client {expected}, operator {told}; requests {self.requests}, operator {done:.0f}")
        assert done == pytest.approx(self.requests, rel=TOKENS)

    def check_hours(self) -> None:
        """By metrics, which are so far behind; and the same in money. What a leader begins with is as of when it was
        written."""
        wait_for("looks of one leader", lambda: time.time() > self.led + BEHIND + 5, seconds=BEHIND + 10)
        page, now = self.page(), time.time()
        mine = self.held.seconds(now - BEHIND, self.busy)
        told = _gpu_seconds(page)
        money = {state: _counter(page, "cost_total", state=state, currency="USD") for state in STATES}
        total = sum(mine.values())
        off = sum(told.values()) / total - 1
        print(
            f"GPU-seconds: by the pods {_round(mine)} {total:.1f}, operator {_round(told)}, off by {off:+.2%}"
        )
        assert abs(off) <= HOURS
        pods = len(self.held.pods)
        # Of a load its begin and its end are seen a scrape late at most, in each of two groups. On a machine with
        # nothing else to do a group is done with all it has now and then, and idle until the next look.
        scrapes = SCRAPE * 2 * len(self.busy) + MOMENTS * mine["serving"]
        for state in STATES:
            seen = scrapes if state in ("serving", "idle") else SEEN * pods
            assert abs(told[state] - mine[state]) <= HOURS * mine[state] + seen, state
            assert money[state] == pytest.approx(told[state] * PRICE / 3600, rel=0.001)
        in_traffic = told["serving"] + told["idle"], mine["serving"] + mine["idle"]
        assert abs(in_traffic[0] - in_traffic[1]) <= HOURS * in_traffic[1] + SEEN * pods


def _counter(page: str, figure: str, **labels: str) -> float:
    return metric(page, f"moe_operator_{figure}", namespace=NAMESPACE, name=NAME, **labels) or 0.0


def _gpu_seconds(page: str) -> dict[str, float]:
    return {state: _counter(page, "gpu_seconds_total", state=state) for state in STATES}


def _round(found: dict[str, float]) -> dict[str, float]:
    return {state: round(seconds, 1) for state, seconds in found.items()}


@pytest.fixture(scope="module")
def story(make: Maker) -> Iterator[Story]:
    """Two groups of one rank, watched from before they began."""
    with HeldGpus(NAME, NAMESPACE) as held:
        make(
            NAME,
            hardware={"accelerator": "cpu", "gpusPerGroup": 1},
            scaling={"mode": "External", "minGroups": 1, "maxGroups": 2},
            replicas=2,
            cost={"pricePerGPUHour": f"{PRICE:.2f}"},
        )
        wait_for("two groups", lambda: _ready() == 2, seconds=300, every=0.5)
        yield Story(held)


def _ready() -> int:
    return int(deployment(NAME, NAMESPACE)["status"]["groups"]["ready"])


def _bases() -> list[str]:
    return [f"http://{pod['status']['podIP']}:{names.HTTP_PORT}/v1" for pod in engine_pods(NAME, NAMESPACE)]


def _last_rates(history: History) -> tuple[float, tuple[int, int]]:
    """When the status got the rates that it has, and these: of input and of output."""
    written, last = 0.0, (0, 0)
    for version in list(history.seen):
        found = (version.get("status") or {}).get("throughput") or {}
        now = found.get("promptTokensPerSecond", 0), found.get("outputTokensPerSecond", 0)
        if now != last:
            written, last = status_written_at(version), now
    return written, last


@dataclass(frozen=True)
class Nearest:
    """Rates of input and output in the status, and the client's of the same time."""

    told: tuple[int, int]
    counted: tuple[float, float]

    @property
    def off(self) -> float:
        return max(abs(a - b) / max(b, 1.0) for a, b in zip(self.told, self.counted, strict=True))

    def __str__(self) -> str:
        return f"client {self.counted[0]:.1f} and {self.counted[1]:.1f}, status {self.told}, off by {self.off:.2%}"


def _nearest(load: SteadyLoad, written: float, told: tuple[int, int]) -> Nearest:
    """Of the windows that the rates may be of: they end with a scrape, one at most before the figures were written,
    and begin with one. While load is even it matters little which."""
    found = [
        Nearest(told, load.rates(written + 1 - lag - length, written + 1 - lag))
        for lag in range(int(SCRAPE) + 2)
        for length in range(int(WINDOW), int(WINDOW + SCRAPE) + 1)
    ]
    return min(found, key=lambda one: one.off)


def _accounted_at() -> float:
    """As of when the status has the cost."""
    return parse_time(deployment(NAME, NAMESPACE)["status"]["cost"]["time"]) or 0.0


def test_tokens_per_second_are_those_that_the_client_counted(story: Story) -> None:
    """A minute of load. Then the operator is killed under it, and the next one goes on with the counting."""
    select = ("--field-selector", f"metadata.name={NAME}")
    with (
        watched(names.PLURAL, NAMESPACE, *select) as history,
        SteadyLoad(_bases(), MODEL, **LOAD) as load,
    ):
        wait_for("a minute", lambda: time.time() - load.begun > MINUTE, seconds=MINUTE + 5)

        def near() -> Nearest | None:
            written, told = _last_rates(history)
            # Rates that did not move are not written again: earlier ones hold as well.
            found = _nearest(load, max(written, load.begun + SEEN + WINDOW + 2 * SCRAPE), told)
            print(f"[{time.time() - load.begun:4.0f} s] tokens/s: {found}", flush=True)
            return found if found.off <= RATE else None

        wait_for(f"rates within {RATE:.0%}", near, seconds=40, every=3)
        story.kill_the_leader()
        counted = wait_for("what it counted", lambda: story.told("tokens_total", kind="output"), seconds=30)
        wait_for(
            "it goes on", lambda: story.told("tokens_total", kind="output") > counted, seconds=30, every=0.5
        )
    story.count(load)
    story.check_tokens()
    story.check_hours()


def test_nothing_is_lost_or_counted_twice_over_lost_groups_and_an_operators_end(story: Story) -> None:
    """An engine is killed, and the operator while the successor starts; then a group is deleted. What engines counted
    since they were asked last would go with them: they have answered all that is counted here."""
    first, second = engine_pods(NAME, NAMESPACE)
    engine_core(first["metadata"]["name"]).send(signal.SIGKILL)
    wait_for(
        "a successor",
        lambda: (
            group_of(first) not in (now := {group_of(p) for p in engine_pods(NAME, NAMESPACE)})
            and len(now) == 2
        ),
        seconds=120,
        every=0.2,
    )
    lost = story.gone(first)
    wait_for("it is in the ledger", lambda: _accounted_at() >= int(lost), seconds=30)
    story.kill_the_leader()
    kubectl("delete", "leaderworkerset", group_of(second), "-n", NAMESPACE, "--wait=false")
    story.gone(second)
    wait_for("two groups", lambda: _ready() == 2, seconds=300, every=0.5)
    story.check_hours()
    with SteadyLoad(_bases(), MODEL, **LOAD) as load:
        wait_for("some requests", lambda: load.answered >= 40, seconds=60)
    story.count(load)
    story.check_tokens()


def test_hours_of_a_group_that_goes_end_with_it(story: Story) -> None:
    patch = '{"spec":{"replicas":1}}'
    kubectl("patch", names.PLURAL, NAME, "-n", NAMESPACE, "--type=merge", "-p", patch)
    wait_for("one pod", lambda: story.held.there() == 1, seconds=120)
    wait_for("the status says so", lambda: _ready() == 1, seconds=30)
    # Between two looks hours are told evenly: the one that found it gone may have come some seconds late.
    wait_for("metrics of one pod", lambda: time.time() > max(story.held.ends()) + BEHIND + LOOK, seconds=80)
    began, then = time.time(), sum(_gpu_seconds(story.page()).values())
    wait_for("ten seconds", lambda: time.time() - began > 10, seconds=15)
    now = sum(_gpu_seconds(story.page()).values())
    assert now - then == pytest.approx(time.time() - began, rel=0.1), "one GPU is held"
    story.check_hours()
    cost = deployment(NAME, NAMESPACE)["status"]["cost"]
    at = parse_time(cost["time"])
    assert at is not None
    mine = sum(story.held.seconds(at, story.busy).values()) / 3600
    hours, money = float(cost["total"]["gpuHours"]["total"]), float(cost["total"]["cost"])
    print(f"status: {hours} GPU-hours, {money} USD; by the pods {mine:.4f}, {mine * PRICE:.4f}")
    # Times of the status are whole seconds, hours have four digits.
    assert hours == pytest.approx(mine, rel=HOURS, abs=1 / 3600)
    assert money == pytest.approx(mine * PRICE, rel=HOURS, abs=PRICE / 3600)
