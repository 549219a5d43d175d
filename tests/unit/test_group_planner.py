"""The group planner: what happens to groups, step by step. A fault here drops requests or wastes GPUs."""

from dataclasses import replace

import pytest

from factories.groups import NOW, admitted, change_pod, exited, group, pod, starting_pod, view, wanted
from moe_operator.api import reasons
from moe_operator.api.status import Cause
from moe_operator.controller.group_planner import (
    CANARY_ATTEMPTS,
    DRAIN_SETTLE,
    CanaryState,
    CreateGroup,
    DeleteGroup,
    GroupState,
    ReapPods,
    RunCanary,
    StartDrain,
    TrafficOff,
    TrafficOn,
    Undrain,
    plan_groups,
)
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.observed import Leaving

LOST = Cause(reason=reasons.POD_LOST, message="pod gone")


def kinds(plan):
    return [type(a).__name__ for a in plan.actions]


def old(facts):
    return replace(facts, revision="tiny-old")


def test_nothing_there_creates_the_wanted_number_in_the_smallest_slots() -> None:
    plan = plan_groups(wanted(desired=2, occupied_slots=frozenset({0, 2})), [], NOW)
    assert plan.actions == [CreateGroup(1, reasons.GROUP_WANTED), CreateGroup(3, reasons.GROUP_WANTED)]


def test_a_settled_group_is_left_alone() -> None:
    plan = plan_groups(wanted(), [view(admitted(group()))], NOW)
    assert plan.actions == []
    assert plan.requeue_after is None


def test_a_whole_group_gets_traffic_only_after_its_canary() -> None:
    facts = group()
    assert kinds(plan_groups(wanted(), [view(facts)], NOW)) == ["RunCanary"]
    passed = CanaryState(incarnation(facts.pods), passed=True)
    assert plan_groups(wanted(), [view(facts, canary=passed)], NOW).actions == [TrafficOn(facts)]


def test_a_canary_of_another_incarnation_admits_nobody() -> None:
    facts = group()
    stale = CanaryState("another", passed=True)
    assert plan_groups(wanted(), [view(facts, canary=stale)], NOW).actions == [RunCanary(facts)]


def test_a_group_whose_canaries_keep_failing_is_replaced_with_the_cause() -> None:
    facts = group()
    failed = CanaryState(incarnation(facts.pods), failures=CANARY_ATTEMPTS, message="rank 1: 500")
    plan = plan_groups(wanted(), [view(facts, canary=failed)], NOW)
    delete = next(a for a in plan.actions if isinstance(a, DeleteGroup))
    assert delete.cause is not None
    assert delete.cause.reason == reasons.CANARY_FAILED
    assert "rank 1: 500" in delete.cause.message


def test_a_broken_group_loses_traffic_first_then_goes_and_is_replaced_in_a_free_slot() -> None:
    facts = admitted(group())
    plan = plan_groups(wanted(occupied_slots=frozenset({0})), [view(facts, cause=LOST)], NOW)
    assert kinds(plan) == ["TrafficOff", "DeleteGroup", "CreateGroup"]
    assert plan.actions[2] == CreateGroup(1, reasons.GROUP_WANTED)


def test_backoff_delays_the_successor_but_not_the_end_of_the_broken_group() -> None:
    facts = admitted(group())
    plan = plan_groups(wanted(create_after=NOW + 20), [view(facts, cause=LOST)], NOW)
    assert kinds(plan) == ["TrafficOff", "DeleteGroup"]
    assert plan.requeue_after == pytest.approx(20)


def test_a_suspect_group_loses_traffic_but_is_kept() -> None:
    facts = change_pod(admitted(group()), 1, ready=False, unready_since=NOW - 1)
    seen = view(facts)
    assert seen.state is GroupState.SUSPECT
    plan = plan_groups(wanted(), [seen], NOW)
    assert plan.actions == [TrafficOff(facts, facts.pods, reasons.POD_NOT_READY)]
    assert plan.requeue_after is not None


def test_a_group_that_recovered_needs_a_new_canary_before_traffic() -> None:
    facts = admitted(group(), traffic=False)
    assert plan_groups(wanted(), [view(facts)], NOW).actions == [RunCanary(facts)]


def test_a_starting_group_is_waited_for() -> None:
    facts = group(pods=[starting_pod(index=0)])
    plan = plan_groups(wanted(), [view(facts)], NOW)
    assert plan.actions == []


