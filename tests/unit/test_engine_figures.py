"""What engines deliver, from their pages to figures, to hand calculations. Lost if it is wrong: a rank that gets
nothing to do and nobody sees; a rate that a restart made; a share of nothing."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from factories.engine_pages import FIRST_TOKEN_BOUNDS, PER_TOKEN_BOUNDS, counters, entered, page
from moe_operator.telemetry.engine_counters import EngineCounters
from moe_operator.telemetry.figures import LONG, Figures, figures, imbalance, rank_spans
from moe_operator.telemetry.ignored import Ignored
from moe_operator.telemetry.metrics_page import parse_metrics
from moe_operator.telemetry.observation import PodObservation
from moe_operator.telemetry.own_requests import Own
from moe_operator.telemetry.window import PodWindow


def rank(**told: Any) -> EngineCounters:
    """Of one that has served `first` and `later` requests: times (s) with how many took them."""
    first, later = told.pop("first", {}), told.pop("later", {})
    return counters(
        first_token=entered(FIRST_TOKEN_BOUNDS, first), per_token=entered(PER_TOKEN_BOUNDS, later), **told
    )


def seen(window: PodWindow) -> PodObservation:
    found = window.observation()
    assert found is not None
    return found


def scraped(
    window: PodWindow, at: float, ranks: Mapping[int, EngineCounters], own: Own | None = None
) -> None:
    read = parse_metrics(page(ranks))
    assert read is not None
    assert not read.ignored
    window.add(at, read, 0, own=own)


def of_pod(window: PodWindow) -> Figures:
    return figures([seen(window).span])


def by_rank(window: PodWindow) -> dict[int, Figures]:
    told = seen(window)
    assert told.newest is not None
    return {number: figures([span]) for number, span in rank_spans(told.newest, told.recent, told.long)}


class TestPage:
    def test_every_figure_is_read_for_each_rank(self) -> None:
        told = {
            number: rank(
                running=3 + number, waiting=number, running_worst=3 + number, kv_worst=0.25, kv_sum=0.25,
                prompt_tokens=4e6, output_tokens=1e6, prefix_queries=4e6, prefix_hits=1e6, preemptions=7.0,
                draft_tokens=900.0, accepted_tokens=600.0, first={0.4: 5}, later={0.02: 4},
            )
            for number in (8, 9)
        }  # fmt: skip
        found = parse_metrics(page(told))
        assert found is not None
        assert (found.counters.prefix_queries, found.counters.prefix_hits) == (8e6, 2e6)
        assert (found.counters.draft_tokens, found.counters.accepted_tokens) == (1800, 1200)
        assert found.table.ranks == (8, 9)
        one = found.table.row(1, 5.0)
        assert (one.running, one.waiting, one.kv_worst, one.output_tokens) == (12, 9, 0.25, 1e6)
        assert (one.first_token.counts, one.per_token.counts) == (
            told[9].first_token.counts,
            told[9].per_token.counts,
        )

    @pytest.mark.parametrize(
        ("line", "instead", "reason"),
        [
            (b'generation_tokens_total{engine="1"', b"NaN", Ignored.NOT_A_NUMBER),
            (b'generation_tokens_total{engine="1"', b"+Inf", Ignored.NOT_A_NUMBER),
            (b'generation_tokens_total{engine="1"', b"1.2.3", Ignored.NOT_A_NUMBER),
            (b'generation_tokens_total{engine="1"', b"-5", Ignored.OUT_OF_RANGE),
            (b'generation_tokens_total{engine="1"', b"1e300", Ignored.OUT_OF_RANGE),
            (b'kv_cache_usage_perc{engine="1"', b"25.0", Ignored.OUT_OF_RANGE),
            (b'time_to_first_token_seconds_bucket{engine="1",le="0.001"', b"99", Ignored.OUT_OF_RANGE),
            (b'time_to_first_token_seconds_count{engine="1"', b"1", Ignored.OUT_OF_RANGE),
        ],
    )
    def test_a_rank_that_says_nonsense_is_not_covered_and_that_is_counted(
        self, line: bytes, instead: bytes, reason: Ignored
    ) -> None:
        lines = page({0: rank(first={0.4: 5}), 1: rank(first={0.4: 5})}).split(b"\n")
        at = next(n for n, one in enumerate(lines) if one.startswith(b"vllm:" + line))
        lines[at] = lines[at].rpartition(b" ")[0] + b" " + instead
        found = parse_metrics(b"\n".join(lines))
        assert found is not None
        assert (found.ranks, found.table.ranks, dict(found.ignored)) == ({b"0"}, (0,), {reason: 1})
        assert found.counters.first_token.count in (5, 10)
        assert found.counters.kv_worst <= 1

    def test_buckets_that_are_none_are_counted(self) -> None:
        for le in (b"abc", b"-1.0", b"nan", b"0.0010"):
            told = page({0: rank(first={0.4: 5})}).replace(
                b'seconds_bucket{engine="0",le="0.005"', (b'seconds_bucket{engine="0",le="' + le + b'"')
            )
            found = parse_metrics(told)
            assert found is not None
            assert found.ignored[Ignored.NOT_A_SERIES] == 1
            assert found.ranks == frozenset()

    def test_ranks_that_no_pod_has_are_bounded(self) -> None:
        lines = (
            b'vllm:num_requests_running{engine="%d",model_name="m"} 1.0' % number for number in range(5000)
        )
        found = parse_metrics(b"\n".join(lines))
        assert found is not None
        assert (len(found.ranks), found.ignored[Ignored.TOO_MANY_SERIES]) == (1024, 5000 - 1024)


class TestFigures:
    def test_rates_and_ratios_are_of_sums(self) -> None:
        """Over 30 s. Hits: (90 + 10) of (100 + 900), not the mean of 90 % and 1 %."""
        window = PodWindow("u")
        for step in range(7):
            each = {
                0: rank(
                    running=2, kv_worst=0.5, prompt_tokens=100.0 * step, output_tokens=50.0 * step,
                    prefix_queries=100.0 * step / 6, prefix_hits=90.0 * step / 6, preemptions=1.0 * step,
                ),
                1: rank(
                    running=1, waiting=4, kv_worst=0.2, prompt_tokens=20.0 * step, output_tokens=10.0 * step,
                    prefix_queries=900.0 * step / 6, prefix_hits=10.0 * step / 6,
                ),
            }  # fmt: skip
            scraped(window, 5.0 * step, each)
        found = of_pod(window)
        assert (found.input_tokens_per_second, found.output_tokens_per_second) == (24, 12)
        assert (found.running, found.waiting) == (3, 4)
        assert (found.kv_used, found.kv_used_worst) == (pytest.approx(0.35), 0.5)
        assert found.prefix_hits == pytest.approx(0.1)
        assert found.preemptions_per_minute == pytest.approx(12)
        assert found.draft_acceptance is None, "no speculative decoding"
        ranks = by_rank(window)
        assert ranks[0].prefix_hits == pytest.approx(0.9)
        assert [ranks[n].output_tokens_per_second for n in (0, 1)] == [10, 2]
        assert [ranks[n].preemptions_per_minute for n in (0, 1)] == [12, 0]

    def test_accepted_tokens_of_speculative_decoding(self) -> None:
        window = PodWindow("u")
        scraped(window, 0, {0: rank(output_tokens=1.0, draft_tokens=100.0, accepted_tokens=10.0)})
        scraped(window, 5, {0: rank(output_tokens=9.0, draft_tokens=300.0, accepted_tokens=170.0)})
        assert of_pod(window).draft_acceptance == pytest.approx(160 / 200)

    def test_percentiles_look_back_five_minutes_and_no_more(self) -> None:
        """A slow hour before is not in them; 20 requests every 5 s are."""
        window = PodWindow("u")
        slow = {9.0: 5000}
        for step in range(200):
            fast = 20 * max(0, step - 100)
            told = rank(
                output_tokens=10.0 * step + 1, first=slow | {0.4: fast}, later={0.02: fast} if fast else {}
            )
            scraped(window, 5.0 * step, {0: told})
        found = of_pod(window)
        assert found.first_token.p50 == pytest.approx(0.25 + 0.25 / 2)
        assert found.first_token.p99 == pytest.approx(0.25 + 0.25 * 0.99)
        assert found.per_token.p95 == pytest.approx(0.01 + 0.015 * 0.95)
        assert found == figures([by_rank_span(window)]), "one rank is the pod"
        assert len(window._marks) <= LONG / 30 + 2

    def test_without_an_earlier_reading_rates_are_not_known(self) -> None:
        window = PodWindow("u")
        scraped(window, 0, {0: rank(running=2, output_tokens=1e9, first={0.4: 1000})})
        found = of_pod(window)
        assert (found.running, found.output_tokens_per_second, found.first_token.p50) == (2, None, None)

    def test_an_engine_that_began_anew_is_counted_from_there(self) -> None:
        window = PodWindow("u")
        for step in range(10):
            scraped(window, 5.0 * step, {0: rank(output_tokens=100.0 * step, first={9.0: 50 * step})})
        scraped(window, 50, {0: rank(output_tokens=7.0, first={0.4: 10})})
        assert of_pod(window).output_tokens_per_second is None
        scraped(window, 55, {0: rank(output_tokens=27.0, first={0.4: 110})})
        found = of_pod(window)
        assert found.output_tokens_per_second == pytest.approx(4)
        assert found.first_token.p99 == pytest.approx(0.25 + 0.25 * 0.99), "none of the slow ones from before"

    def test_an_idle_engine_has_a_rate_of_nothing_and_no_percentiles(self) -> None:
        window, own = PodWindow("u"), Own()
        for step in range(20):
            # A canary at 50 s, which took 3 s to its first token.
            if step == 10:
                own = Own(prompt_tokens=2, output_tokens=1)
            tokens, slow = own.output_tokens, {3.0: own.output_tokens} if own.output_tokens else {}
            told = rank(
                prompt_tokens=5.0 + 2 * tokens, output_tokens=5.0 + tokens, finished=1.0 + tokens, first=slow
            )
            scraped(window, 5.0 * step, {0: told}, own)
        found = of_pod(window)
        assert (found.input_tokens_per_second, found.output_tokens_per_second) == (0, 0)
        assert not found.first_token

    def test_a_canary_before_the_first_request_is_in_no_percentile(self) -> None:
        window = PodWindow("u")
        own = Own(prompt_tokens=2, output_tokens=1)
        scraped(window, 0, {0: rank()})
        scraped(
            window,
            5,
            {0: rank(prompt_tokens=2.0, output_tokens=1.0, finished=1.0, first={3.0: 1}, later={0.0: 1})},
            own,
        )
        told = rank(
            prompt_tokens=900.0,
            output_tokens=90.0,
            finished=3.0,
            first={3.0: 1, 0.4: 2},
            later={0.0: 1, 0.02: 2},
        )
        scraped(window, 10, {0: told}, own)
        for found in (of_pod(window), by_rank(window)[0]):
            assert found.first_token.p50 == pytest.approx(0.375)
            assert found.per_token.p50 == pytest.approx(0.0175)

    def test_more_than_all_of_it_is_nobodys_figure(self) -> None:
        window = PodWindow("u")
        scraped(window, 0, {0: rank(output_tokens=1.0)})
        scraped(window, 5, {0: rank(output_tokens=2.0, prefix_queries=5.0, prefix_hits=6.0)})
        assert of_pod(window).prefix_hits is None

    def test_of_engines_of_which_one_does_not_tell_there_is_no_sum(self) -> None:
        window = PodWindow("u")
        scraped(window, 0, {0: rank(output_tokens=0.0, prefix_queries=0.0)})
        scraped(
            window,
            5,
            {0: rank(output_tokens=10.0, running=1, kv_worst=0.5, prefix_queries=4.0, prefix_hits=1.0)},
        )
        found = figures([seen(window).span], whole=False)
        assert (found.running, found.output_tokens_per_second) == (None, None)
        assert (found.prefix_hits, found.kv_used_worst) == (0.25, 0.5), "of those that tell"
        assert figures([]) == Figures()


def by_rank_span(window: PodWindow) -> Any:
    told = seen(window)
    assert told.newest is not None
    ((_, span),) = rank_spans(told.newest, told.recent, told.long)
    return span


class TestImbalance:
    @staticmethod
    def told(*tokens: tuple[float, float]) -> float | None:
        """Tokens of each rank before and now, in two pods."""
        tables = []
        for at in (0, 1):
            read = [parse_metrics(page({n: rank(output_tokens=one[at]) for n, one in enumerate(tokens)}))]
            assert read[0] is not None
            tables.append(read[0].table)
        return imbalance([(tables[1], tables[0])])

    def test_the_busiest_rank_over_the_mean(self) -> None:
        assert self.told((0, 1000), (500, 1500), (0, 1000), (0, 1000)) == 1
        assert self.told((0, 4000), (0, 0), (0, 0), (0, 0)) == 4
        assert self.told((1000, 1600), (1000, 1200)) == pytest.approx(1.5)

    def test_a_few_tokens_say_nothing(self) -> None:
        assert self.told((0, 199), (0, 0)) is None
        assert self.told((0, 200), (0, 0)) == 2
        assert self.told((0, 5000)) is None, "one rank"

    def test_what_cannot_be_compared_says_nothing(self) -> None:
        one, two = (parse_metrics(page({n: rank(output_tokens=1e6) for n in range(size)})) for size in (2, 3))
        assert one is not None
        assert two is not None
        assert imbalance([(two.table, one.table)]) is None
        assert imbalance([(two.table, None)]) is None
        assert imbalance([]) is None


def test_rows_that_are_not_there() -> None:
    read = parse_metrics(page({0: rank()}))
    assert read is not None
    with pytest.raises(IndexError):
        read.table.row(1, 0.0)
    assert math.isclose(read.table.row(0, 3.0).at, 3.0)
