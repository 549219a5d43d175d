"""What is asked of the engine besides serving: sized, or refused with what can be had. A feature that the plan forgets
is out of memory at start, one that the engine lacks a group that never comes up."""

import json
from typing import Any

import pytest

from factories.deployments import model_deployment, rendering
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.architecture import Section
from moe_operator.catalog.models.catalog import load_models
from moe_operator.planner.adapters import adapter_bytes
from moe_operator.planner.features import Adapters, Drafts, features_of
from moe_operator.planner.identity import ByIdentity
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.plan import Plan, Refusal, Sizing, plan_from_data, plan_to_data
from moe_operator.planner.planning import plan
from moe_operator.resources.engine_args import explained_arguments

QWEN, R1, V32 = "Qwen/Qwen3.5-397B-A17B", "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3.2"
OSS, PLAIN, LLAMA = "openai/gpt-oss-120b", "Qwen/Qwen3-235B-A22B", "meta-llama/Llama-3.3-70B-Instruct"
MTP = {"speculation": {"method": "MTP"}}
LAW = {"name": "law", "source": "hf://org/law"}


def _decide(name: str, accelerator: str = "B200", **spec: Any) -> Plan | Refusal:
    wanted = {**spec, "model": {"name": name, **spec.get("model", {})}}
    wanted["hardware"] = {"accelerator": accelerator, **spec.get("hardware", {})}
    return plan(model_deployment(**wanted), Inventory(None), load_catalog())


def _plan(name: str, accelerator: str = "B200", **spec: Any) -> Plan:
    found = _decide(name, accelerator, **spec)
    assert isinstance(found, Plan), found
    return found


def _sizing(name: str, accelerator: str = "B200", **spec: Any) -> Sizing:
    found = _plan(name, accelerator, **spec).sizing
    assert found is not None
    return found


def _refused(name: str, accelerator: str = "B200", **spec: Any) -> str:
    found = _decide(name, accelerator, **spec)
    assert isinstance(found, Refusal), found
    return found.message


def _flags(name: str, accelerator: str = "B200", **spec: Any) -> dict[str, str | None]:
    wanted = {
        **spec,
        "model": {"name": name, **spec.get("model", {})},
        "hardware": {"accelerator": accelerator},
    }
    found = plan(model_deployment(**wanted), Inventory(None), load_catalog())
    assert isinstance(found, Plan), found
    return {one.flag: one.value for one in explained_arguments(rendering(model_deployment(**wanted), found))}