def test_scale_down_drains_the_idle_group_and_spares_the_busy_one() -> None:
    busy, idle = admitted(group(0)), admitted(group(1))
    plan = plan_groups(wanted(), [view(busy, requests=3), view(idle, requests=0)], NOW)
    assert plan.actions == [
        StartDrain(idle, reasons.SCALED_DOWN),
        TrafficOff(idle, idle.pods, reasons.SCALED_DOWN),
    ]


def test_scale_down_gives_up_a_group_that_never_served_without_drain() -> None:
    serving, young = admitted(group(0)), group(1, pods=[starting_pod("tiny-g1")])
    plan = plan_groups(wanted(), [view(serving), view(young)], NOW)
    assert plan.actions == [DeleteGroup(young, reasons.SCALED_DOWN)]


@pytest.mark.parametrize(
    ("waited", "requests", "deletes"),
    [
        (0.0, 0, None),
        (DRAIN_SETTLE, 0, reasons.DRAINED),
        (100.0, 1, None),
        (100.0, None, None),
        (300.0, 1, reasons.DRAIN_DEADLINE),
        (300.0, None, reasons.DRAIN_DEADLINE),
    ],
)
def test_a_draining_group_goes_when_it_is_empty_or_out_of_time(waited, requests, deletes) -> None:
    facts = replace(admitted(group(), traffic=False), draining_since=NOW - waited)
    plan = plan_groups(wanted(desired=0), [view(facts, requests=requests)], NOW)
    found = [a.reason for a in plan.actions if isinstance(a, DeleteGroup)]
    assert found == ([deletes] if deletes else [])
    assert deletes or plan.requeue_after is not None


def test_a_draining_group_that_breaks_goes_at_once() -> None:
    facts = replace(admitted(group()), draining_since=NOW - 1)
    plan = plan_groups(wanted(desired=0), [view(facts, cause=LOST, requests=3)], NOW)
    assert [a.cause for a in plan.actions if isinstance(a, DeleteGroup)] == [LOST]


def test_a_group_on_its_way_out_has_its_pods_ended_soon_and_its_slot_is_not_reused() -> None:
    facts = replace(admitted(group()), deleting=True)
    plan = plan_groups(wanted(occupied_slots=frozenset({0})), [view(facts)], NOW)
    assert kinds(plan) == ["TrafficOff", "ReapPods", "CreateGroup"]
    assert plan.actions[2] == CreateGroup(1, reasons.GROUP_WANTED)
    assert isinstance(plan.actions[1], ReapPods)


class TestRollout:
    """Groups move to a new revision one by one while clients are served."""

    def test_surges_one_new_group_and_touches_no_old_one(self) -> None:
        olds = [view(old(admitted(group(s)))) for s in range(2)]
        plan = plan_groups(wanted(desired=2), olds, NOW)
        assert plan.actions == [CreateGroup(2, reasons.ROLLOUT)]

    def test_waits_for_the_new_group_to_serve(self) -> None:
        olds = [view(old(admitted(group(s)))) for s in range(2)]
        young = view(group(2, pods=[starting_pod("tiny-g2")]))
        assert plan_groups(wanted(desired=2), [*olds, young], NOW).actions == []

    def test_drains_one_old_group_for_one_new_that_serves(self) -> None:
        olds = [view(old(admitted(group(s)))) for s in range(2)]
        plan = plan_groups(wanted(desired=2), [*olds, view(admitted(group(2)))], NOW)
        drained = [a.group.name for a in plan.actions if isinstance(a, StartDrain)]
        assert drained == ["tiny-g1"]

    def test_no_second_surge_while_an_old_group_drains(self) -> None:
        draining = view(replace(old(admitted(group(0), traffic=False)), draining_since=NOW - 1), requests=3)
        plan = plan_groups(
            wanted(desired=2), [draining, view(old(admitted(group(1)))), view(admitted(group(2)))], NOW
        )
        assert not [a for a in plan.actions if isinstance(a, CreateGroup)]

    def test_without_surge_an_old_group_goes_first(self) -> None:
        olds = [view(old(admitted(group(s)))) for s in range(2)]
        plan = plan_groups(wanted(desired=2, max_surge=0, max_unavailable=1), olds, NOW)
        assert any(isinstance(a, StartDrain) for a in plan.actions)
        assert not any(isinstance(a, CreateGroup) for a in plan.actions)

    def test_an_old_group_that_never_served_goes_at_once(self) -> None:
        stuck = old(group(0, pods=[starting_pod()]))
        plan = plan_groups(wanted(), [view(stuck)], NOW)
        assert kinds(plan) == ["DeleteGroup", "CreateGroup"]

    def test_the_last_serving_group_stays_while_the_new_revision_does_not_come_up(self) -> None:
        plan = plan_groups(wanted(), [view(old(admitted(group(0)))), view(group(1), cause=LOST)], NOW)
        assert not [a for a in plan.actions if isinstance(a, StartDrain)]


