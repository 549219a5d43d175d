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
    if config.get("num_nextn_predict_layers") or config.get("mtp_num_hidden_layers"):
        _add_prediction(folder, config, source)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}, indent=1) + "\n")


def _add_prediction(folder: Path, config: dict[str, Any], source: Any) -> None:
    """One prediction layer, which transformers leaves out: the last layer's weights, behind what joins a hidden state
    with the next token's embedding."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    hidden, last = config["hidden_size"], f"model.layers.{config['num_hidden_layers'] - 1}."
    kind = next(iter(weights.values())).dtype
    own = "mtp_num_hidden_layers" in config
    layer = "mtp.layers.0." if own else f"model.layers.{config['num_hidden_layers']}."
    for name in [name for name in weights if name.startswith(last)]:
        weights[layer + name.removeprefix(last)] = weights[name].clone()
    joined = torch.empty(hidden, 2 * hidden).normal_(0.0, 1 / math.sqrt(2 * hidden), generator=source)
    weights["mtp.fc.weight" if own else f"{layer}eh_proj.weight"] = joined.to(kind)
    # Qwen's norms multiply by one more than their weight.
    if own:
        norms = {f"mtp.{n}.weight": 0.0 for n in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")}
    else:
        norms = {f"{layer}{n}.weight": 1.0 for n in ("enorm", "hnorm", "shared_head.norm")}
        weights[f"{layer}embed_tokens.weight"] = weights["model.embed_tokens.weight"].clone()
        weights[f"{layer}shared_head.head.weight"] = weights["lm_head.weight"].clone()
    for name, value in norms.items():
        weights[name] = torch.full((hidden,), value, dtype=kind)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


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