class TestDrafts:
    def test_the_layers_that_draft_are_held_and_have_a_cache(self) -> None:
        """Else the engine is out of memory, or starts with fewer tokens than promised."""
        without, with_them = _sizing(R1), _sizing(R1, engine=MTP)
        model = load_models().find(R1)
        assert model is not None
        experts = sum(
            t.rows * t.cols * t.experts // 8
            for t in model.architecture.of(Section.MTP)
            if "experts." in t.name and "shared" not in t.name
        )
        assert with_them.weight_bytes - without.weight_bytes >= experts  # a byte each, an eighth on every GPU
        assert with_them.kv_block_bytes * 61 == without.kv_block_bytes * 62
        assert (with_them.speculative_tokens, with_them.speculation) == (1, "mtp")

    def test_the_copies_of_the_embedding_are_not_counted(self) -> None:
        """vLLM drops them: 3.5 GiB of every GPU would lie idle."""
        assert _sizing(R1, engine=MTP).weight_bytes - _sizing(R1).weight_bytes < 2.5 * 2**30

    def test_recurrent_states_are_kept_for_every_draft(self) -> None:
        assert _sizing(QWEN, engine=MTP).kv_cache_tokens < 0.7 * _sizing(QWEN).kv_cache_tokens

    def test_all_requests_fit_into_a_step_with_their_drafts(self) -> None:
        found = _sizing(R1, engine={**MTP, "args": {"max-num-batched-tokens": "512"}})
        assert found.max_sequences * 2 <= 512

    def test_drafts_shorten_the_time_per_token(self) -> None:
        spec = {"objective": {"timePerOutputToken": "1ms"}, "parallelism": {"tensor": 1, "data": 8}}
        without, with_them = _sizing(R1, **spec), _sizing(R1, engine=MTP, **spec)
        assert with_them.time_per_output_token_ms < without.time_per_output_token_ms
        assert any("prediction layers" in note for note in _plan(R1, **spec).notes)

    @pytest.mark.parametrize(
        ("name", "spec", "says"),
        [
            (OSS, {}, "has no prediction layers for MTP"),
            (PLAIN, {}, "has no prediction layers for MTP"),
            (
                "Qwen/Qwen3.5-122B-A10B",
                {"model": {"precision": "nvfp4"}},
                "nvidia/Qwen3.5-122B-A10B-NVFP4 holds no weights of the prediction layers for MTP: leave"
                " engine.speculation out, or set model.precision to bf16 or fp8, which has them",
            ),
        ],
    )
    def test_a_checkpoint_without_them_is_refused(self, name: str, spec: dict[str, Any], says: str) -> None:
        """vLLM would end as it loads the model, after the download."""
        assert says in _refused(name, engine=MTP, **spec)

    def test_the_engine_is_told(self) -> None:
        engine = {"speculation": {"method": "MTP", "tokens": 2}}
        assert json.loads(_flags(R1, engine=engine)["speculative-config"] or "") == {
            "method": "mtp",
            "num_speculative_tokens": 2,
        }
        assert "speculative-config" not in _flags(R1)

    @pytest.mark.parametrize(
        "args",
        [
            {"speculative-config": '{"method":"mtp","num_speculative_tokens":2}'},
            {"speculative_config": '{"method":"deepseek_mtp","num_speculative_tokens":2}'},
            {"speculative-config.method": "mtp", "speculative-config.num_speculative_tokens": "2"},
            {"spec-method": "mtp", "spec-tokens": "2"},
        ],
    )
    def test_a_user_s_own_flag_is_sized_alike(self, args: dict[str, str]) -> None:
        """A flag is what takes the memory, whoever writes it."""
        by_field = _sizing(R1, engine={"speculation": {"method": "MTP", "tokens": 2}})
        by_flag = _sizing(R1, engine={"args": args})
        assert by_flag.weight_bytes == by_field.weight_bytes
        assert by_flag.kv_cache_tokens == by_field.kv_cache_tokens
        assert by_flag.speculation is None
        flags = _flags(R1, engine={"args": args})
        assert {name: flags[name] for name in args} == args

    def test_a_draft_model_of_the_user_s_is_named_as_not_sized(self) -> None:
        config = '{"method":"eagle3","model":"org/draft","num_speculative_tokens":3}'
        notes = _plan(R1, engine={"args": {"speculative-config": config}}).notes
        assert any("org/draft of engine.args is not sized" in note for note in notes)

    def test_drafts_by_field_and_by_flag_contradict_each_other(self) -> None:
        engine = {**MTP, "args": {"speculative-config": '{"method":"ngram","num_speculative_tokens":2}'}}
        assert "both ask for speculative decoding" in _refused(R1, engine=engine)

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            ({"speculative-config": "mtp"}, "is not a JSON object"),
            ({"speculative-config": '{"method":"mtp","num_speculative_tokens":"two"}'}, "from 1 to 64"),
            ({"eplb-config": '{"num_redundant_experts":-1}'}, "from 0 to 1023"),
            ({"eplb-config.window_size": "none"}, "is not a whole number above 0"),
            ({"enable-lora": "", "max-loras": "none"}, "is not a whole number above 0"),
        ],
    )
    def test_what_cannot_be_read_is_refused_by_name(self, args: dict[str, str], says: str) -> None:
        message = _refused(R1, engine={"args": args})
        assert says in message
        assert next(iter(args)).partition(".")[0].replace("enable-lora", "max-loras") in message


