"""`kubectl moe models`: whoever sizes hardware reads sizes, precisions and context here."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

from moe_operator.catalog.models.catalog import ModelCatalog
from moe_operator.cli import models_command
from moe_operator.cli.models_command import UnknownModelError, models_text
from unit.model_entries import TOTAL, catalog, entry


@pytest.fixture
def known(tmp_path: Path) -> ModelCatalog:
    checkpoints = [
        {"precision": "bf16", "repository": "Org/Small"},
        {
            "precision": "nvfp4",
            "repository": "nvidia/Small-NVFP4",
            "scheme": "nvfp4",
            "only": ["*.experts.*"],
            "kvCache": "fp8",
        },
    ]
    windowed = entry(name="Org/Windowed", licence="mit")
    windowed["config"]["sliding_window"] = 128
    small = entry(
        aliases=["tiny"], parsers={"toolCall": "hermes", "reasoning": "qwen3"}, checkpoints=checkpoints
    )
    return catalog(tmp_path, small, windowed)


def test_the_table_has_a_line_per_model_with_its_precisions_and_cache(known: ModelCatalog) -> None:
    header, small, windowed = models_text(known).splitlines()
    assert header.split()[:3] == ["NAME", "PARAMETERS", "ACTIVE"]
    assert small.split()[0] == "Org/Small"
    assert "bf16 0.0, nvfp4 0.0" in small
    assert "4096" in small
    # 2 layers x 2 heads x (64 + 64) x 2 bytes.
    assert "1.0" in small.split()
    assert windowed.endswith("mit")
    assert " - " in windowed, "a sliding window does not grow with the context"


def test_one_model_is_found_by_the_name_of_a_checkpoint(known: ModelCatalog) -> None:
    text = models_text(known, "nvidia/small-nvfp4")
    assert text.startswith("Org/Small\n")
    for part in ("aliases      tiny", "MixtralForCausalLM, 2 layers", "toolCall: hermes, reasoning: qwen3"):
        assert part in text
    assert "nvfp4       nvidia/Small-NVFP4   0.0   fp8" in text
    assert "RoutedExperts" in text
    assert "4 in each of 2 layers, 2 active" in text


def test_data_has_exact_numbers_in_both_forms(known: ModelCatalog) -> None:
    data = json.loads(models_text(known, "tiny", "json"))
    assert data == yaml.safe_load(models_text(known, "tiny", "yaml"))
    assert data["parameters"] == TOTAL
    assert data["checkpoints"][0] == {
        "precision": "bf16",
        "repository": "Org/Small",
        "bytes": 2 * TOTAL,
        "keyValueCache": None,
        "without": [],
    }
    assert data["keyValueBytesPerToken"] == 1024
    assert sum(data["parametersByComponent"]["Main"].values()) == TOTAL
    assert [model["name"] for model in json.loads(models_text(known, None, "json"))] == [
        "Org/Small",
        "Org/Windowed",
    ]


def test_a_window_counts_per_request(known: ModelCatalog) -> None:
    data = json.loads(models_text(known, "Org/Windowed", "json"))
    assert data["keyValueBytesPerToken"] == 0
    assert data["bytesPerRequest"] == 128 * 1024
    assert "attention, last 128 tokens" in models_text(known, "Org/Windowed")


def test_an_unknown_model_is_answered_with_close_names(known: ModelCatalog) -> None:
    with pytest.raises(UnknownModelError, match="'Org/Smol'; close to it are Org/Small"):
        models_text(known, "Org/Smol")


def test_the_command_parses_runs_and_exits_1_for_an_unknown_model(
    known: ModelCatalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models_command, "load_models", lambda: known)
    top = argparse.ArgumentParser()
    models_command.add_parser(top.add_subparsers())
    assert models_command.run(top.parse_args(["models"])) == 0
    assert "Org/Small" in capsys.readouterr().out
    assert models_command.run(top.parse_args(["models", "tiny", "-o", "yaml"])) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "Org/Small"
    assert models_command.run(top.parse_args(["models", "nothing"])) == 1
    assert "there is no model 'nothing'" in capsys.readouterr().err
