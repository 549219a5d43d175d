"""What is said when a model does not fit: by how much, and what would. "Out of memory" after an hour of loading is the
alternative."""

import re
from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.nodes import gpu_nodes, node
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.inventory import inventory_from_nodes
from moe_operator.planner.plan import Lift, Plan, Refusal
from moe_operator.planner.planning import plan

R1, BIG = "deepseek-ai/DeepSeek-R1", "Qwen/Qwen3.5-397B-A17B"


def _decide(nodes: list[dict[str, Any]], name: str, **spec: Any) -> Plan | Refusal:
    wanted = {**spec, "model": {"name": name, **spec.get("model", {})}}
    return plan(model_deployment(**wanted), inventory_from_nodes(nodes), load_catalog())


def _refused(nodes: list[dict[str, Any]], name: str, **spec: Any) -> Refusal:
    found = _decide(nodes, name, **spec)
    assert isinstance(found, Refusal), found
    return found


def test_weights_that_do_not_fit_say_by_how_much_and_what_would() -> None:
    refusal = _refused(gpu_nodes("H100", 2), R1, hardware={"accelerator": "H100", "gpusPerGroup": 8})
    assert refusal.reason == "DoesNotFit"
    assert not refusal.retry
    assert "deepseek-ai/DeepSeek-R1 in fp8 needs" in refusal.message
    needs, has, missing = map(float, re.findall(r"([0-9.]+) GiB", refusal.message))
    assert missing == pytest.approx(needs - has, abs=0.11)
    assert 70 < has < 80 < needs
    assert "in a group of 8 on H100" in refusal.message
    assert Lift("hardware.gpusPerGroup", "16") in refusal.lifts
    assert "what would fit: model.precision: nvfp4; hardware.gpusPerGroup: 16" in refusal.message


def test_a_context_that_does_not_fit_says_the_longest_that_does() -> None:
    spec = {"hardware": {"accelerator": "H100", "gpusPerGroup": 16}, "parallelism": {"tensor": 1}}
    refusal = _refused(gpu_nodes("H100", 2), "zai-org/GLM-5", **spec, model={"contextLength": 200000})
    longest = re.search(r"one request of 200000 tokens \(the longest that fits is (\d+)\)", refusal.message)
    assert longest is not None, refusal.message
    assert refusal.lifts[0].field == "model.contextLength"
    offered = int(refusal.lifts[0].value)
    assert offered <= int(longest[1])
    found = _decide(gpu_nodes("H100", 2), "zai-org/GLM-5", **spec, model={"contextLength": offered})
    assert isinstance(found, Plan)


def test_a_narrower_checkpoint_is_offered_where_it_fits_and_runs() -> None:
    refusal = _refused(
        gpu_nodes("B200", 1),
        BIG,
        hardware={"accelerator": "B200", "gpusPerGroup": 4},
        model={"precision": "bf16"},
    )
    assert any(lift.field == "model.precision" for lift in refusal.lifts)
    amd = _refused(
        gpu_nodes("MI300X", 1, labels={"amd.com/gpu.vram": "24G"}),
        "meta-llama/Llama-3.3-70B-Instruct",
        hardware={"accelerator": "MI300X", "gpusPerGroup": 1},
    )
    assert not any(lift.value == "nvfp4" for lift in amd.lifts), "NVFP4 does not run on AMD"


def test_nothing_is_offered_where_nothing_helps() -> None:
    refusal = _refused(
        gpu_nodes("L40S", 1), "deepseek-ai/DeepSeek-R1", hardware={"accelerator": "L40S", "gpusPerGroup": 1}
    )
    if not refusal.lifts:
        assert "no wider group, narrower precision or shorter context helps" in refusal.message
    for lift in refusal.lifts:
        assert str(lift) in refusal.message


def test_positions_are_not_stretched_beyond_what_the_card_says() -> None:
    refusal = _refused(
        gpu_nodes("B200", 1), BIG, hardware={"accelerator": "B200"}, model={"contextLength": 2_000_000}
    )
    assert refusal.reason == "InvalidSpec"
    assert "2000000" in refusal.message
    assert "262144 tokens, and 1010000 with YaRN" in refusal.message
    fixed = _refused(
        gpu_nodes("B200", 1),
        "meta-llama/Meta-Llama-3-8B",
        hardware={"accelerator": "B200"},
        model={"contextLength": 65536},
    )
    assert "names no way to stretch that: set it to at most 8192" in fixed.message


