"""Over all mixes of groups: the planner stays within its bounds at every step, and ends where it should.

A breach here is an outage: groups drained before others serve, more GPUs held than allowed, or no end.
"""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.groups import NOW, admitted, group, starting_pod, view, wanted
from moe_operator.api import reasons
from moe_operator.api.status import Cause
from moe_operator.controller.group_planner import (
    GONE,
    CanaryState,
    CreateGroup,
    DeleteGroup,
    GroupState,
    GroupView,
    ReapPods,
    RunCanary,
    StartDrain,
    TrafficOff,
    TrafficOn,
    Undrain,
    Wanted,
    plan_groups,
)
from moe_operator.controller.incarnation import admitted_incarnations, incarnation
from moe_operator.controller.observed import GroupFacts, Leaving, PodFacts

CAUSE = Cause(reason=reasons.POD_LOST, message="gone")


CORDONED = Leaving("is cordoned", soon=False)
TAKEN_BACK = Leaving("was taken back by the cloud", soon=True)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Wanted, dict[int, GroupView]]:
    surge = draw(st.integers(0, 2))
    target = wanted(
        desired=draw(st.integers(0, 4)),
        max_surge=surge,
        max_unavailable=draw(st.integers(0 if surge else 1, 2)),
        frozen=draw(st.booleans()),
        probing=draw(st.booleans()),
    )
    groups: dict[int, GroupView] = {}
    for slot in draw(st.sets(st.integers(0, 7), max_size=6)):
        made = replace(group(slot), revision=draw(st.sampled_from(["tiny-a", "tiny-old", "tiny-older"])))
        life = draw(
            st.sampled_from(["starting", "whole", "serving", "suspect", "draining", "deleting", "broken"])
        )
        cause = None
        if life == "starting":
            made = replace(made, pods=(starting_pod(made.name),))
        elif life in ("serving", "broken", "suspect", "draining"):
            made = admitted(made)
        if life == "suspect":
            made = replace(made, pods=tuple(replace(p, ready=False, unready_since=NOW) for p in made.pods))
        if life == "draining":
            made = replace(made, draining_since=NOW - draw(st.sampled_from([0.0, 1.0, 299.0, 300.0])))
        if life == "deleting":
            made = replace(made, deleting=True)
        if life == "broken":
            cause = CAUSE
        leaving = draw(st.sampled_from([None, None, CORDONED, TAKEN_BACK]))
        made = replace(made, pods=tuple(replace(p, node_leaving=leaving) for p in made.pods))
        groups[slot] = view(made, cause=cause, requests=draw(st.sampled_from([0, 3, None])))
    return target, groups


def serving(groups: dict[int, GroupView]) -> int:
    return sum(g.state is GroupState.SERVING for g in groups.values())


def live(groups: dict[int, GroupView]) -> int:
    away = (GroupState.BROKEN, GroupState.DRAINING, GroupState.DELETING)
    return sum(g.state not in away for g in groups.values())


def step(target: Wanted, groups: dict[int, GroupView], now: float) -> tuple[dict[int, GroupView], bool]:
    """Carry out a plan as a benign cluster would; True when there was nothing to do."""
    target = replace(target, occupied_slots=frozenset(groups))
    plan = plan_groups(target, list(groups.values()), now)
    after: dict[int, GroupFacts] = {s: g.facts for s, g in groups.items()}
    canaries: dict[int, CanaryState | None] = {s: g.canary for s, g in groups.items()}
    causes = {s: g.cause for s, g in groups.items()}
    for action in plan.actions:
        match action:
            case CreateGroup(slot=slot):
                assert slot not in after, "two groups in one slot"
                assert target.revision is not None
                after[slot] = replace(group(slot), revision=target.revision)
                canaries[slot] = causes[slot] = None
            case RunCanary(group=g):
                canaries[g.slot] = CanaryState(incarnation(g.pods), passed=True)
            case TrafficOn(group=g):
                after[g.slot] = admitted(g)
            case TrafficOff(group=g):
                after[g.slot] = replace(
                    after[g.slot], pods=tuple(replace(p, traffic=False) for p in after[g.slot].pods)
                )
            case StartDrain(group=g):
                after[g.slot] = replace(after[g.slot], draining_since=now)
            case Undrain(group=g):
                after[g.slot] = replace(after[g.slot], draining_since=None)
            case DeleteGroup(group=g):
                after[g.slot] = replace(after[g.slot], deleting=True)
            case ReapPods(group=g):
                after.pop(g.slot)
    recovered = {
        s: replace(f, pods=tuple(replace(p, ready=True, unready_since=None) for p in f.pods))
        if groups.get(s) and groups[s].state is GroupState.SUSPECT
        else f
        for s, f in after.items()
    }
    started = {s: f if len(f.pods) == f.size else replace(f, pods=_whole(f)) for s, f in recovered.items()}
    views = {s: view(f, cause=causes.get(s), requests=0, canary=canaries.get(s)) for s, f in started.items()}
    quiet = (
        not plan.actions and plan.requeue_after is None and started == {s: g.facts for s, g in groups.items()}
    )
    return views, quiet


def _whole(facts: GroupFacts) -> tuple[PodFacts, ...]:
    """All pods of a group, on the kind of node that those have which there are."""
    leaving = facts.pods[0].node_leaving if facts.pods else None
    return tuple(replace(p, node_leaving=leaving) for p in group(facts.slot).pods)


