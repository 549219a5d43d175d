"""`kubectl moe plan`: the figures by which people buy and size hardware, as text and as data."""

import dataclasses
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.plans import QWEN, plan_manifest, report, report_or_refusal
from moe_operator.cli import kubectl_moe
from moe_operator.cli.contexts import lengths
from moe_operator.cli.estimates import fleet, money
from moe_operator.cli.explain import explain_text, memory_figures, speed_constants
from moe_operator.cli.plan_data import plan_data, refusal_data
from moe_operator.cli.plan_text import plan_text, refusal_text
from moe_operator.planner.plan import Refusal

LLAMA = "meta-llama/Llama-3.1-8B"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A manifest where no cluster is configured."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(plan_manifest()))
    return str(path)


def test_the_text_begins_with_what_people_ask_first() -> None:
    """Which model, how large, how many GPUs of which, and how long a context: without scrolling."""
    found = report()
    sizing = found.plan.sizing
    assert sizing is not None
    lines = plan_text(found).splitlines()
    assert lines[0] == f"qwen: {QWEN} on B200"
    assert lines[1] == "  model      403.4B parameters, 17.3B active, licence apache-2.0"
    assert lines[2].startswith("  weights    fp8, 4")
    assert lines[2].endswith(f"{QWEN}-FP8")
    assert lines[3].startswith(f"  group      {found.plan.width} wide: ")
    assert lines[5] == "  context    262144 tokens (the model's own)"
    assert "Memory of one GPU: 179.1 GiB" in lines
    assert any(line.startswith("TOKENS ") and "KV fp8: GiB/REQUEST" in line for line in lines)
    assert any(line.startswith("1010000 (stretched)") for line in lines)
    assert f"    --max-num-seqs={sizing.max_sequences} \\" in lines


def test_estimates_are_called_estimates_and_prices_have_a_source() -> None:
    """A guess that reads like a promise ends in a budget."""
    text = plan_text(report(rate=100))
    assert "Estimate, not a measurement" in text
    assert "(CoreWeave list, February 2026)" in text
    assert (
        "assumed: time to first token 2 s; time per output token 50 ms; requests of 2048 + 512 tokens" in text
    )
    assert "no cluster was asked; planned for nodes of 8 GPUs" in text


def test_money_and_groups_follow_from_tokens_per_second() -> None:
    """A factor of a thousand here is the kind of error that nobody sees until the invoice."""
    found = report()
    sizing, sizes, price = found.plan.sizing, found.sizes, found.profile.price
    assert sizing is not None
    assert sizes is not None
    assert price is not None
    plan = dataclasses.replace(
        found.plan, width=8, sizing=dataclasses.replace(sizing, output_tokens_per_second=20_000)
    )
    cost = money(plan, sizes.wants, price)
    assert cost is not None
    # 8 GPUs x 8.60 $/h over 72 million tokens/h.
    assert cost.usd_per_million_output_tokens == pytest.approx(0.9556, abs=1e-4)
    assert cost.usd_per_million_tokens == pytest.approx(0.9556 / 5, abs=1e-4)
    load = fleet(plan, sizes.wants, price, 100)
    assert load is not None
    assert load.requests_per_second_per_group == pytest.approx(39.0625)
    assert (load.groups, load.gpus, load.gpu_hours_per_day) == (3, 24, 576)
    assert load.usd_per_day == pytest.approx(576 * 8.6)
    exact = fleet(plan, sizes.wants, None, 2 * load.requests_per_second_per_group)
    assert exact is not None
    assert (exact.groups, exact.usd_per_day) == (2, None)


def test_longer_requests_take_more_and_fit_less_often() -> None:
    """The table must let a reader trade length for concurrency, and FP8 for more of both."""
    sizes = report().sizes
    assert sizes is not None
    for precision in ("auto", "fp8"):
        rows = [row for row in sizes.contexts if row.kv_cache_precision == precision]
        assert [row.context_length for row in rows] == [8192, 32768, 131072, 262144, 1010000]
        for short, long in pairwise(rows):
            assert short.bytes_per_request < long.bytes_per_request
            assert short.requests_per_group >= long.requests_per_group
        assert [row.stretched for row in rows] == [False] * 4 + [True]
    by = {(row.context_length, row.kv_cache_precision): row for row in sizes.contexts}
    assert by[262144, "fp8"].bytes_per_request < by[262144, "auto"].bytes_per_request
    assert lengths(sizes.model, 50_000)[:3] == (8192, 32768, 50_000)


def test_a_length_that_does_not_fit_is_said_so() -> None:
    """0 requests would read as a rounding error."""
    small = {"hardware": {"gpusPerGroup": 1}, "engine": {"args": {"gpu-memory-utilization": "0.5"}}}
    lines = plan_text(report(plan_manifest(LLAMA, "L40S", **small))).splitlines()
    own = next(line for line in lines if line.startswith("131072 "))
    assert own.split()[-3:] == ["does", "not", "fit"]


