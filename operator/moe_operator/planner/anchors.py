"""Published throughput beside what the planner estimates for the same set-up: how far off the roofline is.

Only set-ups that can be compared: without speculative decoding, with the lengths of prompts and answers known. Where
a publication does not say how many requests ran, the estimate runs as many as fit, as for a peak.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from moe_operator.api.spec import Goal
from moe_operator.catalog.accelerators import Catalog
from moe_operator.catalog.models.catalog import ModelCatalog
from moe_operator.catalog.profile import AcceleratorProfile
from moe_operator.planner.memory import MIB
from moe_operator.planner.roofline import Step, prefill_rate
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import Sized, size
from moe_operator.planner.usable import unusable
from moe_operator.planner.wants import Wants


class Rate(StrEnum):
    """What was counted."""

    PROMPT = "prompt tokens alone"
    DECODE = "output tokens, prompts read elsewhere"
    OUTPUT = "output tokens, prompts read beside"
    TOTAL = "prompt and output tokens"


@dataclass(frozen=True)
class Anchor:
    """One published figure."""

    source: str
    model: str
    precision: str
    accelerator: str
    layout: tuple[int, int] | None
    """(GPUs per rank, ranks); None: the publisher's best within a node, so the estimate's best too."""
    prompt: int
    output: int
    rate: Rate
    published: float
    """Tokens per second and GPU."""
    per_user: int | None = None
    """Tokens per second that each request gets at least; None: nobody waits."""
    sequences: int | None = None
    """Requests at a time, where the publication says."""
    remark: str = ""
    """Why the estimate is known to be off."""


_R1, _V32 = "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3.2"
_Q397, _OSS = "Qwen/Qwen3.5-397B-A17B", "openai/gpt-oss-120b"
_PROMPT, _DECODE, _OUTPUT, _TOTAL = Rate.PROMPT, Rate.DECODE, Rate.OUTPUT, Rate.TOTAL
_COMPARE = "InferenceX, comparison of speculative decoding, off"
_FP4 = "InferenceX, comparison of GPUs"

ANCHORS = (
    Anchor("LMSYS, 2025-05-05", _R1, "fp8", "H100", (1, 32), 2000, 100, _PROMPT, 6540),
    Anchor("LMSYS, 2025-05-05", _R1, "fp8", "H100", (1, 72), 2000, 100, _DECODE, 2790),
    Anchor("vLLM, 2025-12-17", _R1, "fp8", "H200", (1, 32), 2048, 2048, _DECODE, 2200),
    # Published on 2 GPUs, whose experts, shared ones and all, this catalogue's checkpoint fills.
    Anchor("vLLM, 2026-02-03", _R1, "nvfp4", "GB200", (1, 4), 2048, 2048, _PROMPT, 26200),
    Anchor("vLLM, 2026-02-03", _R1, "nvfp4", "GB200", (1, 8), 2048, 2048, _DECODE, 10100),
    Anchor("LMSYS, 2025-06-16", _R1, "fp8", "GB200", (1, 48), 2000, 100, _DECODE, 7583),
    Anchor("LMSYS, 2025-09-25", _R1, "fp8", "GB200", (1, 8), 2000, 100, _PROMPT, 18471),
    Anchor("LMSYS, 2025-09-25", _R1, "fp8", "GB200", (1, 48), 2000, 100, _DECODE, 9087),
    Anchor("LMSYS, 2025-09-25", _R1, "nvfp4", "GB200", (1, 8), 2000, 100, _PROMPT, 26156),
    Anchor("LMSYS, 2025-09-25", _R1, "nvfp4", "GB200", (1, 48), 2000, 100, _DECODE, 13386),
    Anchor("vLLM, 2026-02-13", _R1, "nvfp4", "GB300", (1, 2), 2048, 1, _PROMPT, 22476),
    Anchor("vLLM, 2026-02-13", _R1, "nvfp4", "GB300", (1, 2), 2048, 1024, _OUTPUT, 3072),
    Anchor(
        *("vLLM, 2026-02-13", _V32, "nvfp4", "GB300", (2, 1), 2048, 1, _PROMPT, 7360),
        remark="sparse attention's indexer is not counted",
    ),
    Anchor("vLLM, 2026-02-13", _V32, "nvfp4", "GB300", (2, 1), 2048, 1024, _OUTPUT, 2816),
    Anchor(_COMPARE, _Q397, "nvfp4", "B200", None, 1024, 1024, _TOTAL, 2670, 77),
    Anchor(_COMPARE, _Q397, "nvfp4", "B200", None, 1024, 1024, _TOTAL, 998, 114),
    Anchor(_FP4, _OSS, "mxfp4", "B200", None, 1024, 1024, _TOTAL, 25320, 72),
    Anchor(_FP4, _OSS, "mxfp4", "B200", None, 1024, 1024, _TOTAL, 20939, 100),
    Anchor("millstoneai.com", _OSS, "mxfp4", "H100", (1, 1), 1024, 1024, _OUTPUT, 511, sequences=4),
    Anchor("millstoneai.com", _OSS, "mxfp4", "H200", (1, 1), 1024, 1024, _OUTPUT, 849, sequences=10),
)


def estimate(anchor: Anchor, accelerators: Catalog, models: ModelCatalog) -> float:
    """Tokens per second and GPU as the planner sees this set-up.

    Raises:
        ValueError: a model, checkpoint or accelerator that the catalogues lack, or a layout that does not fit.
    """
    profile, model = accelerators.accelerator(anchor.accelerator), models.find(anchor.model)
    checkpoint = model.checkpoint(anchor.precision) if model else None
    if profile is None or profile.memory_mib is None or model is None or checkpoint is None:
        raise ValueError(f"the catalogues lack what {anchor} names")
    wants = _wants(anchor)
    found = [
        size(model, checkpoint, profile, profile.memory_mib * MIB, profile.gpus_per_node, shape, wants)
        for shape in _shapes(anchor, profile)
        if not unusable(model.architecture, checkpoint, shape)
    ]
    rates = [_rate(one, anchor) for one in found if isinstance(one, Sized) and one.meets]
    if not rates:
        raise ValueError(f"does not fit: {anchor}")
    return max(rates)


def _shapes(anchor: Anchor, profile: AcceleratorProfile) -> Iterator[GroupShape]:
    node = profile.gpus_per_node
    if anchor.layout is not None:
        tensor, data = anchor.layout
        yield GroupShape(tensor, data, min(tensor * data, node))
        return
    for width in (1, 2, 4, 8):
        yield from (GroupShape(tensor, width // tensor, width) for tensor in (1, 2, 4, 8) if tensor <= width)


def _rate(sized: Sized, anchor: Anchor) -> float:
    architecture, width = sized.model.architecture, sized.shape.width
    # What was published wider than a node sent tokens with DeepEP.
    load = replace(sized.load, sparse_dispatch=sized.shape.pods > 1)
    if anchor.rate is Rate.PROMPT:
        return prefill_rate(architecture, load, anchor.prompt)
    if anchor.rate is Rate.DECODE:
        running = min(sized.concurrency, sized.sizes.max_sequences)
        return running * sized.shape.data / Step(architecture, load).seconds(running) / width
    rate = sized.throughput.output_tokens_per_second
    if anchor.rate is Rate.TOTAL:
        rate += sized.throughput.prompt_tokens_per_second
    return rate / width


_NOBODY_WAITS = 1e9


def _wants(anchor: Anchor) -> Wants:
    return Wants(
        precision=anchor.precision,
        kv_cache_precision=None,
        context_length=anchor.prompt + anchor.output,
        time_to_first_token=_NOBODY_WAITS,
        time_per_output_token=1 / anchor.per_user if anchor.per_user else _NOBODY_WAITS,
        input_tokens=anchor.prompt,
        output_tokens=anchor.output,
        goal=Goal.MOST_THROUGHPUT,
        max_sequences=anchor.sequences,
        max_batched_tokens=None,
        utilization=None,
        host_kv_cache=0,
        assumed=(),
    )
