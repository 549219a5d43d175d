"""The answers are right, not only there: expert parallelism must not change what a model says."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.conftest import NAMESPACE, Maker, delete
from e2e.engine_helpers import greedy_tokens
from harness.deployments import engine_pods
from moe_operator.api import names

pytestmark = pytest.mark.timeout(900)

PROMPTS = ["hello", "The quick brown fox"]
#: Four ranks on two cores take seconds for each token that they give together.
TOKENS = 16

LAYOUTS = {
    "one engine without expert parallelism": {"accelerator": "cpu", "gpusPerGroup": 1},
    "2 pods x 1 rank": {"accelerator": "cpu", "gpusPerGroup": 2},
    "2 pods x 2 ranks": {"accelerator": "cpu", "gpusPerGroup": 4, "gpusPerNode": 2},
}


def answers(name: str, ranks: int) -> dict[str, list[list[int]]]:
    """Tokens for every prompt, from every rank of every pod. All ranks are asked at once: they step together."""
    where = {
        f"{pod['metadata']['name']} rank {rank}": (f"http://{pod['status']['podIP']}:{names.HTTP_PORT}", rank)
        for pod in engine_pods(name, NAMESPACE)
        for rank in range(ranks)
    }
    found: dict[str, list[list[int]]] = {each: [] for each in where}
    with ThreadPoolExecutor(len(where)) as clients:
        for prompt in PROMPTS:

            def ask(place: tuple[str, int], prompt: str = prompt) -> list[int]:
                base, rank = place
                return greedy_tokens(base, prompt, TOKENS, model="tiny-moe", rank=rank)

            for each, tokens in zip(where, clients.map(ask, where.values()), strict=True):
                found[each].append(tokens)
    return found


def test_every_rank_of_every_layout_gives_the_tokens_of_a_single_engine(make: Maker) -> None:
    """Greedy, float32: the same weights must give the same tokens however the experts are spread."""
    reference: list[list[int]] | None = None
    for index, (layout, hardware) in enumerate(LAYOUTS.items()):
        name = f"answers-{index}"
        status = make(name, hardware=hardware)["status"]
        ranks = status["plan"]["ranksPerPod"]
        found = answers(name, ranks)
        print(f"{layout}: {len(found)} ranks asked, expert-parallel size {status['plan']['expertParallel']}")
        if reference is None:
            (reference,) = found.values()
            assert len({token for tokens in reference for token in tokens}) > 8, (
                "the model says only one thing"
            )
        for where, tokens in found.items():
            assert tokens == reference, f"{layout}: {where} differs"
        delete(name)  # two such groups at once would need more memory than a laptop has
