"""`--explain`: every argument of the engine with its reason, every constant of memory and speed with its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_operator.cli.plan_report import PlanReport, Sizes
from moe_operator.cli.tables import table
from moe_operator.cli.units import count, gib
from moe_operator.planner import memory
from moe_operator.planner.memory import MIB


@dataclass(frozen=True)
class Explained:
    """One figure that a plan is made of."""

    key: str
    """For scripts."""
    what: str
    value: str
    why: str


def explain_text(report: PlanReport) -> str:
    """Arguments, memory and speed as tables."""
    rows = [
        (" ".join(one.tokens()) if len(" ".join(one.tokens())) <= 60 else f"--{one.flag} ...", one.reason)
        for one in report.arguments
    ]
    blocks = ["Arguments of vllm serve", table(("ARGUMENT", "WHY"), rows)]
    if report.sizes is not None:
        figures = [(one.what, one.value, one.why) for one in memory_figures(report, report.sizes)]
        blocks += ["Memory of one GPU", table(("WHAT", "SIZE", "WHY"), figures)]
        speed = _without_repeats(speed_constants())
        blocks += ["Constants of the estimate", table(("WHAT", "VALUE", "WHY"), speed)]
    return "\n\n".join(blocks)


def memory_figures(report: PlanReport, sizes: Sizes) -> Iterator[Explained]:
    """Every part of one GPU's memory, and the constants in it."""
    sizing, sized, weights = report.plan.sizing, sizes.sized, sizes.sized.memory.weights
    assert sizing is not None  # sizes are made with it
    per_gpu = sized.placement.per_gpu
    if weights.routed_experts:
        yield Explained(
            "routedExperts",
            "routed experts",
            gib(weights.routed_experts),
            f"{per_gpu} per layer on the fullest GPU"
            if report.plan.expert_parallel
            else "all of them, sliced over the rank's GPUs",
        )
    if weights.redundant_experts:
        yield Explained(
            "redundantExperts",
            "copies of experts",
            gib(weights.redundant_experts),
            f"{sized.placement.redundant} in the group, so that experts divide evenly and busy ones are shared",
        )
    yield Explained(
        "otherWeights",
        "other weights",
        gib(weights.other),
        f"attention, embeddings, norms, shared experts: over the rank's {sized.shape.tensor} GPUs where divisible",
    )
    if weights.adapters:
        yield Explained(
            "adapters",
            "adapters",
            gib(weights.adapters),
            f"matrices of rank {sizing.adapter_rank} beside every layer that may change, for"
            f" {count(sizing.adapter_slots, 'adapter')} at a time",
        )
    yield Explained(
        "activations",
        "activations",
        gib(sizing.activation_bytes),
        f"peak of a step of {sizing.max_batched_tokens} tokens, or logits of {sizing.max_sequences} requests"
        + (f" with {sizing.speculative_tokens} drafted each" if sizing.speculative_tokens else ""),
    )
    yield from _buffers(report, sizes)
    if report.profile.resource_name:
        yield Explained(
            "driver",
            "driver (constant)",
            gib(memory.DRIVER_RESERVED),
            "what CUDA does not see of the memory that the node's label says; part of the headroom",
        )
        yield Explained(
            "headroom",
            "headroom",
            gib(sizing.headroom_bytes),
            f"driver, and {gib(memory.HEADROOM)} or more beside --gpu-memory-utilization"
            f" (at most {memory.LARGEST_UTILIZATION}%): other processes, NCCL's late buffers, fragmentation",
        )
    layout = sized.kv_layout
    yield Explained(
        "kvCache",
        "KV cache",
        gib(sizing.kv_cache_bytes),
        f"the rest: {layout.blocks(sizing.kv_cache_bytes)} blocks of {sizing.kv_block_tokens} tokens and"
        f" {sizing.kv_block_bytes / MIB:.2f} MiB, as vLLM divides it"
        if report.profile.resource_name
        else "VLLM_CPU_KVCACHE_SPACE",
    )


def _buffers(report: PlanReport, sizes: Sizes) -> Iterator[Explained]:
    sizing, architecture, width = report.plan.sizing, sizes.model.architecture, report.plan.width
    assert sizing is not None
    yield Explained(
        "engineFixed",
        "engine (constant)",
        gib(memory.ENGINE_FIXED),
        "CUDA context, cuBLAS and FlashInfer workspaces, compiled kernels of a worker",
    )
    graphs = memory.CUDA_GRAPHS_PER_UNIT * architecture.hidden * architecture.layers / (1024 * 100)
    yield Explained(
        "cudaGraphs",
        "CUDA graphs",
        gib((memory.CUDA_GRAPHS + graphs) * (2 if sizing.adapter_slots else 1)),
        f"{gib(memory.CUDA_GRAPHS)} and {memory.CUDA_GRAPHS_PER_UNIT // MIB} MiB per 1024 hidden units and 100 layers"
        + (", once with adapters and once without" if sizing.adapter_slots else ""),
    )
    if sizing.speculative_tokens:
        yield Explained(
            "draftGraphs",
            "CUDA graphs of drafts (constant)",
            gib(memory.DRAFT_GRAPHS),
            "the layers that draft are captured by themselves",
        )
    if width > 1:
        node = report.hardware.gpus_per_node
        size = (
            memory.NCCL_BEYOND_NODE if width > node else memory.NCCL_NODE if width > 2 else memory.NCCL_PAIR
        )
        yield Explained("nccl", "NCCL", gib(size), f"channels and buffers among {width} GPUs")
    if sizing.balanced:
        yield Explained(
            "expertTransfer",
            "expert transfer",
            gib(sizes.sized.placement.per_gpu * _one_expert(sizes)),
            "one layer's experts again, to move them while the group serves",
        )


def _one_expert(sizes: Sizes) -> int:
    placed, routed = sizes.sized.placement, sizes.sized.memory.weights
    experts = sizes.model.architecture.experts
    layers = experts.layers if experts else 1
    return (routed.routed_experts + routed.redundant_experts) // max(1, placed.per_gpu * layers)


def speed_constants() -> tuple[Explained, ...]:
    """What the estimate of speed is made of, with the reasons that stand beside it in the planner."""
    from moe_operator.planner import arithmetic, roofline
    from moe_operator.planner.reference import constants

    found = (*constants(roofline), *constants(arithmetic))
    return tuple(
        Explained(_camel(name), name.lower().replace("_", " "), value, why) for name, value, why in found
    )


def _without_repeats(figures: tuple[Explained, ...]) -> Iterator[tuple[str, str, str]]:
    """Rows of a table; constants that are explained together say it once."""
    before = ""
    for one in figures:
        yield one.what, one.value, "as above" if one.why == before else one.why
        before = one.why


def _camel(name: str) -> str:
    first, *rest = name.lower().split("_")
    return first + "".join(part.capitalize() for part in rest)
