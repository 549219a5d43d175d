"""Which layout, checkpoint and accelerator are taken. A poor choice wastes GPUs on every deployment; a choice against
the user's word is worse."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.nodes import gpu_nodes, node
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.inventory import inventory_from, inventory_from_nodes
from moe_operator.planner.plan import Plan, Refusal, Sizing, plan_from_data, plan_to_data
from moe_operator.planner.planning import plan

BIG, SMALL = "Qwen/Qwen3.5-397B-A17B", "Qwen/Qwen3-30B-A3B"
DENSE = "meta-llama/Llama-3.3-70B-Instruct"
RDMA = {"rdma/ib": "1"}
CLIQUE = {"nvidia.com/gpu.clique": "7b968a6d-c8aa-45e1-9e07-e1e51be99c31.1"}


def _decide(
    nodes: list[dict[str, Any]], name: str, held: dict[str, int] | None = None, **spec: Any
) -> Plan | Refusal:
    """`held`: GPUs in use by node name; None: pods were not read."""
    inventory = inventory_from_nodes(nodes) if held is None else inventory_from(nodes, pods=[])
    if held is not None:
        resources = {name: {"nvidia.com/gpu": count} for name, count in held.items()}
        inventory = replace(
            inventory,
            nodes=tuple(replace(n, allocatable=n.gpus) for n in inventory.nodes or ()),
            held=resources,
        )
    wanted = {**spec, "model": {"name": name, **spec.get("model", {})}}
    return plan(model_deployment(**wanted), inventory, load_catalog())


def _plan(nodes: list[dict[str, Any]], name: str, held: dict[str, int] | None = None, **spec: Any) -> Plan:
    found = _decide(nodes, name, held, **spec)
    assert isinstance(found, Plan), found
    return found


def _sizing(found: Plan) -> Sizing:
    assert found.sizing is not None
    return found.sizing


def _on(name: str, **fields: Any) -> dict[str, Any]:
    return {"hardware": {"accelerator": name, **fields}}


# --- Width ---------------------------------------------------------------------------------------


def test_the_flagship_takes_a_node_and_not_the_network() -> None:
    """397B in NVFP4 on HGX B200: what fits into one NVLink domain does not wait for the network in every layer."""
    found = _plan(gpu_nodes("B200", 4), BIG, **_on("B200"), model={"precision": "nvfp4"})
    assert found.width in (4, 8)
    assert found.pods_per_group == 1
    assert found.expert_parallel


def test_the_network_is_taken_when_asked_for() -> None:
    found = _plan(gpu_nodes("B200", 4), BIG, **_on("B200", gpusPerGroup=16), model={"precision": "nvfp4"})
    assert (found.width, found.pods_per_group) == (16, 2)


def test_the_network_is_taken_when_nothing_less_holds_the_model() -> None:
    """DeepSeek R1 in FP8 needs 16 H100s."""
    found = _plan(gpu_nodes("H100", 4), "deepseek-ai/DeepSeek-R1", **_on("H100"))
    assert (found.width, found.pods_per_group) == (16, 2)


def test_a_group_whose_cache_starves_is_made_wider() -> None:
    """DeepSeek V4 Pro fits into 16 H100s, whose caches then hold four requests each: a million tokens cost four times
    what they do from a group twice as wide."""
    nodes = gpu_nodes("H100", 8, rdma=RDMA)
    found = _plan(nodes, "deepseek-ai/DeepSeek-V4-Pro", **_on("H100"))
    narrow = _plan(nodes, "deepseek-ai/DeepSeek-V4-Pro", **_on("H100", gpusPerGroup=16))
    assert found.width == 32
    gain = _sizing(found).output_tokens_per_second / _sizing(narrow).output_tokens_per_second
    assert gain > 2 * 1.5


def test_a_group_is_not_made_wider_than_there_are_nodes() -> None:
    """It would wait for nodes that nobody has ordered."""
    found = _plan(gpu_nodes("H100", 3, rdma=RDMA), "deepseek-ai/DeepSeek-V4-Pro", **_on("H100"))
    assert found.width == 16


def test_the_fewest_gpus_stay_the_fewest() -> None:
    fewest = {"objective": {"goal": "FewestGPUs"}}
    found = _plan(gpu_nodes("H100", 8, rdma=RDMA), "deepseek-ai/DeepSeek-V4-Pro", **_on("H100"), **fewest)
    assert found.width == 16


@pytest.mark.parametrize("goal", ["Cheapest", "MostThroughput", "FewestGPUs"])
def test_nvl72_stays_in_its_domain(goal: str) -> None:
    """18 trays of 4 are one NVLink domain, of which a group takes a part; a lost tray loses few others' GPUs."""
    found = _plan(gpu_nodes("GB200", 18, 4, labels=CLIQUE), BIG, **_on("GB200"), objective={"goal": goal})
    assert found.width <= 16
    assert found.gpus_per_pod <= 4
    assert found.width == found.pods_per_group * found.gpus_per_pod


