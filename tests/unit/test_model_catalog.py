"""The catalogue of models: what finds a model, what an entry may say, and that the shipped entries hold together."""

import time
from pathlib import Path

import pytest
import yaml

from moe_operator.catalog.models.catalog import ModelCatalog, load_models, names_of
from moe_operator.catalog.models.entry import EntryError
from moe_operator.catalog.models.scheme import Precision
from unit.model_entries import CONFIG, TOTAL, catalog, entry

NVFP4 = {"precision": "nvfp4", "repository": "nvidia/Small-NVFP4", "scheme": "nvfp4", "only": ["*.experts.*"]}


def _stretch(up_to: int, **rope: int) -> dict[str, object]:
    return {"type": "Yarn", "upTo": up_to, "rope": {"rope_theta": 10000, **rope}}


def _small(directory: Path) -> ModelCatalog:
    checkpoints = [{"precision": "bf16", "repository": "Org/Small"}, {**NVFP4, "kvCache": "fp8"}]
    other = entry(name="Org/Other_Model", aliases=["Some Thing"])
    return catalog(directory, entry(aliases=["tiny"], checkpoints=checkpoints), other)


@pytest.mark.parametrize("name", ["Org/Small", "org/small", "Small", "TINY", " org/small "])
def test_a_model_is_found_however_its_name_is_written(tmp_path: Path, name: str) -> None:
    model = _small(tmp_path).find(name)
    assert model is not None
    assert model.name == "Org/Small"
    assert model.architecture.total_parameters == TOTAL
    assert model.named is None


@pytest.mark.parametrize("name", ["Org/Other-Model", "org/other model", "some_thing", "some-thing"])
def test_blanks_underscores_and_dashes_make_no_difference(tmp_path: Path, name: str) -> None:
    found = _small(tmp_path).find(name)
    assert found is not None
    assert found.name == "Org/Other_Model"


def test_a_repository_of_a_checkpoint_finds_the_model_and_says_which_precision_was_meant(
    tmp_path: Path,
) -> None:
    model = _small(tmp_path).find("nvidia/small-nvfp4")
    assert model is not None
    assert model.name == "Org/Small"
    assert model.named is not None
    assert model.named.precision is Precision.NVFP4
    assert model.named.kv_cache == "fp8"
    assert model.named == model.checkpoint("nvfp4")


@pytest.mark.parametrize("name", ["", "Org/Missing", "checkpoints", "apache-2.0", "experts"])
def test_what_is_no_model_is_not_found_by_chance(tmp_path: Path, name: str) -> None:
    assert _small(tmp_path).find(name) is None


def test_a_mistyped_name_is_answered_with_the_closest(tmp_path: Path) -> None:
    known = _small(tmp_path)
    assert known.names() == ("Org/Other_Model", "Org/Small")
    assert known.closest("smal")[0] == "Org/Small"
    assert known.closest("Org/OtherModel")[0] == "Org/Other_Model"


def test_finding_one_model_reads_no_other_file(tmp_path: Path) -> None:
    """Else every plan would pay for the whole catalogue, and one broken entry would break all."""
    known = _small(tmp_path)
    (tmp_path / "Broken--Entry.yaml").write_text("{")
    assert known.find("Org/Small") is not None


