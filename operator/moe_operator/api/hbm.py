"""What a user may read of memory: `status.hbm`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from moe_operator.api.base import ApiModel


class HbmSource(StrEnum):
    """Where figures of memory come from."""

    MEASURED = "Measured"
    """All of them from exporters, or on `cpu` from the kubelet."""
    ESTIMATED = "Estimated"
    """Some or all from the plan, and the KV cache that engines report."""


class WorstGpu(ApiModel):
    """The fullest GPU that was measured; on `cpu` the fullest pod."""

    group: str
    """Name of the group's LeaderWorkerSet."""
    pod: str
    """The pod that has it."""
    node: str
    """The pod's node."""
    rank: int | None = None
    """Number of the rank in the group; absent where it is not known which of the pod's ranks has the GPU."""
    gpu: str | None = None
    """Index on the node."""
    percent: int
    """Used of what processes may have."""


class HbmStatus(ApiModel):
    """Memory of the GPUs of groups that serve or drain, all together; on `cpu` main memory of their engines. In MiB."""

    source: HbmSource
    """Measured, or Estimated as soon as one GPU is."""
    used_mib: int
    """In use. A KV cache counts whole, as engines take it when they start."""
    capacity_mib: int
    """What processes may have of the GPUs: without what drivers reserve. Of what is estimated, as planned."""
    percent: int
    """Used of the capacity."""
    summary: str
    """`percent` for the HBM column, with `~` before it where it is estimated."""
    gpus: int
    """GPUs that this is about; on `cpu` pods."""
    measured_gpus: int
    """Of these, those that were measured."""
    weights_mib: int | None = None
    """Weights as planned; this and the three below are absent where the plan does not know the model's size."""
    kv_used_mib: int | None = None
    """Of the KV cache, what requests use, by the engines' own word."""
    kv_free_mib: int | None = None
    """Of the KV cache, what is free."""
    other_mib: int | None = None
    """The rest of what is used: activations, graphs, buffers for communication, and what the plan did not know of."""
    bandwidth_percent: int | None = None
    """Share of the time in which memory is read or written, mean of the GPUs that tell."""
    worst: WorstGpu | None = None
    """The fullest GPU; absent where none was measured."""
    planner_error_percent: Annotated[str, Field(max_length=24)] | None = None
    """What was measured beside the KV cache less what was planned for it, in percent of the GPU, on the GPU where that
    is most. Absent where it cannot be compared."""
    off_plan_since: str | None = None
    """Since when that has been more than 5 percent (RFC 3339)."""
