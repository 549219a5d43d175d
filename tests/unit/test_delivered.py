"""What a deployment and its groups deliver, in metrics, at /figures and in the status. Lost if it is wrong: a sum over
half of the engines that looks like all of them; a percentile of means; a page of metrics that no Prometheus takes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from factories.deployments import group_plan
from factories.engine_pages import FIRST_TOKEN_BOUNDS, PER_TOKEN_BOUNDS, counters, entered, page
from factories.exporter_pages import b200, dcgm_page, of_pod, series_of
from factories.groups import NOW, admitted, group, pod
from moe_operator.api.figures import FiguresPage as FiguresRead
from moe_operator.api.status import LatencyStatus, PercentilesStatus
from moe_operator.cli.latency_text import latency_text
from moe_operator.controller.delivered import (
    DeploymentFigures,
    KnownGroup,
    deployment_figures,
    rank_figures,
)
from moe_operator.controller.delivered_keeper import DeliveredKeeper
from moe_operator.controller.group_planner import GroupState
from moe_operator.controller.latency_status import latency_moved, latency_status
from moe_operator.controller.objective_counts import Objective, ObjectiveCounts
from moe_operator.runtime.figures_page import FiguresPage, deployment_data
from moe_operator.runtime.health import HealthServer
from moe_operator.runtime.metrics import DELIVERED_FIGURES, Metrics, WatchedValues
from moe_operator.runtime.reporting import delivered as reported
from moe_operator.telemetry.accelerator_memory import DCGM_NAMES, dcgm_memory
from moe_operator.telemetry.engine_counters import EngineCounters
from moe_operator.telemetry.figures import Figures
from moe_operator.telemetry.metrics_page import parse_metrics
from moe_operator.telemetry.observation import PodObservation, Snapshot
from moe_operator.telemetry.percentiles import Percentiles
from moe_operator.telemetry.pod_memory import PodMemory
from moe_operator.telemetry.window import PodWindow

KEY = ("serving", "tiny")
RANKS = 2


def observed(uid: str, readings: Sequence[Mapping[int, EngineCounters]], failures: int = 0) -> PodObservation:
    """Scraped every 10 s, by way of pages."""
    window = PodWindow(uid)
    for step, ranks in enumerate(readings):
        read = parse_metrics(page(ranks))
        assert read is not None
        window.add(10.0 * step, read, 0)
    for _ in range(failures):
        window.failed()
    found = window.observation()
    assert found is not None
    return found


def rank(step: int, tokens: float, first: Mapping[float, int], **more: Any) -> EngineCounters:
    """After so many steps of 10 s, each with so many tokens of output, twice as many of prompts, and these requests."""
    return counters(
        **{
            "running": 3,
            "waiting": 1,
            "kv_worst": 0.5,
            "prompt_tokens": 2 * tokens * step,
            "output_tokens": tokens * step,
            "first_token": entered(FIRST_TOKEN_BOUNDS, {time: step * n for time, n in first.items()}),
            "per_token": entered(PER_TOKEN_BOUNDS, {0.02: step * sum(first.values())}),
            **more,
        }
    )


def known(slot: int, state: GroupState = GroupState.SERVING, pods: int = 2) -> KnownGroup:
    name = f"tiny-g{slot}"
    made = [pod(name, index, node=f"node-{slot}{index}") for index in range(pods)]
    facts = admitted(group(slot, size=pods, pods=made, ranks_per_pod=RANKS))
    return KnownGroup(facts, state, group_plan(pods, RANKS, accelerator="B200"))


def engines(of: KnownGroup, rates: Sequence[float], first: Mapping[float, int]) -> dict[str, PodObservation]:
    """Tokens per step of each rank of the group."""
    return {
        one.uid: observed(
            one.uid,
            [
                {
                    number: rank(step, rates[number], first)
                    for number in range(one.index * RANKS, (one.index + 1) * RANKS)
                }
                for step in range(5)
            ],
        )
        for one in of.facts.pods
    }


def memory(of: KnownGroup) -> dict[str, PodMemory]:
    found = {}
    for one in of.facts.pods:
        told = dcgm_page([b200(at, pod=of_pod(one.name)) for at in range(RANKS)])
        found[one.uid] = PodMemory(NOW, tuple(dcgm_memory(series_of(told, DCGM_NAMES).series)[0]))
    return found


QUICK, SLOW = known(0), known(1)
#: Requests of each rank in 10 s; a group has four ranks.
BOTH = {**engines(QUICK, (100, 100, 100, 100), {0.4: 10}), **engines(SLOW, (370, 10, 10, 10), {2.0: 10})}


def both(**more: Any) -> DeploymentFigures:
    return deployment_figures(KEY, [SLOW, QUICK], BOTH, **more)


class TestGroups:
    def test_sums_of_groups_and_pooled_percentiles(self) -> None:
        """800 tokens in 10 s. Of 320 requests half took 0.25 to 0.5 s, half 1 to 2.5 s."""
        found = both().figures
        assert (found.output_tokens_per_second, found.input_tokens_per_second) == (80, 160)
        assert (found.running, found.waiting, found.kv_used) == (24, 8, 0.5)
        assert found.first_token == Percentiles(
            0.5, pytest.approx(1 + 1.5 * 0.9), pytest.approx(1 + 1.5 * 0.98)
        )
        quick, slow = both().groups
        assert quick.figures.first_token.p95 == pytest.approx(0.25 + 0.25 * 0.95)
        assert slow.figures.first_token.p50 == pytest.approx(1.75)
        assert (quick.figures.imbalance, slow.figures.imbalance, found.imbalance) == (1, 3.7, 3.7)

    def test_a_group_that_does_not_tell_leaves_no_sums_and_the_others_percentiles(self) -> None:
        lost = {uid: seen for uid, seen in BOTH.items() if uid != SLOW.facts.pods[1].uid}
        found = deployment_figures(KEY, [QUICK, SLOW], lost)
        assert (found.figures.running, found.figures.output_tokens_per_second) == (None, None)
        assert found.figures.first_token.p50 is not None
        quick, slow = found.groups
        assert quick.figures.running == 12
        assert (slow.figures.running, slow.figures.imbalance) == (None, None)

    def test_scrapes_that_fail_in_a_row_are_no_figures(self) -> None:
        uid = SLOW.facts.pods[0].uid
        for failures, running in ((1, 24), (2, None)):
            failing = {**BOTH, uid: replace(BOTH[uid], failures=failures)}
            assert deployment_figures(KEY, [QUICK, SLOW], failing).figures.running == running

    def test_a_group_that_starts_is_told_and_in_no_sum(self) -> None:
        starting = known(2, GroupState.STARTING)
        found = deployment_figures(KEY, [QUICK, SLOW, starting], BOTH)
        assert found.figures == both().figures
        assert [group.known.state for group in found.groups] == ["Serving", "Serving", "Starting"]
        assert found.groups[2].figures == Figures()

    def test_no_group_delivers_nothing(self) -> None:
        assert deployment_figures(KEY, [], {}).figures == Figures()

    def test_each_rank_has_its_own_figures_and_gpu(self) -> None:
        found = deployment_figures(KEY, [SLOW], BOTH, memory(SLOW))
        ranks = list(rank_figures(found.groups[0], BOTH))
        assert [(one.rank, one.pod, one.node) for one in ranks] == [
            (0, "tiny-g1-0", "node-10"),
            (1, "tiny-g1-0", "node-10"),
            (2, "tiny-g1-0-1", "node-11"),
            (3, "tiny-g1-0-1", "node-11"),
        ]
        assert [one.figures.output_tokens_per_second for one in ranks] == [37, 1, 1, 1]
        assert ranks[3].figures.first_token.p50 == pytest.approx(1.75)
        assert all(one.gpus is not None and one.gpus.measured for one in ranks)
        assert ranks[0].gpus is not None
        assert (ranks[0].gpus.used, ranks[0].gpus.watts) == (163_840 * 2**20, pytest.approx(702.437))

    def test_a_rank_that_says_it_is_anothers_is_not_believed(self) -> None:
        """A page of pod 1 with the ranks of pod 0."""
        pods = QUICK.facts.pods
        wrong = {pods[0].uid: BOTH[pods[0].uid], pods[1].uid: BOTH[pods[0].uid]}
        ranks = list(rank_figures(deployment_figures(KEY, [QUICK], wrong).groups[0], wrong))
        assert [one.figures.running for one in ranks] == [3, 3, None, None]


class TestObjective:
    @staticmethod
    def reading(first: Mapping[float, int], **more: Any) -> EngineCounters:
        return counters(first_token=entered(FIRST_TOKEN_BOUNDS, first), **{"since": 1.0, **more})

    def test_requests_are_counted_from_look_to_look(self) -> None:
        """Of 40 between 1 and 2.5 s, by an objective of 2 s, two thirds are taken as within."""
        counts = ObjectiveCounts()
        objective = Objective(first_token=2.0)
        counts.look([("a", self.reading({0.4: 1000}, at=0.0))], objective)
        assert dict(counts.told()) == {("first_token", "within"): 0, ("first_token", "beyond"): 0}
        counts.look([("a", self.reading({0.4: 1010, 1.5: 30, 3.0: 5}, at=5.0))], objective)
        assert counts.counts["first_token", "within"] == pytest.approx(10 + 30 * 2 / 3)
        assert counts.counts["first_token", "beyond"] == pytest.approx(10 + 5)

    def test_nothing_counts_twice_or_falls_whatever_engines_do(self) -> None:
        counts, objective = ObjectiveCounts(), Objective(first_token=2.0, per_token=0.05)
        before = 0.0
        for step, (number, since) in enumerate([(10, 1.0), (20, 1.0), (20, 1.0), (5, 9.0), (15, 9.0)]):
            counts.look([("a", self.reading({0.4: number}, at=float(step), since=since))], objective)
            now = counts.counts["first_token", "within"]
            assert now >= before
            before = now
        assert before == 20, "10 before the engine began anew, and 10 after"
        counts.look([], objective)
        counts.look([("a", self.reading({0.4: 99}, at=9.0, since=9.0))], objective)
        assert counts.counts["first_token", "within"] == 20, "a pod that was not looked at begins anew"

    def test_the_operators_own_requests_alone_are_none(self) -> None:
        counts, objective = ObjectiveCounts(), Objective(first_token=2.0)
        counts.look([("a", self.reading({}, at=0.0))], objective)
        counts.look([("a", self.reading({9.0: 8}, at=5.0, own_output_tokens=8.0))], objective)
        assert sum(counts.counts.values()) == 0

    def test_without_an_objective_there_is_nothing_to_keep(self) -> None:
        counts = ObjectiveCounts()
        counts.look([("a", self.reading({}, at=0.0))], Objective(first_token=2.0))
        counts.look([("a", self.reading({}, at=1.0))], Objective())
        assert not dict(counts.told())


class _Known(DeliveredKeeper):
    """With groups of passes that were not."""

    def __init__(self, groups: Sequence[KnownGroup]) -> None:
        super().__init__(lambda: Snapshot(BOTH, 40.0), lambda: {**memory(QUICK), **memory(SLOW)})
        from moe_operator.controller.delivered_keeper import _Kept

        for name in ("tiny", "other"):
            self._kept["serving", name] = _Kept(tuple(groups), Objective(first_token=2.0))


class TestMetrics:
    @staticmethod
    def told(groups: Sequence[KnownGroup]) -> dict[tuple[str, tuple[str, ...]], float]:
        return {(name, labels[1:]): value for name, labels, value in reported(_Known(groups).all())}

    def test_all_that_is_known_and_nothing_else(self) -> None:
        told = self.told([QUICK, SLOW])
        assert told["requests_in_engines", ("tiny", "running")] == 24
        assert told["kv_used_ratio", ("tiny",)] == 0.5
        assert told["time_to_first_token_seconds", ("tiny", "0.5")] == 0.5
        assert told["group_tokens_per_second", ("tiny", "tiny-g1", "output")] == 40
        assert told["group_imbalance_ratio", ("tiny", "tiny-g1")] == 3.7
        assert told["group_requests", ("tiny", "tiny-g0", "waiting")] == 4
        assert told["objective_requests_total", ("tiny", "first_token", "within")] == 0
        names = {name for name, _ in told}
        assert not names & {"prefix_hit_ratio", "draft_acceptance_ratio"}, "nobody looked anything up"
        assert names <= set(DELIVERED_FIGURES)
        assert not [
            at for at in self.told([known(2, GroupState.STARTING)]) if at[0] != "objective_requests_total"
        ]

    def test_the_page_has_each_once(self) -> None:
        from prometheus_client import generate_latest

        metrics, asked = Metrics(), []

        def of(name: str) -> Any:
            return lambda: asked.append(name) or ()

        metrics.watch_values(
            WatchedValues(
                hbm=of("hbm"),
                accounts=of("accounts"),
                delivered=lambda: reported(_Known([QUICK, SLOW]).all()),
            )
        )
        text = generate_latest(metrics.registry).decode()
        assert sorted(asked) == ["accounts", "hbm"], "computed once for all figures"
        assert text.count("# TYPE moe_operator_group_requests gauge") == 1
        assert (
            'moe_operator_requests_in_engines{name="tiny",namespace="serving",state="running"} 24.0' in text
        )
        assert (
            'moe_operator_objective_requests_total{name="tiny",namespace="serving",outcome="within",part="first_token"}'
            in text
        )


class TestPage:
    @staticmethod
    async def get(path: str, leads: bool = True, leader: str = "operator-1_ab") -> tuple[int, Any]:
        found = FiguresPage(_Known([QUICK, SLOW]), lambda: leads, lambda: leader, lambda: NOW)
        server = HealthServer(lambda: (_ for _ in ()).throw(AssertionError), Metrics().registry, found)
        await server.start("127.0.0.1", 0, 0)
        try:
            url = f"http://127.0.0.1:{server.ports[1]}{path}"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status, json.loads(await answer.text())
        finally:
            await server.stop()

    async def test_deployments_groups_and_ranks(self) -> None:
        status, body = await self.get("/figures")
        assert status == 200
        assert (body["at"], body["windowSeconds"]) == ("2027-01-15T08:00:00Z", 30)
        assert [(one["namespace"], one["name"]) for one in body["deployments"]] == [
            ("serving", "other"),
            ("serving", "tiny"),
        ]
        told = body["deployments"][1]
        assert told["figures"]["outputTokensPerSecond"] == 80
        assert told["figures"]["powerWatts"] == pytest.approx(8 * 702.437, rel=1e-5)
        assert "draftAcceptanceRatio" not in told["figures"]
        slow = told["groups"][1]
        assert (slow["name"], slow["state"], slow["figures"]["imbalanceRatio"]) == ("tiny-g1", "serving", 3.7)
        assert slow["figures"]["timeToFirstTokenSeconds"] == {"p50": 1.75, "p95": 2.425, "p99": 2.485}
        assert slow["ranks"][2] == {
            "rank": 2,
            "pod": "tiny-g1-0-1",
            "node": "node-11",
            "figures": {
                "inputTokensPerSecond": 2.0, "outputTokensPerSecond": 1.0, "running": 3, "waiting": 1,
                "kvUsedRatio": 0.5, "preemptionsPerMinute": 0.0,
                "timeToFirstTokenSeconds": {"p50": 1.75, "p95": 2.425},
                "timePerOutputTokenSeconds": {"p50": 0.0175, "p95": 0.02425},
                "hbmUsedBytes": 163840 * 2**20, "hbmCapacityBytes": 182642 * 2**20, "hbmSource": "Measured",
                "powerWatts": 702.437,
            },
        }  # fmt: skip

    async def test_it_is_what_readers_expect(self) -> None:
        """`kubectl moe top` reads it with this model: a key of another name would be lost without a word."""
        _, body = await self.get("/figures")
        read = FiguresRead.model_validate(body)
        assert read.model_dump(by_alias=True, mode="json", exclude_unset=True) == body

    async def test_one_deployment(self) -> None:
        _, body = await self.get("/figures?namespace=serving&name=tiny")
        assert [one["name"] for one in body["deployments"]] == ["tiny"]
        _, body = await self.get("/figures?namespace=nobody")
        assert body["deployments"] == []

    async def test_a_replica_that_does_not_lead_names_the_one_that_does(self) -> None:
        status, body = await self.get("/figures", leads=False)
        assert status == 503
        assert "operator-1_ab leads" in body["error"]
        assert "not known" in (await self.get("/figures", leads=False, leader=""))[1]["error"]

    def test_what_is_not_known_is_not_there(self) -> None:
        found = deployment_figures(KEY, [known(0)], {}, {})
        told = deployment_data(found, [list(rank_figures(found.groups[0], {}))])
        assert told["figures"] == {}
        assert [one["figures"] for one in told["groups"][0]["ranks"]] == [{}] * 4


class TestStatus:
    LATENCY = LatencyStatus(
        window_seconds=300,
        time_to_first_token_milliseconds=PercentilesStatus(p50="412", p95="1830"),
        time_per_output_token_milliseconds=PercentilesStatus(p50="23.1", p95="31", p99="48.2"),
    )

    @staticmethod
    def found(p50: float, p95: float | None = 1.83) -> LatencyStatus | None:
        return latency_status(
            Figures(first_token=Percentiles(p50, p95), per_token=Percentiles(0.02312, 0.031, 0.048151))
        )

    def test_milliseconds_of_three_digits(self) -> None:
        assert self.found(0.41234) == self.LATENCY
        assert latency_status(Figures()) is None
        assert latency_status(None) is None

    def test_only_what_moved_by_a_tenth_is_worth_telling(self) -> None:
        assert not latency_moved(self.LATENCY, self.found(0.44))
        assert latency_moved(self.LATENCY, self.found(0.46))
        assert latency_moved(self.LATENCY, self.found(0.412, 2.1))
        assert latency_moved(self.LATENCY, self.found(0.412, None))
        assert latency_moved(None, self.LATENCY)
        assert latency_moved(self.LATENCY, None)
        damaged = self.LATENCY.model_copy(
            update={"time_to_first_token_milliseconds": PercentilesStatus(p50="x")}
        )
        assert latency_moved(damaged, self.LATENCY)

    def test_a_line_for_people(self) -> None:
        assert latency_text(self.LATENCY) == (
            "first token p50 412 ms, p95 1830 ms; per output token p50 23.1 ms, p95 31 ms, p99 48.2 ms"
            " (last 5 minutes)"
        )
