"""`python family_weights.py FOLDER SEED <config.json`: a model of that config with random weights. Runs in the
engine's environment.

As in the tiny model, matrices are spread so that greedy decoding wanders, and only printable ASCII is generated.
Norms and the parameters of recurrent layers keep what transformers gives them: they have no fan-in.
"""

# PyTorch and transformers are in the engine's environment only.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

_PRINTABLE = (32, 127)
#: Queries, keys and routers choose; everything else adds to the residual stream, and must move it.
_CHOOSING = ("q_proj", "k_proj", "q_a_proj", "q_b_proj", "mlp.gate.", "router.weight")
_GAIN = 2.0
_HEAD_GAIN = 8.0
#: Biases, sinks and the router's correction: small beside what they are added to, but not nothing.
_OFFSET = 0.1
_OFFSETS = ("bias", "sinks")


def write(config: dict[str, Any], folder: Path, seed: int) -> None:
    """Write config.json and model.safetensors in the layout of the family's published repositories."""
    import torch
    import transformers

    torch.manual_seed(seed)
    known = transformers.CONFIG_MAPPING[config["model_type"]]
    model = getattr(transformers, config["architectures"][0])(known(**config))
    source = torch.Generator().manual_seed(seed)
    filled: set[int] = set()
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if tensor.data_ptr() in filled:
                continue  # tied
            filled.add(tensor.data_ptr())
            _fill(name, tensor, source)
    model.to(getattr(torch, config["dtype"])).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}, indent=1) + "\n")


def _fill(name: str, tensor: Any, source: Any) -> None:
    if name.endswith(_OFFSETS) or "_bias" in name:
        tensor.normal_(0.0, _OFFSET, generator=source)
    elif "embed_tokens" in name or name.startswith("lm_head"):
        head = name.startswith("lm_head")
        tensor.normal_(0.0, _HEAD_GAIN / math.sqrt(tensor.shape[-1]) if head else 1.0, generator=source)
        # Rows of zeros are never the largest logits. Of input embeddings too, which may be the head.
        tensor[: _PRINTABLE[0]] = 0.0
        tensor[_PRINTABLE[1] :] = 0.0
    elif tensor.ndim >= 2 and "conv1d" not in name:
        gain = 1.0 if any(part in name for part in _CHOOSING) else _GAIN
        tensor.normal_(0.0, gain / math.sqrt(tensor.shape[-1]), generator=source)


if __name__ == "__main__":
    write(json.load(sys.stdin), Path(sys.argv[1]), int(sys.argv[2]))
