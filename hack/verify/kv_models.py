"""The models whose KV cache is measured in vLLM: real attention shapes, real layers where their pattern decides how
they are grouped (else a few), everything else tiny. Standard library only, as both the engine's Python and the
project's import it.
"""

from typing import Any

Config = dict[str, Any]


def tiny(**fields: Any) -> Config:
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


def _hybrid(**fields: Any) -> Config:
    """Every fourth layer attends, the others are GatedDeltaNet, as in Qwen3-Next and Qwen3.5."""
    return tiny(
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


def _text_types(full: str, layers: int, pattern: int, other: str) -> list[str]:
    """`full` at every `pattern`-th layer, `other` between."""
    return [full if (index + 1) % pattern == 0 else other for index in range(layers)]


HEADED: dict[str, Config] = {
    "qwen3-30b": tiny(
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
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=2,
        linear_num_value_heads=32,
        num_nextn_predict_layers=1,
    ),
    "qwen3.5-397b": _qwen3_5(
        architectures=["Qwen3_5MoeForCausalLM"],
        model_type="qwen3_5_moe_text",
        num_hidden_layers=60,
        num_attention_heads=32,
        num_key_value_heads=2,
        linear_num_value_heads=64,
    ),
    "qwen3.5-27b": _qwen3_5(
        architectures=["Qwen3_5ForCausalLM"],
        model_type="qwen3_5_text",
        num_hidden_layers=8,
        num_attention_heads=24,
        num_key_value_heads=4,
        linear_num_value_heads=48,
    ),
    "gpt-oss-120b": tiny(
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
    "gpt-oss-uneven": tiny(
        architectures=["GptOssForCausalLM"],
        model_type="gpt_oss",
        num_hidden_layers=7,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        sliding_window=128,
        layer_types=_text_types("full_attention", 7, 2, "sliding_attention"),
        num_local_experts=16,
        max_position_embeddings=131072,
        attention_bias=True,
    ),
    "mixtral-windows": tiny(
        architectures=["MixtralForCausalLM"],
        model_type="mixtral",
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        num_local_experts=16,
        sliding_window=4096,
        max_position_embeddings=32768,
    ),
    "mixtral-8x22b": tiny(
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
    "llama-3.1-8b": tiny(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131072,
    ),
    "glm-4.5": tiny(
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
    "minimax-m2": tiny(
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
    "command-r-35b": tiny(
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
    "llama-4-scout": tiny(
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
