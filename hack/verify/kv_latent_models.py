"""Models with latent attention whose KV cache is measured in vLLM: DeepSeek V3 and later, GLM-5."""

from typing import Any

from verify.kv_models import Config, tiny


def _latent(**fields: Any) -> Config:
    return tiny(
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


def _compressed(ratios: list[int], heads: int) -> Config:
    """DeepSeek V4, with all its layers, as their ratios decide how they are packed."""
    return tiny(
        architectures=["DeepseekV4ForCausalLM"],
        model_type="deepseek_v4",
        num_hidden_layers=len(ratios),
        compress_ratios=[*ratios, 0],
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=512,
        qk_rope_head_dim=64,
        q_lora_rank=256,
        o_lora_rank=256,
        o_groups=8,
        sliding_window=128,
        index_n_heads=64,
        index_head_dim=128,
        index_topk=512,
        hc_mult=4,
        hc_sinkhorn_iters=20,
        hc_eps=1e-6,
        num_hash_layers=3,
        n_routed_experts=16,
        n_shared_experts=1,
        scoring_func="sqrtsoftplus",
        topk_method="noaux_tc",
        norm_topk_prob=True,
        routed_scaling_factor=1.5,
        swiglu_limit=10.0,
        rope_theta=10000.0,
        compress_rope_theta=160000.0,
        max_position_embeddings=1048576,
        num_nextn_predict_layers=1,
        rope_scaling={
            "type": "yarn",
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 65536,
            "beta_fast": 32,
            "beta_slow": 1,
        },
    )


LATENT: dict[str, Config] = {
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
    "glm-5.2": _latent(
        architectures=["GlmMoeDsaForCausalLM"],
        model_type="glm_moe_dsa",
        num_hidden_layers=8,
        num_attention_heads=64,
        num_key_value_heads=64,
        index_n_heads=32,
        index_head_dim=128,
        index_topk=2048,
        index_topk_freq=4,
        index_skip_topk_offset=3,
    ),
    "deepseek-v4-flash": _compressed([0, 0, *[4, 128] * 20, 4], 64),
    "deepseek-v4-pro": _compressed([128, *[128, 4] * 30], 128),
}