class TestReturn:
    """A group that drains is warm: it serves again in a second, where a new one loads weights for minutes."""

    @staticmethod
    def draining(slot=0, since=NOW - 10, requests=3, **overrides):
        facts = replace(admitted(group(slot), traffic=False), draining_since=since, **overrides)
        return view(facts, requests=requests)

    def test_comes_back_instead_of_a_new_one(self) -> None:
        stays, drains = view(admitted(group(0))), self.draining(1)
        plan = plan_groups(wanted(desired=2), [stays, drains], NOW)
        assert plan.actions == [Undrain(drains.facts)]

    def test_the_rest_is_made_anew(self) -> None:
        drains = self.draining(0)
        plan = plan_groups(wanted(desired=3, occupied_slots=frozenset({0})), [drains], NOW)
        assert plan.actions == [
            Undrain(drains.facts),
            CreateGroup(1, reasons.GROUP_WANTED),
            CreateGroup(2, reasons.GROUP_WANTED),
        ]

    def test_drains_on_while_no_more_are_wanted(self) -> None:
        plan = plan_groups(wanted(desired=1), [view(admitted(group(0))), self.draining(1)], NOW)
        assert plan.actions == []

    def test_the_one_whose_drain_has_come_least_far_comes_first(self) -> None:
        early, late, busy = (
            self.draining(0, since=NOW - 100, requests=9),
            self.draining(1, since=NOW - 5, requests=1),
            self.draining(2, since=NOW - 5, requests=2),
        )
        every = [early, late, busy]
        plan = plan_groups(wanted(desired=1), every, NOW)
        assert [a.group.name for a in plan.actions if isinstance(a, Undrain)] == ["tiny-g2"]
        plan = plan_groups(wanted(desired=2), every, NOW)
        assert [a.group.name for a in plan.actions if isinstance(a, Undrain)] == ["tiny-g1", "tiny-g2"]

    def test_one_without_requests_comes_back_up_to_the_moment_of_its_deletion(self) -> None:
        drains = self.draining(requests=0)
        assert kinds(plan_groups(wanted(desired=1), [drains], NOW)) == ["Undrain"]
        going = view(replace(drains.facts, deleting=True))
        assert "Undrain" not in kinds(plan_groups(wanted(desired=1), [going], NOW))

    def test_losses_that_are_counted_delay_it_no_more_than_weights_that_are_to_come(self) -> None:
        """It has shown that it works, and has what it needs."""
        target = wanted(desired=1, create_after=NOW + 60, probing=True, hold=True)
        assert kinds(plan_groups(target, [self.draining()], NOW)) == ["Undrain"]

    @pytest.mark.parametrize(
        "unable",
        [
            {"since": NOW - 300},
            {"revision": "tiny-old"},
            {"pods": (pod("tiny-g0", 0),)},
            {"pods": (pod("tiny-g0", 0), pod("tiny-g0", 1, ready=False, unready_since=NOW - 1))},
            {"pods": (pod("tiny-g0", 0), pod("tiny-g0", 1, node_leaving=Leaving("is cordoned", soon=False)))},
        ],
        ids=["out of time", "another revision", "half a group", "not ready", "its node is to go"],
    )
    def test_one_that_is_not_what_is_wanted_stays_away(self, unable) -> None:
        made = kinds(plan_groups(wanted(desired=1, max_surge=2), [self.draining(**unable)], NOW))
        assert "Undrain" not in made

    def test_one_that_is_broken_or_has_something_against_it_stays_away(self) -> None:
        """A GPU that failed would take the group along as soon as it serves again."""
        drains = self.draining()
        plan = plan_groups(wanted(desired=1), [replace(drains, cause=LOST)], NOW)
        assert kinds(plan) == ["DeleteGroup", "CreateGroup"]
        fault = Cause(reason=reasons.ACCELERATOR_FAULT, message="GPU 3 failed")
        assert kinds(plan_groups(wanted(desired=1), [replace(drains, flaw=fault)], NOW)) == ["CreateGroup"]

    def test_a_deployment_that_goes_gets_none_back(self) -> None:
        going = wanted(desired=0, leave=reasons.DELETING)
        assert plan_groups(going, [self.draining()], NOW).actions == []

    def test_going_back_to_the_former_revision_finds_what_is_left_of_it(self) -> None:
        """The user undid an edit while the old group drained: it is what is wanted again."""
        new = [view(replace(admitted(group(1)), revision="tiny-new"))]
        plan = plan_groups(wanted(desired=1, max_surge=1), [self.draining(0), *new], NOW)
        assert kinds(plan) == ["Undrain"], "within the surge, beside the group that serves"
        plan = plan_groups(wanted(desired=1, max_surge=0, max_unavailable=1), [self.draining(0), *new], NOW)
        assert kinds(plan) == ["StartDrain", "TrafficOff"], "no more groups than allowed"

    def test_it_gets_traffic_as_any_group_that_is_whole(self) -> None:
        facts = replace(self.draining().facts, draining_since=None)
        assert kinds(plan_groups(wanted(), [view(facts)], NOW)) == ["RunCanary"]

    def test_agents_that_were_not_told_are_told_again(self) -> None:
        """Lost: clients that connect anew for each request, until the group is replaced."""
        facts = admitted(group())
        plan = plan_groups(wanted(), [replace(view(facts), closing=True)], NOW)
        assert plan.actions == [Undrain(facts)]
        assert plan.requeue_after is not None
        drains = replace(self.draining(), closing=True)
        assert plan_groups(wanted(desired=0), [drains], NOW).actions == [], "they do as they are told"