def test_a_rank_that_the_engine_cannot_divide_is_refused_in_its_terms() -> None:
    refusal = _refused(
        gpu_nodes("B200", 1),
        BIG,
        hardware={"accelerator": "B200", "gpusPerGroup": 3},
        parallelism={"tensor": 3},
    )
    assert refusal.reason == "InvalidLayout"
    assert "32 attention heads do not divide over 3 GPUs of a rank" in refusal.message
    assert "parallelism.tensor may be 1, 2, 4, 8" in refusal.message


def test_an_fp8_shape_that_cuts_blocks_is_refused() -> None:
    """vLLM would say `input_size_per_partition = 64 is not divisible by block_k = 128` in a crash loop."""
    refusal = _refused(
        gpu_nodes("B200", 1),
        "Qwen/Qwen3.5-35B-A3B",
        hardware={"accelerator": "B200", "gpusPerGroup": 8},
        parallelism={"tensor": 8},
        model={"precision": "fp8"},
    )
    assert refusal.reason == "InvalidLayout"
    assert "are 64 each, not a multiple of the 128 that share a scale" in refusal.message
    assert "parallelism.tensor may be 1, 2, 4" in refusal.message


@pytest.mark.parametrize(
    ("name", "nodes", "spec", "said"),
    [
        pytest.param(
            BIG,
            gpu_nodes("MI300X", 1),
            {"hardware": {"accelerator": "MI300X"}, "model": {"precision": "nvfp4"}},
            "MI300X cannot run nvfp4 (Qwen/Qwen3.5-397B-A17B): set model.precision to bf16 or fp8",
            id="amd",
        ),
        pytest.param(
            "openai/gpt-oss-20b",
            [node("laptop")],
            {"hardware": {"accelerator": "cpu"}},
            "the catalogue has no checkpoint of it that does; bring one with model.source and model.configFrom",
            id="cpu",
        ),
        pytest.param(
            "mistralai/Mixtral-8x7B-Instruct-v0.1",
            gpu_nodes("B200", 1),
            {"hardware": {"accelerator": "B200"}, "model": {"precision": "nvfp4"}},
            "the catalogue has no nvfp4 checkpoint of mistralai/Mixtral-8x7B-Instruct-v0.1, it has bf16",
            id="not published",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_refused_with_those_that_can(
    name: str, nodes: list[dict[str, Any]], spec: dict[str, Any], said: str
) -> None:
    refusal = _refused(nodes, name, **spec)
    assert refusal.reason == "InvalidSpec"
    assert said in refusal.message


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"max-num-seqs": "many"}, "engine.args.max-num-seqs: 'many'"),
        ({"gpu-memory-utilization": "95"}, "engine.args.gpu-memory-utilization: '95'"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(args: dict[str, str], said: str) -> None:
    """A typing error would otherwise be a crash loop."""
    refusal = _refused(gpu_nodes("B200", 1), BIG, hardware={"accelerator": "B200"}, engine={"args": args})
    assert said in refusal.message


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5"])
def test_sparse_attention_is_refused_where_the_engine_has_none(name: str) -> None:
    """vLLM raises NotImplementedError in the pod, after the weights were loaded."""
    answer = _refused([node("a")], name, hardware={"accelerator": "cpu"})
    assert answer.reason == "DoesNotFit"
    assert "no sparse attention on CPUs" in answer.message
    assert "choose a GPU" in answer.message


def test_a_vision_tower_is_not_divided_over_more_gpus_than_it_has_heads_for() -> None:
    """vLLM asserts it when it builds the model, in a pod that has just waited for its GPUs."""
    small = {"accelerator": "H100", "gpusPerGroup": 8}
    answer = _refused(gpu_nodes("H100", 1), "Qwen/Qwen3.5-0.8B", hardware=small)
    assert answer.reason == "InvalidLayout"
    assert "do not divide over 8 GPUs of a rank" in answer.message
