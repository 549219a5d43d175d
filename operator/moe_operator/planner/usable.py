"""Shapes that vLLM cannot divide a model over: what it asserts when it builds the model, said before there is a pod."""

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.catalog.models.catalog import Checkpoint
from moe_operator.planner.shape import GroupShape


def unusable(architecture: Architecture, checkpoint: Checkpoint, shape: GroupShape) -> str | None:
    """Why vLLM would refuse this model in this shape, or None."""
    tensor = shape.tensor
    if architecture.heads % tensor:
        return f"{architecture.heads} attention heads do not divide over {tensor} GPUs of a rank"
    if architecture.kv_heads % tensor and tensor % architecture.kv_heads:
        return f"{architecture.kv_heads} key/value heads and {tensor} GPUs of a rank do not divide each other"
    for what, number in architecture.tensor_divides:
        if number % tensor:
            return f"{number} {what} do not divide over {tensor} GPUs of a rank"
    experts = architecture.experts
    if experts is not None and shape.width > experts.count:
        return f"{experts.count} experts are fewer than the group's {shape.width} GPUs"
    return None
