"""Small models for tests of the catalogue: a Mixtral whose sizes can be checked by hand, and entries of it."""

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from moe_operator.catalog.models.catalog import ModelCatalog

#: 2 layers, hidden 256, 4 experts of 256 x 512: every matrix divides into blocks of 128 and groups of 128.
CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "num_local_experts": 4,
    "intermediate_size": 512,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}

HEAD = EMBEDDING = 1000 * 256
#: Per layer.
QUERY = OUTPUT = 256 * 256
KEY = VALUE = 128 * 256
ROUTER = 4 * 256
EXPERTS = 4 * 3 * 256 * 512
NORMS = 2 * 256
TOTAL = HEAD + EMBEDDING + 256 + 2 * (QUERY + OUTPUT + KEY + VALUE + ROUTER + EXPERTS + NORMS)


def entry(**fields: Any) -> dict[str, Any]:
    """A valid entry, with fields replaced."""
    return {
        "name": "Org/Small",
        "licence": "apache-2.0",
        "checkpoints": [{"precision": "bf16", "repository": "Org/Small"}],
        "config": copy.deepcopy(CONFIG),
        **fields,
    }


def catalog(directory: Path, *entries: dict[str, Any]) -> ModelCatalog:
    """A catalogue of these entries, each in the file that its name asks for."""
    for data in entries:
        file = directory / f"{data['name'].replace('/', '--')}.yaml"
        file.write_text(yaml.safe_dump(data))
    return ModelCatalog(directory)


def config_json(**fields: Any) -> str:
    """The small model's config.json, with fields replaced; None removes one."""
    merged = {**CONFIG, **fields}
    return json.dumps({key: value for key, value in merged.items() if value is not None})
