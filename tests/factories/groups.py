"""Groups as the controller observes them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moe_operator.api.status import Cause
from moe_operator.controller.causes import Limits
from moe_operator.controller.group_planner import CanaryState, GroupView, Wanted, classify
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.observed import EngineFacts, GroupFacts, NodeState, PodFacts, Termination

#: A time of day for tests: seconds since the epoch.
NOW = 1_800_000_000.0

LIMITS = Limits(stall=120, unready=60, start=1800, placement=300)


def pod(group: str = "tiny-g0", index: int = 0, **overrides: Any) -> PodFacts:
    """A running, ready pod without traffic."""
    name = f"{group}-0" if index == 0 else f"{group}-0-{index}"
    made = PodFacts(
        name=name,
        uid=f"uid-{name}",
        index=index,
        ip=f"10.244.0.{index + 1}",
        node=f"node-{index}",
        node_state=NodeState.READY,
        node_since=NOW - 10_000,
        node_leaving=None,
        phase="Running",
        phase_message="",
        deleting=False,
        ready=True,
        unready_since=None,
        unschedulable=None,
        traffic=False,
        incarnation=None,
        engine=EngineFacts(running_since=NOW - 300),
        resource_version="1",
        scheduling_since=NOW - 100,
    )
    return replace(made, **overrides)


def starting_pod(group: str = "tiny-g0", index: int = 0, **overrides: Any) -> PodFacts:
    """A pod whose engine loads."""
    return replace(pod(group, index, ready=False, unready_since=NOW - 30), **overrides)


def homeless(group: str = "tiny-g0", index: int = 0, **overrides: Any) -> PodFacts:
    """A pod for which the scheduler finds no node."""
    made = starting_pod(
        group, index, node=None, ip=None, phase="Pending", engine=EngineFacts(), unschedulable="0/3 nodes"
    )
    return replace(made, **overrides)


def exited(message: str = "boom", code: int = 1, restarts: int = 1, running: bool = True) -> EngineFacts:
    """An engine that ended once; `running`: it was restarted in place."""
    end = Termination(exit_code=code, reason="Error", message=message, finished_at=NOW - 5)
    return EngineFacts(restarts=restarts, running_since=NOW - 2 if running else None, termination=end)


def group(
    slot: int = 0, size: int = 2, pods: Sequence[PodFacts] | None = None, **overrides: Any
) -> GroupFacts:
    """A group whose pods are all ready, never admitted."""
    name = f"tiny-g{slot}"
    made = GroupFacts(
        name=name,
        uid=f"uid-{name}",
        slot=slot,
        role="serve",
        revision="tiny-a",
        size=size,
        ranks_per_pod=1,
        created_at=NOW - 600,
        deleting=False,
        draining_since=None,
        pods=tuple(pods if pods is not None else [pod(name, i) for i in range(size)]),
    )
    return replace(made, **overrides)


def admitted(facts: GroupFacts, traffic: bool = True) -> GroupFacts:
    """The same group with its present incarnation admitted."""
    now = incarnation(facts.pods)
    return replace(facts, pods=tuple(replace(p, traffic=traffic, incarnation=now) for p in facts.pods))


def change_pod(facts: GroupFacts, index: int, **overrides: Any) -> GroupFacts:
    """The same group with one pod changed."""
    return replace(facts, pods=tuple(replace(p, **overrides) if p.index == index else p for p in facts.pods))


def view(
    facts: GroupFacts,
    cause: Cause | None = None,
    requests: int | None = 0,
    canary: CanaryState | None = None,
) -> GroupView:
    """The group as judged."""
    return classify(facts, cause, requests, canary)


def wanted(**overrides: Any) -> Wanted:
    """One group of revision tiny-a, surge 1."""
    made = Wanted(
        desired=1,
        revision="tiny-a",
        max_surge=1,
        max_unavailable=0,
        drain_deadline=300,
        create_after=None,
        occupied_slots=frozenset(),
    )
    return replace(made, **overrides)
