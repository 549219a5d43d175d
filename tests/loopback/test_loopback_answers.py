"""Real expert-parallel groups answer as one engine does: sharding the experts must not change a model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.engine_helpers import get, greedy_tokens, metric
from loopback.group import Group, Layout, group

PROMPTS = ("Hello", "The quick brown fox", "expert parallel", "zzzz")
TOKENS = 48

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """What a single engine without expert parallelism answers."""
    with group(Layout()) as single:
        single.wait_ready()
        answers = [greedy_tokens(single.pods[0].url, prompt, TOKENS) for prompt in PROMPTS]
    # A model that repeats itself would agree with anything.
    assert all(len(set(answer)) > TOKENS // 4 for answer in answers)
    assert len({tuple(answer) for answer in answers}) == len(PROMPTS)
    return answers


@pytest.fixture(
    scope="module", params=[Layout(2, 1), Layout(2, 2)], ids=["2 pods of 1 rank", "2 pods of 2 ranks"]
)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Layout, Group]]:
    """A group that is ready."""
    layout: Layout = request.param
    with group(layout) as made:
        made.wait_ready(seconds=400)
        yield layout, made


def test_every_rank_answers_as_one_engine(served: tuple[Layout, Group], expected: list[list[int]]) -> None:
    """A user would get other answers from a group, and different ones from each of its ranks."""
    layout, made = served
    for index, pod in enumerate(made.pods):
        for local in range(layout.ranks):
            rank = str(index * layout.ranks + local)
            before = _generated(pod.url, rank)
            answers = [greedy_tokens(pod.url, prompt, TOKENS, rank=local) for prompt in PROMPTS]
            assert answers == expected, f"rank {rank}"
            # Without this, one rank might have answered for all of them.
            assert _generated(pod.url, rank) - before == TOKENS * len(PROMPTS)


def test_the_experts_are_spread_over_the_ranks(served: tuple[Layout, Group]) -> None:
    """A group in which each rank holds all experts needs all of the model's memory on each GPU."""
    layout, made = served
    ranks = layout.pods * layout.ranks
    lines = [
        line for pod in made.pods for line in pod.log.splitlines() if "Expert parallelism is enabled" in line
    ]
    for rank in range(ranks):
        mine = [line for line in lines if f"[EP Rank {rank}/{ranks}]" in line]
        assert mine, f"rank {rank} of {ranks} did not say which experts it holds"
        assert f"Local/global number of experts: {8 // ranks}/8" in mine[0]


def _generated(url: str, rank: str) -> float:
    return metric(get(url, "/metrics")[1], "vllm:generation_tokens_total", engine=rank) or 0.0
