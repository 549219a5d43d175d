"""Tiny models of every family that the catalogue reads and the engine serves on a CPU, with saved random weights.

Each has what makes its family different: experts, recurrent states, sliding windows, compressed keys and values, tied
embeddings; 4 layers, or 6 where kinds alternate. Made with the engine environment's transformers
(`family_weights.py`), with the tokenizer of the tiny model.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.install import InstallError, environment, vllm_command
from engine.store import built, cache_root, content_key
from engine.tiny_model import CONTEXT, VOCABULARY, tiny_model

_WRITER = Path(__file__).with_name("family_weights.py")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@dataclass(frozen=True)
class Family:
    """One tiny model."""

    name: str
    """Also names objects of a cluster."""
    architecture: str
    """Class in transformers and vLLM."""
    model_type: str
    settings: Mapping[str, Any]
    """Of config.json, beside `_SHARED`."""
    precision: str = "fp32"
    """As `model.precision`. `bf16` where the engine's CPU kernels compute in nothing else (GatedDeltaNet)."""
    experts: bool = True
    """False: a dense model."""

    @property
    def dtype(self) -> str:
        """As in config.json and `--dtype`."""
        return {"fp32": "float32", "bf16": "bfloat16"}[self.precision]

    def config(self) -> dict[str, Any]:
        """What config.json says beside what transformers fills in."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "dtype": self.dtype,
            **_SHARED,
            **self.settings,
        }


#: The same sizes as in the tiny model where a family does not ask for its own; ids of its special tokens.
_SHARED: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "pad_token_id": 256,
    "eos_token_id": 258,
}
_EXPERTS: Mapping[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
#: The state is larger than the default block of the attention layers, so that vLLM has to align the two.
_HYBRID: Mapping[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
}
_QWEN3_5: Mapping[str, Any] = {**_HYBRID, "mamba_ssm_dtype": "float32", "attn_output_gate": True}

FAMILIES = (
    Family("qwen3-moe", "Qwen3MoeForCausalLM", "qwen3_moe", {**_EXPERTS, "intermediate_size": 256}),
    Family(
        "qwen3-5-moe",
        "Qwen3_5MoeForCausalLM",
        "qwen3_5_moe_text",
        {**_EXPERTS, **_QWEN3_5, "shared_expert_intermediate_size": 64},
        precision="bf16",
    ),
    Family(
        "qwen3-5",
        "Qwen3_5ForCausalLM",
        "qwen3_5_text",
        {**_QWEN3_5, "intermediate_size": 256},
        precision="bf16",
        experts=False,
    ),
    Family(
        "qwen3-next",
        "Qwen3NextForCausalLM",
        "qwen3_next",
        {**_EXPERTS, **_HYBRID, "intermediate_size": 256, "shared_expert_intermediate_size": 64},
        precision="bf16",
    ),
    Family(
        "gpt-oss",
        "GptOssForCausalLM",
        "gpt_oss",
        {
            "num_hidden_layers": 6,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "intermediate_size": 64,
            "sliding_window": 64,
            "attention_bias": True,
        },
    ),
    Family(
        "mixtral",
        "MixtralForCausalLM",
        "mixtral",
        {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 64, "sliding_window": None},
    ),
    # The engine's CPU kernels for compressed keys and values (vLLM 0.32) answer otherwise than transformers, and alone
    # otherwise than in a batch; the same request alone gets the same answer. Compare engine with engine only.
    Family(
        "deepseek-v3",
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        {
            "num_key_value_heads": 4,
            # Derived by transformers; the engine takes what is said here for the size of its cache.
            "head_dim": 64,
            "q_lora_rank": 64,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 64,
            "v_head_dim": 64,
            "intermediate_size": 256,
            "moe_intermediate_size": 64,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            # transformers does not write these; without them the engine does not load the router's bias.
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
            "num_nextn_predict_layers": 0,
        },
    ),
    Family("llama", "LlamaForCausalLM", "llama", {"intermediate_size": 256}, experts=False),
    Family(
        "command-r",
        "CohereForCausalLM",
        "cohere",
        {
            # Heads of hidden_size / heads, as the family's code has no other.
            "head_dim": 32,
            "intermediate_size": 256,
            "tie_word_embeddings": True,
            "logit_scale": 1.0,
        },
        experts=False,
    ),
)


#: With a layer that drafts (multi-token prediction): full attention with experts, and recurrent states. Not of latent
#: attention, whose kernels for CPUs answer otherwise when several tokens of a request are computed at once.
PREDICTING = (
    Family(
        "glm4-moe-mtp",
        "Glm4MoeForCausalLM",
        "glm4_moe",
        {
            "intermediate_size": 256,
            "moe_intermediate_size": 64,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "use_qk_norm": True,
            "attention_bias": False,
            "partial_rotary_factor": 0.5,
            "num_nextn_predict_layers": 1,
        },
    ),
    Family(
        "qwen3-5-mtp",
        "Qwen3_5ForCausalLM",
        "qwen3_5_text",
        {**_QWEN3_5, "intermediate_size": 256, "mtp_num_hidden_layers": 1},
        precision="bf16",
        experts=False,
    ),
)


def family_model(family: Family, say: Callable[[str], None] = lambda message: None, seed: int = 0) -> Path:
    """Return the folder of this family's model, making it first if it is not in the cache.

    Raises:
        InstallError: if vLLM's environment is not installed, or transformers could not make the model.
    """
    vllm_command()
    tokenizer = tiny_model(say)
    sources = (_WRITER.read_text(), json.dumps(family.config(), sort_keys=True), str(environment()))
    key = content_key(*sources, str(tokenizer), str(seed))
    folder = cache_root() / "models" / f"tiny-{family.name}-{key}"
    return built(folder, lambda target: _write(family, target, tokenizer, seed), say)


def _write(family: Family, folder: Path, tokenizer: Path, seed: int) -> None:
    command = [str(environment() / "bin" / "python"), str(_WRITER), str(folder), str(seed)]
    done = subprocess.run(
        command, input=json.dumps(family.config()), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise InstallError(f"making the tiny model {family.name} failed:\n{done.stderr[-2000:]}")
    for name in _TOKENIZER:
        shutil.copyfile(tokenizer / name, folder / name)
