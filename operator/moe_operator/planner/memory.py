"""The memory of one GPU under a layout: what is fixed, and what is left for the KV cache.

vLLM takes `utilization` of the GPU's memory, subtracts weights and what its profiling run used, and gives the rest
to the KV cache. This predicts the same sum before there is a pod. Weights and caches are exact arithmetic; what a
profiling run would measure is estimated from above by the constants here, each with its reason. The operator
compares the prediction with the measurement later, so a constant that is off shows as a number.
"""

import math
from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.planner.weights import GpuWeights

MIB = 2**20
GIB = 2**30

#: What the driver keeps of the memory that the node's label reports. nvidia-smi says 183359 MiB for a B200, CUDA
#: 182642; other sizes are alike (H100 81559 and about 81000).
DRIVER_RESERVED = 720 * MIB

#: Left outside of `--gpu-memory-utilization`: CUDA contexts of other processes on the GPU (the exporter of metrics),
#: NCCL and all-to-all buffers made after profiling, and fragmentation. NVIDIA's own planner (aiconfigurator) keeps
#: 3.5 GiB on every GPU.
HEADROOM = 4 * GIB
#: The largest share that vLLM may take whatever the size, for what grows with it (page tables, fragmentation).
LARGEST_UTILIZATION = 95

#: CUDA context, cuBLAS and FlashInfer workspaces and compiled kernels of one worker process. FlashInfer alone
#: reserves 394 MiB; a context is 0.3 to 0.5 GiB.
ENGINE_FIXED = 1 * GIB

#: Captured CUDA graphs of one worker at vLLM's default capture sizes (up to 512 sequences), which its profiler
#: counts before it sizes the KV cache. Estimate.
CUDA_GRAPHS = 1 * GIB
#: And per 1024 hidden units and 100 layers, as each graph keeps its own workspaces.
CUDA_GRAPHS_PER_UNIT = 128 * MIB

#: And those of the layers that draft (speculative decoding), which vLLM captures by themselves at the same sizes: a
#: layer or a few of the model's many.
DRAFT_GRAPHS = 256 * MIB

#: NCCL's channels and buffers by GPUs that one communicator spans, from aiconfigurator's systems files: 342 MiB
#: for 2, 392 MiB for 4 to 8; more nodes add connections.
NCCL_PAIR = 342 * MIB
NCCL_NODE = 392 * MIB
NCCL_BEYOND_NODE = 640 * MIB

#: Bytes of an activation's element: bfloat16.
_ELEMENT = 2
#: Copies of the hidden state alive at the peak of a layer: residual, normalised input, attention output, and the
#: projection being made.
_HIDDEN_COPIES = 4
#: Gate and up halves, and their product, of a feed-forward network.
_FFN_COPIES = 3
#: Bytes per logit at the peak of sampling: the model's precision, FP32, and its sorted or normalised copy.
_LOGIT = 2 + 4 + 4


@dataclass(frozen=True)
class MemoryBudget:
    """One GPU's memory in bytes. The parts add up to `capacity`."""

    capacity: int
    """As the node's label or the catalogue says."""
    weights: GpuWeights
    activations: int
    """Peak of a step with `max_batched_tokens`, logits included."""
    buffers: int
    """CUDA graphs, contexts, NCCL and all-to-all buffers, expert transfer buffers."""
    headroom: int
    """What vLLM may not take, and what the driver keeps."""
    kv_cache: int
    """The rest. Negative where it does not fit: by so many bytes."""

    @property
    def fixed(self) -> int:
        """Everything but the KV cache."""
        return self.capacity - self.kv_cache


@dataclass(frozen=True)
class EngineSizes:
    """What the engine is told and what follows for its memory."""

    max_batched_tokens: int
    max_sequences: int
    utilization: int
    """Percent of the GPU's memory that vLLM takes."""
    drafted: int = 0
    """Tokens that are drafted for each request in a step, and checked with the one that is certain."""


def utilization_percent(capacity: int) -> int:
    """The share of a GPU of `capacity` bytes that leaves `HEADROOM`, in whole percent, at most
    LARGEST_UTILIZATION: 95 for a B200, 94 for an H100, 90 for an L40S."""
    seen = capacity - DRIVER_RESERVED
    return min(LARGEST_UTILIZATION, math.floor(100 * (seen - HEADROOM) / seen))


def activation_bytes(
    architecture: Architecture, sizes: EngineSizes, *, tensor: int, data: int, expert_parallel: bool
) -> int:
    """Peak of one step's activations on a GPU, from above.

    With experts over several ranks (allgather/reduce-scatter, vLLM's default), every GPU gathers the tokens of all
    ranks and passes those through its experts that chose them; on average each GPU computes its share.
    """
    tokens = sizes.max_batched_tokens
    hidden = architecture.hidden
    peak = tokens * hidden * _ELEMENT * _HIDDEN_COPIES
    feed_forward = tokens * math.ceil(architecture.widest_ffn / tensor) * _ELEMENT * _FFN_COPIES
    experts = architecture.experts
    if experts is not None and expert_parallel:
        gathered = tokens * data
        chosen = math.ceil(gathered * experts.active / (tensor * data))
        per_choice = _FFN_COPIES * experts.intermediate + hidden
        feed_forward = gathered * hidden * _ELEMENT * 2 + chosen * per_choice * _ELEMENT
    logits = sizes.max_sequences * (1 + sizes.drafted) * architecture.vocabulary * _LOGIT
    return max(peak + feed_forward, logits)


def buffer_bytes(
    architecture: Architecture,
    *,
    width: int,
    gpus_per_node: int,
    exchange: int,
    held_expert_bytes: int,
    balanced: bool,
    drafted: int = 0,
    adapters: bool = False,
) -> int:
    """Memory of the engine that neither weights nor activations are.

    `exchange`: what its all-to-all backend keeps (`exchange.exchange_bytes`).
    `held_expert_bytes`: one layer's routed experts on this GPU; `balanced` (EPLB) keeps as much again to move
    experts while it serves. `drafted`: tokens of speculative decoding; `adapters`: with LoRA vLLM captures each graph
    twice, for batches with and without (`cudagraph_specialize_lora`).
    """
    graphs = CUDA_GRAPHS
    graphs += math.ceil(CUDA_GRAPHS_PER_UNIT * architecture.hidden * architecture.layers / (1024 * 100))
    total = ENGINE_FIXED + graphs * (2 if adapters else 1) + (DRAFT_GRAPHS if drafted else 0)
    if width > gpus_per_node:
        total += NCCL_BEYOND_NODE
    elif width > 2:
        total += NCCL_NODE
    elif width == 2:
        total += NCCL_PAIR
    total += exchange
    if balanced:
        total += held_expert_bytes
    return total


def host_budget(weights: GpuWeights, kv_cache: int, *, activations: int, buffers: int) -> MemoryBudget:
    """A rank on `cpu`: the KV cache has the size that it is given, and memory is what that adds up to."""
    capacity = weights.total + activations + buffers + kv_cache
    return MemoryBudget(capacity, weights, activations, buffers, 0, kv_cache)


def memory_budget(
    capacity: int, weights: GpuWeights, sizes: EngineSizes, *, activations: int, buffers: int
) -> MemoryBudget:
    """What is left of `capacity` bytes for the KV cache, as vLLM will compute it."""
    usable = (capacity - DRIVER_RESERVED) * sizes.utilization // 100
    headroom = capacity - usable
    kv_cache = usable - weights.total - activations - buffers
    return MemoryBudget(capacity, weights, activations, buffers, headroom, kv_cache)