class TestCache:
    @pytest.mark.parametrize(
        ("name", "accelerator", "flag"),
        [
            (QWEN, "B200", "nvfp4"),
            (QWEN, "H100", "nvfp4"),
            (V32, "GB200", "nvfp4_ds_mla"),
            (OSS, "B300", "nvfp4"),
        ],
    )
    def test_four_bits_hold_more(self, name: str, accelerator: str, flag: str) -> None:
        # Of short requests the recurrent states decide, and blocks that are as large as they.
        objective = {"inputTokens": 60000, "outputTokens": 2000}
        eight = _sizing(name, accelerator, model={"kvCachePrecision": "fp8"}, objective=objective)
        four = _sizing(name, accelerator, model={"kvCachePrecision": "nvfp4"}, objective=objective)
        assert four.kv_cache_dtype == flag
        assert four.kv_cache_tokens > eight.kv_cache_tokens
        assert _flags(name, accelerator, model={"kvCachePrecision": "nvfp4"})["kv-cache-dtype"] == flag

    @pytest.mark.parametrize(
        ("name", "accelerator", "says"),
        [
            (R1, "B200", "unless it is sparse (DSA): set it to auto or fp8"),
            (V32, "H200", "data centre Blackwell only, not on H200: set it to auto or fp8"),
            (V32, "RTX-PRO-6000", "data centre Blackwell only"),
            ("deepseek-ai/DeepSeek-V4-Flash", "B200", "in FP8 only"),
            (OSS, "H100", "misread heads of 64"),
            (QWEN, "MI300X", "on NVIDIA's GPUs only"),
            ("Qwen/Qwen3.5-0.8B", "cpu", "on NVIDIA's GPUs only, not on cpu"),
        ],
    )
    def test_where_there_are_no_kernels_it_is_refused_with_what_there_is(
        self, name: str, accelerator: str, says: str
    ) -> None:
        """vLLM says it as it builds the model: after the download, on GPUs that are paid for."""
        assert says in _refused(name, accelerator, model={"kvCachePrecision": "nvfp4"})

    def test_caching_of_prefixes_is_said_and_can_be_taken_back(self) -> None:
        """It is what a recurrent model keeps one more state per request for."""
        on, off = _sizing(QWEN), _sizing(QWEN, engine={"args": {"no-enable-prefix-caching": ""}})
        assert off.kv_cache_tokens > 1.4 * on.kv_cache_tokens
        assert "enable-prefix-caching" in _flags(QWEN)
        flags = _flags(QWEN, engine={"args": {"no-enable-prefix-caching": ""}})
        assert "no-enable-prefix-caching" in flags
        assert "enable-prefix-caching" not in flags