def test_data_has_the_planner_s_own_numbers(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts that gate a merge on these figures read them unrounded, by keys that stay."""
    assert kubectl_moe.main(["plan", "-f", file, "-o", "json", "--requests-per-second", "10"]) == 0
    data = json.loads(capsys.readouterr().out)
    sizing = report().plan.sizing
    assert sizing is not None
    memory = data["memory"]
    parts = ("weight", "kvCache", "activation", "buffer", "headroom")
    assert sum(memory[f"{part}Bytes"] for part in parts) == memory["capacityBytes"] == 183359 * 2**20
    assert data["kvCache"]["tokens"] == sizing.kv_cache_tokens
    assert data["estimate"]["outputTokensPerSecond"] == sizing.output_tokens_per_second
    assert data["load"]["groups"] == 1
    assert data["nodes"] == {
        "source": "the catalogue's usual nodes",
        "assumed": True,
        "groupsWithRoom": None,
        "problems": [],
    }
    assert {"flag": "max-num-seqs", "value": str(sizing.max_sequences)}.items() <= next(
        one for one in data["engineArguments"] if one["flag"] == "max-num-seqs"
    ).items()
    assert kubectl_moe.main(["plan", "-f", file, "-o", "yaml", "--requests-per-second", "10"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == data


def test_keys_of_the_data_are_stable() -> None:
    """A renamed key breaks every script that reads it."""
    data = plan_data(report(rate=1), explain=True)
    assert sorted(data) == [
        *("accelerator", "assumptions", "checkpoint", "contexts", "cost", "engineArguments", "estimate"),
        *("explanation", "image", "kvCache", "layout", "load", "memory", "model", "name", "namespace"),
        *("nodes", "notes", "podSecurity", "provenance", "revision", "transport"),
    ]
    unsized = plan_data(report(plan_manifest("org/own")))
    assert set(data) - {"explanation"} == set(unsized)
    assert unsized["model"] == {"name": "org/own", "sized": False}
    assert unsized["memory"] is unsized["estimate"] is unsized["cost"] is None


def test_every_argument_and_constant_has_a_reason() -> None:
    """A flag that nobody can explain cannot be argued with."""
    found = report()
    assert found.sizes is not None
    assert all(one.reason for one in found.arguments)
    figures = [*memory_figures(found, found.sizes), *speed_constants()]
    assert all(one.why and one.value for one in figures)
    assert len({one.key for one in figures}) == len(figures)
    text = explain_text(found)
    for argument in found.arguments:
        assert f"--{argument.flag}" in text


@pytest.mark.parametrize(
    ("model", "accelerator"),
    [(QWEN, "B200"), ("deepseek-ai/DeepSeek-V3.1", "H100"), (LLAMA, "L40S")],
)
def test_the_explained_parts_add_up_to_the_memory(model: str, accelerator: str) -> None:
    """An explanation that leaves GiB out hides them."""
    found = report(plan_manifest(model, accelerator))
    assert found.sizes is not None
    assert found.plan.sizing is not None
    figures = [one for one in memory_figures(found, found.sizes) if one.key != "driver"]
    total = sum(float(one.value.removesuffix(" GiB")) for one in figures)
    assert total == pytest.approx(found.plan.sizing.capacity_bytes / 2**30, abs=0.5)


def test_a_refusal_lists_its_ways_out_a_line_each() -> None:
    """The next step must be copied, not parsed out of a sentence."""
    found = report_or_refusal(plan_manifest(QWEN, "H100", hardware={"gpusPerGroup": 4}))
    assert isinstance(found, Refusal)
    lines = refusal_text(found).splitlines()
    assert lines[0].startswith("DoesNotFit: ")
    assert "what would fit" not in lines[0]
    assert "  spec.hardware.gpusPerGroup: 8" in lines[1:]
    lifts = refusal_data(found)["refusal"]["lifts"]
    assert {"field": "spec.hardware.gpusPerGroup", "value": "8"} in lifts


def test_what_cannot_be_planned_fails_a_pipeline_and_applies_nothing(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan --lock | kubectl apply -f -` must not get a sentence as a manifest."""
    small: dict[str, Any] = plan_manifest(QWEN, "H100", hardware={"gpusPerGroup": 1})
    Path(file).write_text(yaml.safe_dump(small))
    for command in (["plan", "--lock"], ["render"], ["render", "-o", "json"]):
        assert kubectl_moe.main([*command, "-f", file]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "DoesNotFit" in said.err
    assert kubectl_moe.main(["plan", "-f", file, "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["refusal"]["reason"] == "DoesNotFit"


@pytest.mark.parametrize("command", ["plan", "render"])
def test_a_plan_from_files_loads_no_client_of_kubernetes(command: str, file: str) -> None:
    """Half a second of every call in an editor or a CI job."""
    code = (
        "import sys; from moe_operator.cli import kubectl_moe as k; k.main(sys.argv[1:]);"
        "heavy = {'kubernetes', 'aiohttp', 'kopf', 'asyncio', 'moe_operator.runtime', 'moe_operator.controller'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, command, "-f", file],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stderr.strip() == "[]"
