"""Adapters and drafts in real vLLM, asked for with the flags that the operator renders: what a client gets of them."""

from __future__ import annotations

import json
import random
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.engine_helpers import get, get_json, greedy_tokens
from engine.tiny_families import FAMILIES, PREDICTING, Family, family_model
from engine.tiny_model import tiny_model, write_safetensors
from factories.deployments import model_deployment, rendering
from families.plain_engine import plain_engine
from loopback.group import Layout, group
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.custom import model_from_config
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.plan import Plan
from moe_operator.planner.planning import plan
from moe_operator.resources.engine_args import engine_arguments

pytestmark = pytest.mark.timeout(600)

_CONTEXT = 1024
_PROMPT, _TOKENS = "The quick brown fox", 32
_DENSE = next(family for family in FAMILIES if family.name == "llama")
#: Outputs and inputs of the matrices that the adapters change, in every layer of the tiny model.
_CHANGED = {"q_proj": (256, 128), "v_proj": (128, 128)}
_RANK = 4


def _flags(family: Family, *wanted: str, **spec: object) -> list[str]:
    """The operator's arguments for this family on `cpu`, those of these flags."""
    folder = family_model(family)
    model = model_from_config(f"tiny/{family.name}", (folder / "config.json").read_text())
    deployment = model_deployment(
        **{
            "hardware": {"accelerator": "cpu", "gpusPerGroup": 1},
            **spec,
            "model": {
                "name": model.name,
                "contextLength": _CONTEXT,
                "precision": family.precision,
                **(spec.get("model") or {}),  # type: ignore[dict-item]
            },
        }
    )
    made = plan(deployment, Inventory(None), load_catalog(), config=model)
    assert isinstance(made, Plan), made
    found: list[str] = []
    kept = False
    for token in engine_arguments(rendering(deployment, made))[1:]:
        if token.startswith("--"):
            kept = token.removeprefix("--").partition("=")[0] in wanted
        if kept:
            found.append(token)
    assert {token.removeprefix("--").partition("=")[0] for token in found if token.startswith("--")} == set(
        wanted
    )
    return found


def _write_adapter(folder: Path, *, gain: float) -> None:
    """A LoRA adapter as PEFT stores it. With a gain of 0 it changes nothing."""
    source = random.Random(1)

    def values(count: int, spread: float) -> array[float]:
        return array("f", (source.gauss(0.0, spread) for _ in range(count)))

    def tensors() -> Iterator[tuple[str, tuple[int, ...], array[float]]]:
        for layer in range(4):
            for module, (outputs, inputs) in _CHANGED.items():
                prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                yield f"{prefix}.lora_A.weight", (_RANK, inputs), values(_RANK * inputs, inputs**-0.5)
                yield f"{prefix}.lora_B.weight", (outputs, _RANK), values(outputs * _RANK, gain)

    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", tensors())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": _RANK,
        "lora_alpha": _RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(_CHANGED),
        "base_model_name_or_path": "tiny/llama",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_adapters_are_served_under_their_names(tmp_path: Path) -> None:
    """Lost: what the adapter was trained for, while requests for it are answered by the plain model."""
    adapters = []
    for name, gain in (("law", 0.5), ("nothing", 0.0)):
        _write_adapter(tmp_path / name, gain=gain)
        claimed = {"name": name, "source": f"pvc://adapters/{name}", "rank": _RANK}
        adapters.append({**claimed, "targetModules": sorted(_CHANGED)})
    flags = _flags(
        _DENSE,
        *("enable-lora", "max-loras", "max-lora-rank", "lora-modules", "lora-target-modules"),
        model={"adapters": adapters},
    )
    # Where the claim would be mounted.
    flags = [flag.replace("/adapters/adapters/", f"{tmp_path}/") for flag in flags]
    folder = family_model(_DENSE)
    with plain_engine(
        folder, "tiny", dtype=_DENSE.dtype, context_length=_CONTEXT, arguments=flags
    ) as base_url:
        served = {one["id"] for one in get_json(base_url, "/v1/models")["data"]}
        answers = {
            name: greedy_tokens(base_url, _PROMPT, _TOKENS, model=name) for name in ("tiny", "law", "nothing")
        }
    assert served == {"tiny", "law", "nothing"}
    assert answers["law"] != answers["tiny"]
    assert answers["nothing"] == answers["tiny"]


@pytest.mark.parametrize("family", PREDICTING, ids=lambda family: family.name)
def test_drafts_change_no_answer(family: Family) -> None:
    """Lost: right answers. A wrong draft that is taken is a wrong token, and all after it."""
    folder = family_model(family)
    wanted = ["speculative-config"]
    if "linear_num_key_heads" in family.settings:
        wanted.append("no-enable-prefix-caching")
    drafting = _flags(family, *wanted, engine={"speculation": {"method": "MTP"}})
    answers, drafted = [], 0
    for arguments in ([], drafting):
        with plain_engine(
            folder, "tiny", dtype=family.dtype, context_length=_CONTEXT, arguments=arguments
        ) as base_url:
            answers.append(greedy_tokens(base_url, _PROMPT, _TOKENS))
            if arguments:
                drafted = _drafted(base_url)
    assert drafted >= _TOKENS // 2
    assert answers[1] == answers[0]


def test_ranks_that_read_only_their_own_experts_answer_alike() -> None:
    """Lost: right answers, where a rank computes with an expert that it never read."""
    with plain_engine(tiny_model(), "tiny", dtype="float32", context_length=2048) as base_url:
        alone = greedy_tokens(base_url, _PROMPT, _TOKENS)
    with group(Layout(2, 1, "127.30.9"), arguments=["--enable-ep-weight-filter"]) as made:
        made.wait_ready()
        answers = [greedy_tokens(pod.url, _PROMPT, _TOKENS) for pod in made.pods]
        logs = [pod.log for pod in made.pods]
    assert answers == [alone, alone]
    assert all("loading 4/8 experts" in log for log in logs)


def _drafted(base_url: str) -> int:
    """Tokens that the engine has drafted so far."""
    _, text = get(base_url, "/metrics")
    found = re.search(r"^vllm:spec_decode_num_draft_tokens_total\{[^}]*\} ([0-9.]+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0