def settle(target: Wanted, groups: dict[int, GroupView], now: float = NOW) -> dict[int, GroupView]:
    """The groups once there is nothing left to do."""
    for _ in range(120):
        groups, settled = step(target, groups, now)
        now += 10
        if settled:
            return groups
    raise AssertionError(f"no end in 120 steps: {[(g.name, g.state) for g in groups.values()]}")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(worlds())
def test_every_mix_of_groups_ends_with_the_wanted_groups_serving(world) -> None:
    target, groups = world
    ended = settle(target, groups)
    assert len(ended) == target.desired
    assert all(g.state is GroupState.SERVING for g in ended.values())
    assert target.frozen or {g.facts.revision for g in ended.values()} <= {"tiny-a"}
    assert not [g.name for g in ended.values() if g.facts.leaving], "a node that is to go is never empty"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_a_deployment_that_goes_leaves_nothing_and_makes_nothing(world) -> None:
    target, groups = world
    going = replace(target, desired=0, leave=reasons.DELETING)
    assert not settle(going, groups)
    for _ in range(120):
        plan = plan_groups(going, list(groups.values()), NOW)
        assert not [a for a in plan.actions if isinstance(a, CreateGroup)]
        groups, settled = step(going, groups, NOW)
        if settled:
            break


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_one_group_at_a_time_is_tried_after_parking(world) -> None:
    """More would be lost together, with all their GPUs, to what is most likely still wrong."""
    target, groups = world
    target = replace(target, probing=True)
    before = sum(not admitted_incarnations(g.facts) for g in groups.values())
    for number in range(60):
        groups, settled = step(target, groups, NOW + 10 * number)
        tried = sum(
            not admitted_incarnations(g.facts) and g.state is not GroupState.DELETING for g in groups.values()
        )
        assert tried <= max(1, before)
        if settled:
            break


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds(), worlds())
def test_edits_in_mid_air_do_not_make_it_oscillate(first, second) -> None:
    """Whatever was begun for one spec, the next is carried out and then nothing moves."""
    target, groups = first
    for number in range(5):
        groups, _ = step(target, groups, NOW + 10 * number)
    ended = settle(second[0], groups, NOW + 100)
    for _ in range(3):
        again, settled = step(second[0], ended, NOW + 5000)
        assert settled
        assert again.keys() == ended.keys()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(worlds())
def test_no_step_breaks_the_bounds(world) -> None:
    target, groups = world
    now = NOW
    for _ in range(60):
        before_live, before_serving = live(groups), serving(groups)
        goes_anyway = sum(
            bool(g.state is GroupState.SERVING and g.facts.leaving and g.facts.leaving[1].soon)
            for g in groups.values()
        )
        groups, settled = step(target, groups, now)
        now += 10
        assert live(groups) <= max(before_live, target.desired + target.max_surge)
        floor = min(before_serving - goes_anyway, target.desired - target.max_unavailable)
        assert serving(groups) >= floor, "fewer serve than before and than allowed"
        if settled:
            break


def may_return(target: Wanted, group: GroupView) -> bool:
    """Of a group that drains: whether it is what is wanted, where it is, and has time left."""
    since = group.facts.draining_since
    return (
        group.state is GroupState.DRAINING
        and since is not None
        and NOW - since < target.drain_deadline
        and group.facts.leaving is None
        and (target.frozen or group.facts.revision == target.revision)
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(worlds())
def test_no_group_is_made_while_one_that_drains_can_come_back(world) -> None:
    """A new group takes minutes and GPUs; one that drains is warm and has its own."""
    target, groups = world
    target = replace(target, occupied_slots=frozenset(groups))
    plan = plan_groups(target, list(groups.values()), NOW)
    back = {a.group.name for a in plan.actions if isinstance(a, Undrain)}
    able = {g.name for g in groups.values() if may_return(target, g)}
    assert back <= able
    if any(isinstance(a, CreateGroup) for a in plan.actions):
        assert back == able
    gone = {a.group.name for a in plan.actions if isinstance(a, DeleteGroup | StartDrain)}
    assert not back & gone
    stays = sum(
        g.state not in GONE and g.facts.leaving is None and (target.frozen or g.facts.revision == "tiny-a")
        for g in groups.values()
    )
    assert len(back) <= max(0, target.desired - stays), "more than are wanted"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_while_the_wanted_number_stays_no_group_both_leaves_and_comes_back(world) -> None:
    """Lost: clients' connections, again and again, for nothing."""
    target, groups = world
    returned: set[str] = set()
    for number in range(60):
        now = NOW + 10 * number
        plan = plan_groups(replace(target, occupied_slots=frozenset(groups)), list(groups.values()), now)
        returned |= {a.group.name for a in plan.actions if isinstance(a, Undrain)}
        again = {
            a.group.name
            for a in plan.actions
            if isinstance(a, StartDrain) and a.reason == reasons.SCALED_DOWN and a.group.name in returned
        }
        assert not again
        groups, settled = step(target, groups, now)
        if settled:
            break


@settings(max_examples=200, deadline=None, derandomize=True)
@given(worlds())
def test_traffic_goes_off_before_anything_else_happens_to_a_group(world) -> None:
    target, groups = world
    plan = plan_groups(replace(target, occupied_slots=frozenset(groups)), list(groups.values()), NOW)
    off: set[str] = set()
    for action in plan.actions:
        if isinstance(action, TrafficOff):
            off.add(action.group.name)
        if isinstance(action, DeleteGroup):
            carries = any(p.traffic for p in action.group.pods)
            assert not carries or action.group.name in off
