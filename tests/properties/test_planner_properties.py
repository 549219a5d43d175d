"""Over all specs and nodes: a plan always fits its nodes, and a refusal always offers a way that works.

A breach is a group whose pods no node can take, or advice that leads nowhere.
"""

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.deployments import model_deployment
from factories.nodes import gpu_nodes, node
from moe_operator.api import reasons
from moe_operator.api.rules import violations
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.inventory import Inventory, inventory_from_nodes
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.planner.planning import plan

CATALOG = load_catalog()
WITH_GPUS = [name for name in CATALOG.names() if name != "cpu"]

widths = st.integers(1, 64)
sizes = st.sampled_from([1, 2, 4, 8])
tensors = st.integers(1, 16)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """`hardware` and `parallelism`, any of it left out."""

    def maybe(**fields: st.SearchStrategy[int]) -> dict[str, int]:
        return {key: draw(values) for key, values in fields.items() if draw(st.booleans())}

    choice = st.sampled_from(CATALOG.names())
    hardware: dict[str, Any] = dict(maybe(gpusPerGroup=widths, gpusPerNode=sizes))
    if draw(st.booleans()):
        hardware["accelerator"] = draw(choice)
    else:
        hardware["accelerators"] = draw(st.lists(choice, min_size=1, max_size=4))
    return {"hardware": hardware, "parallelism": maybe(tensor=tensors, data=widths)}


@st.composite
def inventories(draw: st.DrawFn) -> list[dict[str, Any]] | None:
    """Nodes of up to three kinds, or None for nodes that cannot be read."""
    if draw(st.integers(0, 9)) == 0:
        return None
    nodes = [node(f"plain-{i}") for i in range(draw(st.integers(0, 2)))]
    for index in range(draw(st.integers(0, 3))):
        kind, gpus, count = draw(st.sampled_from(WITH_GPUS)), draw(sizes), draw(st.integers(1, 3))
        nodes += gpu_nodes(kind, count, gpus, prefix=f"pool{index}")
    return nodes


def _decide(spec: dict[str, Any], nodes: list[dict[str, Any]] | None) -> Plan | Refusal:
    inventory = Inventory(None) if nodes is None else inventory_from_nodes(nodes)
    return plan(model_deployment(**spec), inventory, CATALOG)


def _gpus(obj: dict[str, Any], resource: str) -> int:
    return int(obj["status"]["capacity"].get(resource, 0))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(specs(), inventories())
def test_a_plan_adds_up_and_fits(spec: dict[str, Any], nodes: list[dict[str, Any]] | None) -> None:
    found = _decide(spec, nodes)
    if isinstance(found, Refusal):
        assert found.reason in (reasons.INVALID_LAYOUT, reasons.NO_NODES)
        assert found.message
        return
    hardware, parallelism = spec["hardware"], spec["parallelism"]
    assert found.width == found.data * found.tensor == found.pods_per_group * found.gpus_per_pod
    assert found.gpus_per_pod == found.ranks_per_pod * found.tensor
    assert min(found.pods_per_group, found.ranks_per_pod, found.tensor) >= 1
    assert found.width == hardware.get("gpusPerGroup", found.width)
    assert found.tensor == parallelism.get("tensor", found.tensor)
    assert found.data == parallelism.get("data", found.data)
    assert found.gpus_per_pod <= hardware.get("gpusPerNode", found.gpus_per_pod)
    profile = CATALOG.accelerator(found.accelerator)
    assert profile is not None
    assert found.accelerator in (hardware.get("accelerators") or [hardware["accelerator"]])
    if profile.resource_name and nodes is not None:
        able = [
            n for n in nodes
            if profile.recognises(n["metadata"]["labels"]) and _gpus(n, profile.resource_name) >= found.gpus_per_pod
        ]  # fmt: skip
        pinned = "gpusPerNode" in hardware and not any(
            profile.recognises(n["metadata"]["labels"]) for n in nodes
        )
        assert able or pinned, "some node has room for a pod of it, or the user says that nodes will come"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(specs(), inventories())
def test_the_widths_that_a_refusal_offers_work(
    spec: dict[str, Any], nodes: list[dict[str, Any]] | None
) -> None:
    found = _decide(spec, nodes)
    if isinstance(found, Plan) or "nearest widths" not in found.message:
        return
    offered = re.search(r"that do are (\d+) and (\d+)", found.message)
    assert offered
    for width in map(int, offered.groups()):
        again = {"hardware": {**spec["hardware"], "gpusPerGroup": width}}
        if "tensor" not in spec["parallelism"]:
            assert isinstance(_decide(again, nodes), Plan), width
    for pin in map(int, re.findall(r"\d+", found.message.partition("or pin hardware.gpusPerNode to")[2])):
        again = {"hardware": {**spec["hardware"], "gpusPerNode": pin}}
        if "tensor" not in spec["parallelism"] and "data" not in spec["parallelism"]:
            assert isinstance(_decide(again, nodes), Plan), pin


@settings(max_examples=200, deadline=None, derandomize=True)
@given(specs(), inventories(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_makes_no_difference(
    spec: dict[str, Any], nodes: list[dict[str, Any]] | None, rng: Any
) -> None:
    """Watches deliver nodes in any order: a plan that depended on it would change by itself."""
    if nodes is None:
        return
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    assert _decide(spec, nodes) == _decide(spec, shuffled)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(specs(), inventories())
def test_what_the_rules_refuse_as_a_layout_the_planner_would_too(
    spec: dict[str, Any], nodes: list[dict[str, Any]] | None
) -> None:
    """An object stored before a rule existed must not get a plan that contradicts it."""
    if nodes is None or ("accelerator" in spec["hardware"]) == ("accelerators" in spec["hardware"]):
        return
    broken = [v for v in violations(model_deployment(**spec)) if v.reason == reasons.INVALID_LAYOUT]
    if broken:
        assert isinstance(_decide(spec, nodes), Refusal)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=63))
def test_any_name_is_an_accelerator_or_answered_with_all_that_are(name: str) -> None:
    found = _decide({"hardware": {"accelerators": [name or "?"]}}, [])
    assert isinstance(found, Refusal)
    if found.reason == reasons.UNKNOWN_ACCELERATOR:
        assert all(known in found.message for known in CATALOG.names())
