"""From events to keys: an event that enqueues nobody is a change that waits for the resync; too many, a storm."""

import copy
from typing import Any

import pytest

from moe_operator.api import names
from moe_operator.controller.kube import LEADER_WORKER_SET, MODEL_DEPLOYMENT, NODE, POD, Kind
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.freshness import Freshness
from moe_operator.runtime.intake import Intake
from moe_operator.runtime.source import EventType


class World:
    def __init__(self) -> None:
        self.store = Store()
        self.keys: list[Key] = []
        self.turned_back = 0
        self.events: list[tuple[str, str]] = []
        self.intake = Intake(self.store, self.keys.append, Freshness(lambda: 0.0), self, self.restored)
        self.version = 0

    def watch_event(self, kind: str, type_: str) -> None:
        self.events.append((kind, type_))

    def restored(self) -> None:
        self.turned_back += 1

    def send(self, kind: Kind, obj: dict[str, Any], type_: EventType = EventType.MODIFIED) -> list[Key]:
        """Deliver a copy of the object as the next version; the keys that it made due."""
        self.version += 1
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.keys.clear()
        self.intake.deliver(kind, type_, obj)
        return list(self.keys)


def child(name: str, deployment: str | None, **spec: Any) -> dict[str, Any]:
    labels = {names.LABEL_DEPLOYMENT: deployment} if deployment else {}
    return {"metadata": {"namespace": "ns", "name": name, "uid": name, "labels": labels}, "spec": spec}


def node(**changes: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {
        "metadata": {"name": "n1", "uid": "n1", "labels": {"zone": "a"}},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "1"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "1", "lastTransitionTime": "0"},
            ],
        },
    }
    obj["metadata"] |= changes.get("metadata", {})
    obj["spec"] |= changes.get("spec", {})
    obj["status"] |= changes.get("status", {})
    return obj


def deployment(name: str, planned: str | None) -> dict[str, Any]:
    conditions = [{"type": "Planned", "status": planned}] if planned else []
    return {"metadata": {"namespace": "ns", "name": name, "uid": name}, "status": {"conditions": conditions}}


def test_a_child_makes_its_deployment_due_and_a_doubled_event_does_not() -> None:
    world = World()
    assert world.send(POD, child("p", "qwen"), EventType.ADDED) == [("ns", "qwen")]
    world.keys.clear()
    world.intake.deliver(POD, EventType.MODIFIED, world.store.all(POD)[0])
    assert world.keys == []
    assert world.send(POD, child("p", "qwen"), EventType.DELETED) == [("ns", "qwen")]
    assert world.send(POD, child("p", "qwen"), EventType.DELETED) == []
    assert world.events[0] == ("Pod", "ADDED")


def test_a_child_that_changes_hands_makes_both_deployments_due() -> None:
    world = World()
    world.send(LEADER_WORKER_SET, child("g", "old"))
    assert world.send(LEADER_WORKER_SET, child("g", "new")) == [("ns", "new"), ("ns", "old")]


def test_a_deleted_deployment_is_due_once_more() -> None:
    """Its scaler, canaries and back-off are forgotten then."""
    world = World()
    assert world.send(MODEL_DEPLOYMENT, deployment("qwen", None), EventType.ADDED) == [("ns", "qwen")]
    assert world.send(MODEL_DEPLOYMENT, deployment("qwen", None), EventType.DELETED) == [("ns", "qwen")]


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2"}]}}, True),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": "9"}]}},
            True,
        ),
        ({"spec": {"unschedulable": True}}, True),
        ({"spec": {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}}, True),
        ({"metadata": {"labels": {"zone": "b"}}}, True),
        ({"metadata": {"deletionTimestamp": "now"}}, True),
        ({"status": {"allocatable": {"nvidia.com/gpu": "7"}}}, True),
        ({"status": {"images": ["a", "b"]}}, False),
        ({"metadata": {"annotations": {"ttl": "0"}}}, False),
    ],
)
def test_a_node_concerns_those_on_it_only_when_something_of_weight_changes(
    change: dict[str, Any], matters: bool
) -> None:
    """A thousand nodes send a heartbeat every five minutes; a cordon must be answered at once."""
    world = World()
    world.send(POD, child("p", "on-it", nodeName="n1"))
    world.send(POD, child("q", "elsewhere", nodeName="n2"))
    for name in ("on-it", "elsewhere"):
        world.send(MODEL_DEPLOYMENT, deployment(name, "True"))
    assert world.send(NODE, node()) == [("ns", "on-it")]
    beat = node(
        status={
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2", "lastTransitionTime": "0"},
            ]
        }
    )
    assert world.send(NODE, beat) == []
    assert world.send(NODE, node(**change)) == ([("ns", "on-it")] if matters else [])


def test_a_new_node_concerns_those_that_wait_for_one() -> None:
    """`NoNodes` is retried the moment that GPUs join, not at the next resync."""
    world = World()
    world.send(MODEL_DEPLOYMENT, deployment("waiting", "False"))
    world.send(MODEL_DEPLOYMENT, deployment("new", None))
    world.send(MODEL_DEPLOYMENT, deployment("running", "True"))
    assert world.send(NODE, node(), EventType.ADDED) == [("ns", "new"), ("ns", "waiting")]


def test_a_node_that_is_gone_concerns_those_on_it() -> None:
    world = World()
    world.send(NODE, node())
    world.send(POD, child("p", "on-it", nodeName="n1"))
    assert world.send(NODE, node(), EventType.DELETED) == [("ns", "on-it")]


def test_an_older_state_at_the_begin_of_a_watch_means_a_restored_database() -> None:
    world = World()
    world.version = 900
    world.send(POD, child("p", "qwen"))
    world.version = 40
    world.send(POD, child("p", "qwen"), EventType.MODIFIED)
    assert world.turned_back == 0, "a late event is no restore"
    world.send(POD, child("p", "qwen"), EventType.LISTED)
    assert world.turned_back == 1


def test_a_node_that_joins_a_compute_domain_is_news_to_groups_in_the_whole_partition() -> None:
    """Lost: ten minutes, in which nothing says why engines fail."""
    world = World()
    rack = {"nvidia.com/gpu.clique": "rack-1"}
    for name, labels in (("n1", rack), ("n2", rack), ("n3", {"nvidia.com/gpu.clique": "rack-2"})):
        world.send(NODE, node(metadata={"name": name, "uid": name, "labels": labels}))
    planned = [{"type": "Planned", "status": "True"}]
    for name, place in (("here", "n2"), ("elsewhere", "n3")):
        parent = {
            "metadata": {"namespace": "ns", "name": name, "uid": name},
            "status": {"conditions": planned},
        }
        world.send(MODEL_DEPLOYMENT, parent)
        world.send(POD, child(f"{name}-g0-0", name, nodeName=place))
    joined = {**rack, "resource.nvidia.com/computeDomain": "uid"}
    change = {"name": "n1", "uid": "n1", "labels": joined}
    assert world.send(NODE, node(metadata=change)) == [("ns", "here")]
    assert world.send(NODE, node(metadata={**change, "labels": {**joined, "zone": "b"}})) == []
