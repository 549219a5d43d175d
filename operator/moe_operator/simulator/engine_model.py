"""What one group of an engine can hold and how long its steps take: constants, each set with its source.

Times of a step of a group, whose ranks run in lockstep:

    t = base + experts x (1 - (1 - k/E)^N) + shared x N + max over ranks (decode x d + prefill x p + kv x K)

N tokens of the group in the step; d requests of a rank that decode and p prompt tokens that it computes in the step; K
tokens in the KV cache of a rank's running requests as the step begins. `base` is launching and exchange; `experts` the
reading of all expert weights, of which N tokens touch the share in brackets (k of E experts for each token, drawn
evenly): a curve that is flat above a hundred tokens or so; `shared` is what every token costs the whole group, its way
to the experts and their arithmetic.

`engines/*.yaml` are sets fitted to tables of measurements (`hack/bench/fit_engine.py`).
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Tokens in a block of the KV cache: vLLM's default on CUDA.
BLOCK = 16

_Count = Annotated[int, Field(gt=0)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class EngineModel(BaseModel):
    """A group of vLLM ranks that share experts. Raises ValueError for constants that no engine could have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str = ""
    """Where the constants are from, with version and residuals."""
    models: tuple[str, ...] = ()
    """Catalogue names of the models that they hold for; with the two below and the layout, what a plan is known by."""
    accelerator: str = ""
    precision: str = ""
    ranks: _Count
    """Data-parallel ranks of a group, each with its own queue and KV cache."""
    gpus: _Count
    """GPUs of a group."""
    slots: _Count
    """Requests that a rank runs at once (`--max-num-seqs`)."""
    batch_tokens: _Count
    """Tokens that a rank computes in a step at most (`--max-num-batched-tokens`)."""
    kv_tokens: Annotated[int, Field(ge=BLOCK)]
    """Tokens that a rank's KV cache holds. Rounded down to whole blocks."""
    base: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Seconds of any step (`a`)."""
    experts: _Time = 0.0
    """Seconds for reading every expert (`e`)."""
    expert_share: _Share = 0.0
    """Experts that a token goes to, of all: k/E."""
    shared: _Time = 0.0
    """Seconds for each token of the group in the step, prompt or not."""
    decode: _Time = 0.0
    """Seconds for each request that decodes (`b`)."""
    prefill: _Time = 0.0
    """Seconds for each prompt token computed (`p`)."""
    kv: _Time = 0.0
    """Seconds for each token in the cache of running requests (`g`)."""
    prefix_cache_share: _Share = 1.0
    """Part of what a cache without bound would hit that this one hits."""

    @model_validator(mode="after")
    def _fits(self) -> "EngineModel":
        if self.batch_tokens < self.slots:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is less than slots {self.slots}: vLLM refuses that, as a step could "
                "not hold a token of every running request"
            )
        return self

    @property
    def kv_blocks(self) -> int:
        """Blocks of a rank's KV cache."""
        return self.kv_tokens // BLOCK

    @property
    def group_slots(self) -> int:
        """Requests that a group runs at once."""
        return self.ranks * self.slots

    def step_seconds(self, decode: float, prefill: float, kv: float, tokens: float | None = None) -> float:
        """Seconds of a step whose slowest rank decodes for `decode` requests and computes `prefill` prompt tokens over
        `kv` tokens in its cache; `tokens` of all ranks, as many on each if not given."""
        if tokens is None:
            tokens = self.ranks * (decode + prefill)
        touched: float = 1.0 - (1.0 - self.expert_share) ** tokens
        own = self.decode * decode + self.prefill * prefill + self.kv * kv
        return self.base + self.experts * touched + self.shared * tokens + own


def read_engine(path: str | Path) -> EngineModel:
    """An engine from a YAML file. Raises pydantic's ValidationError and OSError."""
    return EngineModel.model_validate(yaml.safe_load(Path(path).read_text()))


@cache
def engines() -> dict[str, EngineModel]:
    """The engines that come along, by name."""
    folder = resources.files("moe_operator.simulator") / "engines"
    found = [
        EngineModel.model_validate(yaml.safe_load(file.read_text()))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    ]
    return {engine.name: engine for engine in found}
