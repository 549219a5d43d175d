"""The models and settings whose KV cache is measured in vLLM: real attention shapes, few layers, tiny everything
else. Standard library only, as both the engine's Python and the project's import it.
"""

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One layout to measure. `engine` runs the real engine on the CPU; else vLLM's model code specifies the
    cache for a model without weights, with a GPU's block sizes and batches in flight."""

    model: str
    tensor: int = 1
    cache_dtype: str = "auto"
    block_size: int = 16
    prefix_caching: bool = True
    speculative_tokens: int = 0
    max_batched_tokens: int = 2048
    context_length: int = 32768
    kv_bytes: int = 8 * 2**30 + 777_777
    engine: bool = False

    @property
    def name(self) -> str:
        """Says what differs from the defaults; unique among the cases."""
        parts = [self.model]
        for key, default in _DEFAULTS.items():
            value = getattr(self, key)
            if value != default:
                parts.append(f"{key}={value}")
        return " ".join(parts)


_DEFAULTS = {
    name: spec.default
    for name, spec in Case.__dataclass_fields__.items()
    if name not in ("model", "kv_bytes")
}


def _moe(**fields: Any) -> Config:
    """Sizes that do not matter to the cache, small and accepted by every model's code."""
    return {
        "hidden_size": 256,
        "intermediate_size": 512,
        "moe_intermediate_size": 512,
        "vocab_size": 512,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **fields,
    }


def _hybrid(layers: int = 8, **fields: Any) -> Config:
    """Every fourth layer attends, the others are GatedDeltaNet, as in Qwen3-Next and Qwen3.5."""
    return _moe(
        num_hidden_layers=layers,
        head_dim=256,
        linear_num_key_heads=16,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
        full_attention_interval=4,
        shared_expert_intermediate_size=512,
        max_position_embeddings=262144,
        decoder_sparse_step=1,
        norm_topk_prob=True,
        mlp_only_layers=[],
        **fields,
    )


def _qwen3_5(**fields: Any) -> Config:
    return _hybrid(
        mamba_ssm_dtype="float32",
        attn_output_gate=True,
        mtp_num_hidden_layers=1,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
        },
        **fields,
    )


def _latent(**fields: Any) -> Config:
    return _moe(
        q_lora_rank=64,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        n_routed_experts=16,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        norm_topk_prob=True,
        moe_layer_freq=1,
        first_k_dense_replace=1,
        max_position_embeddings=163840,
        num_nextn_predict_layers=1,
        **fields,
    )


def _text_types(full: str, layers: int, pattern: int, other: str) -> list[str]:
    """`full` at every `pattern`-th layer, `other` between."""
    return [full if (index + 1) % pattern == 0 else other for index in range(layers)]


