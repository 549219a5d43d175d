"""Readings of engines over all pages, groups and histories: nothing is counted twice or lost.

A breach here is a wrong number of groups: the autoscaler takes differences of these figures and divides by them.
"""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.engine_pages import BOUNDS, histogram, metrics, page
from moe_operator.telemetry.engine_counters import EngineCounters, Histogram, merged, merged_histograms
from moe_operator.telemetry.metrics_page import parse_metrics
from moe_operator.telemetry.own_requests import Own
from moe_operator.telemetry.window import PodWindow

COUNTS = st.integers(0, 10**9).map(float)
#: Whole seconds, so that sums are exact in any order.
ENTRIES = st.lists(st.sampled_from([0.0, 1.0, 5.0]), max_size=5)


@st.composite
def readings(draw: st.DrawFn, bounds: tuple[float, ...] = BOUNDS) -> EngineCounters:
    running = draw(st.integers(0, 1000))
    # Of 64ths, so that sums are the same in any order.
    kv = draw(st.integers(0, 64)) / 64
    return EngineCounters(
        at=float(draw(st.integers(0, 9))),
        since=float(draw(st.integers(0, 9))),
        ranks=1,
        ranks_lost=draw(st.integers(0, 2)),
        running=running,
        waiting=draw(st.integers(0, 1000)),
        running_worst=running,
        kv_worst=kv,
        kv_sum=kv,
        prompt_tokens=draw(COUNTS),
        cached_prompt_tokens=draw(COUNTS),
        output_tokens=draw(COUNTS),
        finished=draw(COUNTS),
        aborted=draw(COUNTS),
        preemptions=draw(COUNTS),
        inter_token_sum=draw(COUNTS),
        inter_token_count=draw(COUNTS),
        first_token=histogram(*draw(ENTRIES), bounds=bounds),
        per_token=histogram(*draw(ENTRIES), bounds=bounds),
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(0, 300), readings(), min_size=1, max_size=4))
def test_a_page_of_ranks_reads_as_their_readings_together(ranks: dict[int, EngineCounters]) -> None:
    found = parse_metrics(page(ranks))
    assert found is not None
    assert found.ranks == {str(rank).encode() for rank in ranks}
    assert found.counters == replace(merged(list(ranks.values())), at=0.0, since=0.0, ranks_lost=0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(readings(), min_size=2, max_size=5), st.data())
def test_pods_make_the_same_group_in_any_order_and_in_any_parts(
    pods: list[EngineCounters], data: st.DataObject
) -> None:
    whole = merged(pods)
    assert merged(data.draw(st.permutations(pods))) == whole
    cut = data.draw(st.integers(1, len(pods) - 1))
    assert merged([merged(pods[:cut]), merged(pods[cut:])]) == whole
    assert whole.ranks == len(pods)
    assert (whole.at, whole.since) == (min(p.at for p in pods), max(p.since for p in pods))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(ENTRIES, st.sets(st.sampled_from([0.5, 1.0, 2.0, 5.0]))), min_size=1, max_size=4))
def test_histograms_of_other_bounds_are_right_wherever_they_meet(
    parts: list[tuple[list[float], set[float]]],
) -> None:
    made = [histogram(*entries, bounds=(*sorted(own), BOUNDS[-1])) for entries, own in parts]
    every = [entry for entries, _ in parts for entry in entries]
    found = merged_histograms(made)
    assert found == histogram(*every, bounds=found.bounds)
    assert set(found.bounds) == {*set.intersection(*(own for _, own in parts)), BOUNDS[-1]}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_what_the_operator_asks_never_shows_and_what_others_ask_always_does(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Each step: requests of others that end, own ones that end, and whether those are still open at the scrape, as the
    engine counts them before the operator has their answers."""
    window, others, own, since = PodWindow("u"), 0, 0, None
    window.add(0, metrics(), 0)
    for number, (theirs, ours, still_open) in enumerate(steps, 1):
        others, own = others + theirs, own + ours
        entries = [0.5] * others + [0.0] * own
        told = metrics(
            prompt_tokens=float(9 * others + 2 * own),
            output_tokens=float(4 * others + own),
            finished=float(others + own),
            per_token=histogram(*entries),
        )
        in_flight = ours if still_open else 0
        window.add(number, told, in_flight, own=Own(in_flight, 2 * own, own))
        seen = window.observation()
        assert seen is not None
        reading = seen.counters
        assert (reading.prompt_tokens, reading.output_tokens, reading.finished) == (
            9 * others,
            4 * others,
            others,
        )
        assert reading.per_token == histogram(*[0.5] * others)
        assert since in (None, reading.since)
        since = reading.since


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.booleans(), st.sets(st.integers(0, 2), min_size=1)),
        min_size=2,
        max_size=15,
    )
)
def test_between_readings_of_one_since_nothing_falls_and_all_ranks_are_the_same(
    steps: list[tuple[int, bool, set[int]]],
) -> None:
    """Engines that begin anew and ranks that are missing from a page: a reader that compares `since` sees neither."""
    window, totals, told_before = PodWindow("u"), dict.fromkeys(range(3), 0), set[int]()
    last: EngineCounters | None = None
    ranks_last: set[int] = set()
    for number, (more, restarts, ranks) in enumerate(steps):
        totals = dict.fromkeys(range(3), 0) if restarts else {r: t + more for r, t in totals.items()}
        told_before |= ranks
        tokens = float(sum(totals[rank] for rank in ranks))
        window.add(number, metrics(sorted(ranks), output_tokens=tokens), None)
        seen = window.observation()
        assert seen is not None
        reading = seen.counters
        assert (reading.ranks, reading.ranks_lost) == (len(ranks), len(told_before - ranks))
        assert seen.output_tokens_per_second >= 0
        if last is not None and reading.since == last.since:
            assert ranks == ranks_last
            assert reading.output_tokens >= last.output_tokens
        last, ranks_last = reading, ranks


def test_nothing_entered_is_nothing() -> None:
    assert merged_histograms([]) == Histogram()
    assert merged_histograms([Histogram(), histogram(1.0)]) == histogram(1.0)
