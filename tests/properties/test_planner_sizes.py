"""Over models, GPUs and wishes: what the planner promises of sizes. A breach is a group whose engine does not start,
or GPUs bought for nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from factories.deployments import model_deployment
from moe_operator.api.spec import Goal, ModelDeploymentSpec
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.architecture import Component, Section
from moe_operator.catalog.models.catalog import Checkpoint, Model, load_models
from moe_operator.catalog.models.storage import checkpoint_bytes, tensor_bytes
from moe_operator.planner.checkpoints import choose_checkpoint
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.memory import MIB
from moe_operator.planner.nodes import Hardware
from moe_operator.planner.plan import Plan, Refusal, plan_to_data
from moe_operator.planner.planning import best_layout, plan
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import Sized, loaded_sections, size
from moe_operator.planner.transports import Transports
from moe_operator.planner.usable import unusable
from moe_operator.planner.wants import Wants, wants_of

CATALOG, MODELS = load_catalog(), load_models()
#: One of each architecture and attention, large and small: the families differ, their siblings do not.
NAMES = (
    "Qwen/Qwen3.5-397B-A17B",
    "Qwen/Qwen3.5-35B-A3B",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3-235B-A22B-Instruct-2507",
    "openai/gpt-oss-120b",
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.2",
    "moonshotai/Kimi-K2-Thinking",
    "zai-org/GLM-4.5",
    "zai-org/GLM-5",
    "MiniMaxAI/MiniMax-M2",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
)
GPUS = tuple(name for name in CATALOG.names() if name != "cpu")

bounded = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)

memories = st.integers(16 * 1024, 320 * 1024)
"""MiB of one GPU."""
#: More than any model of the catalogue needs on one GPU.
UNBOUNDED = 4 * 2**20


@st.composite
def features(draw: st.DrawFn, model: Model) -> dict[str, Any]:
    """What the engine does besides, as far as some checkpoint of the model can."""
    found: dict[str, Any] = {}
    drafts = model.architecture.mtp_layers and not any(Section.MTP in c.without for c in model.checkpoints)
    if drafts and draw(st.integers(0, 2)) == 0:
        found["speculation"] = {"method": "MTP", "tokens": draw(st.sampled_from([1, 2, 4]))}
    if draw(st.integers(0, 4)) == 0:
        found["expertBalancing"] = {"mode": "Disabled"}
    return found


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec in camelCase. Some ask for what cannot be."""
    model = MODELS.find(draw(st.sampled_from(NAMES)))
    assert model is not None
    wanted: dict[str, Any] = {
        "model": {"name": model.name},
        "hardware": {"accelerator": draw(st.sampled_from(GPUS))},
        "objective": {"goal": draw(st.sampled_from([goal.value for goal in Goal]))},
    }
    if draw(st.booleans()):
        amd = wanted["hardware"]["accelerator"].startswith("MI")
        # NVFP4 on AMD is refused before anything is sized.
        runs = [p.value for p in model.precisions() if not (amd and p.value == "nvfp4")]
        wanted["model"]["precision"] = draw(st.sampled_from(runs))
    if draw(st.booleans()):
        context = draw(st.sampled_from([2048, 16384, 65536, 131072]))
        wanted["model"]["contextLength"] = min(context, model.architecture.context_length)
    if draw(st.booleans()):
        wanted["hardware"]["gpusPerGroup"] = draw(st.sampled_from([1, 2, 4, 8, 16]))
    if engine := draw(features(model)):
        wanted["engine"] = engine
    if draw(st.integers(0, 4)) == 0:
        rank = draw(st.sampled_from([8, 16, 64]))
        wanted["model"]["adapters"] = [{"name": "law", "source": "hf://org/law", "rank": rank}]
    parallelism: dict[str, int] = {}
    if draw(st.integers(0, 2)) == 0:
        parallelism["tensor"] = draw(st.sampled_from([1, 2, 4, 8]))
    if draw(st.integers(0, 3)) == 0:
        parallelism["data"] = draw(st.sampled_from([1, 2, 4, 8, 16]))
    return {**wanted, "parallelism": parallelism} if parallelism else wanted


def _asked(wanted: dict[str, Any]) -> tuple[ModelDeploymentSpec, Model, Checkpoint, Wants]:
    spec = model_deployment(**wanted).spec
    model = MODELS.find(spec.model.name)
    profile = CATALOG.accelerator(spec.hardware.accelerator or "")
    assert model is not None
    assert profile is not None
    checkpoint, _ = choose_checkpoint(model, spec.model, profile, MODELS)
    return spec, model, checkpoint, wants_of(spec)


