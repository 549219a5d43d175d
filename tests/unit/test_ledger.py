"""The ledger of failures: replacement is paced and bounded, and the cause is never lost.

A user would lose GPUs to a revision that can never come up, or wait for one that has long been mended.
"""

from dataclasses import replace
from typing import Any

import pytest

from factories.groups import NOW, admitted, group
from moe_operator.api import reasons
from moe_operator.api.status import Cause, RecoveryStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.controller.ledger import (
    NODE_BLAMED_FOR,
    Budget,
    avoided_nodes,
    backoff,
    create_after,
    lately_lost,
    of_revision,
    record,
    unparked,
)
from moe_operator.controller.observed import GroupFacts

CAUSE = Cause(reason=reasons.ENGINE_EXITED, message="boom")
BUDGET = Budget(losses=3, window=3600, retry=1800)


def lose(
    ledger: RecoveryStatus,
    number: int,
    at: float = NOW,
    cause: Cause = CAUSE,
    facts: GroupFacts | None = None,
) -> RecoveryStatus:
    """The ledger after one more group of the revision tiny-a is lost."""
    lost = replace(facts or group(0), uid=f"uid-{number}")
    return record(ledger, lost, cause, "tiny-a", BUDGET, at)


def lost(count: int, every: float = 60, **options: Any) -> RecoveryStatus:
    """The ledger after so many losses, the last of them at NOW."""
    ledger = RecoveryStatus()
    for number in range(count):
        ledger = lose(ledger, number, NOW - (count - 1 - number) * every, **options)
    return ledger


def test_the_first_successor_comes_at_once_later_ones_wait_longer() -> None:
    assert [backoff(n) for n in (1, 2, 3, 4, 99)] == [0, 10, 20, 40, 300]


def test_a_group_counts_once() -> None:
    once = lose(RecoveryStatus(), 0)
    assert lose(once, 0, NOW + 1) is once
    assert (once.failures, once.losses_in_window) == (1, 1)
    assert create_after(once) is None


def test_failures_in_a_row_back_off() -> None:
    due = create_after(lost(2))
    assert due is not None
    assert due - NOW >= 10


def test_quiet_time_forgives() -> None:
    assert lost(2, every=700).failures == 1


class TestBudget:
    """A revision that cannot come up does not hold GPUs for ever."""

    def test_is_spent_by_one_loss_too_many(self) -> None:
        assert lost(3).parked_until is None
        parked = lost(4)
        assert parse_time(parked.parked_until) == NOW + BUDGET.retry
        assert create_after(parked) == NOW + BUDGET.retry

    def test_counts_within_its_window_only(self) -> None:
        assert lost(9, every=2000).parked_until is None

    @pytest.mark.parametrize("reason", [reasons.PLACED_IN_PART, reasons.NOT_PLACED])
    def test_waiting_for_nodes_costs_nothing(self, reason: str) -> None:
        assert lost(20, cause=Cause(reason=reason, message="no room")).parked_until is None

    def test_a_failed_retry_parks_again(self) -> None:
        parked = lost(4)
        again = lose(parked, 99, NOW + 1900)
        assert parse_time(again.parked_until) == NOW + 1900 + BUDGET.retry

    def test_a_rollout_that_stands_still_parks_at_once(self) -> None:
        stuck = Cause(reason=reasons.PROGRESS_DEADLINE, message="no progress")
        assert lose(RecoveryStatus(), 0, cause=stuck).parked_until is not None

    def test_a_group_made_after_parking_that_serves_ends_it(self) -> None:
        parked = lost(4)
        assert unparked(parked, None) is parked
        assert unparked(parked, NOW - 5000) is parked, "it served before, and says nothing of the retry"
        free = unparked(parked, NOW + BUDGET.retry + 1)
        assert (free.parked_until, free.losses_in_window) == (None, 0)
        assert free.last_cause == CAUSE, "why it was is still to be read"


class TestRevision:
    """A correction is tried at once; what runs is not held to account for it."""

    def test_another_revision_begins_anew(self) -> None:
        parked = lost(4)
        fresh = of_revision(parked, "tiny-b")
        assert create_after(fresh) is None
        assert (fresh.failures, fresh.losses_in_window, fresh.last_cause) == (0, 0, CAUSE)
        assert of_revision(parked, "tiny-a") is parked
        assert of_revision(parked, None) is parked, "a spec that cannot be planned corrects nothing"

    def test_a_loss_of_an_older_group_is_told_and_delays_nothing(self) -> None:
        ledger = RecoveryStatus()
        for number in range(9):
            ledger = lose(ledger, number, facts=replace(group(0), revision="tiny-old"))
        assert ledger.last_cause == CAUSE
        assert create_after(ledger) is None

    def test_what_was_lost_lately_is_known_for_a_while(self) -> None:
        ledger = lost(1)
        assert lately_lost(ledger, NOW + 60) == "tiny-a"
        assert lately_lost(ledger, NOW + 6000) is None


class TestNodes:
    """A node on which groups die is left alone for a while."""

    def of(self, reason: str) -> Cause:
        return Cause(reason=reason, message="lost", node="n1", pod="tiny-g0-0")

    @pytest.mark.parametrize(
        "reason", [reasons.NODE_NOT_READY, reasons.ENGINE_STALLED, reasons.ENGINE_EXITED]
    )
    def test_is_avoided_after_the_second_loss_for_an_hour(self, reason: str) -> None:
        served = admitted(group(0))
        assert avoided_nodes(lost(1, cause=self.of(reason), facts=served), NOW) == []
        twice = lost(2, cause=self.of(reason), facts=served)
        assert avoided_nodes(twice, NOW) == ["n1"]
        assert avoided_nodes(twice, NOW + NODE_BLAMED_FOR + 1) == []

    def test_is_not_to_blame_for_a_revision_that_never_served(self) -> None:
        assert avoided_nodes(lost(3, cause=self.of(reasons.ENGINE_EXITED)), NOW) == []

    @pytest.mark.parametrize("reason", [reasons.CANARY_FAILED, reasons.POD_LOST, reasons.OUT_OF_MEMORY])
    def test_is_not_to_blame_for_what_happens_anywhere(self, reason: str) -> None:
        assert lost(3, cause=self.of(reason), facts=admitted(group(0))).suspect_nodes == []

    def test_old_losses_are_forgotten(self) -> None:
        ledger = lose(RecoveryStatus(), 0, NOW - 2 * NODE_BLAMED_FOR, self.of(reasons.NODE_NOT_READY))
        assert lose(ledger, 1, cause=CAUSE).suspect_nodes == []


def test_a_ledger_of_an_earlier_version_is_carried_on() -> None:
    """0.1.0 wrote no revision and no window."""
    old = RecoveryStatus(failures=3, last_failure_time=format_time(NOW - 30), last_cause=CAUSE)
    assert of_revision(old, "tiny-a") is old
    assert lose(old, 0).failures == 4
