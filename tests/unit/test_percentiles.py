"""Percentiles from buckets, to hand calculations. Lost if they are wrong: an objective that is missed and looks kept,
or a page at night for a single slow request."""

import math

import pytest

from factories.engine_pages import FIRST_TOKEN_BOUNDS, PER_TOKEN_BOUNDS, entered
from moe_operator.telemetry.engine_counters import Histogram, merged_histograms
from moe_operator.telemetry.percentiles import Percentiles, percentile, percentiles

#: 100 requests within (0.25, 0.5], 80 within (0.5, 0.75], 18 within (1, 2.5], 2 within (2.5, 5].
SEEN = entered(FIRST_TOKEN_BOUNDS, {0.4: 100, 0.6: 80, 2.0: 18, 3.0: 2})


def test_the_place_within_the_bucket_is_taken_in_proportion() -> None:
    """p50: the 100th of 200 is the last of its bucket. p95: the 190th is the 10th of 18 from 1 s on. p99: the 198th."""
    assert percentiles(SEEN) == Percentiles(0.5, pytest.approx(1 + 1.5 * 10 / 18), 2.5)


def test_what_came_in_a_window_is_the_difference_of_two_readings() -> None:
    later = entered(FIRST_TOKEN_BOUNDS, {0.4: 100, 0.6: 80, 2.0: 18 + 40, 3.0: 2})
    assert percentiles(later.since(SEEN)).p50 == pytest.approx(1.75), "the 40 of them are all from 1 to 2.5 s"
    assert not percentiles(SEEN.since(SEEN))
    assert SEEN.since(entered(PER_TOKEN_BOUNDS, {0.1: 1})) == Histogram()


def test_a_mean_of_percentiles_is_no_percentile() -> None:
    """One group with 99 fast requests of 100, another with 99 slow ones: p50 of all is between."""
    quick = entered(PER_TOKEN_BOUNDS, {0.02: 99, 2.0: 1})
    slow = entered(PER_TOKEN_BOUNDS, {0.02: 1, 2.0: 99})
    found = percentiles(merged_histograms([quick, slow]))
    assert found.p50 == pytest.approx(0.025), "the 100th of 200 is the last fast one"
    assert found.p95 == pytest.approx(1 + 1.5 * 90 / 100)


@pytest.mark.parametrize(
    ("entries", "known"),
    [
        (1, (False, False, False)),
        (2, (True, False, False)),
        (20, (True, True, False)),
        (100, (True, True, True)),
    ],
)
def test_a_percentile_that_a_single_request_would_be_is_absent(entries: int, known: tuple[bool, ...]) -> None:
    found = percentiles(entered(FIRST_TOKEN_BOUNDS, {0.3: entries}))
    assert tuple(one is not None for one in (found.p50, found.p95, found.p99)) == known


def test_requests_that_are_not_meant_do_not_make_enough() -> None:
    seen = entered(FIRST_TOKEN_BOUNDS, {0.3: 20})
    assert percentiles(seen, others=1.0).p95 is None
    assert not percentiles(seen, others=20.0)


def test_beyond_the_last_bound_nothing_is_known() -> None:
    seen = entered(PER_TOKEN_BOUNDS, {0.02: 90, 100.0: 10})
    assert percentiles(seen) == Percentiles(pytest.approx(0.01 + 0.015 * 50 / 90 * (90 / 90)), None, None)
    assert not percentiles(Histogram((math.inf,), (1000.0,), 5.0)), "a page with the count alone"
    assert not percentiles(Histogram())


@pytest.mark.parametrize(
    ("bounds", "p50"),
    [
        ((10.0, math.inf), None),  # anything from 0 to 10 s
        ((0.1, 1.0, 10.0, math.inf), None),  # from 1 to 10 s
        ((1.0, 5.0, 10.0, math.inf), 3.0),  # as vLLM's widest
        ((0.01, 0.02, math.inf), None),  # beyond
    ],
)
def test_a_bucket_too_wide_to_say_anything_is_absent(bounds: tuple[float, ...], p50: float | None) -> None:
    assert percentiles(entered(bounds, {4.0: 1000})).p50 == p50


def test_vllms_first_buckets_are_fine_enough() -> None:
    assert percentile(PER_TOKEN_BOUNDS, entered(PER_TOKEN_BOUNDS, {0.008: 10}).counts, 0.5) == 0.005
    assert percentile(FIRST_TOKEN_BOUNDS, entered(FIRST_TOKEN_BOUNDS, {0.003: 10}).counts, 0.5) == 0.003