def test_without_any_revision_nothing_is_created_and_what_serves_stays() -> None:
    plan = plan_groups(wanted(desired=3, revision=None), [view(old(admitted(group())))], NOW)
    assert plan.actions == []


def test_an_engine_that_restarted_in_place_makes_another_incarnation() -> None:
    facts = admitted(group())
    changed = change_pod(facts, 1, engine=exited())
    assert incarnation(changed.pods) != incarnation(facts.pods)


def test_a_pod_that_was_replaced_makes_another_incarnation() -> None:
    facts = admitted(group())
    swapped = replace(facts, pods=(facts.pods[0], pod(index=1, uid="another")))
    assert incarnation(swapped.pods) != incarnation(facts.pods)


def test_a_group_that_is_reclaimed_is_drained_whatever_its_revision_and_not_made_again() -> None:
    """Lost: the GPUs that another deployment waits for, taken back by a surge."""
    old, new = admitted(group(0, revision="tiny-old")), admitted(group(1))
    plan = plan_groups(
        wanted(desired=1, reclaimed=frozenset({"tiny-g0"}), max_surge=0), [view(old), view(new)], NOW
    )
    assert [type(action) for action in plan.actions] == [StartDrain, TrafficOff]
    assert plan.actions[0] == StartDrain(old, reasons.RECLAIMED)
    starting = view(group(2, pods=[starting_pod("tiny-g2", index) for index in range(2)]))
    plan = plan_groups(wanted(desired=1, reclaimed=frozenset({"tiny-g2"})), [view(new), starting], NOW)
    assert plan.actions == [DeleteGroup(starting.facts, reasons.RECLAIMED)], "nothing to lose: no drain"


def test_a_group_whose_gpus_are_promised_to_another_does_not_return() -> None:
    """Another of the deployment finds room elsewhere, and is made there."""
    drains = view(replace(admitted(group(0)), draining_since=NOW - 5), requests=3)
    plan = plan_groups(wanted(desired=1), [drains], NOW)
    assert kinds(plan)[0] == "Undrain"
    plan = plan_groups(wanted(desired=1, reclaimed=frozenset({"tiny-g0"})), [drains], NOW)
    assert "Undrain" not in kinds(plan)
    assert "CreateGroup" in kinds(plan)
