"""The memory of one GPU. What is forgotten here is an engine that ends as it starts."""

import pytest

from moe_operator.catalog.models.catalog import load_models
from moe_operator.planner.memory import (
    DRIVER_RESERVED,
    GIB,
    HEADROOM,
    MIB,
    EngineSizes,
    activation_bytes,
    buffer_bytes,
    host_budget,
    memory_budget,
    utilization_percent,
)
from moe_operator.planner.weights import GpuWeights

B200, H100, L40S = 183359 * MIB, 81559 * MIB, 46068 * MIB
_found = load_models().find("Qwen/Qwen3.5-397B-A17B")
assert _found is not None
QWEN = _found.architecture


@pytest.mark.parametrize(("capacity", "percent"), [(B200, 95), (H100, 94), (L40S, 90)])
def test_the_share_leaves_headroom_on_every_size(capacity: int, percent: int) -> None:
    """One share for all sizes wastes large GPUs or breaks small ones."""
    assert utilization_percent(capacity) == percent
    seen = capacity - DRIVER_RESERVED
    assert seen - seen * percent // 100 >= HEADROOM


def test_parts_add_up_to_what_the_node_says() -> None:
    weights = GpuWeights(40 * GIB, 2 * GIB, 20 * GIB)
    sizes = EngineSizes(8192, 1024, 95)
    budget = memory_budget(B200, weights, sizes, activations=3 * GIB, buffers=2 * GIB)
    assert (
        budget.weights.total + budget.activations + budget.buffers + budget.headroom + budget.kv_cache == B200
    )
    assert budget.fixed + budget.kv_cache == B200


def test_too_much_is_said_in_bytes_and_not_cut_to_nothing() -> None:
    """A refusal needs to say by how much."""
    budget = memory_budget(
        H100, GpuWeights(90 * GIB, 0, 0), EngineSizes(2048, 256, 94), activations=GIB, buffers=GIB
    )
    assert budget.kv_cache < -10 * GIB


def test_the_user_s_share_is_obeyed() -> None:
    def kv(utilization: int) -> int:
        sizes = EngineSizes(8192, 1024, utilization)
        return memory_budget(B200, GpuWeights(0, 0, 0), sizes, activations=0, buffers=0).kv_cache

    assert kv(95) - kv(90) == pytest.approx((B200 - DRIVER_RESERVED) * 5 / 100, abs=2)


def test_activations_grow_with_the_step_and_with_the_ranks_that_gather() -> None:
    """With experts spread out every GPU gathers the tokens of all ranks."""

    def peak(tokens: int, data: int, sequences: int = 256) -> int:
        return activation_bytes(
            QWEN, EngineSizes(tokens, sequences, 95), tensor=1, data=data, expert_parallel=data > 1
        )

    assert peak(8192, 8) > 2 * peak(2048, 8)
    assert peak(8192, 32) > peak(8192, 8)


def test_sampling_many_rows_of_a_large_vocabulary_counts() -> None:
    """1024 rows of 248,320 logits in 10 bytes each are 2.4 GiB."""
    sizes = EngineSizes(2048, 1024, 95)
    assert activation_bytes(QWEN, sizes, tensor=8, data=1, expert_parallel=True) >= 1024 * 248320 * 10


def test_buffers_grow_with_who_is_talked_to() -> None:
    def buffers(width: int, *, balanced: bool = False, exchange: int = 0) -> int:
        return buffer_bytes(
            QWEN,
            width=width,
            gpus_per_node=8,
            exchange=exchange,
            held_expert_bytes=GIB,
            balanced=balanced,
        )

    assert buffers(1) < buffers(2) < buffers(8) < buffers(16)
    # Experts that move need a second place; all-to-all backends need theirs.
    assert buffers(8, balanced=True) - buffers(8) == GIB
    assert buffers(8, exchange=GIB) - buffers(8) == GIB


def test_on_cpu_the_cache_has_the_size_that_it_is_given() -> None:
    budget = host_budget(GpuWeights(0, 0, 3 * GIB), 2 * GIB, activations=GIB, buffers=GIB)
    assert budget.kv_cache == 2 * GIB
    assert budget.capacity == 7 * GIB
    assert budget.headroom == 0
