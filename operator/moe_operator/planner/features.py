"""What a spec asks of the engine beyond serving the model, from its fields and from `engine.args` alike: a flag that
takes memory is sized like a field, or refused. Also what is asked of which vLLM 0.32 has no working form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.api.features import (
    ADAPTER_RANKS,
    AdapterSpec,
    BalancingMode,
    ExpertBalancingSpec,
    SpeculationMethod,
    SpeculationSpec,
)
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.catalog.models.architecture import Architecture, StateCache

#: Methods of `--speculative-config` that draft with the model's own prediction layers: the old names per family end
#: alike.
_MTP = "mtp"
#: Methods that draft without weights.
_WEIGHTLESS = ("ngram", "[ngram]", "ngram_gpu", "suffix")


class FeatureError(ValueError):
    """Something in the spec that contradicts itself or cannot be read; the message names it."""


@dataclass(frozen=True)
class Drafts:
    """Speculative decoding."""

    tokens: int | None
    """Drafted per step; None: the number of the model's prediction layers."""
    own_layers: bool
    """Drafted by the model's own prediction layers, which are loaded with it."""
    from_args: bool
    """Asked for in `engine.args`, where it is rendered from."""
    other_model: str | None = None
    """A draft model of the user's, of which the plan knows nothing."""


@dataclass(frozen=True)
class Balancing:
    """Where experts are."""

    mode: BalancingMode = BalancingMode.AUTO
    redundant: int | None = None
    """None: the plan chooses."""
    window: int = 1000
    interval: int = 3000


@dataclass(frozen=True)
class Adapters:
    """LoRA adapters."""

    slots: int
    """Adapters that are in GPU memory at a time (`--max-loras`)."""
    rank: int
    """Rank that memory is made for (`--max-lora-rank`)."""
    modules: tuple[str, ...] | None
    """Modules that memory is made for, sorted; None: all."""


@dataclass(frozen=True)
class Features:
    """All of it. The defaults are what a spec that says nothing gets."""

    drafts: Drafts | None = None
    balancing: Balancing = Balancing()
    adapters: Adapters | None = None
    prefix_caching: bool = True
    async_scheduling: bool = True

    def __hash__(self) -> int:
        # Plans look up by wishes: of all of these, what most tells them apart.
        return hash((self.drafts is None, self.adapters is None, self.balancing.redundant))

    def drafted(self, architecture: Architecture) -> int:
        """Tokens that are drafted in each step; 0 without speculative decoding."""
        if self.drafts is None:
            return 0
        return self.drafts.tokens if self.drafts.tokens is not None else max(1, architecture.mtp_layers)

    def shares_prefixes(self, architecture: Architecture, *, on_cpu: bool) -> bool:
        """Whether requests share the cache of what they begin alike with. vLLM copies recurrent states that are shared
        with a kernel of Triton's when there are drafts: on CPUs, which have none, the first request ends the engine."""
        if self.drafts is None or not on_cpu:
            return self.prefix_caching
        recurrent = any(isinstance(cache, StateCache) for cache in architecture.caches)
        return self.prefix_caching and not recurrent

    @property
    def own_drafts(self) -> bool:
        """Whether the model's prediction layers are loaded with it."""
        return self.drafts is not None and self.drafts.own_layers


NOTHING = Features()
AUTO = NOTHING.balancing
_UNASKED = (SpeculationSpec(), ExpertBalancingSpec())


def features_of(spec: ModelDeploymentSpec) -> Features:
    """Raises FeatureError."""
    engine = spec.engine
    if (
        (engine.speculation, engine.expert_balancing) == _UNASKED
        and not engine.args
        and not spec.model.adapters
    ):
        return NOTHING
    flags = Flags(spec.engine.args)
    return Features(
        drafts=_drafts(spec, flags),
        balancing=_balancing(spec.engine.expert_balancing, flags),
        adapters=_adapters(spec.model.adapters, flags),
        prefix_caching=flags.switch("enable-prefix-caching", default=True),
        async_scheduling=flags.switch("async-scheduling", default=True),
    )


