"""Within the engine's Python: how the rotary embedding of a configured model is built."""

# vLLM is in the engine's environment only.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any


def rotary_embedding(config: Any) -> dict[str, Any]:
    """Class, scaling factor and positions of what the model's attention layers would rotate by."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    text = config.model_config.hf_text_config
    with set_current_vllm_config(config):
        # As the models call it; the factor of 1 is that of models without video pruning.
        rope = get_rope(
            text.head_dim,
            max_position=text.max_position_embeddings,
            rope_parameters=text.rope_parameters,
            mrope_positions_factor=1,
        )
    return {
        "class": type(rope).__name__,
        "factor": rope.scaling_factor,
        "positions": rope.cos_sin_cache.shape[0],
        "dimensions": rope.rotary_dim,
        "theta": rope.base,
    }