CONFIGS: dict[str, Config] = {
    "qwen3-30b": _moe(
        architectures=["Qwen3MoeForCausalLM"],
        model_type="qwen3_moe",
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        max_position_embeddings=40960,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        norm_topk_prob=True,
    ),
    "qwen3-next-80b": _hybrid(
        architectures=["Qwen3NextForCausalLM"],
        model_type="qwen3_next",
        num_attention_heads=16,
        num_key_value_heads=2,
        linear_num_value_heads=32,
        num_nextn_predict_layers=1,
    ),
    "qwen3.5-397b": _qwen3_5(
        architectures=["Qwen3_5MoeForCausalLM"],
        model_type="qwen3_5_moe_text",
        num_attention_heads=32,
        num_key_value_heads=2,
        linear_num_value_heads=64,
    ),
    "qwen3.5-27b": _qwen3_5(
        architectures=["Qwen3_5ForCausalLM"],
        model_type="qwen3_5_text",
        num_attention_heads=24,
        num_key_value_heads=4,
        linear_num_value_heads=48,
    ),
    "deepseek-v3": _latent(
        architectures=["DeepseekV3ForCausalLM"],
        model_type="deepseek_v3",
        num_hidden_layers=4,
        num_attention_heads=128,
        num_key_value_heads=128,
    ),
    "deepseek-v3.2": _latent(
        architectures=["DeepseekV32ForCausalLM"],
        model_type="deepseek_v32",
        num_hidden_layers=4,
        num_attention_heads=128,
        num_key_value_heads=128,
        index_n_heads=64,
        index_head_dim=128,
        index_topk=2048,
    ),
    "gpt-oss-120b": _moe(
        architectures=["GptOssForCausalLM"],
        model_type="gpt_oss",
        num_hidden_layers=6,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        sliding_window=128,
        layer_types=_text_types("full_attention", 6, 2, "sliding_attention"),
        num_local_experts=16,
        max_position_embeddings=131072,
        attention_bias=True,
    ),
    "mixtral-8x22b": _moe(
        architectures=["MixtralForCausalLM"],
        model_type="mixtral",
        num_hidden_layers=4,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        num_local_experts=16,
        sliding_window=None,
        max_position_embeddings=65536,
    ),
    "llama-3.1-8b": _moe(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131072,
    ),
    "glm-4.5": _moe(
        architectures=["Glm4MoeForCausalLM"],
        model_type="glm4_moe",
        num_hidden_layers=4,
        num_attention_heads=96,
        num_key_value_heads=8,
        head_dim=128,
        n_routed_experts=16,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
        norm_topk_prob=True,
        first_k_dense_replace=1,
        use_qk_norm=True,
        attention_bias=True,
        partial_rotary_factor=0.5,
        num_nextn_predict_layers=1,
        max_position_embeddings=131072,
    ),
    "minimax-m2": _moe(
        architectures=["MiniMaxM2ForCausalLM"],
        model_type="minimax_m2",
        num_hidden_layers=4,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        rotary_dim=64,
        num_local_experts=16,
        scoring_func="sigmoid",
        use_routing_bias=True,
        use_qk_norm=True,
        qk_norm_type="per_layer",
        max_position_embeddings=196608,
    ),
    "command-r-35b": _moe(
        architectures=["CohereForCausalLM"],
        model_type="cohere",
        num_hidden_layers=4,
        hidden_size=64 * 128,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        logit_scale=0.0625,
        layer_norm_eps=1e-5,
    ),
    "llama-4-scout": _moe(
        architectures=["Llama4ForCausalLM"],
        model_type="llama4_text",
        num_hidden_layers=8,
        num_attention_heads=40,
        num_key_value_heads=8,
        head_dim=128,
        num_local_experts=16,
        num_experts_per_tok=1,
        intermediate_size_mlp=512,
        interleave_moe_layer_step=1,
        attention_chunk_size=8192,
        no_rope_layers=[0 if (index + 1) % 4 == 0 else 1 for index in range(8)],
        layer_types=_text_types("full_attention", 8, 4, "chunked_attention"),
        use_qk_norm=True,
        max_position_embeddings=1048576,
    ),
}


def _cases() -> list[Case]:
    cases: list[Case] = []
    for model in CONFIGS:
        cases += [Case(model), Case(model, tensor=2), Case(model, tensor=8), Case(model, cache_dtype="fp8")]
    for model in ("qwen3-30b", "deepseek-v3"):
        cases += [Case(model, tensor=4), Case(model, block_size=64), Case(model, context_length=1000)]
    for model in ("qwen3-next-80b", "qwen3.5-397b", "qwen3.5-27b"):
        cases += [
            Case(model, prefix_caching=False),
            Case(model, speculative_tokens=1),
            Case(model, tensor=4, speculative_tokens=3, prefix_caching=False),
            Case(model, tensor=4, cache_dtype="fp8", speculative_tokens=2),
            Case(model, context_length=262144),
        ]
    for model in ("deepseek-v3", "deepseek-v3.2", "glm-4.5"):
        cases += [Case(model, speculative_tokens=1), Case(model, block_size=64, speculative_tokens=2)]
    cases += [
        Case("deepseek-v3", block_size=32, tensor=4),
        Case("deepseek-v3.2", block_size=64, cache_dtype="fp8_ds_mla"),
        Case("gpt-oss-120b", max_batched_tokens=8192, context_length=131072),
        Case("gpt-oss-120b", max_batched_tokens=8192, context_length=1000),
        Case("llama-4-scout", context_length=1048576, kv_bytes=80 * 2**30),
    ]
    return [case for case in cases if not _heads_undivided(case)] + _engine_cases()


def _heads_undivided(case: Case) -> bool:
    config = CONFIGS[case.model]
    return any(
        config.get(key, case.tensor) % case.tensor
        for key in ("num_attention_heads", "linear_num_value_heads")
    )


def _engine_cases() -> list[Case]:
    """The CPU's blocks: 128 tokens, 16 for MLA."""
    return [
        Case(model, engine=True, block_size=block, kv_bytes=2**28 + 12_345, context_length=4096, **settings)
        for model, block, settings in (
            ("qwen3-30b", 128, {}),
            ("qwen3.5-397b", 128, {}),
            ("deepseek-v3", 16, {}),
            ("gpt-oss-120b", 128, {}),
        )
    ]


CASES = tuple(_cases())
