"""`kubectl moe report`: periods and figures, by hand. Wrong ones would stand in an audit, or on a bill."""

from datetime import UTC, datetime
from typing import Any

import pytest

from factories.cluster_objects import NOW
from factories.records import DAY, SPAN, labels, recorded
from moe_operator.cli.errors import UsageError
from moe_operator.cli.report.figures import WINDOWS, Recorded, lost, step_of, taken, uptime
from moe_operator.cli.report.period import Span, period


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# --- periods --------------------------------------------------------------------------------------


def test_thirty_days_without_options() -> None:
    assert period(None, None, None, NOW) == Span(NOW - 30 * DAY, NOW)


@pytest.mark.parametrize(
    ("since", "seconds"), [("7d", 7 * DAY), ("12h", 43200.0), ("1d12h30m", 1.5 * DAY + 1800.0), ("90s", 90.0)]
)
def test_since_takes_days(since: str, seconds: float) -> None:
    assert period(since, None, None, NOW) == Span(NOW - seconds, NOW)


def test_dates_are_days_in_utc_and_the_last_one_is_in_it() -> None:
    """`--from 2026-11-01 --to 2026-11-30` is all of November."""
    found = period(None, "2026-11-01", "2026-11-30", NOW)
    assert (found.begin, found.end) == (at("2026-11-01"), at("2026-12-01"))
    assert found.seconds == 30 * DAY
    assert found.has(at("2026-11-30T23:59:59"))
    assert not found.has(at("2026-12-01"))


def test_moments_are_taken_as_they_are() -> None:
    found = period(None, "2026-11-01T01:00:00+01:00", "2026-11-01T12:00:00Z", NOW)
    assert (found.begin, found.end) == (at("2026-11-01"), at("2026-11-01T12:00:00"))


