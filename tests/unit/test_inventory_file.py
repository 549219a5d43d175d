"""Inventories from files. Who plans away from the cluster has nothing else."""

import json
from typing import Any

import pytest
import yaml

from factories.deployments import model_deployment
from factories.gpu_nodes import claim, container, dra_only, gb200_tray, hgx_b200, mi300x, pod, resource_slice
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.planner import inventory_file
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.inventory_file import InventoryError, read_inventory
from moe_operator.planner.nodes import Hardware, hardware_options
from moe_operator.planner.plan import Refusal

CLUSTER = [
    hgx_b200(),
    gb200_tray(),
    mi300x(),
    dra_only(),
    pod("b200-a", container(3)),
    resource_slice("dra-0"),
    claim("dra-0", "gpu-0"),
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by the way"}},
]


def _hardware(spec: ModelDeploymentSpec, inventory: Inventory, catalog: Catalog) -> Hardware | Refusal:
    """The first option."""
    options = hardware_options(spec, inventory, catalog)
    return options if isinstance(options, Refusal) else options[0]


def _gpus(inventory: Inventory) -> dict[str, int]:
    return {
        node.name: sum(n for name, n in node.gpus.items() if "gpu" in name) for node in inventory.nodes or ()
    }


def _typed_lists() -> str:
    """As the API returns them: the items do not repeat their kind."""
    documents = []
    for kind in ("Node", "Pod", "ResourceSlice", "ResourceClaim"):
        items = [{k: v for k, v in obj.items() if k != "kind"} for obj in CLUSTER if obj["kind"] == kind]
        documents.append({"apiVersion": "v1", "kind": f"{kind}List", "items": items})
    return yaml.safe_dump_all(documents)


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": CLUSTER}),
        json.dumps({"apiVersion": "v1", "kind": "List", "items": CLUSTER}, indent=4),
        json.dumps(CLUSTER),
        yaml.safe_dump_all(CLUSTER),
        "---\n" + yaml.safe_dump_all(CLUSTER) + "---\n",
        _typed_lists(),
    ],
    ids=["List", "JSON List", "JSON array", "documents", "empty documents", "typed lists"],
)
def test_all_that_kubectl_prints_is_read_alike(text: str) -> None:
    inventory = read_inventory(text)
    assert _gpus(inventory) == {"b200-a": 8, "dra-0": 8, "gb200-r1-0": 4, "mi300x-0": 8}
    assert inventory.held == {"b200-a": {"nvidia.com/gpu": 3}, "dra-0": {"nvidia.com/gpu": 1}}
    assert inventory.problems == ()


def test_one_node_by_itself_is_read() -> None:
    inventory = read_inventory(yaml.safe_dump(hgx_b200()))
    assert _gpus(inventory) == {"b200-a": 8}
    assert inventory.held is None, "no pods: nothing is known of what is in use"


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("nodes: [{accelerator: B200, count: 4, gpus: 8}]", {f"b200-{i}": 8 for i in range(4)}),
        ('{"nodes": [{"accelerator": "NVIDIA-H200"}]}', {"h200-0": 8}),
        ("nodes: [{accelerator: gb200, count: 2}]", {"gb200-0": 4, "gb200-1": 4}),
        ("nodes: [{accelerator: b200, gpus: 8}, {accelerator: B200, gpus: 4}]", {"b200-0": 8, "b200-1": 4}),
        ("nodes: [{accelerator: cpu, count: 2}]", {"cpu-0": 0, "cpu-1": 0}),
    ],
)
def test_people_without_a_cluster_describe_one_in_a_line(text: str, gpus: dict[str, int]) -> None:
    inventory = read_inventory(text)
    assert _gpus(inventory) == gpus
    assert inventory.problems == ()


def test_a_described_node_may_have_a_network_a_place_and_a_taint() -> None:
    """A group over several nodes depends on all three."""
    inventory = read_inventory(
        "nodes: [{accelerator: B200, labels: {topology.kubernetes.io/zone: a}, resources: {rdma/ib: 8, cpu: 64},"
        " taints: [{key: dedicated, value: llm, effect: NoSchedule}]}]"
    )
    assert inventory.nodes is not None
    node = inventory.nodes[0]
    assert node.rdma == {"rdma/ib": 8}
    assert node.gpus["nvidia.com/gpu"] == 8
    assert node.topology[0] == ("topology.kubernetes.io/zone", "a")
    assert [(taint.key, taint.value, taint.effect) for taint in node.taints] == [
        ("dedicated", "llm", "NoSchedule")
    ]


@pytest.mark.parametrize("name", load_catalog().names())
def test_described_nodes_are_planned_for_like_real_ones(name: str) -> None:
    inventory = read_inventory(f"nodes: [{{accelerator: {name}, count: 2}}]")
    profile = load_catalog().accelerator(name)
    assert profile is not None
    found = _hardware(model_deployment(hardware={"accelerator": name}).spec, inventory, load_catalog())
    assert isinstance(found, Hardware)
    assert (found.gpus_per_node, found.memory_mib) == (profile.gpus_per_node, profile.memory_mib)


def test_described_racks_are_nvlink_domains() -> None:
    """Else every described NVL72 would be planned as if its trays had only the network between them."""
    inventory = read_inventory("nodes: [{accelerator: GB200, count: 20}]")
    cliques = [node.clique for node in inventory.nodes or ()]
    assert sorted(map(cliques.count, set(cliques))) == [2, 18]


@pytest.mark.parametrize(("name", "mib"), [("B200", 182642), ("MI300X", 196608)])
def test_described_memory_goes_before_the_catalogues(name: str, mib: int) -> None:
    inventory = read_inventory(f"nodes: [{{accelerator: {name}, memoryMib: {mib}, labels: {{rack: r1}}}}]")
    (facts,) = inventory.nodes or ()
    assert (facts.memory_mib, facts.labels["rack"]) == (mib, "r1")