def _layout(wanted: dict[str, Any], memory_mib: int) -> Sized | Refusal:
    """On nodes whose GPUs have so much memory."""
    spec, model, checkpoint, wants = _asked(wanted)
    profile = CATALOG.accelerator(spec.hardware.accelerator or "")
    assert profile is not None
    hardware = Hardware(profile, profile.gpus_per_node, (), memory_mib)
    return best_layout(spec, hardware, model, checkpoint, wants)


def _per_gpu(sized: Sized) -> float:
    return sized.throughput.output_tokens_per_second / sized.shape.width


def _merged(wanted: dict[str, Any], field: str, value: str) -> dict[str, Any]:
    """The spec with one field as a lift says."""
    part, _, name = field.partition(".")
    number = name in ("contextLength", "gpusPerGroup", "data")
    return {**wanted, part: {**wanted.get(part, {}), name: int(value) if number else value}}


@bounded
@given(specs(), memories)
def test_every_gpu_holds_its_parts_and_one_longest_request(wanted: dict[str, Any], mib: int) -> None:
    """Else the engine ends as it starts, hours after the order."""
    sized = _layout(wanted, mib)
    assume(isinstance(sized, Sized))
    assert isinstance(sized, Sized)
    memory, layout = sized.memory, sized.kv_layout
    parts = (memory.weights.total, memory.activations, memory.buffers, memory.headroom, memory.kv_cache)
    assert sum(parts) == memory.capacity == mib * MIB
    assert min(parts) >= 0
    # The engine keeps one block empty.
    assert layout.request_blocks(sized.context_length) <= layout.blocks(memory.kv_cache) - 1
    assert 0 < sized.context_length <= max(sized.model.architecture.context_length, 1)
    assert 1 <= sized.throughput.sequences_per_rank <= sized.sizes.max_sequences
    assert sized.sizes.max_sequences * (1 + sized.sizes.drafted) <= sized.sizes.max_batched_tokens
    assert (memory.weights.adapters > 0) == (sized.features.adapters is not None)
    if "contextLength" in wanted["model"]:
        assert sized.context_length == wanted["model"]["contextLength"]
    if "gpusPerGroup" in wanted["hardware"]:
        assert sized.shape.width == wanted["hardware"]["gpusPerGroup"]


@bounded
@given(specs(), memories)
def test_the_group_holds_all_that_the_checkpoint_has(wanted: dict[str, Any], mib: int) -> None:
    """A share too small by a tensor ends in out of memory."""
    sized = _layout(wanted, mib)
    assume(isinstance(sized, Sized))
    assert isinstance(sized, Sized)
    loaded = frozenset(loaded_sections(sized.model, sized.checkpoint, sized.features))
    whole = checkpoint_bytes(sized.model, sized.checkpoint, loaded)
    # The prediction layers' copies of the embedding are dropped as they are loaded.
    whole -= sum(
        tensor_bytes(tensor, sized.checkpoint, sized.checkpoint.dtype(sized.model.architecture))
        for tensor in sized.model.architecture.of(Section.MTP)
        if Section.MTP in loaded and tensor.component is Component.EMBEDDINGS
    )
    assert sized.memory.weights.total * sized.shape.width >= whole


@bounded
@given(specs(), memories, st.integers(1, 64 * 1024), st.sampled_from(["2048", "8192"]))
def test_more_memory_makes_no_plan_worse(wanted: dict[str, Any], mib: int, more: int, tokens: str) -> None:
    """Else someone who buys larger GPUs gets less of them. With the step's tokens fixed, as the plan would spend a
    little of what is new on larger steps; and within a width, as a group that need not span nodes does not."""
    wanted = {**wanted, "engine": {"args": {"max-num-batched-tokens": tokens}}}
    wanted["hardware"].setdefault("gpusPerGroup", 8)
    small, large = _layout(wanted, mib), _layout(wanted, mib + more)
    assume(isinstance(small, Sized))
    assert isinstance(small, Sized)
    assert isinstance(large, Sized), large
    assert large.meets or not small.meets
    if large.meets == small.meets or wanted["objective"]["goal"] == Goal.MOST_THROUGHPUT.value:
        assert _per_gpu(large) >= _per_gpu(small) * (1 - 1e-9)
    # In the same shape it holds more too.
    spec, model, checkpoint, wants = _asked(wanted)
    profile = CATALOG.accelerator(spec.hardware.accelerator or "")
    assert profile is not None
    link = Transports(spec, Hardware(profile, profile.gpus_per_node, ())).link(small.shape)
    assert not isinstance(link, Refusal)
    same = size(
        model, checkpoint, profile, (mib + more) * MIB, profile.gpus_per_node, small.shape, wants, link
    )
    assert isinstance(same, Sized)
    assert same.context_length >= small.context_length
    assert same.concurrency >= small.concurrency
    assert same.kv_tokens(2048) >= small.kv_tokens(2048)
    assert _per_gpu(same) >= _per_gpu(small) * (1 - 1e-9)


