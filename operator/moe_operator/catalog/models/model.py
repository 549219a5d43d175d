"""A model as the planner takes it: its architecture and the checkpoints that it is published in."""

from dataclasses import dataclass
from functools import cached_property

from moe_operator.catalog.models.architecture import Architecture, Section, Tensor
from moe_operator.catalog.models.context_stretch import ContextStretch
from moe_operator.catalog.models.name_patterns import NamePatterns
from moe_operator.catalog.models.scheme import DTYPES, NONE, Precision, Scheme


@dataclass(frozen=True)
class Rule:
    """Linear tensors that `only` matches (None: all), but for those that `keep` matches, are stored in `scheme`."""

    scheme: Scheme
    only: NamePatterns | None = None
    keep: NamePatterns | None = None

    def applies(self, name: str) -> bool:
        return (self.only is None or self.only.match(name)) and not (self.keep and self.keep.match(name))

    @property
    def tells_layers_apart(self) -> bool:
        return any(patterns.tells_layers_apart for patterns in (self.only, self.keep) if patterns)


@dataclass(frozen=True)
class Checkpoint:
    """One published form of a model's weights."""

    precision: Precision
    repository: str | None = None
    """On the Hugging Face hub; None where only a config.json is known."""
    rules: tuple[Rule, ...] = ()
    """The first that applies to a tensor decides; without one it is as wide as the config's dtype."""
    without: frozenset[Section] = frozenset()
    """Parts of the model that the repository does not hold."""
    kv_cache: str | None = None
    """Precision of the KV cache that the checkpoint asks for (`fp8`), None: the model's own."""
    published_gb: float | None = None
    """Size as published or derived elsewhere, in 1e9 bytes: for a test to compare with."""

    def __hash__(self) -> int:
        # Plans look up by checkpoint: of all fields, what tells one model's apart.
        return hash((self.precision, self.repository))

    def dtype(self, architecture: Architecture) -> str:
        """Of the tensors that no rule makes narrow."""
        return DTYPES.get(self.precision, architecture.dtype)

    def schemes(self, tensor: Tensor) -> tuple[tuple[Scheme, int], ...]:
        """(scheme, layers): how many of the tensor's layers are stored in which scheme. Remembered, as plans ask
        for the same tensors again and again."""
        key = (tensor.name, tensor.layers, tensor.linear)
        found = self._schemes.get(key)
        if found is None:
            found = self._schemes[key] = self._find_schemes(tensor)
        return found

    @cached_property
    def _schemes(self) -> dict[tuple[str, tuple[int, ...], bool], tuple[tuple[Scheme, int], ...]]:
        return {}

    @cached_property
    def _tells_layers_apart(self) -> bool:
        return any(rule.tells_layers_apart for rule in self.rules)

    def _find_schemes(self, tensor: Tensor) -> tuple[tuple[Scheme, int], ...]:
        if not self.rules or not tensor.linear:
            return ((NONE, len(tensor.layers)),)
        name = tensor.name.replace("{expert}", "0")
        if "{layer}" not in name or not self._tells_layers_apart:
            return ((self._scheme(name.replace("{layer}", "0")), len(tensor.layers)),)
        counts: dict[Scheme, int] = {}
        for layer in tensor.layers:
            scheme = self._scheme(name.replace("{layer}", str(layer)))
            counts[scheme] = counts.get(scheme, 0) + 1
        return tuple(counts.items())

    def _scheme(self, name: str) -> Scheme:
        return next((rule.scheme for rule in self.rules if rule.applies(name)), NONE)


@dataclass(frozen=True)
class Parsers:
    """Names under which vLLM registers the parsers of the model's output; None where it has none."""

    tool_call: str | None = None
    """`--tool-call-parser`."""
    reasoning: str | None = None
    """`--reasoning-parser`."""


@dataclass(frozen=True)
class Model:
    """A model of the catalogue, or one that a config.json describes."""

    name: str
    """As on the Hugging Face hub."""
    architecture: Architecture
    checkpoints: tuple[Checkpoint, ...]
    """In the publisher's order; at least one."""
    licence: str | None = None
    aliases: tuple[str, ...] = ()
    parsers: Parsers = Parsers()
    multimodal: tuple[tuple[str, int], ...] = ()
    """(kind, number per request): default of `--limit-mm-per-prompt`; empty for a model of text."""
    stretch: ContextStretch | None = None
    hub_parameters: int | None = None
    """What the hub counts for the unquantised repository."""
    approximate: bool = False
    """Sizes are the publisher's totals and not a sum over tensors."""
    custom: bool = False
    """From a config.json and not from the catalogue."""
    named: Checkpoint | None = None
    """The checkpoint whose repository was asked for by name; None where the model's own name or an alias was."""

    def __hash__(self) -> int:
        # Plans look up by model, and tensors are many: their sum stands for them.
        return hash((self.name, self.custom, self.architecture.total_parameters))

    def checkpoint(self, precision: str) -> Checkpoint | None:
        """The first checkpoint of this precision."""
        return next((c for c in self.checkpoints if c.precision == precision), None)

    def precisions(self) -> tuple[Precision, ...]:
        """In the publisher's order."""
        return tuple(dict.fromkeys(c.precision for c in self.checkpoints))
