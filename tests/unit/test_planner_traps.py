"""Mistakes of sizing that others have made, and that cost their users pods that never start or GPUs that idle. Each
test is named for the mistake."""

from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.gpu_nodes import hgx_b200
from factories.nodes import gpu_nodes, node
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.architecture import Section
from moe_operator.catalog.models.catalog import Model, load_models
from moe_operator.catalog.models.storage import checkpoint_bytes
from moe_operator.planner.inventory import inventory_from_nodes
from moe_operator.planner.memory import GIB, MIB
from moe_operator.planner.plan import Plan, Refusal, Sizing
from moe_operator.planner.planning import plan
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import Shortage, Sized, size
from moe_operator.planner.wants import wants_of

R1, BIG, PLAIN = "deepseek-ai/DeepSeek-R1", "Qwen/Qwen3.5-397B-A17B", "Qwen/Qwen3-235B-A22B"


def _decide(nodes: list[dict[str, Any]], name: str, **spec: Any) -> Plan | Refusal:
    wanted = {**spec, "model": {"name": name, **spec.get("model", {})}}
    return plan(model_deployment(**wanted), inventory_from_nodes(nodes), load_catalog())


def _sizing(nodes: list[dict[str, Any]], name: str, **spec: Any) -> Sizing:
    found = _decide(nodes, name, **spec)
    assert isinstance(found, Plan), found
    assert found.sizing is not None
    return found.sizing


def _on(name: str, **fields: Any) -> dict[str, Any]:
    return {"hardware": {"accelerator": name, **fields}}


def _model(name: str) -> Model:
    found = load_models().find(name)
    assert found is not None
    return found


def _sized(
    name: str, accelerator: str, tensor: int, data: int, precision: str, **spec: Any
) -> Sized | Shortage:
    """One layout, whatever the planner would choose."""
    model, profile = _model(name), load_catalog().accelerator(accelerator)
    checkpoint = model.checkpoint(precision)
    assert profile is not None
    assert profile.memory_mib is not None
    assert checkpoint is not None
    shape = GroupShape(tensor, data, min(tensor * data, profile.gpus_per_node))
    wanted = model_deployment(**{**spec, "model": {"name": name, **spec.get("model", {})}}).spec
    capacity = profile.memory_mib * MIB
    return size(model, checkpoint, profile, capacity, profile.gpus_per_node, shape, wants_of(wanted))


def _fitting(*args: Any, **spec: Any) -> Sized:
    found = _sized(*args, **spec)
    assert isinstance(found, Sized), found
    return found


# --- Units and what a node says ------------------------------------------------------------------


@pytest.mark.parametrize(("name", "marketed"), [("H200", 141e9), ("B200", 180e9), ("H100", 80e9)])
def test_marketed_gigabytes_are_not_the_memory(name: str, marketed: float) -> None:
    """The node's label counts MiB: 143,771 of an H200 are 150.8e9 bytes, 7 % more than its name says."""
    found = _sizing(gpu_nodes(name, 1), "Qwen/Qwen3-30B-A3B", **_on(name))
    profile = load_catalog().accelerator(name)
    assert profile is not None
    assert profile.memory_mib is not None
    assert found.capacity_bytes == profile.memory_mib * 2**20
    assert found.capacity_bytes > marketed * 1.05


def test_the_node_s_own_label_goes_before_the_catalogue() -> None:
    """A cloud that sells smaller GPUs under the same name."""
    own = hgx_b200(**{"nvidia.com/gpu.memory": "170000"})
    found = _sizing([own], "Qwen/Qwen3-30B-A3B", **_on("B200"))
    assert found.capacity_bytes == 170000 * MIB


def test_memory_of_a_node_is_not_memory_of_a_gpu() -> None:
    """GPUs per node times memory, or the other way round, is wrong by eight (KAITO)."""
    eight, one = gpu_nodes("H100", 1, 8), gpu_nodes("H100", 1, 1)
    spec = _on("H100", gpusPerGroup=1)
    assert _sizing(eight, "openai/gpt-oss-20b", **spec) == _sizing(one, "openai/gpt-oss-20b", **spec)


def test_one_family_s_label_is_not_all_of_them() -> None:
    """A B300's label has a suffix, and old labellers call Blackwell's family undefined: both are found by product."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-B300-SXM6-AC", "nvidia.com/gpu.family": "undefined"}
    nodes = [node("b300", labels=labels, capacity={"nvidia.com/gpu": "8"})]
    found = _decide(nodes, BIG, **_on("B300"))
    assert isinstance(found, Plan), found


def test_what_the_driver_keeps_is_not_promised() -> None:
    """CUDA sees 717 MiB less of a B200 than nvidia-smi says; all of it taken is an engine that does not start."""
    found = _sizing(gpu_nodes("B200", 1), BIG, **_on("B200"))
    taken = found.capacity_bytes - found.headroom_bytes
    cuda_sees = 182642 * MIB
    assert taken <= cuda_sees - 4 * GIB


# --- Weights -------------------------------------------------------------------------------------


def test_prediction_layers_and_the_encoder_of_images_are_weights_too() -> None:
    """The hub's total has them: what is served without one is smaller, what is served with one is larger."""
    model = _model(BIG)
    checkpoint = model.checkpoint("bf16")
    assert checkpoint is not None
    sizes = {section: checkpoint_bytes(model, checkpoint, frozenset({section})) for section in Section}
    assert sizes[Section.MTP] + sizes[Section.VISION] == pytest.approx(14.1e9, rel=0.01)
    found = _fitting(BIG, "B200", 1, 8, "bf16")
    assert found.sections == (Section.MAIN, Section.VISION)