class TestBalancing:
    def test_the_user_s_copies_are_held(self) -> None:
        engine = {"expertBalancing": {"redundantExperts": 8}}
        found = _sizing(QWEN, engine=engine)
        assert (found.balanced, found.redundant_experts) == (True, 8)
        assert found.weight_bytes > _sizing(QWEN).weight_bytes
        config = json.loads(_flags(QWEN, engine=engine)["eplb-config"] or "")
        assert config == {
            "window_size": 1000,
            "step_interval": 3000,
            "num_redundant_experts": 8,
            "use_async": True,
        }

    def test_it_can_be_turned_off_where_the_plan_would_have_it(self) -> None:
        hardware = {"gpusPerGroup": 32}
        assert _sizing(R1, hardware=hardware).balanced
        off = _plan(R1, hardware=hardware, engine={"expertBalancing": {"mode": "Disabled"}}).sizing
        assert off is not None
        assert (off.balanced, off.redundant_experts) == (False, 0)

    @pytest.mark.parametrize(
        "args",
        [
            {"enable-eplb": "", "eplb-config": '{"num_redundant_experts":16}'},
            {"enable_eplb": "", "eplb_config.num_redundant_experts": "16"},
        ],
    )
    def test_a_user_s_own_flag_is_sized_alike(self, args: dict[str, str]) -> None:
        by_flag = _sizing(QWEN, engine={"args": args})
        by_field = _sizing(QWEN, engine={"expertBalancing": {"redundantExperts": 16}})
        assert by_flag.weight_bytes == by_field.weight_bytes
        assert by_flag.kv_cache_tokens == by_field.kv_cache_tokens

    def test_turned_off_by_flag_nothing_of_it_is_left(self) -> None:
        """vLLM refuses copies without the balancer."""
        flags = _flags(R1, engine={"args": {"no-enable-eplb": ""}}, parallelism={"data": 32, "tensor": 1})
        assert not {"enable-eplb", "eplb-config"} & flags.keys()

    def test_a_single_key_goes_into_the_plan_s_own(self) -> None:
        """vLLM would take the user's key alone for the whole."""
        engine = {"expertBalancing": {"redundantExperts": 8}, "args": {"eplb-config.window_size": "200"}}
        flags = _flags(QWEN, engine=engine)
        assert json.loads(flags["eplb-config"] or "")["num_redundant_experts"] == 8
        assert json.loads(flags["eplb-config"] or "")["window_size"] == 200
        assert "eplb-config.window_size" not in flags

    def test_copies_that_do_not_divide_are_refused_with_numbers_that_do(self) -> None:
        """vLLM says it only as it loads the model."""
        engine = {"expertBalancing": {"redundantExperts": 7}}
        message = _refused(QWEN, engine=engine)
        assert "512 experts and 7 copies do not divide over 8 GPUs" in message
        assert "redundantExperts to 0, 8 or another 8 more" in message

    @pytest.mark.parametrize(
        ("name", "accelerator", "says"),
        [
            (OSS, "B200", "cannot move the experts of GptOssForCausalLM stored as mxfp4"),
            (LLAMA, "B200", "has no experts to balance"),
            ("Qwen/Qwen3-30B-A3B", "cpu", "on GPUs only"),
        ],
    )
    def test_where_vllm_cannot_it_is_refused(self, name: str, accelerator: str, says: str) -> None:
        assert says in _refused(name, accelerator, engine={"expertBalancing": {"mode": "Enabled"}})

    def test_gpus_read_their_own_experts_only(self) -> None:
        """Eight GPUs of a node would read the checkpoint eight times; with balancing each needs all of it."""
        assert "enable-ep-weight-filter" in _flags(R1)
        for name, engine in (
            (R1, {"expertBalancing": {"mode": "Enabled"}}),
            (R1, {"args": {"expert-placement-strategy": "round_robin"}}),
            (OSS, {}),
        ):
            assert "enable-ep-weight-filter" not in _flags(name, engine=engine)


