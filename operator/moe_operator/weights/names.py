"""Which of a source's files an engine needs, and which names are safe to write."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

#: Always taken, at the repository's top level only: engines look for weights there and nowhere else, and folders hold
#: copies in other formats (`original/`, `metal/`, `onnx/`) or training state.
NEEDED = (
    "*.safetensors",  # weights
    "*.json",  # config, index of the shards, tokenizer, generation and processor settings, tekken.json
    "*.jinja",  # chat templates
    "*.model",  # SentencePiece
    "*.tiktoken",
    "merges.txt",  # byte-pair encodings
    "vocab.txt",
    "*.py",  # configurations and tokenizers of models that bring code; run only if the engine is told to trust it
)
#: Taken from folders too.
NEEDED_IN_FOLDERS = ("additional_chat_templates/*.jinja",)
#: Taken only if the source has no safetensors at all: pickles, and mostly the same weights again.
PICKLED = ("*.bin", "*.pt")
#: Never taken of those: state of a training run.
TRAINING = (
    "training_args.bin",
    "optimizer*.bin",
    "optimizer*.pt",
    "scheduler*.pt",
    "scaler*.pt",
    "rng_state*",
)
#: Mistral's own format. Engines take it before the shards of transformers where a source has both.
CONSOLIDATED = "consolidated*.safetensors"
CONSOLIDATED_CONFIG = "params.json"
TRANSFORMERS_SHARDS = ("model.safetensors", "model-*.safetensors")

_MAX_NAME = 255  # bytes of one component, on every file system in use
_DEVICE = re.compile(r"[\x00-\x1f\x7f\\]")


def selected(names: Sequence[str], include: Iterable[str] = ()) -> list[str]:
    """The names that an engine needs, in their order, and those that match a pattern of `include`."""
    top = [name for name in names if "/" not in name]
    safetensors = any(fnmatchcase(name, "*.safetensors") for name in top)
    mistral = CONSOLIDATED_CONFIG in top and any(fnmatchcase(name, CONSOLIDATED) for name in top)
    extra = tuple(include)

    def needed(name: str) -> bool:
        if any(fnmatchcase(name, pattern) for pattern in extra):
            return True
        if "/" in name:
            return any(fnmatchcase(name, pattern) for pattern in NEEDED_IN_FOLDERS)
        if any(fnmatchcase(name, pattern) for pattern in TRAINING):
            return False
        if mistral and any(fnmatchcase(name, pattern) for pattern in TRANSFORMERS_SHARDS):
            return False
        return any(fnmatchcase(name, pattern) for pattern in (NEEDED if safetensors else NEEDED + PICKLED))

    return [name for name in names if needed(name)]


def has_weights(names: Iterable[str]) -> bool:
    """Whether an engine finds weights among these names."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in ("*.safetensors", *PICKLED))


def unsafe(name: str) -> str | None:
    """Why a name from a source must not be written to a folder, or None if it may."""
    parts = name.split("/")
    if not name or name.startswith("/"):
        return "it is not relative"
    if any(part in ("", ".", "..") for part in parts):
        return "it leads out of its folder"
    if _DEVICE.search(name):
        return "it holds a control character or a backslash"
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return "it is no valid text"
    if any(len(part) > _MAX_NAME for part in encoded) or len(name) > 1024:
        return f"it is longer than {_MAX_NAME} bytes"
    return None


def conflicting(names: Sequence[str]) -> str | None:
    """Two names that cannot both be files of one folder (`a` and `a/b`, or the same twice), as text."""
    files = set(names)
    if len(files) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"{twice!r} twice"
    for name in names:
        for end in (place for place, sign in enumerate(name) if sign == "/"):
            if name[:end] in files:
                return f"{name[:end]!r} as a file and as a folder"
    return None
