"""Every family is planned, started and answers as it should: arithmetic and engine agree, not only each with itself."""

import json
import math
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.engine_helpers import get, greedy_tokens, post_json
from engine.tiny_families import FAMILIES, Family, family_model
from families.conftest import CONTEXT_LENGTH, NAMESPACE, delete, manifest, provide_config
from families.plain_engine import plain_engine
from harness.deployments import engine_pods, wait_ready
from harness.install import provide_model
from harness.kubectl import apply
from moe_operator.api import names
from moe_operator.catalog.models.architecture import Section
from moe_operator.catalog.models.custom import model_from_config

pytestmark = pytest.mark.timeout(900)

#: The second is longer than the sliding windows.
PROMPTS = (
    "hello",
    "The quick brown fox jumps over the lazy dog, and packs my box with five dozen liquor jugs.",
)
TOKENS = 24
#: Of 16 bits, sums over ranks are rounded otherwise than within one: close calls may go the other way, and the text
#: after them is another. So tokens are judged one by one, each after the same text. Wrong weights agree on none.
LEAST_AGREEMENT = 0.8

_KV_TOKENS = re.compile(r'^vllm:cache_config_info\{.*kv_cache_size_tokens="(\d+)"', re.MULTILINE)
_ENGINE_ID = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@_ENGINE_ID
def test_the_catalogue_counts_the_weights_that_are_there(family: Family) -> None:
    """Lost: memory for weights that the plan did not know of, or a refusal for weights that do not exist."""
    folder = family_model(family)
    model = model_from_config(family.name, (folder / "config.json").read_text())
    counted = sum(t.parameters for t in model.architecture.tensors if t.section is Section.MAIN)
    assert counted == _stored_parameters(folder / "model.safetensors")
    assert model.architecture.is_moe is family.experts


@_ENGINE_ID
def test_a_planned_group_gives_the_tokens_of_a_plain_engine_and_has_the_planned_cache(family: Family) -> None:
    """Lost: right answers, or the requests that the plan said would fit."""
    folder = family_model(family)
    began = time.monotonic()
    with _group(family, folder) as status:
        plan = status["plan"]
        ready = time.monotonic() - began
        pods = {
            pod["metadata"]["name"]: f"http://{pod['status']['podIP']}:{names.HTTP_PORT}"
            for pod in engine_pods(family.name, NAMESPACE)
        }
        answers = {
            (pod, prompt): greedy_tokens(url, prompt, TOKENS, model=family.name)
            for pod, url in pods.items()
            for prompt in PROMPTS
        }
        held = {pod: _kv_tokens(url) for pod, url in pods.items()}
    began = time.monotonic()
    with plain_engine(folder, family.name, dtype=family.dtype, context_length=CONTEXT_LENGTH) as base:
        reference = [greedy_tokens(base, prompt, TOKENS, model=family.name) for prompt in PROMPTS]
        agreed = [
            rank == 1
            for (_, prompt), tokens in answers.items()
            for rank in _ranks(base, family.name, prompt, tokens)
        ]
    plain = time.monotonic() - began
    equal = all(answers[pod, prompt] == reference[i] for pod in pods for i, prompt in enumerate(PROMPTS))
    print(
        f"{family.architecture}: {len(pods)} pods, expert-parallel size {plan['expertParallel']},"
        f" {plan['precision']}, {sum(agreed)}/{len(agreed)} tokens agree{', all equal' if equal else ''},"
        f" {sum(held.values())} tokens of KV cache, {plan['kvCacheTokens']} planned,"
        f" group ready in {ready:.0f} s, plain engine {plain:.0f} s"
    )
    assert len(pods) == (2 if family.experts else 1)
    assert plan["expertParallel"] == len(pods)
    assert plan["precision"] == family.precision
    assert sum(held.values()) == plan["kvCacheTokens"], held
    assert len({token for tokens in reference for token in tokens}) > 8, "the model says only one thing"
    if family.precision == "fp32":
        assert equal, (answers, reference)
    else:
        assert sum(agreed) >= LEAST_AGREEMENT * len(agreed), (answers, reference)


def _ranks(base: str, model: str, prompt: str, tokens: list[int]) -> list[int]:
    """What place an engine gives to each of these tokens after the prompt and those before it; 1 is its own choice."""
    text = [*prompt.encode(), *tokens]
    body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    scored = post_json(base, "/v1/completions", body)["choices"][0]["prompt_logprobs"][-len(tokens) :]
    return [scored[i][str(token)]["rank"] for i, token in enumerate(tokens)]


@contextmanager
def _group(family: Family, folder: Path) -> Iterator[dict[str, Any]]:
    """Status of the family's deployment, Ready; it is deleted afterwards."""
    provide_model(folder, NAMESPACE, claim=family.name)
    provide_config(family, folder)
    try:
        apply(manifest(family), manager="families")
        status: dict[str, Any] = wait_ready(family.name, NAMESPACE, seconds=300)["status"]
        yield status
    finally:
        delete(family)


def _kv_tokens(base: str) -> int:
    """What the engine itself says that its cache holds, in requests of the longest length."""
    found = set(_KV_TOKENS.findall(get(base, "/metrics")[1]))
    assert len(found) == 1, found
    return int(found.pop())


def _stored_parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header: its length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
