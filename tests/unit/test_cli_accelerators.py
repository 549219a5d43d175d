"""`kubectl moe accelerators`: what people compare hardware by before they write a name into a spec."""

import argparse
import json

import pytest
import yaml

from moe_operator.catalog.accelerators import load_catalog
from moe_operator.cli import accelerators_command


def _run(*arguments: str) -> int:
    top = argparse.ArgumentParser(prog="kubectl moe")
    accelerators_command.add_parser(top.add_subparsers(required=True))
    return accelerators_command.run(top.parse_args(["accelerators", *arguments]))


def test_the_table_has_every_accelerator_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(load_catalog().names())
    for column in ("MEMORY", "BANDWIDTH", "FP8/FP4 TFLOPS", "GPUS/NODE", "NVLINK DOMAIN", "$/GPU-HOUR"):
        assert column in lines[0]
    gb200 = next(line for line in lines if line.startswith("GB200 "))
    assert gb200.split()[1:9] == ["185.0", "GiB", "8000", "GB/s", "5000/10000", "4", "72", "10.50"]
    assert gb200.endswith("CoreWeave list, February 2026"), "a price without source and date is a rumour"


def test_what_is_not_known_is_said_and_not_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("h100-pcie") == 0
    assert capsys.readouterr().out.rstrip().endswith("-            no public price found")


@pytest.mark.parametrize("name", ["b200", "NVIDIA-B200", "nvidia b200"])
def test_details_are_found_by_any_name_and_carry_the_aliases(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(name, "-o", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["name"] == "B200"
    assert "NVIDIA-B200" in said["aliases"]
    assert said["memoryMib"] == 183359
    assert said["tflops"] == {"bf16": 2250, "fp8": 4500, "fp4": 9000}
    assert said["price"] == {"usdPerGpuHour": "8.60", "source": "CoreWeave list, February 2026"}
    assert said["nodeLabels"]["nvidia.com/gpu.product"] == ["NVIDIA-B200"]


def _numbers(value: object) -> list[object]:
    if isinstance(value, dict):
        return [n for item in value.values() for n in _numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in _numbers(item)]
    return [value]


def test_scripts_get_all_accelerators_and_no_rounded_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("-o", "json") == 0
    as_json = json.loads(capsys.readouterr().out)
    assert _run("-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == as_json
    assert [item["name"] for item in as_json] == list(load_catalog().names())
    assert not any(isinstance(number, float) for number in _numbers(as_json))


def test_an_unknown_name_is_answered_with_the_closest_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("H20") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "no accelerator 'H20'; it has H200" in said.err