def _with(path: list[Any], value: Any) -> str:
    """A List of two nodes, a pod and a slice with one value replaced."""
    data: Any = {"kind": "List", "items": json.loads(json.dumps([hgx_b200(), pod("b200-a", container(1))]))}
    data["items"] += [dra_only(), resource_slice("dra-0")]
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return yaml.safe_dump(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no nodes", "it is empty", "kubectl get nodes -o yaml"]),
        ("kind: Pod\nmetadata: {name: a}", ["no nodes", "kinds found: Pod"]),
        ("just words", ["'just words' is neither an object nor a list"]),
        ("a: [1, 2", ["neither YAML nor JSON", "line 1"]),
        ('{"kind": "List", "items": [', ["neither YAML nor JSON", "line 2"]),
        ('{"a": "' + "x" * 2**20, ["not JSON", "line 1 column 7"]),
        ("kind: Node\nmetadata: {name: a}\n---\n{a: 1}", ["document 2: kind: is missing"]),
        ("kind: List\nitems: 5", ["items: is not a list"]),
        ("kind: List\nitems: [5]", ["items[0]: '5' is not an object"]),
        ("kind: List\nitems: [{metadata: {name: a}}]", ["items[0].kind: is missing"]),
        ("kind: Node", ["metadata (Node)", "required"]),
        ("kind: Node\nmetadata: {name: 7}", ["metadata.name (Node 7)", "string"]),
        (
            "kind: Node\nmetadata: {name: a}\n---\nnodes: [{}]",
            ["document 2: nodes[0].accelerator", "required"],
        ),
        ("nodes: [{accelerator: B20}]", ["nodes[0].accelerator", "no 'B20'", "it has B200"]),
        ("nodes: [{accelerator: B200, gpus: 0}]", ["nodes[0].gpus", "greater than or equal to 1", "'0'"]),
        ("nodes: [{accelerator: B200, gpus: eight}]", ["nodes[0].gpus", "'eight'"]),
        ("nodes: [{accelerator: B200, count: 1000000}]", ["nodes[0].count", "10000"]),
        ("nodes: [{accelerator: B200, colour: green}]", ["nodes[0].colour", "not permitted"]),
        ("nodes: [{accelerator: B200, taints: [{key: a}]}]", ["nodes[0].taints[0].effect", "required"]),
        ("nodes: [{accelerator: B200, taints: [{key: a, effect: No}]}]", ["taints[0].effect", "NoSchedule"]),
        ("nodes: [{accelerator: B200, resources: {rdma/ib: 1.5}}]", ["nodes[0].resources.rdma/ib", "1.5"]),
        ("nodes: []", ["nodes: ", "at least 1"]),
        ("nodes: [{accelerator: cpu, gpus: 8}]", ["nodes[0]", "cpu has no GPUs"]),
        ("date: 2026-99-99", ["cannot be read"]),
        ("kind: Node\nmetadata: {name: a}\n---\nkind: Node\nmetadata: {name: a}", ["node a is there twice"]),
        (
            _with(["items", 0, "metadata", "labels", "nvidia.com/gpu.memory"], 183359),
            ["items[0].metadata.labels.nvidia.com/gpu.memory (Node b200-a)", "string", "'183359'"],
        ),
        (
            _with(["items", 0, "status", "capacity"], ["8"]),
            ["items[0].status.capacity (Node b200-a)", "dictionary"],
        ),
        (_with(["items", 0, "spec", "taints"], [{"key": "a"}]), ["items[0].spec.taints[0].effect"]),
        (
            _with(["items", 1, "spec", "containers", 0, "resources"], 3),
            ["items[1].spec.containers[0].resources"],
        ),
        (_with(["items", 3, "spec", "pool"], "dra-0"), ["items[3].spec.pool (ResourceSlice"]),
        (_with(["items", 3, "spec", "devices", 1, "name"], None), ["items[3].spec.devices[1].name"]),
        (_with(["items", 3, "spec", "devices", 0, "attributes", "type"], "gpu"), ["attributes.type"]),
    ],
)
def test_a_fault_is_said_with_its_place(text: str, words: list[str]) -> None:
    """A trace of the reader's own code would help nobody."""
    with pytest.raises(InventoryError) as fault:
        read_inventory(text)
    for word in words:
        assert word in str(fault.value)


def test_a_file_that_unfolds_without_end_is_refused() -> None:
    layers = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(InventoryError, match="aliases"):
        read_inventory("\n".join(layers))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        '{"a":' * 100_000,
        "- " * 100_000 + "x",
        "x: " + "[" * 5000 + "]" * 5000,
    ],
    ids=["lists", "maps", "JSON", "dashes", "closed"],
)
def test_a_file_that_nests_without_end_is_refused(text: str) -> None:
    """LibYAML would end the whole process."""
    with pytest.raises(InventoryError, match="deeper"):
        read_inventory(text)


def test_a_file_that_is_too_large_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_file, "LARGEST_MIB", 1)
    with pytest.raises(InventoryError, match="has 2 MiB, the most is 1"):
        read_inventory("#" * (2**20 + 1))
    with pytest.raises(InventoryError, match="has 2 MiB"):
        read_inventory("#" + "é" * 2**19)


def test_broken_labels_are_problems_of_the_node_and_not_of_the_file() -> None:
    inventory = read_inventory(yaml.safe_dump(hgx_b200(**{"nvidia.com/gpu.memory": "lots"})))
    (problem,) = inventory.problems
    assert (problem.node, problem.key) == ("b200-a", "nvidia.com/gpu.memory")