def test_four_bits_are_not_half_a_byte_for_all() -> None:
    """NVFP4 checkpoints leave attention and embeddings in 16 bits: half a byte each would be 40 GB too few."""
    model = _model(BIG)
    checkpoint = model.checkpoint("nvfp4")
    assert checkpoint is not None
    whole = checkpoint_bytes(model, checkpoint, frozenset({Section.MAIN}))
    naive = sum(t.parameters for t in model.architecture.of(Section.MAIN)) / 2
    assert whole > naive + 35e9


def test_a_repository_s_memory_hint_is_not_a_size() -> None:
    """238 GB as published for 397B in NVFP4 are its weights alone: four GPUs of 60 GB do not serve it."""
    labels = {"nvidia.com/gpu.memory": str(238_000 // 4 * 10**6 // MIB)}
    spec: dict[str, Any] = {**_on("B200", gpusPerGroup=4), "model": {"precision": "nvfp4"}}
    refusal = _decide(gpu_nodes("B200", 1, labels=labels), BIG, **spec)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "DoesNotFit"


def test_expert_parallelism_is_a_term_of_its_own() -> None:
    """R1 in FP8 over 8 H100s: the total over eight fits twice over in a naive sum, each GPU's share does not
    (Dynamo's profiler ran it out of memory). Attention and the shared expert are whole on every GPU."""
    assert 688.55e9 / 8 < 90e9
    refusal = _decide(gpu_nodes("H100", 1), R1, **_on("H100", gpusPerGroup=8))
    assert isinstance(refusal, Refusal)
    found = _decide(gpu_nodes("H100", 2), R1, **_on("H100"))
    assert isinstance(found, Plan)
    assert found.width == 16


def test_a_wider_group_frees_more_than_its_share() -> None:
    """From 8 to 16 GPUs the cache per GPU more than doubles, as weights shrink beside it: GPUs in proportion would
    be bought for nothing."""
    eight, sixteen = _fitting(R1, "H200", 1, 8, "fp8"), _fitting(R1, "H200", 1, 16, "fp8")
    assert sixteen.memory.kv_cache > 2 * eight.memory.kv_cache


def test_an_exact_fit_is_not_rounded_up() -> None:
    """One GPU more for safety on top of headroom (KAITO) doubles the smallest deployments: gpt-oss-120b runs on one
    H100."""
    assert (
        _sizing(gpu_nodes("H100", 1), "openai/gpt-oss-120b", **_on("H100", gpusPerGroup=1)).concurrency > 10
    )


def test_a_large_gpu_is_not_left_half_empty() -> None:
    """A fixed share of 0.84 leaves 29 GB of a B200 to nobody."""
    found = _sizing(gpu_nodes("B200", 1), PLAIN, **_on("B200"))
    assert found.headroom_bytes < 0.06 * found.capacity_bytes


def test_a_gpu_is_not_filled_to_the_brim() -> None:
    """0.99, as in a published sample, has nothing left for buffers that are made after profiling."""
    for name in ("H100", "L40S", "B200", "GB300"):
        found = _sizing(gpu_nodes(name, 4, 4), "Qwen/Qwen3.5-9B", **_on(name))
        assert found.headroom_bytes >= 4 * GIB
        assert found.utilization <= 95


# --- KV cache ------------------------------------------------------------------------------------


def test_linear_attention_keeps_a_state_for_every_request() -> None:
    """Per token only, 397B would seem to hold a thousand short requests where its 183 MiB states fill the GPU."""
    found = _fitting(BIG, "B200", 1, 8, "fp8")
    short = found.kv_layout.request_bytes(16)
    assert short > 180 * MIB
    assert found.kv_layout.request_bytes(32) == short


def test_linear_attention_keeps_little_for_every_token() -> None:
    """As if all layers were attention, a hybrid would hold a quarter of what it does: 15 of 60 layers keep tokens."""
    found = _fitting(BIG, "B200", 1, 8, "fp8").kv_layout
    per_token = (found.request_bytes(262144) - found.request_bytes(131072)) / 131072
    assert per_token == pytest.approx(30720, rel=0.05)


def test_tensor_parallelism_does_not_divide_latent_attention() -> None:
    """Every GPU of a rank keeps the whole latent: divided by eight it promises eight times the context (KAITO)."""
    one, eight = (_fitting(R1, "B200", tensor, 8 // tensor, "fp8").kv_layout for tensor in (1, 8))
    assert eight.request_bytes(100_000) == one.request_bytes(100_000)


def test_tensor_parallelism_divides_no_further_than_heads() -> None:
    """Qwen3-235B has four: 8 GPUs hold no less each than 4."""
    two, four, eight = (
        _fitting(PLAIN, "B200", tensor, 8 // tensor, "fp8").kv_layout.request_bytes(65536)
        for tensor in (2, 4, 8)
    )
    assert two == 2 * four
    assert eight == four


def test_the_cache_follows_its_own_precision() -> None:
    """Always 16 bits is half of what FP8 holds."""
    wide, narrow = (
        _fitting(PLAIN, "B200", 1, 8, "fp8", model={"kvCachePrecision": precision}).kv_tokens(4096)
        for precision in ("auto", "fp8")
    )
    assert narrow == pytest.approx(2 * wide, rel=0.01)


def test_sliding_windows_do_not_keep_every_token() -> None:
    """Half of gpt-oss's layers see 128 tokens: a long request is about half of what all layers would keep."""
    found = _fitting("openai/gpt-oss-120b", "B200", 1, 1, "mxfp4").kv_layout
    per_token = (found.request_bytes(131072) - found.request_bytes(65536)) / 65536
    assert per_token == pytest.approx(36864, rel=0.05)


def test_one_request_is_not_a_service() -> None:
    """Sized for one request of 2048 tokens (KAITO), a deployment queues from the second on."""
    found = _sizing(gpu_nodes("B200", 1), BIG, **_on("B200"))
    assert found.concurrency > 50
    assert found.kv_cache_tokens > 50 * 2560


# --- Context -------------------------------------------------------------------------------------


def test_a_context_is_never_cut_in_silence() -> None:
    """What was asked for is served or refused; what the plan chose itself is noted."""
    nodes = gpu_nodes("H100", 2)
    layout = {**_on("H100", gpusPerGroup=16), "parallelism": {"tensor": 1}}
    asked = _decide(nodes, R1, **layout, model={"contextLength": 163840})
    assert isinstance(asked, Refusal)
    assert "163840" in asked.message
    chosen = _decide(nodes, R1, **layout)
    assert isinstance(chosen, Plan)
    assert chosen.sizing is not None
    assert chosen.sizing.context_length < 163840
    assert any(
        f"context {chosen.sizing.context_length} of the model's 163840" in note for note in chosen.notes
    )


def test_the_model_s_own_context_is_not_passed_on_blindly() -> None:
    """131,072 tokens that do not fit are a crash loop (Dynamo): the longest that fits is planned."""
    labels = {"nvidia.com/gpu.memory": "24564"}
    found = _sizing(gpu_nodes("L40S", 1, 1, labels=labels), "meta-llama/Llama-3.1-8B", **_on("L40S"))
    assert 1024 < found.context_length < 131072
    assert found.kv_cache_bytes >= found.context_length * 131072


# --- Dividing ------------------------------------------------------------------------------------


def test_72_gpus_divide_no_power_of_two_of_experts() -> None:
    """512, 256 and 128 experts over 72 GPUs need copies to be even: without, EPLB refuses as it loads."""
    found = _fitting(R1, "GB200", 1, 72, "fp8")
    assert (256 + found.placement.redundant) % 72 == 0
    assert found.placement.even


def test_160_experts_do_not_divide_over_64_gpus() -> None:
    found = _fitting("zai-org/GLM-4.5", "B200", 1, 64, "fp8")
    assert (160 + found.placement.redundant) % 64 == 0
    assert found.memory.weights.redundant_experts == 0 or found.placement.balanced


def test_ranks_of_12_gpus_do_not_divide_64_heads() -> None:
    refusal = _decide(
        gpu_nodes("B200", 1, 12), PLAIN, **_on("B200", gpusPerGroup=12), parallelism={"tensor": 12}
    )
    assert isinstance(refusal, Refusal)
    assert "64 attention heads do not divide over 12" in refusal.message


def test_ranks_that_do_not_fill_nodes_are_refused_and_not_left_hanging() -> None:
    """20 ranks over nodes of 8 (KServe takes it): some pods would wait for peers that never come."""
    refusal = _decide(gpu_nodes("B200", 3), BIG, **_on("B200"), parallelism={"data": 20, "tensor": 1})
    assert isinstance(refusal, Refusal)
    assert "20" in refusal.message


def test_a_rank_over_two_nodes_is_refused_and_not_left_hanging() -> None:
    """vLLM's ranks are on one node here; KServe waited for ever."""
    refusal = _decide(gpu_nodes("B200", 2), BIG, **_on("B200"), parallelism={"tensor": 16})
    assert isinstance(refusal, Refusal)
    assert "a rank of 16 GPUs does not fit on a node's 8" in refusal.message


def test_ranks_asked_for_are_never_dropped() -> None:
    """Accepted and ignored (KServe), the second GPU idles and everything says Ready."""
    found = _decide(
        gpu_nodes("H100", 1, 2), "meta-llama/Llama-3.1-8B", **_on("H100"), parallelism={"tensor": 2}
    )
    assert isinstance(found, Plan)
    assert found.tensor == 2
    assert found.gpus_per_pod == 2