def test_a_group_over_nodes_of_nvl72_is_no_group_over_the_network() -> None:
    """The same 16 GPUs, once in a domain and once over the network: the estimate must tell them apart."""
    inside = _plan(gpu_nodes("GB200", 18, 4, labels=CLIQUE), BIG, **_on("GB200", gpusPerGroup=16))
    outside = _plan(gpu_nodes("B200", 4, rdma=RDMA), BIG, **_on("B200", gpusPerGroup=16))
    slow = _plan(gpu_nodes("B200", 4), BIG, **_on("B200", gpusPerGroup=16))
    rates = [_sizing(found).output_tokens_per_second for found in (inside, outside, slow)]
    assert rates == sorted(rates, reverse=True)
    assert [found.transport.fabric for found in (inside, outside, slow) if found.transport] == [
        "mnnvl",
        "infiniband",
        "tcp",
    ]


def test_all_shapes_of_a_wide_group_are_compared() -> None:
    """The first rank size that fits is not the best one: on 16 small GPUs, ranks of 4 beat ranks of 2."""
    nodes = gpu_nodes("B200", 2, labels={"nvidia.com/gpu.memory": "16384"})
    spec: dict[str, Any] = {"objective": {"goal": "MostThroughput"}, "model": {"contextLength": 2048}}
    found = _plan(nodes, "Qwen/Qwen3.5-35B-A3B", **_on("B200", gpusPerGroup=16), **spec)
    others = [
        _decide(
            nodes,
            "Qwen/Qwen3.5-35B-A3B",
            **_on("B200", gpusPerGroup=16),
            **spec,
            parallelism={"tensor": tensor},
        )
        for tensor in (1, 2, 4, 8)
    ]
    rates = [_sizing(one).output_tokens_per_second for one in others if isinstance(one, Plan)]
    assert _sizing(found).output_tokens_per_second == max(rates)
    assert len(rates) > 1


# --- Goals ---------------------------------------------------------------------------------------


def test_goals_differ_as_they_say() -> None:
    """Fewest GPUs to try a model out, most tokens per GPU for batch work, cheapest within the latency otherwise."""
    nodes = gpu_nodes("H200", 4)
    by = {
        goal: _plan(nodes, BIG, **_on("H200"), objective={"goal": goal})
        for goal in ("Cheapest", "MostThroughput", "FewestGPUs")
    }
    rate = {goal: _sizing(found).output_tokens_per_second / found.width for goal, found in by.items()}
    assert by["FewestGPUs"].width == min(found.width for found in by.values())
    assert rate["MostThroughput"] >= rate["Cheapest"]
    assert _sizing(by["Cheapest"]).meets_objective


def test_the_cheapest_keeps_the_latency() -> None:
    """A tight objective costs throughput, and is kept if any layout can."""
    nodes = gpu_nodes("B200", 2)
    easy = _plan(nodes, BIG, **_on("B200"), objective={"timePerOutputToken": "100ms"})
    tight = _plan(nodes, BIG, **_on("B200"), objective={"timePerOutputToken": "12ms"})
    assert _sizing(tight).meets_objective
    assert _sizing(tight).time_per_output_token_ms <= 12
    assert (
        _sizing(tight).output_tokens_per_second / tight.width
        < _sizing(easy).output_tokens_per_second / easy.width
    )


