"""When a rollout has stood still for too long, and what is given up then.

A user would lose GPUs to groups that never serve, or a rollout that only waits for new nodes.
"""

from dataclasses import replace
from typing import Any

from factories.groups import NOW, admitted, group, homeless, starting_pod
from moe_operator.api import reasons
from moe_operator.api.status import RolloutStatus
from moe_operator.api.times import format_time
from moe_operator.controller.rollout import due_in, held_up, progress, stands_since

DEADLINE = 600.0


def moved(updated: int = 0, at: float = NOW, **fields: Any) -> RolloutStatus:
    made = RolloutStatus(revision="tiny-a", updated=updated, progress_time=format_time(at))
    return made.model_copy(update=fields)


def test_a_rollout_begins_and_ends() -> None:
    begun = progress(None, "tiny-a", 0, True, NOW)
    assert begun == moved()
    assert progress(begun, "tiny-a", 2, False, NOW + 60) is None
    assert progress(begun, None, 0, True, NOW) is None


def test_every_group_that_serves_gives_it_more_time() -> None:
    begun = moved()
    assert progress(begun, "tiny-a", 0, True, NOW + 60) is begun
    assert progress(begun, "tiny-a", 1, True, NOW + 60) == moved(1, NOW + 60)


def test_a_group_that_is_lost_gives_it_none() -> None:
    assert progress(moved(2), "tiny-a", 1, True, NOW + 60) == moved(1)


def test_another_revision_is_another_rollout() -> None:
    assert progress(moved(), "tiny-b", 0, True, NOW + 60) == moved(at=NOW + 60, revision="tiny-b")


def test_standing_still_is_known_when_it_is_too_long() -> None:
    assert stands_since(moved(), DEADLINE, NOW + 599) is None
    assert stands_since(moved(), DEADLINE, NOW + 600) == 600
    assert stands_since(None, DEADLINE, NOW) is None
    assert due_in(moved(), DEADLINE, NOW + 200) == 400
    assert due_in(moved(), DEADLINE, NOW + 700) is None


class TestHeldUp:
    """Groups that hold nodes in vain give them back; those that wait for some stay, as they call for them."""

    def placed(self, at: float) -> Any:
        return group(1, pods=[starting_pod("tiny-g1", i, scheduled_at=at) for i in range(2)])

    def found(self, *groups: Any) -> list[str]:
        return sorted(held_up(groups, "tiny-a", DEADLINE, NOW))

    def test_a_group_with_nodes_that_never_served_is_given_up(self) -> None:
        (cause,) = held_up([self.placed(NOW - 700)], "tiny-a", DEADLINE, NOW).values()
        assert cause.reason == reasons.PROGRESS_DEADLINE
        assert "700 s" in cause.message

    def test_one_that_got_its_nodes_late_has_its_own_time(self) -> None:
        assert self.found(self.placed(NOW - 10)) == []

    def test_one_without_nodes_waits_on(self) -> None:
        assert self.found(group(1, pods=[homeless("tiny-g1", i) for i in range(2)])) == []

    def test_groups_that_served_or_are_of_another_revision_stay(self) -> None:
        other = replace(self.placed(NOW - 700), revision="tiny-old")
        assert self.found(other, admitted(group(2))) == []