def test_an_entry_takes_from_the_one_that_it_is_like_and_changes_single_fields(tmp_path: Path) -> None:
    base = entry(aliases=["tiny"], parsers={"toolCall": "hermes"}, ropeScaling=_stretch(16384))
    longer = {
        "name": "Org/Longer",
        "like": "org/small",
        "checkpoints": [{"precision": "bf16", "repository": "Org/Longer"}],
        "config": {"max_position_embeddings": 8192},
    }
    known = catalog(tmp_path, base, longer)
    found = known.find("Org/Longer")
    assert found is not None
    assert found.architecture.context_length == 8192
    assert found.architecture.total_parameters == TOTAL
    assert found.licence == "apache-2.0"
    assert found.parsers.tool_call == "hermes"
    assert found.stretch is not None
    assert found.stretch.up_to == 16384
    assert found.aliases == ()
    tiny = known.find("tiny")
    assert tiny is not None
    assert tiny.name == "Org/Small"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"licenze": "mit"}, "Org--Small.yaml: licenze: Extra inputs"),
        ({"checkpoints": []}, "Org--Small.yaml: checkpoints: "),
        ({"checkpoints": [{**NVFP4, "scheme": "nvfp5"}]}, "checkpoints[0]: 'nvfp5' is no storage scheme"),
        ({"checkpoints": [{**NVFP4, "scheme": "fp8-block"}]}, "checkpoints[0]: no scheme here stores nvfp4"),
        ({"checkpoints": [{**NVFP4, "precision": "bf16"}]}, "checkpoints[0]: bf16 is not quantised"),
        ({"checkpoints": [{**NVFP4, "without": ["Mtp"]}]}, "checkpoints[0].without[0]: "),
        ({"like": "Org/Missing"}, "Org--Small.yaml: like: there is no entry 'Org/Missing'"),
        ({"like": "Org/Small"}, "does not end"),
        ({"config": {**CONFIG, "hidden_size": 0}}, "Org--Small.yaml: config.hidden_size: 0 is not between"),
        ({"config": {**CONFIG, "torch_dtype": "auto"}}, "config.torch_dtype: 'auto' is not one of"),
        ({"ropeScaling": _stretch(4096)}, "ropeScaling.upTo: 4096 is not longer"),
        ({"ropeScaling": _stretch(16384, theta=10000)}, "ropeScaling.rope.theta: "),
        ({"ropeScaling": _stretch(16384, rope_theta=0)}, "ropeScaling.rope.rope_theta: "),
        ({"hubParameters": 1.5}, "Org--Small.yaml: hubParameters: "),
    ],
)
def test_a_wrong_entry_is_refused_with_file_and_field(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(EntryError) as refused:
        catalog(tmp_path, entry(**fields)).find("Org/Small")
    assert message in str(refused.value)


def test_an_entry_in_a_file_of_another_name_is_refused(tmp_path: Path) -> None:
    """It would be found by one name and answer with another."""
    (tmp_path / "Org--Renamed.yaml").write_text(yaml.safe_dump(entry()))
    with pytest.raises(EntryError, match=r"belongs in a file Org--Small.yaml"):
        ModelCatalog(tmp_path).find("Org/Renamed")


# --- The shipped entries ----------------------------------------------------------------------------

SHIPPED = load_models()


@pytest.mark.parametrize("name", SHIPPED.names())
def test_a_shipped_entry_can_be_used_and_counts_what_the_hub_counts(name: str) -> None:
    model = SHIPPED.find(name)
    assert model is not None
    assert model.name == name
    if model.hub_parameters is not None and not model.approximate:
        assert model.architecture.total_parameters == model.hub_parameters


def test_no_name_means_two_models() -> None:
    """Else a deployment would be planned for another model than its weights are."""
    seen: dict[str, str] = {}
    for name in SHIPPED.names():
        model = SHIPPED.find(name)
        assert model is not None
        repositories = (c.repository for c in model.checkpoints if c.repository)
        for known in {n.casefold().replace("_", "-") for n in (*names_of(model), *repositories)}:
            assert seen.setdefault(known, name) == name


def test_one_model_loads_fast_enough_for_a_reconcile() -> None:
    """15 ms is the budget; the best of five, as other work goes on beside tests."""
    names = SHIPPED.names()
    if not names:
        pytest.skip("no entries are shipped yet")
    largest = max(names, key=lambda name: len(SHIPPED._text(name.replace("/", "--", 1))))
    took = []
    for _ in range(5):
        start = time.perf_counter()
        assert ModelCatalog(SHIPPED._directory).find(largest) is not None
        took.append(time.perf_counter() - start)
    assert min(took) < 0.015
