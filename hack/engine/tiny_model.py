"""A tiny Qwen3-MoE model with saved random weights, so that the real engine can be run without a download.

The weights are files and not vLLM's `--load-format dummy`, because dummy weights are drawn per rank: two
layouts of the same model would then answer differently, and no test could compare them. All matrices are
spread so that greedy decoding wanders instead of repeating one token, and only printable ASCII is ever
generated: one token is one character. Made with the standard library alone; the same seed gives the same
bytes everywhere.
"""

from __future__ import annotations

import json
import math
import random
import struct
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.store import built, cache_root, content_key

VOCABULARY = 512
HIDDEN = 128
LAYERS = 2
HEADS = 4
KEY_VALUE_HEADS = 2
HEAD_SIZE = 32
EXPERTS = 8
EXPERTS_PER_TOKEN = 2
EXPERT_HIDDEN = 64
CONTEXT = 32768

_END_OF_TEXT = "<|endoftext|>"
_START = "<|im_start|>"
_END = "<|im_end|>"
_SPECIAL = (_END_OF_TEXT, _START, _END)
_PRINTABLE = range(32, 127)
# Gains over the usual 1/sqrt(fan in): they set how far one layer moves the residual stream, and so how much a
# token's successor depends on the whole context rather than on the token alone.
_GAIN = 2.0
# Wide logits: the rows of all other tokens are zero, and must stay improbable when sampling at temperature 1
# too.
_HEAD_GAIN = 8.0
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tiny_model(say: Callable[[str], None] = lambda message: None, seed: int = 0) -> Path:
    """Return the folder of the model made with this seed, making it first if it is not in the cache."""
    folder = cache_root() / "models" / f"tiny-qwen3-moe-{content_key(Path(__file__).read_text(), str(seed))}"
    return built(folder, lambda target: write_model(target, seed), say)


def write_model(folder: Path, seed: int) -> None:
    """Write configuration, tokenizer and float32 weights (625,408 parameters, 2.5 MB) in Hugging Face's
    layout.
    """
    _write_json(folder / "config.json", _config())
    _write_json(
        folder / "generation_config.json", {"eos_token_id": 256 + _SPECIAL.index(_END), "pad_token_id": 256}
    )
    _write_json(folder / "tokenizer.json", _tokenizer())
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    write_safetensors(folder / "model.safetensors", _weights(random.Random(seed)))


def _config() -> dict[str, object]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 256,
        "decoder_sparse_step": 1,
        "dtype": "float32",
        "eos_token_id": 256 + _SPECIAL.index(_END),
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": 4 * EXPERT_HIDDEN,
        "max_position_embeddings": CONTEXT,
        "mlp_only_layers": [],
        "moe_intermediate_size": EXPERT_HIDDEN,
        "norm_topk_prob": True,
        "num_attention_heads": HEADS,
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def _tokenizer() -> dict[str, object]:
    """A byte-level tokenizer without merges: token id = byte, then the special tokens."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 256 + index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(_SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_byte_characters())},
            "merges": [],
        },
    }


def _byte_characters() -> list[str]:
    """The printable character that byte-level tokenizers write for each byte, by byte."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(spare)) for byte in range(256)]


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": _END_OF_TEXT,
        "pad_token": _END_OF_TEXT,
        "eos_token": _END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": _CHAT_TEMPLATE,
    }


def _weights(source: random.Random) -> Iterator[tuple[str, tuple[int, ...], array[float]]]:
    """Name, shape and values of each tensor, in one fixed order."""

    def matrix(
        name: str, rows: int, columns: int, gain: float = 1.0
    ) -> tuple[str, tuple[int, ...], array[float]]:
        spread = gain / math.sqrt(columns)
        return name, (rows, columns), array("f", (source.gauss(0.0, spread) for _ in range(rows * columns)))

    def ones(name: str, length: int) -> tuple[str, tuple[int, ...], array[float]]:
        return name, (length,), array("f", [1.0]) * length

    yield matrix("model.embed_tokens.weight", VOCABULARY, HIDDEN, math.sqrt(HIDDEN))
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        yield ones(f"{layer}.input_layernorm.weight", HIDDEN)
        yield matrix(f"{layer}.self_attn.q_proj.weight", HEADS * HEAD_SIZE, HIDDEN)
        yield matrix(f"{layer}.self_attn.k_proj.weight", KEY_VALUE_HEADS * HEAD_SIZE, HIDDEN)
        yield matrix(f"{layer}.self_attn.v_proj.weight", KEY_VALUE_HEADS * HEAD_SIZE, HIDDEN, _GAIN)
        yield matrix(f"{layer}.self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_SIZE, _GAIN)
        yield ones(f"{layer}.self_attn.q_norm.weight", HEAD_SIZE)
        yield ones(f"{layer}.self_attn.k_norm.weight", HEAD_SIZE)
        yield ones(f"{layer}.post_attention_layernorm.weight", HIDDEN)
        yield matrix(f"{layer}.mlp.gate.weight", EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            prefix = f"{layer}.mlp.experts.{expert}"
            yield matrix(f"{prefix}.gate_proj.weight", EXPERT_HIDDEN, HIDDEN, _GAIN)
            yield matrix(f"{prefix}.up_proj.weight", EXPERT_HIDDEN, HIDDEN, _GAIN)
            yield matrix(f"{prefix}.down_proj.weight", HIDDEN, EXPERT_HIDDEN, _GAIN)
    yield ones("model.norm.weight", HIDDEN)
    name, shape, head = matrix("lm_head.weight", VOCABULARY, HIDDEN, _HEAD_GAIN)
    for row in range(VOCABULARY):
        if row not in _PRINTABLE:
            head[row * HIDDEN : (row + 1) * HIDDEN] = array("f", [0.0]) * HIDDEN
    yield name, shape, head


def write_safetensors(path: Path, tensors: Iterator[tuple[str, tuple[int, ...], array[float]]]) -> None:
    """Write (name, shape, values) as safetensors of float32: the header's length as 8 bytes, the header as JSON, then
    the values, little-endian."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, shape, values in tensors:
        begin = len(body)
        body += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, len(body)]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(body))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
