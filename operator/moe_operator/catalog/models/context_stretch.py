"""Reading more tokens than a model was trained on: what the engine is told to stretch positions (YaRN)."""

import json
import math
from dataclasses import dataclass
from typing import Any

from moe_operator.catalog.models.architecture import RopeScaling


@dataclass(frozen=True)
class ContextStretch:
    """How far the model's card allows positions to be stretched."""

    type: RopeScaling
    up_to: int
    """Longest sequence in tokens."""
    original: int
    """Positions that the factor counts from: `original_max_position_embeddings`. Not always the native context, which
    may hold room for the answer besides."""
    rope: tuple[tuple[str, Any], ...]
    """(name, value): the model's own rope parameters, as its config.json has them. They are given again, as vLLM puts
    what it is told in the place of all of them."""
    within: str | None = None
    """Object of the config.json that holds the language model's fields; None for its top."""

    def factor(self, context_length: int) -> int:
        """The smallest whole one that reaches `context_length` tokens: static YaRN costs quality on short requests,
        so no more than needed."""
        return math.ceil(context_length / self.original)

    def hf_overrides(self, context_length: int) -> str:
        """`--hf-overrides` for requests of up to `context_length` tokens, as JSON.

        `max_position_embeddings` is raised too: vLLM takes a longer `--max-model-len` only with it, as YaRN's factor
        is not multiplied onto it (`_get_and_verify_max_len` of vLLM 0.32).
        """
        factor = self.factor(context_length)
        fields = {
            "max_position_embeddings": self.original * factor,
            "rope_parameters": {
                **dict(self.rope),
                "rope_type": "yarn",
                "factor": float(factor),
                "original_max_position_embeddings": self.original,
            },
        }
        return json.dumps({self.within: fields} if self.within else fields, separators=(",", ":"))
