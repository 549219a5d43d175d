"""What a spec asks of the plan, with the assumptions where it says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_operator.api.base import parse_duration
from moe_operator.api.spec import Goal, ModelDeploymentSpec
from moe_operator.planner.features import NOTHING, FeatureError, Features, features_of

#: Planned for where the objective says nothing: what interactive use is commonly held to.
TIME_TO_FIRST_TOKEN = 2.0
TIME_PER_OUTPUT_TOKEN = 0.05
#: A usual request where the objective says nothing: between chat (about 1,000 and 200 in Azure's 2023 conversation
#: trace) and coding or retrieval (many thousands in).
INPUT_TOKENS = 2048
OUTPUT_TOKENS = 512


@dataclass(frozen=True)
class Wants:
    """From the spec. None: the plan chooses."""

    precision: str | None
    kv_cache_precision: str | None
    context_length: int | None
    time_to_first_token: float
    """Seconds."""
    time_per_output_token: float
    """Seconds."""
    input_tokens: int
    output_tokens: int
    goal: Goal
    max_sequences: int | None
    max_batched_tokens: int | None
    utilization: float | None
    """Share of a GPU's memory, 0 to 1."""
    host_kv_cache: int
    """Bytes of a rank's KV cache on `cpu` (VLLM_CPU_KVCACHE_SPACE)."""
    assumed: tuple[str, ...]
    """The assumptions that were made, for people."""
    features: Features = NOTHING
    """What the engine is to do besides."""

    @property
    def request_tokens(self) -> int:
        """Length of a usual request at its end."""
        return self.input_tokens + self.output_tokens


class WantsError(ValueError):
    """A flag in engine.args that the plan depends on and cannot read; the message names it."""


def wants_of(spec: ModelDeploymentSpec) -> Wants:
    """Raises WantsError."""
    objective, flags = spec.objective, spec.engine.args
    assumed: list[str] = []
    if objective.time_to_first_token is None:
        assumed.append(f"time to first token {TIME_TO_FIRST_TOKEN:g} s")
    if objective.time_per_output_token is None:
        assumed.append(f"time per output token {TIME_PER_OUTPUT_TOKEN * 1000:g} ms")
    prompt, output = objective.input_tokens or INPUT_TOKENS, objective.output_tokens or OUTPUT_TOKENS
    if objective.input_tokens is None or objective.output_tokens is None:
        assumed.append(f"requests of {prompt} + {output} tokens")
    context = spec.model.context_length
    try:
        features = features_of(spec)
    except FeatureError as error:
        raise WantsError(str(error)) from None
    if context is not None and prompt + output > context:
        # A usual request cannot be longer than the longest.
        prompt, output = (
            max(1, context * prompt // (prompt + output)),
            max(1, context * output // (prompt + output)),
        )
    return Wants(
        precision=spec.model.precision,
        kv_cache_precision=spec.model.kv_cache_precision,
        context_length=context,
        time_to_first_token=_seconds(objective.time_to_first_token, TIME_TO_FIRST_TOKEN),
        time_per_output_token=_seconds(objective.time_per_output_token, TIME_PER_OUTPUT_TOKEN),
        input_tokens=prompt,
        output_tokens=output,
        goal=objective.goal,
        max_sequences=_whole(flags, "max-num-seqs"),
        max_batched_tokens=_whole(flags, "max-num-batched-tokens"),
        utilization=_share(flags, "gpu-memory-utilization"),
        host_kv_cache=_host_kv_cache(spec),
        assumed=tuple(assumed),
        features=features,
    )


#: GiB per rank on `cpu` where the spec says nothing: the profile's VLLM_CPU_KVCACHE_SPACE.
_HOST_KV_CACHE = 1


def _host_kv_cache(spec: ModelDeploymentSpec) -> int:
    given = next(
        (env.get("value") for env in spec.engine.env if env.get("name") == "VLLM_CPU_KVCACHE_SPACE"), None
    )
    text = str(given) if given is not None else str(_HOST_KV_CACHE)
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= 4096:
        raise WantsError(f"engine.env VLLM_CPU_KVCACHE_SPACE: {text!r} is not a whole number of GiB above 0")
    return int(text) * 2**30


def _seconds(text: str | None, default: float) -> float:
    return parse_duration(text) if text else default


#: vLLM's suffixes of whole numbers: 1k is 1000, 1K is 1024.
_SUFFIXES = {"k": 1000, "K": 1024, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}


def _whole(flags: Mapping[str, str], name: str) -> int | None:
    text = flags.get(name, flags.get(name.replace("-", "_")))
    if text is None:
        return None
    digits, scale = (text[:-1], _SUFFIXES[text[-1]]) if text[-1:] in _SUFFIXES else (text, 1)
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) * scale <= 2**31:
        raise WantsError(f"engine.args.{name}: {text!r} is not a whole number above 0")
    return int(digits) * scale


def _share(flags: Mapping[str, str], name: str) -> float | None:
    text = flags.get(name, flags.get(name.replace("-", "_")))
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise WantsError(f"engine.args.{name}: {text!r} is not a number above 0 and at most 1")
    return share
