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
    Wanted,
    plan_groups,
)
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.observed import GroupFacts

CAUSE = Cause(reason=reasons.POD_LOST, message="gone")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Wanted, dict[int, GroupView]]:
    surge = draw(st.integers(0, 2))
    target = wanted(
        desired=draw(st.integers(0, 4)),
        max_surge=surge,
        max_unavailable=draw(st.integers(0 if surge else 1, 2)),
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
            made = replace(made, draining_since=NOW)
        if life == "deleting":
            made = replace(made, deleting=True)
        if life == "broken":
            cause = CAUSE
        groups[slot] = view(made, cause=cause, busy=draw(st.booleans()))
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
                after[slot] = group(slot)
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
    started = {
        s: f if len(f.pods) == f.size else replace(f, pods=group(s).pods) for s, f in recovered.items()
    }
    views = {s: view(f, cause=causes.get(s), busy=False, canary=canaries.get(s)) for s, f in started.items()}
    quiet = (
        not plan.actions and plan.requeue_after is None and started == {s: g.facts for s, g in groups.items()}
    )
    return views, quiet


@settings(max_examples=300, deadline=None, derandomize=True)
@given(worlds())
def test_every_mix_of_groups_ends_with_the_wanted_groups_serving(world) -> None:
    target, groups = world
    now = NOW
    for _ in range(80):
        groups, settled = step(target, groups, now)
        now += 10
        if settled:
            break
    assert settled, f"no end in 80 steps: {[(g.name, g.state) for g in groups.values()]}"
    assert sorted(g.facts.revision for g in groups.values()) == ["tiny-a"] * target.desired
    assert all(g.state is GroupState.SERVING for g in groups.values())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(worlds())
def test_no_step_breaks_the_bounds(world) -> None:
    target, groups = world
    now = NOW
    for _ in range(60):
        before_live, before_serving = live(groups), serving(groups)
        groups, settled = step(target, groups, now)
        now += 10
        assert live(groups) <= max(before_live, target.desired + target.max_surge)
        floor = min(before_serving, target.desired - target.max_unavailable)
        assert serving(groups) >= floor, "fewer serve than before and than allowed"
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