def test_the_first_token_is_an_objective_too() -> None:
    """Many running requests delay the first token of the next: the estimate may not pass what it says to keep."""
    found = _sizing(_plan(gpu_nodes("B200", 1), BIG, **_on("B200"), objective={"timeToFirstToken": "200ms"}))
    assert found.meets_objective
    assert found.time_to_first_token_ms <= 200


def test_an_objective_out_of_reach_is_planned_for_and_said() -> None:
    found = _plan(gpu_nodes("H100", 2), DENSE, **_on("H100"), objective={"timePerOutputToken": "1ms"})
    assert not _sizing(found).meets_objective
    assert any("the objective is missed by estimate" in note and "wanted 1)" in note for note in found.notes)


# --- Dense models --------------------------------------------------------------------------------


def test_a_dense_model_is_one_rank() -> None:
    """Several ranks of a dense model share nothing: they are several groups, which scale and fail alone."""
    found = _plan(gpu_nodes("H100", 2), DENSE, **_on("H100"))
    assert found.data == 1
    assert found.width == found.tensor
    assert not found.expert_parallel
    refused = _decide(gpu_nodes("H100", 2), DENSE, **_on("H100"), parallelism={"data": 2, "tensor": 4})
    assert isinstance(refused, Refusal)
    assert refused.reason == "InvalidLayout"


# --- What the user says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"parallelism": {"tensor": 4}}, {"tensor": 4}),
        ({"parallelism": {"data": 2, "tensor": 4}}, {"tensor": 4, "data": 2}),
        (_on("B200", gpusPerGroup=8), {"width": 8}),
    ],
)
def test_the_layout_asked_for_is_the_layout(spec: dict[str, Any], expected: dict[str, int]) -> None:
    found = _plan(gpu_nodes("B200", 2), BIG, **{**_on("B200"), **spec})
    assert {name: getattr(found, name) for name in expected} == expected


def test_sizes_asked_for_are_the_sizes() -> None:
    args = {"max-num-seqs": "32", "max-num-batched-tokens": "4096", "gpu-memory-utilization": "0.8"}
    found = _sizing(
        _plan(
            gpu_nodes("B200", 1),
            BIG,
            **_on("B200"),
            engine={"args": args},
            model={"contextLength": 65536, "kvCachePrecision": "fp8", "precision": "fp8"},
        )
    )
    assert (found.max_sequences, found.max_batched_tokens, found.utilization) == (32, 4096, 80)
    assert (found.context_length, found.kv_cache_dtype, found.precision) == (65536, "fp8", "fp8")


def test_a_context_that_fits_with_smaller_steps_is_not_refused() -> None:
    """Steps of 8192 tokens are a wish of the plan's own."""
    base = _on("H100", gpusPerGroup=16)
    nodes = gpu_nodes("H100", 2)
    large = _decide(
        nodes,
        "zai-org/GLM-5",
        **base,
        parallelism={"tensor": 1},
        model={"contextLength": 22528},
        engine={"args": {"max-num-batched-tokens": "8192"}},
    )
    assert isinstance(large, Refusal)
    found = _plan(nodes, "zai-org/GLM-5", **base, parallelism={"tensor": 1}, model={"contextLength": 22528})
    assert _sizing(found).context_length == 22528
    assert _sizing(found).max_batched_tokens < 8192


# --- Checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "accelerator", "precision"),
    [
        (BIG, "B200", "fp8"),
        (BIG, "A100", "bf16"),
        (DENSE, "H100", "bf16"),
        ("deepseek-ai/DeepSeek-V3", "H200", "fp8"),
        ("openai/gpt-oss-120b", "H100", "mxfp4"),
        ("moonshotai/Kimi-K2-Thinking", "B200", "int4"),
    ],
    ids=[
        "8 bits where the GPU computes so",
        "16 where not",
        "not a third party's",
        "as published",
        "4 bits where the publisher's",
        "integers where the publisher's",
    ],
)
def test_the_default_precision_is_the_publisher_s(model: str, accelerator: str, precision: str) -> None:
    """What a third party's 4 bits cost in quality is for the user to judge."""
    found = _plan(gpu_nodes(accelerator, 4), model, **_on(accelerator))
    assert _sizing(found).precision == precision


