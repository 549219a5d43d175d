"""Groups with some of their nodes. Held too long they keep GPUs from everyone; given back too soon none ever starts."""

from dataclasses import replace

from factories.groups import LIMITS, NOW, admitted, group, homeless, pod, starting_pod
from moe_operator.api import names, reasons
from moe_operator.api.status import Cause, RecoveryStatus
from moe_operator.controller.causes import broken, waiting_for
from moe_operator.controller.half_placed import not_placed, placed_in_part, unplaced_since
from moe_operator.controller.ledger import Budget, avoided, record
from moe_operator.controller.observed import GroupFacts, pod_facts

CLIQUE = "nvidia.com/gpu.clique=rack-1"
BUDGET = Budget(losses=5, window=3600, retry=1800)


def _half(since: float = NOW - 301, bound_since: float = NOW - 400) -> GroupFacts:
    return group(
        pods=[starting_pod(scheduling_since=bound_since), homeless(index=1, scheduling_since=since)],
        domain=CLIQUE,
    )


def _judge(facts: GroupFacts) -> Cause | None:
    return broken(facts, LIMITS, {}, NOW)


def test_a_group_that_is_placed_in_part_for_too_long_gives_its_nodes_back() -> None:
    cause = _judge(_half())
    assert cause is not None
    assert cause.reason == reasons.PLACED_IN_PART
    assert "only 1 of 2 pods had nodes for 301 s (spec.recovery.placementLimit is 300 s)" in cause.message
    assert "pod tiny-g0-0-1 found no node in nvidia.com/gpu.clique=rack-1: 0/3 nodes" in cause.message
    assert cause.domain == CLIQUE


def test_each_step_towards_being_whole_starts_the_limit_anew() -> None:
    """Lost: groups on clusters whose nodes come one by one, given up while their last node boots."""
    assert _judge(_half(since=NOW - 3600, bound_since=NOW - 299)) is None
    assert _judge(_half(since=NOW - 299, bound_since=NOW - 3600)) is None
    assert _judge(_half(since=NOW - 3600, bound_since=NOW - 300)) is not None


def test_pods_that_were_never_created_count_as_missing() -> None:
    """Lost: GPUs that a leader holds for ever while a quota refuses its workers."""
    lone = group(pods=[starting_pod(scheduling_since=NOW - 301)])
    cause = _judge(lone)
    assert cause is not None
    assert cause.reason == reasons.PLACED_IN_PART
    assert "1 of 2 pods were never created" in cause.message
    assert "kubectl describe statefulset tiny-g0 tiny-g0-0" in cause.message


def test_a_group_without_any_node_holds_nothing_and_waits() -> None:
    nowhere = group(pods=[homeless(scheduling_since=NOW - 9000), homeless(index=1)])
    assert _judge(nowhere) is None


def test_pods_behind_gates_are_waiting_to_be_let_in() -> None:
    """Lost: groups thrown out of their queue because a quota is full for longer than five minutes."""
    gate = ("kueue.x-k8s.io/admission",)
    gated = homeless(index=1, unschedulable=None, gates=gate, scheduling_since=NOW - 9000)
    partly = group(pods=[starting_pod(scheduling_since=NOW - 9000), gated])
    assert _judge(partly) is None
    reason, message = waiting_for(partly)
    assert reason == reasons.SCHEDULING_GATED
    assert "kueue.x-k8s.io/admission" in message


def test_gates_are_read_from_pods_and_are_not_the_schedulers_refusal() -> None:
    obj = {
        "metadata": {"name": "p", "uid": "u", "labels": {names.LWS_LABEL_WORKER_INDEX: "0"}},
        "spec": {"schedulingGates": [{"name": "example.com/wait"}]},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        },
    }
    facts = pod_facts(obj, None)
    assert facts.gates == ("example.com/wait",)
    assert facts.unschedulable is None


def test_a_group_that_served_is_never_judged_by_its_placement() -> None:
    """Its lost pods have causes of their own."""
    served = admitted(group(pods=[pod(), pod(index=1)]))
    lost = replace(served, pods=served.pods[:1])
    cause = _judge(lost)
    assert cause is not None
    assert cause.reason == reasons.POD_LOST


def test_what_a_half_placed_group_waits_for_is_said() -> None:
    reason, message = waiting_for(_half(since=NOW - 10))
    assert reason == reasons.UNSCHEDULABLE
    assert message.startswith("1 of 2 pods have nodes, and are given back after spec.recovery.placementLimit")
    assert "pod tiny-g0-0-1 finds no node in nvidia.com/gpu.clique=rack-1: 0/3 nodes" in message


def test_only_a_group_that_waits_for_its_domain_may_be_sent_elsewhere() -> None:
    waits = group(pods=[homeless(scheduling_since=NOW - 50), homeless(index=1)], domain=CLIQUE)
    assert unplaced_since(waits) == NOW - 50
    assert unplaced_since(replace(waits, domain=None)) is None, "it has all nodes to choose from"
    assert unplaced_since(replace(waits, deleting=True)) is None
    assert unplaced_since(_half()) is None
    assert (
        "nvidia.com/gpu.clique=rack-2 has room"
        in not_placed(waits, "nvidia.com/gpu.clique=rack-2", NOW).message
    )


def test_the_ledger_remembers_where_groups_were_not_taken() -> None:
    """Lost: the third rack, while groups go back and forth between two whose nodes lack something."""
    ledger = RecoveryStatus()
    for number, domain in enumerate(("k=a", "k=b", "k=a", None)):
        cause = Cause(reason=reasons.PLACED_IN_PART, message="", domain=domain)
        ledger = record(ledger, replace(_half(), uid=f"u{number}"), cause, "tiny-a", BUDGET, NOW + number)
    assert avoided(ledger, NOW + 10) == ["k=b", "k=a"]
    assert avoided(ledger, NOW + 5000) == [], "what was full an hour ago need not be"
    calm = record(
        ledger, replace(_half(), uid="later"), Cause(reason="x", message=""), "tiny-a", BUDGET, NOW + 5000
    )
    assert calm.avoided_domains == []


def test_the_place_counts_in_no_pods_without_a_time() -> None:
    """A pod whose scheduler has not spoken yet is no reason to give anything up."""
    young = group(pods=[starting_pod(scheduling_since=None)], created_at=NOW - 10)
    assert placed_in_part(young, 300, NOW) is None
