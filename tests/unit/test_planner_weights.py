"""Weights on one GPU. A gigabyte too few is an engine out of memory as it loads, one too many is cache not used."""

import pytest

from moe_operator.catalog.models.architecture import Section
from moe_operator.catalog.models.catalog import Checkpoint, Model, load_models
from moe_operator.catalog.models.storage import checkpoint_bytes
from moe_operator.planner.weights import StoredWeights, gpu_weights, stored_weights

MAIN = (Section.MAIN,)


def _model(name: str, precision: str) -> tuple[Model, Checkpoint]:
    model = load_models().find(name)
    assert model is not None
    checkpoint = model.checkpoint(precision)
    assert checkpoint is not None
    return model, checkpoint


def _stored(name: str, precision: str, sections: tuple[Section, ...] = MAIN) -> StoredWeights:
    return stored_weights(*_model(name, precision), sections)


@pytest.mark.parametrize(
    ("precision", "width", "gigabytes"),
    [("nvfp4", 4, 73.96), ("nvfp4", 8, 46.78), ("fp8", 8, 60.30), ("bf16", 16, 67.92)],
)
def test_a_gpu_of_an_expert_parallel_group_holds_its_experts_and_all_else(
    precision: str, width: int, gigabytes: float
) -> None:
    """Counted by hand for the text part of Qwen3.5-397B: routed experts / width + everything else."""
    stored = _stored("Qwen/Qwen3.5-397B-A17B", precision)
    held = gpu_weights(stored, tensor=1, data=width, expert_parallel=True)
    assert held.total / 1e9 == pytest.approx(gigabytes, rel=1e-3)


def test_one_gpu_holds_the_checkpoint() -> None:
    """Nothing is lost or counted twice between the files and the GPU."""
    model, checkpoint = _model("Qwen/Qwen3-30B-A3B", "fp8")
    held = gpu_weights(stored_weights(model, checkpoint, MAIN), tensor=1, data=1, expert_parallel=False)
    assert held.total == checkpoint_bytes(model, checkpoint)


def test_dense_weights_are_divided_over_a_rank_but_for_norms() -> None:
    stored = _stored("meta-llama/Llama-3.3-70B-Instruct", "bf16")
    whole = gpu_weights(stored, tensor=1, data=1, expert_parallel=False).total
    eighth = gpu_weights(stored, tensor=8, data=1, expert_parallel=False).total
    assert whole / 8 < eighth < whole / 8 * 1.001


def test_key_value_heads_are_copied_where_a_rank_has_more_gpus() -> None:
    """Qwen3.5-397B has two: from the third GPU on each GPU of a rank holds one whole head."""
    stored = _stored("Qwen/Qwen3.5-397B-A17B", "bf16")

    def others(tensor: int) -> int:
        return gpu_weights(stored, tensor=tensor, data=1, expert_parallel=True).other

    assert others(8) > others(2) / 4


def test_the_fullest_gpu_counts_where_experts_do_not_divide() -> None:
    """128 experts over 12 GPUs are 11 on eight of them: the mean would be out of memory there."""
    stored = _stored("openai/gpt-oss-120b", "mxfp4")
    held = gpu_weights(stored, tensor=1, data=12, expert_parallel=True)
    assert held.routed_experts == pytest.approx(stored.routed * 11 / 128, rel=1e-6)


def test_redundant_experts_take_their_place() -> None:
    """DeepSeek V3 with 32 copies on 32 GPUs: nine experts each and not eight."""
    stored = _stored("deepseek-ai/DeepSeek-V3", "fp8")
    held = gpu_weights(stored, tensor=1, data=32, expert_parallel=True, redundant=32)
    assert held.redundant_experts == pytest.approx(held.routed_experts / 8, rel=1e-6)


def test_shared_experts_are_whole_where_tokens_are_divided_instead() -> None:
    """With several ranks of several GPUs vLLM gives each GPU its own tokens and all of the shared experts."""
    stored = _stored("deepseek-ai/DeepSeek-V3", "fp8")
    one_rank = gpu_weights(stored, tensor=8, data=1, expert_parallel=True).other
    two_ranks = gpu_weights(stored, tensor=8, data=2, expert_parallel=True).other
    shared = 58 * 3 * 7168 * 2048
    assert two_ranks - one_rank == pytest.approx(shared * 7 / 8, rel=1e-3)


def test_latent_attention_adds_16_bit_copies_of_a_quantised_matrix() -> None:
    """vLLM keeps `W_UK_T` and `W_UV` beside `kv_b_proj`: 1.9 GiB on every GPU of DeepSeek V3 with one GPU per rank."""
    stored = _stored("deepseek-ai/DeepSeek-V3", "fp8")
    assert stored.absorbed == 61 * 128 * (128 + 128) * 512 * 2
    alone = gpu_weights(stored, tensor=1, data=8, expert_parallel=True).other
    divided = gpu_weights(stored, tensor=8, data=1, expert_parallel=True).other
    assert stored.absorbed < alone
    assert alone - divided > stored.absorbed * 7 / 8


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("moonshotai/Kimi-K2-Thinking", "int4"),  # latent attention in 16 bits: a view, no copy
        ("Qwen/Qwen3-30B-A3B", "fp8"),  # no latent attention
    ],
)
def test_nothing_is_copied_elsewhere(name: str, precision: str) -> None:
    assert _stored(name, precision).absorbed == 0


def test_what_is_not_served_is_not_loaded() -> None:
    """Prediction layers wait for speculative decoding: 6.6 billion weights of 397B's checkpoint."""
    main = _stored("Qwen/Qwen3.5-397B-A17B", "bf16").total
    all_of_it = _stored("Qwen/Qwen3.5-397B-A17B", "bf16", tuple(Section)).total
    assert (all_of_it - main) / 2e9 == pytest.approx(6.60 + 0.46, abs=0.02)


@pytest.mark.parametrize("name", ["Qwen/Qwen3.5-397B-A17B", "meta-llama/Llama-4-Scout-17B-16E-Instruct"])
def test_the_encoder_of_images_is_divided_over_a_rank(name: str) -> None:
    """vLLM's default (`--mm-encoder-tp-mode weights`): each GPU of a rank holds its share, not all of it."""
    stored = _stored(name, "bf16", (Section.VISION,))
    whole = gpu_weights(stored, tensor=1, data=1, expert_parallel=False).other
    eighth = gpu_weights(stored, tensor=8, data=1, expert_parallel=False).other
    assert whole / 8 <= eighth < whole / 7
