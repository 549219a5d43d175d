"""Bytes of weights as a checkpoint stores them, which is also what they take on a GPU."""

from moe_operator.catalog.models.architecture import Section, Tensor
from moe_operator.catalog.models.model import Checkpoint, Model
from moe_operator.catalog.models.scheme import ELEMENT_BYTES


def tensor_bytes(tensor: Tensor, checkpoint: Checkpoint, dtype: str) -> int:
    """Bytes of all matrices of one tensor, scales included.

    `dtype` is that of tensors which the checkpoint leaves alone (`Checkpoint.dtype`). A share of a tensor is asked
    for by replacing its rows, columns or experts: name and layers decide the format. Raises KeyError for a dtype
    that is none of bfloat16, float16, float32.
    """
    element = ELEMENT_BYTES[dtype]
    return tensor.experts * sum(
        layers * scheme.bytes_of(tensor.rows, tensor.cols, element)
        for scheme, layers in checkpoint.schemes(tensor)
    )


def checkpoint_bytes(model: Model, checkpoint: Checkpoint, sections: frozenset[Section] | None = None) -> int:
    """Bytes of these sections (None: all) of a checkpoint; what the repository does not hold counts nothing."""
    wanted = (frozenset(Section) if sections is None else sections) - checkpoint.without
    dtype = checkpoint.dtype(model.architecture)
    return sum(tensor_bytes(tensor, checkpoint, dtype) for tensor in model.architecture.of(*wanted))
