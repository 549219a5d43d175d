"""Which tensors a rule means: patterns over the names of tensors, as entries and quantised checkpoints write them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from moe_operator.catalog.models.layer_regex import LayerRegex

#: vLLM fuses these; some checkpoints list the fused name, their files hold the parts.
_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}

#: What makes a pattern tell one layer from another.
_TELLS_LAYERS = re.compile(r"[0-9?\[]")
_SPECIAL = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class NamePatterns:
    """Names that any of these patterns matches. Modules and regexes come from config.json, wildcards from entries and
    ModelOpt."""

    wildcards: tuple[str, ...] = ()
    """As `fnmatch`, on the whole name."""
    modules: tuple[str, ...] = ()
    """Dotted names: match a name that has them anywhere between dots, so that `gate` means `mlp.gate` and not
    `gate_proj`, and `self_attn` all projections below. May hold `*`."""
    regexes: tuple[str, ...] = ()
    """As `re.match`, on the name from its beginning."""

    @cached_property
    def _regexes(self) -> tuple[LayerRegex, ...]:
        return tuple(LayerRegex(pattern) for pattern in self.regexes)

    @cached_property
    def _modules(self) -> frozenset[tuple[str, ...]]:
        return frozenset(
            tuple(name.split("."))
            for module in self.modules
            if "*" not in module
            for name in _spelled_out(_plain(module))
        )

    @cached_property
    def _all_wildcards(self) -> tuple[str, ...]:
        starred = [_plain(module) for module in self.modules if "*" in module]
        around = [form for m in starred for form in (m, f"{m}.*", f"*.{m}", f"*.{m}.*")]
        return (*self.wildcards, *around)

    @cached_property
    def _prefixes(self) -> frozenset[str]:
        """ModelOpt lists hundreds of the form `model.layers.0.self_attn*`: looked up instead of tried."""
        return frozenset(
            w[:-1] for w in self._all_wildcards if w.endswith("*") and not _SPECIAL.search(w[:-1])
        )

    @cached_property
    def _wildcards(self) -> tuple[str, ...]:
        return tuple(w for w in self._all_wildcards if not w.endswith("*") or _SPECIAL.search(w[:-1]))

    @cached_property
    def tells_layers_apart(self) -> bool:
        """Whether layers of one tensor may differ; if not, one layer's name answers for all."""
        return bool(self.regexes) or any(_TELLS_LAYERS.search(p) for p in (*self.wildcards, *self.modules))

    def match(self, name: str) -> bool:
        """Whether any pattern matches a tensor's name (indexes filled in)."""
        plain = _plain(name)
        spellings = (name,) if plain == name else (name, plain)
        return (
            (bool(self._modules) and any(run in self._modules for run in _runs(plain)))
            or (
                bool(self._prefixes)
                and any(n[:end] in self._prefixes for n in spellings for end in range(len(n) + 1))
            )
            or any(fnmatchcase(n, pattern) for pattern in self._wildcards for n in spellings)
            or any(regex.match(n) for regex in self._regexes for n in spellings)
        )


def _plain(name: str) -> str:
    """Without what differs between a multimodal checkpoint's names and those of its text model."""
    return (
        name.removesuffix(".weight").replace("language_model.model.", "model.").replace("language_model.", "")
    )


def _spelled_out(module: str) -> Iterator[str]:
    yield module
    parent, dot, last = module.rpartition(".")
    for part in _FUSED.get(last, ()):
        yield f"{parent}{dot}{part}"


def _runs(name: str) -> Iterator[tuple[str, ...]]:
    parts = tuple(name.split("."))
    for start in range(len(parts)):
        for end in range(start + 1, len(parts) + 1):
            yield parts[start:end]