def test_naming_a_repository_names_its_precision() -> None:
    found = _plan(gpu_nodes("B200", 1), "nvidia/Qwen3.5-397B-A17B-NVFP4", **_on("B200"))
    assert _sizing(found).precision == "nvfp4"
    assert _sizing(found).repository == "nvidia/Qwen3.5-397B-A17B-NVFP4"


def test_hardware_without_the_format_is_said() -> None:
    found = _plan(gpu_nodes("A100", 2), "openai/gpt-oss-120b", **_on("A100"))
    assert any("A100 does not compute in mxfp4" in note for note in found.notes)


# --- Accelerators --------------------------------------------------------------------------------


def test_the_second_accelerator_is_taken_when_the_first_has_no_room() -> None:
    nodes = gpu_nodes("B200", 1) + gpu_nodes("H200", 1)
    wanted = {"hardware": {"accelerators": ["B200", "H200"]}}
    full, free = {"b200-0": 8}, {"b200-0": 0}
    assert _plan(nodes, BIG, held=free, **wanted).accelerator == "B200"
    second = _plan(nodes, BIG, held=full, **wanted)
    assert second.accelerator == "H200"
    assert any("H200 was taken as B200 cannot hold the model or has no room" in note for note in second.notes)


def test_without_room_anywhere_the_first_choice_waits() -> None:
    nodes = gpu_nodes("B200", 1) + gpu_nodes("H200", 1)
    wanted = {"hardware": {"accelerators": ["B200", "H200"]}}
    assert _plan(nodes, BIG, held={"b200-0": 8, "h200-0": 8}, **wanted).accelerator == "B200"


def test_the_second_accelerator_is_taken_when_the_first_is_too_small() -> None:
    nodes = gpu_nodes("L40S", 2) + gpu_nodes("H200", 2)
    found = _plan(
        nodes, "deepseek-ai/DeepSeek-R1", hardware={"accelerators": ["L40S", "H200"], "gpusPerGroup": 8}
    )
    assert found.accelerator == "H200"


def test_the_second_accelerator_is_taken_when_the_first_cannot_run_the_format() -> None:
    """NVFP4 does not run on AMD: that ends one choice, not the deployment."""
    nodes = gpu_nodes("MI300X", 1) + gpu_nodes("B200", 1)
    wanted: dict[str, Any] = {
        "hardware": {"accelerators": ["MI300X", "B200"]},
        "model": {"precision": "nvfp4"},
    }
    assert _plan(nodes, BIG, **wanted).accelerator == "B200"


def test_no_experts_are_moved_on_cpu() -> None:
    """vLLM refuses `--enable-eplb` there; three ranks of 128 experts are uneven instead."""
    found = _plan(
        [node("laptop")],
        SMALL,
        hardware={"accelerator": "cpu", "gpusPerGroup": 3},
        model={"precision": "bf16"},
    )
    assert not _sizing(found).balanced
    assert _sizing(found).redundant_experts == 0


def test_the_step_without_load_is_known_of_gpus_and_not_of_a_laptop() -> None:
    """Autoscalers begin with it: one that nobody planned is no word."""
    for hardware, known in (
        ({"accelerator": "B200"}, True),
        ({"accelerator": "cpu", "gpusPerGroup": 1}, False),
    ):
        nodes = [*gpu_nodes("B200", 2), node("laptop")]
        made = _decide(nodes, "Qwen/Qwen3.5-0.8B", hardware=hardware)
        assert isinstance(made, Plan), made
        assert made.sizing is not None
        assert (made.sizing.idle_step_microseconds > 0) == known
    data = plan_to_data(made)
    del data["sizing"]["idle_step_microseconds"]
    earlier = plan_from_data(data)
    assert earlier.sizing is not None
    assert earlier.sizing.idle_step_microseconds == 0, "plans of earlier versions say nothing"