class Flags:
    """`engine.args` as vLLM reads them: `_` for `-`, `no-` before switches, dots into JSON."""

    def __init__(self, args: Mapping[str, str]) -> None:
        self._args = {_plain(name): value for name, value in args.items()}

    def text(self, *names: str) -> str | None:
        """The value of the first of these that is given."""
        return next((self._args[name] for name in names if name in self._args), None)

    def switch(self, name: str, *, default: bool) -> bool:
        """Whether a switch is on."""
        if f"no-{name}" in self._args:
            return False
        return True if name in self._args else default

    def number(self, name: str) -> int | None:
        """A whole number above 0. Raises FeatureError."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= 2**31:
            raise FeatureError(f"engine.args.{name}: {text!r} is not a whole number above 0")
        return int(text)

    def object(self, *names: str) -> dict[str, Any] | None:
        """A flag that is a JSON object, with what is given of it by dotted names. Raises FeatureError."""
        found: dict[str, Any] | None = None
        for name in names:
            if name in self._args:
                found = {**(found or {}), **_json_object(name, self._args[name])}
            for flag, value in sorted(self._args.items()):
                if flag.startswith(f"{name}."):
                    found = {**(found or {}), flag.removeprefix(f"{name}.").replace("-", "_"): _value(value)}
        return found


def _plain(name: str) -> str:
    """With dashes; what follows a dot is a key of JSON."""
    flag, dot, key = name.partition(".")
    return flag.replace("_", "-") + dot + key


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FeatureError(f"engine.args.{name}: {text!r} is not a JSON object")
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _drafts(spec: ModelDeploymentSpec, flags: Flags) -> Drafts | None:
    field = spec.engine.speculation
    config = flags.object("speculative-config", "sc")
    for flag, key in (
        ("spec-method", "method"),
        ("spec-model", "model"),
        ("spec-tokens", "num_speculative_tokens"),
    ):
        if (text := flags.text(flag)) is not None:
            config = {**(config or {}), key: _value(text)}
    if field.method is not SpeculationMethod.OFF:
        if config is not None:
            raise FeatureError(
                "engine.speculation and engine.args both ask for speculative decoding: leave one of them out"
            )
        return Drafts(field.tokens, own_layers=True, from_args=False)
    if config is None:
        return None
    tokens = config.get("num_speculative_tokens")
    if tokens is not None and (type(tokens) is not int or not 0 < tokens <= 64):
        raise FeatureError(
            f"engine.args.speculative-config: num_speculative_tokens {tokens!r} is not a whole number from 1 to 64"
        )
    method, model = str(config.get("method") or ""), config.get("model")
    if method.removesuffix("_mtp") != method or method == _MTP:
        return Drafts(tokens, own_layers=True, from_args=True)
    if method in _WEIGHTLESS or model in ("ngram", "[ngram]"):
        return Drafts(tokens or 0, own_layers=False, from_args=True)
    return Drafts(tokens or 0, own_layers=False, from_args=True, other_model=str(model or method))


def _balancing(field: ExpertBalancingSpec, flags: Flags) -> Balancing:
    config = flags.object("eplb-config") or {}
    mode, redundant = field.mode, field.redundant_experts
    on = flags.switch("enable-eplb", default=False)
    if flags.text("no-enable-eplb") is not None:
        mode = BalancingMode.DISABLED
    elif on:
        # With the flag, vLLM's own default is no copies.
        mode = BalancingMode.ENABLED
    if "num_redundant_experts" in config:
        redundant = config["num_redundant_experts"]
        if type(redundant) is not int or not 0 <= redundant <= 1023:
            raise FeatureError(
                f"engine.args.eplb-config: num_redundant_experts {redundant!r} is not a whole number from 0 to 1023"
            )
    window, interval = (config.get(key, given) for key, given in _steps(field))
    for key, steps in (("window_size", window), ("step_interval", interval)):
        if type(steps) is not int or steps < 1:
            raise FeatureError(f"engine.args.eplb-config: {key} {steps!r} is not a whole number above 0")
    if mode is BalancingMode.DISABLED and redundant:
        raise FeatureError(
            f"{redundant} copies of experts are asked for, and no balancing of experts, which alone would use them:"
            " leave one of the two out"
        )
    if redundant and mode is BalancingMode.AUTO:
        mode = BalancingMode.ENABLED
    return Balancing(mode, redundant, window, interval)


def _steps(field: ExpertBalancingSpec) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("window_size", field.window), ("step_interval", field.interval)


def _adapters(adapters: list[AdapterSpec], flags: Flags) -> Adapters | None:
    on = flags.switch("enable-lora", default=bool(adapters))
    if adapters and not on:
        raise FeatureError(
            "engine.args.no-enable-lora would leave model.adapters without effect: drop one of them"
        )
    if not on:
        return None
    wanted = max([flags.number("max-lora-rank") or 0, *(adapter.rank for adapter in adapters)]) or 16
    rank = next(size for size in ADAPTER_RANKS if size >= min(wanted, ADAPTER_RANKS[-1]))
    given = flags.number("max-lora-rank")
    if given is not None and given < rank:
        largest = max(adapter.rank for adapter in adapters)
        raise FeatureError(
            f"engine.args.max-lora-rank is {given}, and an adapter in model.adapters has rank {largest}: leave the flag"
            " out"
        )
    modules: tuple[str, ...] | None = None
    if adapters and all(adapter.target_modules for adapter in adapters):
        modules = tuple(sorted({name for adapter in adapters for name in adapter.target_modules or ()}))
    return Adapters(flags.number("max-loras") or max(1, len(adapters)), rank, modules)
