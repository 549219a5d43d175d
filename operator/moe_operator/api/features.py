"""What a user may ask of the engine beyond serving the model: drafts, adapters, where experts are."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from moe_operator.api.base import WHOLE_LIST, ApiModel

#: Ranks of LoRA adapters for which vLLM 0.32 makes room (`MaxLoRARanks`): the next one up is taken.
ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class SpeculationMethod(StrEnum):
    """Where drafts of the next tokens come from."""

    OFF = "Off"
    MTP = "MTP"


class SpeculationSpec(ApiModel):
    """Speculative decoding: cheap drafts of the next tokens, which the model checks all in one step."""

    method: SpeculationMethod = SpeculationMethod.OFF
    """`MTP`: the model's own prediction layers draft; the plan makes room for their weights and cache. Only for
    checkpoints that hold them; the answers stay the model's. `Off` by default: it shortens the time per output
    token of a group with few requests, and costs throughput of one that is full."""
    tokens: Annotated[int, Field(ge=1, le=8)] | None = None
    """Tokens that are drafted in each step; default: one for each prediction layer, for most models 1. With more, a
    layer drafts several times, and later drafts are right less often."""


class BalancingMode(StrEnum):
    """Whether experts are moved while a group serves."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class ExpertBalancingSpec(ApiModel):
    """Expert-parallel load balancing (EPLB): busy experts get copies, and are moved to where they keep GPUs evenly
    busy."""

    mode: BalancingMode = BalancingMode.AUTO
    """`Auto`: where experts do not divide evenly over a group's GPUs, and in groups of 16 GPUs and more. `Enabled`:
    refused where the engine cannot move this model's experts. `Disabled`: experts stay where they were loaded."""
    redundant_experts: Annotated[int, Field(ge=0, le=1023)] | None = None
    """Copies per layer beyond one of each expert; experts and copies together must divide over the group's GPUs.
    Default: the plan's choice."""
    window: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Last steps whose use of experts decides where they go."""
    interval: Annotated[int, Field(ge=1, le=1_000_000)] = 3000
    """Steps between two moves."""


_ADAPTER = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"
_MODULE = r"^[A-Za-z_][A-Za-z0-9_.]*$"


class AdapterSpec(ApiModel):
    """A LoRA adapter that is served beside the model, under a name of its own."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=_ADAPTER)]
    """What clients put into a request's `model` to get the adapter."""
    source: Annotated[str, Field(pattern=r"^(hf|pvc)://[A-Za-z0-9][A-Za-z0-9._/@-]*$", max_length=512)]
    """Where its files are (`adapter_config.json` and `adapter_model.safetensors`): `hf://ORG/NAME`, downloaded once
    into `weights.cache` where there is one, or `pvc://CLAIM/PATH`, a folder on a PersistentVolumeClaim in the same
    namespace."""
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """`r` of its adapter_config.json. Memory for every adapter is made for the largest rank among them."""
    target_modules: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=128, pattern=_MODULE)]],
            Field(min_length=1, max_length=32),
            WHOLE_LIST,
        ]
        | None
    ) = None
    """`target_modules` of its adapter_config.json. Without it memory is made for every linear layer, experts
    included, which is most of it; modules that no adapter names are left alone."""
