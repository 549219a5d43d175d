"""What a group of another width would take. A wrong ratio moves a deployment to groups that cost more."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from factories.plans import plan_manifest
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.operator_config import default_config
from moe_operator.catalog.saturation import Resource
from moe_operator.cli.inventory_source import usual
from moe_operator.cli.manifest import deployment_of
from moe_operator.planner.facts import Inventory
from moe_operator.planner.group_capacity import (
    GroupSize,
    RequestMix,
    group_capacity,
    largest_of,
    step_seconds,
)
from moe_operator.planner.plan import Plan
from moe_operator.planner.planning import plan
from moe_operator.planner.step_times import StepTimes
from moe_operator.planner.widths import Width, width_is_given, widths

OSS = "openai/gpt-oss-120b"
PLAIN = StepTimes(base=0.01, experts=0.0, expert_share=0.0, decode=0.001, prefill=0.0, kv=0.0)
SIZE = GroupSize(ranks=1, slots=256, batch_tokens=8192, kv_tokens=1_000_000)


class TestByHand:
    """Against numbers on paper."""

    def test_the_step_time_ends_it(self) -> None:
        """10 ms and 1 ms for each request: 40 of them in 50 ms, of which each takes 100 steps."""
        found = group_capacity(SIZE, PLAIN, RequestMix(100, 100), 0.05)
        assert (found.sequences, found.bound, found.meets) == (
            pytest.approx(40, rel=2e-3),
            Resource.STEP_TIME,
            True,
        )
        assert found.requests_per_second == pytest.approx(8.0, rel=2e-3)

    def test_the_cache_ends_it(self) -> None:
        """Nine tenths of 1000 tokens hold six requests of 100 + 50 on average."""
        found = group_capacity(replace(SIZE, kv_tokens=1000), PLAIN, RequestMix(100, 100), 0.05)
        assert (found.sequences, found.bound) == (pytest.approx(6), Resource.KV_CACHE)
        assert found.requests_per_second == pytest.approx(6 / (100 * 0.016))

    def test_slots_end_it(self) -> None:
        found = group_capacity(replace(SIZE, slots=10), PLAIN, RequestMix(100, 100), 0.05)
        assert (found.sequences, found.bound) == (10, Resource.REQUEST_SLOTS)
        assert found.requests_per_second == pytest.approx(10 / (100 * 0.020))

    def test_prompts_share_the_tokens_of_a_step(self) -> None:
        """For each token of an answer one of a prompt: half of 64 tokens are answers."""
        found = group_capacity(replace(SIZE, batch_tokens=64), PLAIN, RequestMix(100, 100), 0.05)
        assert (found.sequences, found.bound) == (32, Resource.REQUEST_SLOTS)

    def test_experts_are_read_once_for_all(self) -> None:
        """One of four experts for each token: of 2 ranks with one request each 1 - (3/4)^2 is read."""
        times = replace(PLAIN, experts=0.016, expert_share=0.25)
        size = replace(SIZE, ranks=2)
        assert step_seconds(size, times, RequestMix(1, 1e9), 1.0) == pytest.approx(0.011 + 0.016 * 7 / 16)

    def test_ranks_wait_for_the_one_that_reads_most_prompts(self) -> None:
        """A prompt comes in each step to each of two ranks on average: the larger of two such numbers is 1.52."""
        times = replace(PLAIN, prefill=0.0001)
        mix = RequestMix(100, 10)
        alone = step_seconds(SIZE, times, mix, 10.0)
        both = step_seconds(replace(SIZE, ranks=2), times, mix, 10.0)
        assert alone == pytest.approx(0.02 + 0.01)
        assert both == pytest.approx(0.02 + 0.01 * 1.5238, rel=1e-4)

    def test_what_is_cached_is_held_and_not_computed(self) -> None:
        times = replace(PLAIN, prefill=0.0001, kv=1e-6)
        mix = RequestMix(100, 10, cached=0.5)
        assert step_seconds(SIZE, times, mix, 10.0) == pytest.approx(0.02 + 0.005 + 1e-6 * 1050)

    def test_a_cache_for_less_than_one_request_holds_a_part_of_one(self) -> None:
        """Then the width is worth next to nothing, and a wider one is found to be."""
        found = group_capacity(replace(SIZE, kv_tokens=64), PLAIN, RequestMix(1000, 100), 0.05)
        assert 0 < found.sequences < 0.1

    def test_a_single_request_may_be_late(self) -> None:
        found = group_capacity(SIZE, PLAIN, RequestMix(100, 100), 0.005)
        assert not found.meets
        assert found.sequences == pytest.approx(1.0)

    @pytest.mark.parametrize(("ranks", "mean", "largest"), [(1, 0.3, 0.3), (2, 1.0, 1.5238), (8, 0.0, 0.0)])
    def test_the_largest_of_several(self, ranks: int, mean: float, largest: float) -> None:
        assert largest_of(ranks, mean) == pytest.approx(largest, rel=1e-4)


# --- Widths --------------------------------------------------------------------------------------


def _deployment(model: str, accelerator: str, **spec: Any) -> ModelDeployment:
    return deployment_of(plan_manifest(model, accelerator, **spec))


def _found(deployment: ModelDeployment, inventory: Inventory | None = None) -> tuple[Plan, tuple[Width, ...]]:
    catalog = default_config().catalog
    inventory = inventory or usual(deployment.spec, catalog).inventory
    planned = plan(deployment, inventory, catalog)
    assert isinstance(planned, Plan)
    return planned, widths(deployment, planned, inventory, catalog)


def test_the_widths_are_those_that_fit() -> None:
    planned, found = _found(_deployment(OSS, "H100"))
    assert planned.width == 8
    assert [one.gpus for one in found] == [1, 2, 4, 8]
    # The weights are held once, whatever the width: more GPUs have more than so many times the cache.
    caches = [one.kv_tokens for one in found]
    assert all(wider > 2 * narrower for narrower, wider in pairwise(caches))


def test_below_some_width_the_model_does_not_fit() -> None:
    _, found = _found(_deployment("Qwen/Qwen3.5-397B-A17B", "B200"))
    assert [one.gpus for one in found] == [4, 8]


def test_no_width_shortens_the_longest_request() -> None:
    """A request that is served today is not refused tomorrow, to save GPUs."""
    planned, found = _found(_deployment(OSS, "H100"))
    assert planned.sizing is not None
    assert {one.context_length for one in found} == {planned.sizing.context_length}
    longer = replace(planned, sizing=replace(planned.sizing, context_length=10**9))
    catalog = default_config().catalog
    deployment = _deployment(OSS, "H100")
    assert widths(deployment, longer, usual(deployment.spec, catalog).inventory, catalog) == ()


def test_what_the_spec_says_is_the_only_width() -> None:
    deployment = _deployment(OSS, "H100", hardware={"gpusPerGroup": 4})
    assert width_is_given(deployment.spec)
    assert [one.gpus for one in _found(deployment)[1]] == [4]


@pytest.mark.parametrize("model", ["org/unknown"])
def test_of_a_model_that_nobody_described_there_is_nothing_to_compare(model: str) -> None:
    assert _found(_deployment(model, "H100"))[1] == ()


def test_the_present_width_is_sized_as_it_runs() -> None:
    """Not as it would be planned today: the ratio is to what was measured."""
    deployment = _deployment("zai-org/GLM-4.6", "H200")
    catalog = default_config().catalog
    inventory = usual(deployment.spec, catalog).inventory
    planned = plan(deployment, inventory, catalog)
    assert isinstance(planned, Plan)
    older = replace(planned, tensor=8, data=1)
    present = [one for one in widths(deployment, older, inventory, catalog) if one.gpus == planned.width]
    assert [one.size.ranks for one in present] == [1]


@pytest.mark.parametrize(
    ("model", "accelerator", "mix", "wider", "narrower", "ratio"),
    [
        # Long answers fill the cache, of which a wider group has more than its share; short prompts disturb nobody.
        (OSS, "H100", RequestMix(1000, 2000), 4, 2, (2.0, 3.0)),
        # Prompts of which every rank waits for each: a wider group takes less for each GPU.
        (OSS, "H100", RequestMix(2048, 512), 8, 2, (2.0, 3.0)),
    ],
)
def test_what_is_asked_decides_which_width_is_worth_more(
    model: str,
    accelerator: str,
    mix: RequestMix,
    wider: int,
    narrower: int,
    ratio: tuple[float, float],
) -> None:
    found = {one.gpus: one.capacity(mix, 0.08) for one in _found(_deployment(model, accelerator))[1]}
    least, most = ratio
    assert least < found[wider].requests_per_second / found[narrower].requests_per_second < most
