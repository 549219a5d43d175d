"""When a group has nothing to lose. A drain that believes old figures cuts answers off."""

from typing import Any

import pytest

from factories.groups import NOW, group
from moe_operator.controller.group_planner import DRAIN_SETTLE
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.occupied import occupied
from moe_operator.telemetry.observation import PodObservation, Snapshot

#: The telemetry's clock is not the wall clock.
TAKEN = 500.0


def seen(of: GroupFacts, age: float = 0.0, **overrides: Any) -> Snapshot:
    """The group's pods as scraped `age` seconds ago."""
    figures: dict[str, Any] = {
        "at": TAKEN - age, "running": 0, "waiting": 0, "in_flight": 0,
        "prompt_tokens_per_second": 0.0,
        "output_tokens_per_second": 0.0, "time_to_first_token": None, "time_per_output_token": None,
        "progress_at": 0.0, **overrides,
    }  # fmt: skip
    return Snapshot({p.uid: PodObservation(pod_uid=p.uid, **figures) for p in of.pods}, taken_at=TAKEN)


def test_a_serving_group_is_occupied_by_its_requests_alone() -> None:
    one = group()
    assert occupied(one, seen(one, age=5.0), NOW) == 0
    assert occupied(one, seen(one, running=1, waiting=2), NOW) == 6, "of two pods"
    assert occupied(one, seen(one, in_flight=1), NOW) == 2
    assert occupied(one, seen(one, idle_connections=3), NOW) == 0


def test_without_figures_of_every_pod_nobody_can_say() -> None:
    one = group()
    assert occupied(one, Snapshot({}, TAKEN), NOW) is None
    assert occupied(one, seen(one, failures=1), NOW) is None


@pytest.mark.parametrize(("age", "expected"), [(0.5, 0), (3.9, 0), (4.1, None), (20.0, None)])
def test_a_drain_ends_by_figures_from_after_the_last_request_could_come(
    age: float, expected: int | None
) -> None:
    """Scrapes are up to five seconds old: one from before the drain knows nothing of what came after it."""
    one = group(draining_since=NOW - DRAIN_SETTLE - 4)
    assert occupied(one, seen(one, age=age), NOW) == expected


def test_a_drain_waits_for_connections_that_clients_keep() -> None:
    one = group(draining_since=NOW - 60)
    assert occupied(one, seen(one, idle_connections=1), NOW) == 2
    assert occupied(one, seen(one, idle_connections=0), NOW) == 0
