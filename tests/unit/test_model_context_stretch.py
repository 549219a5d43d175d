"""A request longer than the model was trained on: wrong overrides give an engine that does not start, or one that
answers nonsense past the native context."""

import json

import pytest

from factories.deployments import model_deployment, rendering
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.models.context_stretch import ContextStretch
from moe_operator.planner.inventory_file import read_inventory
from moe_operator.planner.plan import Plan
from moe_operator.planner.planning import plan
from moe_operator.resources.engine_args import explained_arguments


def _of(name: str) -> ContextStretch:
    model = load_models().find(name)
    assert model is not None
    assert model.stretch is not None
    return model.stretch


@pytest.mark.parametrize(("context", "factor"), [(40961, 2), (65536, 2), (65537, 3), (131072, 4)])
def test_the_factor_is_no_larger_than_the_context_needs(context: int, factor: int) -> None:
    """YaRN as vLLM has it scales all positions alike: a larger factor costs quality on every short request."""
    told = json.loads(_of("Qwen/Qwen3-30B-A3B").hf_overrides(context))
    assert told == {
        "max_position_embeddings": 32768 * factor,
        "rope_parameters": {
            "rope_theta": 1000000,
            "rope_type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": 32768,
        },
    }


def test_what_the_model_says_about_its_positions_is_kept() -> None:
    """vLLM puts the given rope parameters in the place of all: without the partial rotation and the sections for
    images the model would read positions that it never saw."""
    told = json.loads(_of("Qwen/Qwen3.5-397B-A17B").hf_overrides(1010000))
    assert list(told) == ["text_config"]
    rope = told["text_config"]["rope_parameters"]
    assert rope["partial_rotary_factor"] == 0.25
    assert rope["mrope_section"] == [11, 11, 10]
    assert rope["mrope_interleaved"] is True
    assert (rope["rope_theta"], rope["factor"]) == (10000000, 4.0)


def test_every_shipped_stretch_reaches_as_far_as_it_says() -> None:
    models = load_models()
    for name in models.names():
        model = models.find(name)
        assert model is not None
        if model.stretch is not None:
            told = json.loads(model.stretch.hf_overrides(model.stretch.up_to))
            inner = told.get(model.stretch.within, told)
            assert inner["max_position_embeddings"] >= model.stretch.up_to, name


@pytest.mark.parametrize(("context", "stretched"), [(262144, False), (524288, True)])
def test_only_a_context_beyond_the_native_one_is_stretched(context: int, stretched: bool) -> None:
    """Told without need, every request would be answered a little worse."""
    catalog = load_catalog()
    deployment = model_deployment(
        model={"name": "Qwen/Qwen3.5-35B-A3B", "contextLength": context}, hardware={"accelerator": "B200"}
    )
    found = plan(deployment, read_inventory("{nodes: [{accelerator: B200}]}", catalog), catalog)
    assert isinstance(found, Plan)
    flags = {one.flag: one for one in explained_arguments(rendering(deployment, found))}
    assert flags["max-model-len"].value == str(context)
    assert ("hf-overrides" in flags) is stretched