class TestAdapters:
    def test_room_is_made_as_vllm_makes_it(self) -> None:
        """Beside every matrix two narrow ones in 16 bits: of experts for those that a GPU holds."""
        model = load_models().find(PLAIN)
        assert model is not None
        key = ByIdentity(model.architecture)
        layers, hidden, width, rank = 94, 4096, 1536, 16
        experts = adapter_bytes(key, Adapters(1, rank, ("experts",)), 1, 16)
        assert experts == layers * 16 * 3 * (hidden + width) * rank * 2
        queries = adapter_bytes(key, Adapters(3, rank, ("q_proj",)), 4, 16)
        assert queries == 3 * layers * (hidden + 8192 // 4) * rank * 2
        outputs = adapter_bytes(key, Adapters(1, rank, ("o_proj",)), 4, 16)
        assert outputs == layers * (hidden + 8192 // 4) * rank * 2
        # Four key/value heads over eight GPUs: each has one.
        keys = adapter_bytes(key, Adapters(1, rank, ("k_proj",)), 8, 16)
        assert keys == layers * (hidden + 128) * rank * 2

    def test_it_is_taken_from_the_cache(self) -> None:
        without, with_them = _sizing(QWEN), _sizing(QWEN, model={"adapters": [LAW]})
        assert with_them.adapter_bytes > 2**30
        assert with_them.weight_bytes == without.weight_bytes + with_them.adapter_bytes
        narrow = _sizing(QWEN, model={"adapters": [{**LAW, "targetModules": ["q_proj"]}]})
        assert 0 < narrow.adapter_bytes < with_them.adapter_bytes // 100

    def test_rank_and_number_are_the_engine_s(self) -> None:
        adapters = [{**LAW, "rank": 20}, {"name": "sql", "source": "pvc://loras/sql", "rank": 8}]
        found = _sizing(LLAMA, "H100", model={"adapters": adapters})
        assert (found.adapter_slots, found.adapter_rank) == (2, 32)
        fewer = _sizing(LLAMA, "H100", model={"adapters": adapters}, engine={"args": {"max-loras": "1"}})
        assert fewer.adapter_bytes * 2 == found.adapter_bytes

    def test_a_user_s_own_switch_is_sized(self) -> None:
        found = _sizing(
            LLAMA, "H100", engine={"args": {"enable-lora": "", "max-lora-rank": "64", "max-loras": "2"}}
        )
        assert (found.adapter_slots, found.adapter_rank) == (2, 64)
        assert found.adapter_bytes > 0

    def test_experts_that_adapters_change_stay_where_they_are(self) -> None:
        """vLLM moves the experts and not what was learnt for them."""
        model = {"adapters": [LAW]}
        assert not _sizing(R1, model=model, hardware={"gpusPerGroup": 32}).balanced
        message = _refused(R1, model=model, engine={"expertBalancing": {"mode": "Enabled"}})
        assert "leave their adapters behind" in message
        narrow = {"adapters": [{**LAW, "targetModules": ["o_proj"]}]}
        assert _sizing(R1, model=narrow, hardware={"gpusPerGroup": 32}).balanced

    def test_experts_are_reached_as_adapters_can(self) -> None:
        """vLLM asserts its own exchange of tokens where adapters change experts, as it loads the model."""
        wide: dict[str, Any] = {"hardware": {"gpusPerGroup": 16}, "parallelism": {"tensor": 1}}
        plain = _plan(QWEN, "GB200", model={"precision": "nvfp4"}, **wide).transport
        changed = _plan(QWEN, "GB200", model={"precision": "nvfp4", "adapters": [LAW]}, **wide).transport
        assert plain is not None
        assert plain.all2all == "flashinfer_nvlink_one_sided"
        assert changed is not None
        assert changed.all2all == "allgather_reducescatter"
        engine = {"args": {"all2all-backend": "deepep_high_throughput"}}
        message = _refused(QWEN, "GB200", model={"adapters": [LAW]}, engine=engine, **wide)
        assert "adapters go with allgather_reducescatter only" in message

    @pytest.mark.parametrize(
        ("name", "accelerator", "spec", "says"),
        [
            (QWEN, "B200", {"parallelism": {"tensor": 2, "data": 4}}, "set parallelism.tensor to 1"),
            ("deepseek-ai/DeepSeek-V4-Flash", "B200", {}, "takes no LoRA adapters for DeepseekV4ForCausalLM"),
            ("Qwen/Qwen3-30B-A3B", "cpu", {}, "on GPUs only"),
            (
                LLAMA,
                "H100",
                {"model": {"adapters": [{**LAW, "targetModules": ["q_prj"]}]}},
                "has no q_prj for adapters to change",
            ),
            (
                LLAMA,
                "H100",
                {"model": {"adapters": [{**LAW, "rank": 64}]}, "engine": {"args": {"max-lora-rank": "16"}}},
                "max-lora-rank is 16, and an adapter in model.adapters has rank 64",
            ),
        ],
    )
    def test_what_vllm_cannot_is_refused(
        self, name: str, accelerator: str, spec: dict[str, Any], says: str
    ) -> None:
        wanted = {**spec, "model": {"adapters": [LAW], **spec.get("model", {})}}
        assert says in _refused(name, accelerator, **wanted)


def test_a_spec_that_says_nothing_asks_for_nothing() -> None:
    """Its revision must stay what it was."""
    features = features_of(model_deployment().spec)
    assert (features.drafts, features.adapters) == (None, None)


def test_what_drafts_without_weights_is_told_apart() -> None:
    config = '{"method":"ngram","num_speculative_tokens":4}'
    found = features_of(model_deployment(engine={"args": {"speculative-config": config}}).spec)
    assert found.drafts == Drafts(4, own_layers=False, from_args=True)


def test_a_plan_is_read_back_as_it_was() -> None:
    """A rollback that finds another plan restarts every group."""
    made = _plan(QWEN, engine=MTP, model={"adapters": [LAW]})
    assert plan_from_data(json.loads(json.dumps(plan_to_data(made)))) == made
