"""Who leads. Two leaders write over each other; none, and nothing is repaired."""

from dataclasses import replace

import pytest

from moe_operator.runtime.lease_rules import (
    LeaseRecord,
    LeaseTimes,
    Observed,
    Step,
    claim,
    decide,
    led_until,
    observe,
    read_record,
    release,
)

TIMES = LeaseTimes()
HELD = LeaseRecord(holder="other", renewed="t1", transitions=3, duration=15, version="7", uid="u")


@pytest.mark.parametrize(
    ("holder", "duration", "age", "expected"),
    [
        (None, 15, 0, Step.CREATE),
        ("me", 15, 0, Step.RENEW),
        ("me", 15, 1000, Step.RENEW),
        ("", 15, 0, Step.ACQUIRE),
        ("other", 15, 0, Step.WAIT),
        ("other", 15, 14.9, Step.WAIT),
        ("other", 15, 15, Step.ACQUIRE),
        ("other", 60, 15, Step.WAIT),
        ("other", 60, 60, Step.ACQUIRE),
        ("other", 1, 14.9, Step.WAIT),
        ("other", 0, 15, Step.ACQUIRE),
    ],
)
def test_what_a_candidate_does(holder: str | None, duration: float, age: float, expected: Step) -> None:
    seen = None if holder is None else Observed(replace(HELD, holder=holder, duration=duration), since=100.0)
    assert decide(seen, "me", 100.0 + age, TIMES) is expected


def test_age_counts_from_when_the_record_was_seen_to_change_and_not_from_what_it_says() -> None:
    """A machine whose clock is an hour ahead must not take the lease from one that renews in time."""
    seen = observe(None, HELD, 100.0)
    seen = observe(seen, replace(HELD, version="8"), 110.0)
    assert seen is not None
    assert seen.since == 100.0, "a foreign label on the lease is no renewal"
    assert seen.record.version == "8", "but the next write must know it"
    seen = observe(seen, replace(HELD, renewed="t0-an-hour-ago"), 111.0)
    assert seen is not None
    assert seen.since == 111.0
    assert decide(seen, "me", 125.9, TIMES) is Step.WAIT
    assert decide(seen, "me", 126.0, TIMES) is Step.ACQUIRE


def test_a_lease_made_anew_is_another_lease() -> None:
    seen = observe(observe(None, HELD, 100.0), replace(HELD, uid="v"), 114.0)
    assert seen is not None
    assert seen.since == 114.0
    assert observe(seen, None, 115.0) is None


def test_a_record_survives_what_others_leave_out() -> None:
    record = read_record({"metadata": {"name": "l"}})
    assert record == LeaseRecord("", "", 0, 0.0, "", "")
    assert decide(observe(None, record, 0.0), "me", 0.0, TIMES) is Step.ACQUIRE


def test_a_claim_counts_transitions_and_a_renewal_keeps_when_it_was_acquired() -> None:
    taken = claim("me", 0.25, TIMES, HELD)
    assert taken == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "1970-01-01T00:00:00.250000Z",
        "renewTime": "1970-01-01T00:00:00.250000Z",
        "leaseTransitions": 4,
    }
    assert claim("me", 0.25, TIMES, None)["leaseTransitions"] == 0
    renewed = claim("me", 2.0, TIMES, replace(HELD, holder="me"))
    assert set(renewed) == {"holderIdentity", "leaseDurationSeconds", "renewTime"}


def test_a_predecessor_led_until_its_lease_had_run_out_at_the_latest() -> None:
    """Lost: hours of idle groups, which count as used where it is not known until when somebody looked."""
    spec = claim("other", 1_800_000_000.25, TIMES, None)
    record = read_record({"metadata": {}, "spec": spec})
    assert led_until(record) == 1_800_000_000.25 + TIMES.duration
    given_back = read_record({"metadata": {}, "spec": release(1_800_000_100.0)})
    assert led_until(given_back) == 1_800_000_101.0
    assert led_until(HELD) is None, "what nobody can read"


def test_a_released_lease_is_taken_at_once() -> None:
    spec = release(1.0)
    record = read_record({"metadata": {}, "spec": spec})
    assert decide(observe(None, record, 0.0), "me", 0.0, TIMES) is Step.ACQUIRE


@pytest.mark.parametrize("times", [(10, 10, 2, 1), (15, 10, 11, 1), (15, 10, 2, 0)])
def test_times_that_allow_two_leaders_are_refused(times: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="duration > renew deadline"):
        LeaseTimes(*times)