@bounded
@given(specs(), memories, st.integers(1, 64 * 1024))
def test_what_fits_still_fits_with_more_memory(wanted: dict[str, Any], mib: int, more: int) -> None:
    """Whatever step sizes and widths the plan chooses."""
    assume(isinstance(_layout(wanted, mib), Sized))
    assert isinstance(_layout(wanted, mib + more), Sized)


@bounded
@given(specs(), memories)
def test_a_wider_cache_never_holds_more(wanted: dict[str, Any], mib: int) -> None:
    """Else `kvCachePrecision` would be advice in the wrong direction."""
    spec, model, checkpoint, _ = _asked(wanted)
    profile = CATALOG.accelerator(spec.hardware.accelerator or "")
    assert profile is not None
    # `auto` is the checkpoint's: without its own wish, the model's 16 bits.
    checkpoint = replace(checkpoint, kv_cache=None)
    shape = GroupShape(1, 8, 8) if model.architecture.is_moe else GroupShape(8, 1, 8)
    held = []
    for precision in ("fp8", "auto"):
        wanted["model"]["kvCachePrecision"] = precision
        found = size(
            model,
            checkpoint,
            profile,
            mib * MIB,
            8,
            shape,
            wants_of(
                model_deployment(**{**wanted, "engine": {"args": {"max-num-batched-tokens": "2048"}}}).spec
            ),
        )
        held.append(found.kv_tokens(1024) if isinstance(found, Sized) else 0)
    assert held[0] >= held[1]


@bounded
@given(specs(), memories)
def test_a_refusal_of_memory_names_ways_that_work(wanted: dict[str, Any], mib: int) -> None:
    """Advice that leads to the next refusal costs a user's day."""
    refusal = _layout(wanted, mib)
    assume(isinstance(refusal, Refusal) and refusal.reason == "DoesNotFit")
    assert isinstance(refusal, Refusal)
    for lift in refusal.lifts:
        assert str(lift) in refusal.message
        found = _layout(_merged(wanted, lift.field, lift.value), mib)
        assert isinstance(found, Sized), (lift, found)
    # Memory was what was missing, as it says.
    assert isinstance(_layout(wanted, UNBOUNDED), Sized)


@bounded
@given(specs(), memories)
def test_a_refusal_that_is_not_about_memory_says_so_at_once(wanted: dict[str, Any], mib: int) -> None:
    """Else memory is bought that changes nothing."""
    without_bounds = _layout(wanted, UNBOUNDED)
    if isinstance(without_bounds, Refusal):
        assert without_bounds.reason != "DoesNotFit"
        refusal = _layout(wanted, mib)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == without_bounds.reason


@bounded
@given(specs(), memories)
def test_shapes_are_those_that_the_engine_can_divide(wanted: dict[str, Any], mib: int) -> None:
    sized = _layout(wanted, mib)
    assume(isinstance(sized, Sized))
    assert isinstance(sized, Sized)
    assert unusable(sized.model.architecture, sized.checkpoint, sized.shape) is None
    experts = sized.model.architecture.experts
    if experts is None:
        assert sized.shape.data == 1
    elif sized.placement.balanced:
        assert (experts.count + sized.placement.redundant) % sized.shape.width == 0


_ELSEWHERE = """
import json
from factories.deployments import model_deployment
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.plan import Plan, plan_to_data
from moe_operator.planner.planning import plan

found = []
for model in {models!r}:
    for gpu in ("H100", "GB200", "L40S"):
        spec = {{"model": {{"name": model}}, "hardware": {{"accelerator": gpu}}}}
        one = plan(model_deployment(**spec), Inventory(None), load_catalog())
        found.append(plan_to_data(one) if isinstance(one, Plan) else one.message)
print(json.dumps(found, sort_keys=True))
"""


def test_another_process_plans_the_same() -> None:
    """Two replicas of the operator that disagree would replace each other's groups for ever."""
    here = []
    for name in NAMES:
        for gpu in ("H100", "GB200", "L40S"):
            one = plan(
                model_deployment(model={"name": name}, hardware={"accelerator": gpu}),
                Inventory(None),
                CATALOG,
            )
            here.append(plan_to_data(one) if isinstance(one, Plan) else one.message)
    there = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE.format(models=NAMES)],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert json.loads(there) == json.loads(json.dumps(here))
