"""How one group is laid out over nodes: GPUs per rank, ranks, pods.

All pods of a group are alike, as they share one template: a group takes the same number of GPUs on each of its nodes,
and a rank's GPUs are on one node.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.planner.nodes import Hardware
from moe_operator.planner.phrases import either
from moe_operator.planner.plan import Refusal

#: More nodes than that in a group are not proposed, only taken when asked for: one lost node ends the group.
_MOST_NODES = 16


@dataclass(frozen=True)
class GroupShape:
    """width = tensor x data = pods x gpus_per_pod."""

    tensor: int
    """GPUs of a rank."""
    data: int
    """Ranks of the group."""
    gpus_per_pod: int

    @property
    def width(self) -> int:
        return self.tensor * self.data

    @property
    def pods(self) -> int:
        return self.width // self.gpus_per_pod

    @property
    def ranks_per_pod(self) -> int:
        return self.gpus_per_pod // self.tensor


def given_shape(spec: ModelDeploymentSpec, hardware: Hardware) -> GroupShape | Refusal:
    """The shape that the spec says, with the width's default and one GPU per rank where it says nothing.

    One GPU per rank: attention runs on whole requests, so its KV cache is neither copied nor split, and only
    the experts are spread over the group.
    """
    tensor, data = spec.parallelism.tensor, spec.parallelism.data
    width = spec.hardware.gpus_per_group
    if width is None:
        if data is not None:
            width, tensor = data * (tensor or 1), tensor or 1
        else:
            width = hardware.profile.default_width or hardware.gpus_per_node
    if tensor is None:
        tensor = width // data if data is not None and width % data == 0 else 1
    return lay_out(spec, hardware, width, tensor)


def possible_shapes(
    spec: ModelDeploymentSpec, hardware: Hardware, *, whole_rank: bool
) -> Iterator[GroupShape]:
    """Every shape that the spec allows and the nodes can hold, narrow ones first.

    Up to one node a width must divide the node's GPUs, so that groups fill it; beyond, it doubles, within an NVLink
    domain first. `whole_rank`: the group is one rank (a dense model).
    """
    node = hardware.gpus_per_node
    tensor, data = spec.parallelism.tensor, spec.parallelism.data
    if spec.hardware.gpus_per_group is not None:
        widths = [spec.hardware.gpus_per_group]
    elif data is not None and tensor is not None:
        widths = [data * tensor]
    else:
        widths = [width for width in range(1, node + 1) if node % width == 0]
        widths += [node * nodes for nodes in (2, 4, 8, _MOST_NODES)]
    for width in widths:
        for each in (tensor,) if tensor is not None else _powers(min(width, node)):
            if width % each or (data is not None and each * data != width) or (whole_rank and each != width):
                continue
            shape = lay_out(spec, hardware, width, each)
            if isinstance(shape, GroupShape):
                yield shape


def lay_out(spec: ModelDeploymentSpec, hardware: Hardware, width: int, tensor: int) -> GroupShape | Refusal:
    """A group of `width` GPUs with `tensor` per rank on these nodes, or why that is not possible."""
    profile, node = hardware.profile, hardware.gpus_per_node
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
    return GroupShape(tensor, width // tensor, per_pod)


def _uneven(width: int, hardware: Hardware) -> Refusal:
    node = hardware.gpus_per_node
    below = width - width % node
    pins = [n for n in range(node - 1, 1, -1) if width % n == 0][:3]
    on_cpu = hardware.profile.resource_name is None
    places = f"pods of {node} ranks" if on_cpu else f"nodes of {node} GPUs"
    pinned = f", or pin hardware.gpusPerNode to {either(pins)}" if pins else ""
    return _invalid(
        f"a group of {width} does not spread evenly over {places}: the nearest widths that do are {below} and"
        f" {below + node} (hardware.gpusPerGroup){pinned}"
    )


def _powers(most: int) -> list[int]:
    return [1 << bits for bits in range(most.bit_length()) if 1 << bits <= most]


def _divisors(number: int) -> str:
    return either([n for n in range(1, number + 1) if number % n == 0])


def _invalid(message: str) -> Refusal:
    return Refusal(reasons.INVALID_LAYOUT, message)
