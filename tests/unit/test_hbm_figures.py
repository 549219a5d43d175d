"""HBM in the status: what is used, of what, measured or estimated, and how far the planner was off.

Lost if it is wrong: an estimate that people take for a measurement; a planner whose error nobody sees; a status that is
written in every round."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan
from factories.engine_pages import counters
from factories.exporter_pages import b200, dcgm_page, of_pod, series_of
from factories.groups import NOW, admitted, group, view
from moe_operator.api import reasons
from moe_operator.api.hbm import HbmSource, HbmStatus
from moe_operator.api.status import ModelDeploymentStatus
from moe_operator.cli.hbm_text import hbm_text
from moe_operator.controller.hbm import HbmFigures, Split, hbm_figures
from moe_operator.controller.hbm_status import hbm_moved, hbm_news, hbm_status, hbm_turned
from moe_operator.controller.observed import GroupFacts
from moe_operator.planner.plan import Plan, Sizing
from moe_operator.runtime.reporting import hbm as reported
from moe_operator.telemetry.accelerator_memory import DCGM_NAMES, dcgm_memory
from moe_operator.telemetry.observation import PodObservation
from moe_operator.telemetry.pod_memory import PodMemory
from unit.test_status_fold import after, fold, learned

MIB = 2**20
#: Of one GPU in MiB; they add up to the capacity.
WEIGHTS, KV, ACTIVATIONS, BUFFERS, HEADROOM = 60_000, 100_000, 4_000, 8_000, 11_000
BLOCK = 2 * MIB


def sizing(**overrides: Any) -> Sizing:
    made: dict[str, Any] = {
        "model": "m",
        "precision": "fp8",
        "repository": None,
        "dtype": None,
        "kv_cache_dtype": "fp8",
        "context_length": 4096,
        "native_context": 4096,
        "max_sequences": 8,
        "max_batched_tokens": 8192,
        "utilization": 95,
        "redundant_experts": 0,
        "balanced": False,
        "capacity_bytes": (WEIGHTS + KV + ACTIVATIONS + BUFFERS + HEADROOM) * MIB,
        "weight_bytes": WEIGHTS * MIB,
        "activation_bytes": ACTIVATIONS * MIB,
        "buffer_bytes": BUFFERS * MIB,
        "headroom_bytes": HEADROOM * MIB,
        "kv_cache_bytes": KV * MIB,
        "kv_block_tokens": 64,
        "kv_block_bytes": BLOCK,
        "kv_cache_tokens": 1,
        "concurrency": 1,
        "sequences_per_rank": 1,
        "output_tokens_per_second": 1,
        "prompt_tokens_per_second": 1,
        "time_to_first_token_ms": 1,
        "time_per_output_token_ms": 1,
        "meets_objective": True,
    }
    return Sizing(**{**made, **overrides})


def plan(pods: int = 2, ranks: int = 2, tensor: int = 1, accelerator: str = "B200", **sized: Any) -> Plan:
    return replace(group_plan(pods, ranks, tensor, accelerator=accelerator), sizing=sizing(**sized))


def facts(pods: int = 2) -> GroupFacts:
    return admitted(group(size=pods))


def engine(uid: str, kv: float = 0.25, ranks: int = 2, blocks: int = 0) -> PodObservation:
    told = counters(ranks=ranks, kv_sum=kv * ranks, kv_worst=kv, kv_blocks=blocks)
    return PodObservation(uid, 0.0, 0, 0, None, 0.0, 0.0, None, None, 0.0, counters=told)


def engines(of: GroupFacts, **more: Any) -> dict[str, PodObservation]:
    return {pod.uid: engine(pod.uid, **more) for pod in of.pods}


def measured(of: GroupFacts, *used: tuple[int, ...]) -> dict[str, PodMemory]:
    """MiB by pod and GPU, by way of a page; all have 182642."""
    found = {}
    for pod, figures in zip(of.pods, used, strict=False):
        page = dcgm_page([b200(at, one, 182_642 - one, of_pod(pod.name)) for at, one in enumerate(figures)])
        found[pod.uid] = PodMemory(NOW, tuple(dcgm_memory(series_of(page, DCGM_NAMES).series)[0]))
    return found


def figures(made: HbmFigures | None) -> HbmFigures:
    assert made is not None
    return made


class TestEstimate:
    def test_a_gpu_that_serves_holds_what_was_planned_and_its_whole_kv_cache(self) -> None:
        of = facts()
        found = figures(hbm_figures([(of, plan())], {}, engines(of)))
        assert found.used == 4 * (WEIGHTS + KV + ACTIVATIONS + BUFFERS) * MIB
        assert found.capacity == 4 * 183_000 * MIB
        assert found.split == Split(
            4 * WEIGHTS * MIB, KV * MIB, 3 * KV * MIB, 4 * (ACTIVATIONS + BUFFERS) * MIB
        )
        assert (found.measured, found.is_measured, found.worst, found.error) == (0, False, None, None)

    def test_the_kv_cache_is_as_the_engine_made_it(self) -> None:
        of = facts(1)
        made = 2 * 45_000  # blocks of both ranks: 90,000 MiB each
        found = figures(hbm_figures([(of, plan(pods=1))], {}, engines(of, kv=0.5, blocks=made)))
        assert found.split == Split(
            2 * WEIGHTS * MIB, 90_000 * MIB, 90_000 * MIB, 2 * (ACTIVATIONS + BUFFERS) * MIB
        )
        absurd = figures(hbm_figures([(of, plan(pods=1))], {}, engines(of, blocks=10**9)))
        assert absurd.used == 2 * (WEIGHTS + KV + ACTIVATIONS + BUFFERS) * MIB

    def test_nothing_is_said_of_a_model_whose_size_nobody_knows(self) -> None:
        of = facts()
        unknown = group_plan(2, 2, accelerator="B200")
        assert hbm_figures([(of, unknown)], {}, engines(of)) is None
        assert hbm_figures([], {}, {}) is None
        found = figures(hbm_figures([(of, unknown)], measured(of, (1000, 2000), (3000, 4000)), engines(of)))
        assert found.used == 10_000 * MIB
        assert (found.split, found.error, found.is_measured) == (None, None, True)


class TestMeasured:
    USED = ((170_000, 171_000), (172_500, 169_000))

    def test_all_parts_and_the_fullest_rank(self) -> None:
        of = facts()
        blocks = 2 * 48_000  # 96,000 MiB a rank
        found = figures(
            hbm_figures([(of, plan())], measured(of, *self.USED), engines(of, kv=0.5, blocks=blocks))
        )
        assert found.is_measured
        assert found.used == 682_500 * MIB
        assert found.capacity == 4 * 182_642 * MIB
        known = WEIGHTS + 96_000
        assert found.split == Split(
            4 * WEIGHTS * MIB, 2 * 96_000 * MIB, 2 * 96_000 * MIB, (682_500 - 4 * known) * MIB
        )
        assert found.worst is not None
        assert (found.worst.pod, found.worst.rank, found.worst.gpu) == ("tiny-g0-0-1", 2, "0")
        assert found.worst.share == pytest.approx(172_500 / 182_642)
        # 172,500 less the KV cache, against weights, activations and buffers.
        assert found.error == pytest.approx((172_500 - 96_000 - 72_000) / 182_642)
        assert found.dram_active == pytest.approx(0.412305)
        assert found.watts == pytest.approx(4 * 702.437)

    def test_ranks_of_several_gpus(self) -> None:
        of = facts()
        wide = plan(ranks=2, tensor=2)
        found = figures(hbm_figures([(of, wide)], measured(of, (1, 2, 3, 4), (5, 6, 7, 8)), engines(of)))
        assert [gpu.rank for gpu in found.gpus] == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_one_gpu_that_nobody_measured_makes_it_an_estimate(self) -> None:
        of = facts()
        found = figures(
            hbm_figures([(of, plan())], measured(of, (170_000, 171_000), (172_500,)), engines(of))
        )
        assert (len(found.gpus), found.measured, found.is_measured) == (4, 3, False)
        assert found.gpus[2].rank is None, "which of the pod's ranks has it is not known"
        assert found.used == (170_000 + 171_000 + 172_500 + 172_000) * MIB

    def test_without_the_engines_word_nothing_is_held_against_the_planner(self) -> None:
        of = facts()
        found = figures(hbm_figures([(of, plan())], measured(of, *self.USED), {}))
        assert found.error is None
        assert found.is_measured

    def test_on_cpu_a_pod_is_measured_as_one(self) -> None:
        of = facts(1)
        host = plan(pods=1, accelerator="cpu", headroom_bytes=0)
        seen = {of.pods[0].uid: PodMemory(NOW, working_set=350_000 * MIB)}
        found = figures(hbm_figures([(of, host)], seen, engines(of, blocks=KV)))
        (one,) = found.gpus
        assert (one.used, one.capacity, one.measured, one.rank) == (
            350_000 * MIB,
            2 * 183_000 * MIB,
            True,
            None,
        )
        assert found.error == pytest.approx((350_000 - 2 * 172_000) / (2 * 183_000))
        estimated = figures(hbm_figures([(of, host)], {}, engines(of)))
        assert estimated.used == 2 * 172_000 * MIB
        unknown = group_plan(1, 2)
        asked = {of.pods[0].uid: PodMemory(NOW, working_set=3 * MIB, asked=4 * MIB)}
        assert figures(hbm_figures([(of, unknown)], asked, {})).share == 0.75
        assert hbm_figures([(of, unknown)], {}, {}) is None


def found(used: int = 172_000, kv: float = 0.25, blocks: int = KV, exporter: bool = True) -> HbmFigures:
    """Of one pod with two GPUs that hold so many MiB."""
    of = facts(1)
    seen = measured(of, (used, used)) if exporter else {}
    return figures(hbm_figures([(of, plan(pods=1))], seen, engines(of, kv=kv, blocks=blocks)))


class TestStatus:
    def test_measured_and_estimated_are_told_apart_at_a_glance(self) -> None:
        status = hbm_status(None, found(), NOW)
        assert status is not None
        assert (status.source, status.summary, status.percent) == (HbmSource.MEASURED, "94%", 94)
        assert (status.gpus, status.measured_gpus, status.bandwidth_percent) == (2, 2, 41)
        assert status.worst is not None
        assert (status.worst.rank, status.worst.percent) == (0, 94)
        assert status.planner_error_percent == "0.0"
        guess = hbm_status(None, found(exporter=False), NOW)
        assert guess is not None
        assert (guess.source, guess.summary) == (HbmSource.ESTIMATED, "~94%")
        assert (guess.worst, guess.planner_error_percent, guess.bandwidth_percent) == (None, None, None)

    def test_figures_are_written_when_they_moved_and_not_more_often_than_every_half_minute(self) -> None:
        serving = [view(facts(1))]
        status = fold(learned(groups=serving, hbm=found()))
        assert status.hbm is not None
        same = fold(after(status, groups=serving, hbm=found(used=172_900), now=NOW + 60))
        assert same == status, "half a percent is no news"
        early = after(status, groups=serving, hbm=found(used=176_000), now=NOW + 20)
        assert fold(replace(early, figures_written_at=NOW)) == status
        late = fold(replace(early, figures_written_at=NOW, now=NOW + 31))
        assert late.hbm is not None
        assert late.hbm.used_mib == 2 * 176_000

    def test_the_end_of_a_measurement_is_told_at_once(self) -> None:
        serving = [view(facts(1))]
        status = fold(learned(groups=serving, hbm=found()))
        gone = after(status, groups=serving, hbm=found(exporter=False), now=NOW + 5, figures_written_at=NOW)
        told = fold(gone)
        assert told.hbm is not None
        assert told.hbm.source is HbmSource.ESTIMATED
        back = fold(after(told, groups=serving, hbm=found(), now=NOW + 10, figures_written_at=NOW + 5))
        assert back.hbm == status.hbm

    def test_a_deployment_without_groups_has_none(self) -> None:
        status = fold(learned(groups=[view(facts(1))], hbm=found()))
        assert fold(after(status, groups=[])).hbm is None

    def test_the_kv_cache_in_use_is_news_by_the_capacity(self) -> None:
        one = hbm_status(None, found(kv=0.25), NOW)
        assert not hbm_moved(one, hbm_status(one, found(kv=0.26), NOW))
        assert hbm_moved(one, hbm_status(one, found(kv=0.28), NOW))
        assert not hbm_turned(one, hbm_status(one, found(kv=0.28), NOW))

    def test_people_read_it_in_one_line(self) -> None:
        status = hbm_status(None, found(), NOW)
        assert status is not None
        assert hbm_text(status) == (
            "336 of 357 GiB (94 %), measured: weights 117, KV cache in use 49, free 146, other 23;"
            " fullest GPU 0 of tiny-g0-0, rank 0 on node-0: 94 %; planner off by 0.0 %"
        )
        guess = hbm_status(None, found(exporter=False), NOW)
        assert guess is not None
        assert "(94 %), estimated (0 of 2 GPUs measured): weights 117" in hbm_text(guess)

    def test_it_is_read_as_it_was_written(self) -> None:
        status = fold(learned(groups=[view(facts(1))], hbm=found()))
        assert ModelDeploymentStatus.model_validate(status.wire()) == status


class TestPlannerError:
    def after(self, before: HbmStatus | None, used: int, **more: Any) -> tuple[HbmStatus, list[Any]]:
        status = hbm_status(before, found(used, **more), NOW)
        assert status is not None
        return status, list(hbm_news(before, status, None))

    def test_it_is_told_once_and_again_only_after_it_was_right(self) -> None:
        status, news = self.after(None, 172_000)
        assert news == []
        status, news = self.after(status, 182_000)  # 5.5 % more
        ((type_, reason, text),) = news
        assert (type_, reason) == ("Warning", reasons.MEMORY_OFF_PLAN)
        assert "5.5 % of its memory more than was planned" in text
        assert status.off_plan_since is not None
        for used in (182_500, 180_500, 181_500):  # also where it passes the threshold again
            status, news = self.after(status, used)
            assert news == []
        status, news = self.after(status, 182_000, exporter=False)
        assert (news, status.off_plan_since is not None) == ([], True), "nothing measured mends nothing"
        status, news = self.after(status, 175_000)
        assert (news, status.off_plan_since) == ([], None)
        status, news = self.after(status, 160_000)
        assert len(news) == 1
        assert "6.6 % of its memory less" in news[0][2]


def test_metrics_have_each_rank_and_every_part() -> None:
    of = facts()
    seen = measured(of, *TestMeasured.USED)
    known = [
        (("serving", "tiny"), figures(hbm_figures([(of, plan())], seen, engines(of, blocks=2 * 50_000))))
    ]

    def told(name: str) -> dict[tuple[str, ...], float]:
        return {labels: value for figure, labels, value in reported(known) if figure == name}

    ranks = told("hbm_rank_used_ratio")
    at = ("serving", "tiny", "tiny-g0")
    assert set(ranks) == {
        (*at, "tiny-g0-0", "0"),
        (*at, "tiny-g0-0", "1"),
        (*at, "tiny-g0-0-1", "2"),
        (*at, "tiny-g0-0-1", "3"),
    }
    assert ranks[*at, "tiny-g0-0-1", "2"] == pytest.approx(172_500 / 182_642)
    parts = {labels[2]: value for labels, value in told("hbm_bytes").items()}
    assert parts["used"] == 682_500 * MIB
    assert parts["weights"] + parts["kv_used"] + parts["kv_free"] + parts["other"] == parts["used"]
    assert told("hbm_gpus") == {
        ("serving", "tiny", "measured"): 4,
        ("serving", "tiny", "estimated"): 0,
    }
    assert list(told("hbm_planner_error_ratio").values()) == [pytest.approx((172_500 - 172_000) / 182_642)]
