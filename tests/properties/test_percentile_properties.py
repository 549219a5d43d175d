"""Percentiles over all histograms. A breach here is a p99 below a p95, or a deployment whose figure depends on how its
requests were spread over groups."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.engine_pages import FIRST_TOKEN_BOUNDS, PER_TOKEN_BOUNDS, histogram
from moe_operator.telemetry.engine_counters import Histogram, merged_histograms
from moe_operator.telemetry.percentiles import percentile, percentiles

_TIMES = st.lists(st.floats(0, 3000, allow_nan=False), max_size=200)
_BOUNDS = st.sampled_from([FIRST_TOKEN_BOUNDS, PER_TOKEN_BOUNDS, (0.1, 0.4, 1.5, math.inf), (5.0, math.inf)])
_SHARES = st.floats(0.01, 0.99)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_TIMES, _BOUNDS, st.lists(_SHARES, min_size=2, max_size=8))
def test_a_higher_percentile_is_no_shorter_time(
    times: list[float], bounds: tuple[float, ...], shares: list[float]
) -> None:
    seen = histogram(*times, bounds=bounds)
    told = [percentile(seen.bounds, seen.counts, share) for share in sorted(shares)]
    known = [one for one in told if one is not None]
    assert known == sorted(known)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_TIMES, _BOUNDS, _SHARES)
def test_it_lies_in_the_bucket_of_the_request_that_it_is(
    times: list[float], bounds: tuple[float, ...], share: float
) -> None:
    seen = histogram(*times, bounds=bounds)
    found = percentile(seen.bounds, seen.counts, share)
    if found is None:
        return
    # The request: so many are as fast.
    true = sorted(times)[max(0, math.ceil(share * len(times) - 1e-9) - 1)]
    above = next(bound for bound in bounds if true <= bound)
    below = max((bound for bound in bounds if bound < true), default=0.0)
    assert below - 1e-9 <= found <= above + 1e-9
    assert math.isfinite(found)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(_TIMES, min_size=1, max_size=5), _BOUNDS)
def test_pooled_is_as_if_one_engine_had_served_all(
    parts: list[list[float]], bounds: tuple[float, ...]
) -> None:
    pooled = merged_histograms(histogram(*part, bounds=bounds) for part in parts)
    one = histogram(*(time for part in parts for time in part), bounds=bounds)
    assert percentiles(pooled) == percentiles(one)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_TIMES, _TIMES, _BOUNDS)
def test_a_window_has_what_came_in_it_alone(
    before: list[float], more: list[float], bounds: tuple[float, ...]
) -> None:
    then, now = histogram(*before, bounds=bounds), histogram(*before, *more, bounds=bounds)
    grown = now.since(then)
    assert grown.counts == histogram(*more, bounds=bounds).counts


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(0, allow_nan=False), max_size=6, unique=True),
    st.lists(st.floats(0, 1e18), min_size=6, max_size=6),
    st.lists(st.floats(0, 1e18), min_size=6, max_size=6),
    _SHARES,
)
def test_of_any_two_readings_there_is_a_time_or_none(
    bounds: list[float], then: list[float], now: list[float], share: float
) -> None:
    """Counters that went back included."""
    ascending, size = tuple(sorted(bounds)), len(bounds)
    grown = Histogram(ascending, tuple(sorted(now[:size]))).since(
        Histogram(ascending, tuple(sorted(then[:size])))
    )
    found = percentile(grown.bounds, grown.counts, share)
    assert found is None or 0 <= found < math.inf
