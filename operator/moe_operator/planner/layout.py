"""How one group is laid out over nodes: hardware first, then width, ranks and pods.

All pods of a group are alike, as they share one template: a group takes the same number of GPUs on each of
its nodes, and a rank's GPUs are on one node.
"""

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.accelerators import Catalog
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.nodes import Hardware, choose_hardware
from moe_operator.planner.plan import Plan, Refusal


def plan(deployment: ModelDeployment, inventory: Inventory, catalog: Catalog) -> Plan | Refusal:
    """The layout of one group of this deployment on these nodes, or why there is none."""
    hardware = choose_hardware(deployment.spec, inventory, catalog)
    if isinstance(hardware, Refusal):
        return hardware
    return _lay_out(deployment.spec, hardware)


def _lay_out(spec: ModelDeploymentSpec, hardware: Hardware) -> Plan | Refusal:
    profile, node = hardware.profile, hardware.gpus_per_node
    width, tensor = _dimensions(spec, hardware)
    if profile.resource_name is None and tensor > 1:
        # vLLM's CPU workers crash on the first request of a tensor-parallel group with experts (0.32).
        return _invalid(f"ranks on {profile.name} have no tensor parallelism: leave parallelism.tensor out")
    if spec.parallelism.data is not None and tensor * spec.parallelism.data != width:
        return _invalid(
            f"parallelism.tensor {tensor} x parallelism.data {spec.parallelism.data} is"
            f" {tensor * spec.parallelism.data} GPUs, not the group's {width}: leave one of them out"
        )
    if tensor > node:
        return _invalid(
            f"a rank of {tensor} GPUs does not fit on a node's {node}: set parallelism.tensor to"
            f" {_divisors(node)}"
        )
    per_pod = min(width, node)
    if width % per_pod:
        return _uneven(width, hardware)
    if per_pod % tensor:
        return _invalid(
            f"ranks of {tensor} GPUs do not fill the {per_pod} GPUs that a group has on a node: set"
            f" parallelism.tensor to {_divisors(per_pod)}"
        )
    return Plan(
        accelerator=profile.name,
        width=width,
        pods_per_group=width // per_pod,
        ranks_per_pod=per_pod // tensor,
        tensor=tensor,
        data=width // tensor,
        expert_parallel=width > 1,
        gpus_per_pod=per_pod,
        notes=hardware.notes,
    )


def _dimensions(spec: ModelDeploymentSpec, hardware: Hardware) -> tuple[int, int]:
    """Width and GPUs per rank: what the spec says, the other from it, and attention on single GPUs by default.

    One GPU per rank: attention runs on whole requests, so its KV cache is neither copied nor split, and only
    the experts are spread over the group.
    """
    tensor, data = spec.parallelism.tensor, spec.parallelism.data
    width = spec.hardware.gpus_per_group
    if width is None:
        if data is not None:
            return data * (tensor or 1), tensor or 1
        width = hardware.profile.default_width or hardware.gpus_per_node
    if tensor is None:
        tensor = width // data if data is not None and width % data == 0 else 1
    return width, tensor


def _uneven(width: int, hardware: Hardware) -> Refusal:
    node = hardware.gpus_per_node
    below = width - width % node
    pins = [n for n in range(node - 1, 1, -1) if width % n == 0][:3]
    on_cpu = hardware.profile.resource_name is None
    places = f"pods of {node} ranks" if on_cpu else f"nodes of {node} GPUs"
    pinned = f", or pin hardware.gpusPerNode to {_or(pins)}" if pins else ""
    return _invalid(
        f"a group of {width} does not spread evenly over {places}: the nearest widths that do are {below} and"
        f" {below + node} (hardware.gpusPerGroup){pinned}"
    )


def _divisors(number: int) -> str:
    return _or([n for n in range(1, number + 1) if number % n == 0])


def _or(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def _invalid(message: str) -> Refusal:
    return Refusal(reasons.INVALID_LAYOUT, message)
