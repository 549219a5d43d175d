"""When no request came for long. Lost otherwise: the model, to users who were just there; or GPUs, to nobody."""

import pytest

from moe_operator.autoscaler.idleness import Activity, Idleness


def activity(
    used_at: float = 0.0, counted: float = 10.0, *, since: float = 1.0, busy: bool = False
) -> Activity:
    return Activity(busy=busy, used_at=used_at, counted=(since, 8.0, counted))


def looked(*looks: tuple[float, dict[str, Activity | None]]) -> Idleness:
    found = Idleness()
    for now, groups in looks:
        found.look(now, groups)
    return found


def test_time_counts_from_the_first_look() -> None:
    """A successor of the operator knows of no request before it."""
    assert Idleness().quiet(5.0) is None
    assert looked((100.0, {"a": activity(used_at=20.0)})).quiet(160.0) == 60.0


def test_every_group_counts() -> None:
    found = looked((0.0, {"a": activity(), "b": activity()}), (100.0, {"a": activity(), "b": activity(60.0)}))
    assert found.quiet(100.0) == 40.0
    assert found.requested_at is None, "seen by telemetry before, and not since"


@pytest.mark.parametrize("later", [activity(busy=True), activity(counted=11.0), activity(since=70.0)])
def test_a_request_between_two_looks_shows_in_what_was_counted(later: Activity) -> None:
    """Also one that its client gave up before a token, and counters that began anew, which prove nothing."""
    found = looked((0.0, {"a": activity()}), (80.0, {"a": later}))
    assert found.quiet(100.0) == 20.0
    assert found.requested_at == 80.0


def test_what_cannot_be_read_is_no_silence() -> None:
    found = looked((0.0, {"a": activity(), "b": activity()}), (900.0, {"a": activity(), "b": None}))
    assert found.quiet(900.0) is None
    found.look(1000.0, {})
    assert found.quiet(1000.0) is None, "nor is no group"


def test_counters_bridge_a_gap() -> None:
    """Where they stand as they did, nothing came meanwhile; else time counts anew."""
    gap = ((0.0, {"a": activity()}), (100.0, {"a": None}))
    assert looked(*gap, (200.0, {"a": activity()})).quiet(300.0) == 300.0
    assert looked(*gap, (200.0, {"a": activity(counted=12.0)})).quiet(300.0) == 100.0


def test_a_group_that_is_new_begins_it_anew() -> None:
    found = looked((0.0, {"a": activity()}), (500.0, {"a": activity(), "b": activity()}))
    assert found.quiet(600.0) == 100.0
    found.look(700.0, {"b": activity()})
    assert found.quiet(700.0) == 200.0, "one that goes does not"


def test_it_can_begin_anew_for_other_reasons() -> None:
    found = looked((0.0, {"a": activity()}))
    found.begin(300.0)
    found.begin(200.0)
    assert found.quiet(400.0) == 100.0
    assert found.requested_at is None