def test_a_period_that_is_not_over_ends_now_and_says_so() -> None:
    found = period(None, "2027-01-01", "2027-01-31", NOW)
    assert found.end == NOW
    assert "was not over" in found.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("30", None, None), "is not a duration"),
        (("0s", None, None), "at least a minute"),
        (("4000d", None, None), "longer than ten years"),
        (("7d", "2026-11-01", None), "--since ends now"),
        ((None, None, "2026-11-01"), "--to needs --from"),
        ((None, "2026-02-31", None), "--from: '2026-02-31' is no time"),
        ((None, "2026-11-01T00:00:00", None), "--from"),
        ((None, "2026-11-02", "2026-10-01"), "before its end"),
        ((None, "2030-01-01", None), "before now"),
    ],
)
def test_what_is_no_period_is_refused(options: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        period(*options, NOW)


def test_windows_are_a_minute_or_longer_and_make_up_the_period() -> None:
    assert step_of(Span(0, 30 * DAY)) == 1800.0
    assert step_of(Span(0, 90.0)) == 90.0
    assert step_of(Span(0, 3600.0)) == 60.0
    assert step_of(Span(0, 365 * DAY)) * WINDOWS == pytest.approx(365 * DAY)


# --- uptime ---------------------------------------------------------------------------------------

HOUR = Span(0.0, 600.0)


def seen(*windows: tuple[float, float]) -> Recorded:
    """Windows of 60 s: (samples, of these Ready)."""
    ends = [60.0 * (index + 1) for index in range(len(windows))]
    return Recorded(
        step=60.0,
        ready_count=[(end, count) for end, (count, _) in zip(ends, windows, strict=True)],
        ready_sum=[(end, ready) for end, (_, ready) in zip(ends, windows, strict=True)],
    )


def test_uptime_counts_samples() -> None:
    """Ten windows of four samples; one of them and half of another not Ready."""
    found = uptime(seen(*[(4, 4)] * 4, (4, 0), (4, 2), *[(4, 4)] * 4), HOUR)
    assert (found.known, found.ready) == (600.0, 510.0)
    (outage,) = found.outages
    assert (outage.begin, outage.end, outage.not_ready_seconds) == (
        "1970-01-01T00:04:00Z",
        "1970-01-01T00:06:00Z",
        90,
    )


def test_what_was_not_sampled_is_not_known_and_neither_up_nor_down() -> None:
    """Prometheus was away for four windows, and for half of a fifth."""
    found = uptime(seen((4, 4), (4, 4), (2, 2), (0, 0), (0, 0), (0, 0), (0, 0), (4, 4), (4, 4), (4, 4)), HOUR)
    assert (found.known, found.ready) == (330.0, 330.0)
    assert found.outages == ()


def test_outages_apart_are_two_and_more_than_fifty_are_counted() -> None:
    found = uptime(seen(*[(4, 4), (4, 0)] * 60), Span(0.0, 7200.0))
    assert len(found.outages) == 50
    assert found.left_off == 10
    assert found.known - found.ready == 3600.0


def test_a_job_that_scrapes_twice_changes_no_share() -> None:
    found = uptime(seen(*[(8, 8)] * 9, (8, 4)), HOUR)
    assert (found.known, found.ready) == (600.0, 570.0)


def test_without_samples_nothing_is_known() -> None:
    found = uptime(Recorded(step=60.0), HOUR)
    assert (found.known, found.ready, found.first) == (0.0, 0.0, None)


# --- accounts -------------------------------------------------------------------------------------

INPUT, OUTPUT = labels("tokens", kind="input"), labels("tokens", kind="output")


def counted(values: list[float | None], *, since: float | None = -1e6) -> Any:
    """Input tokens at 0, 60, ... s; None: no sample."""
    samples = [(60.0 * index, value) for index, value in enumerate(values) if value is not None]
    return taken(Recorded(step=60.0, accounts={INPUT: samples}), HOUR, since)


def test_a_period_inside_of_a_life_is_the_difference() -> None:
    found = counted([1000.0, 1010.0, 1010.0, 1500.0])
    assert found.usage.input_tokens == 500
    assert found.falls == 0


def test_gaps_are_bridged_as_accounts_are_totals() -> None:
    assert counted([1000.0, None, None, None, 1400.0]).usage.input_tokens == 400


def test_a_leader_that_lost_its_last_minutes_is_not_counted_as_a_new_beginning() -> None:
    """PromQL's increase() would say 1005 + 5: all of the total once more."""
    found = counted([1000.0, 1010.0, 1005.0, 1015.0])
    assert found.usage.input_tokens == 20
    assert found.falls == 1


@pytest.mark.parametrize(
    ("values", "tokens", "falls"),
    [
        ([1000.0, 1100.0, 30.0, 80.0], 180, 1),
        ([0.0, 100.0, 150.0, 160.0], 260, 1),  # beyond what it was by the next sample
        ([0.0, 100.0, 100.0, 30.0], 130, 1),  # that sample is still the one before
        ([0.0, 0.0, 0.0, 30.0], 30, 0),
    ],
)
def test_accounts_that_began_anew_count_from_there(
    values: list[float | None], tokens: int, falls: int
) -> None:
    found = counted(values, since=90.0)
    assert (found.usage.input_tokens, found.falls) == (tokens, falls)


def test_a_deployment_that_was_made_in_the_period_is_counted_from_zero() -> None:
    assert counted([None, None, 40.0, 90.0], since=70.0).usage.input_tokens == 90
    assert counted([None, None, 40.0, 90.0], since=None).usage.input_tokens == 50


def test_what_appears_later_than_others_began_at_zero() -> None:
    """A first failed request makes the series that counts it."""
    late = {OUTPUT: [(180.0, 7.0), (240.0, 9.0)]}
    found = taken(Recorded(step=60.0, accounts={INPUT: [(0.0, 5.0), (240.0, 6.0)], **late}), HOUR, -1e6)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (1, 9)  # type: ignore[union-attr]


def test_hours_and_money_by_state_and_currency() -> None:
    found = taken(recorded(), SPAN, NOW - 20 * DAY).usage
    assert found is not None
    assert found.gpu_hours == "960.0000"
    assert found.gpu_hours_by_state == {"idle": "160.0000", "serving": "800.0000"}
    assert found.cost == {"USD": "2016.00"}
    assert (found.requests_completed, found.requests_aborted) == (5000, None)


def test_without_accounts_there_is_no_usage() -> None:
    assert taken(Recorded(step=60.0), HOUR, None).usage is None


# --- losses ---------------------------------------------------------------------------------------


def losses(series: dict[tuple[str, str], list[float | None]]) -> dict[str, int]:
    """By (instance, reason): the counter at 0, 60, ... s, beside accounts that are there from 0 on."""
    return lost(
        Recorded(
            step=60.0,
            accounts={INPUT: [(0.0, 1.0), (600.0, 1.0)]},
            losses={
                (("instance", instance), ("reason", reason)): [
                    (60.0 * index, value) for index, value in enumerate(values) if value is not None
                ]
                for (instance, reason), values in series.items()
            },
        )
    )


def test_losses_are_counted_over_leaders() -> None:
    """Each counts anew; what it had counted before the period is left out, its first one in it is not."""
    found = losses(
        {
            ("a", "EngineExited"): [3.0, 4.0, 4.0],
            ("b", "EngineExited"): [None, None, None, 1.0, 2.0],
            ("b", "NodeGone"): [None, 1.0, 1.0],
            ("c", "Hung"): [2.0, 2.0, 2.0],
        }
    )
    assert found == {"EngineExited": 3, "NodeGone": 1}


def test_a_replica_that_leads_again_begins_at_zero() -> None:
    assert losses({("a", "Hung"): [5.0, 6.0, 1.0, 2.0]}) == {"Hung": 3}
