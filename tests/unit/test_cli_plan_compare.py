"""`kubectl moe plan --compare`: the table by which hardware is chosen."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.plans import QWEN, plan_manifest, report
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.models.catalog import load_models
from moe_operator.cli import kubectl_moe
from moe_operator.cli.compare import Comparison, brief, compare, compare_text
from moe_operator.cli.inventory_source import usual
from moe_operator.cli.manifest import deployment_of
from moe_operator.planner.plan import Refusal


def rows_of(obj: dict[str, Any], rate: float | None = None) -> list[Comparison]:
    deployment, catalog, models = deployment_of(obj), load_catalog(), load_models()
    model = models.find(deployment.spec.model.name)
    assert model is not None
    return list(compare(deployment, usual(deployment.spec, catalog), catalog, models, model, rate))


def test_every_accelerator_is_there_with_every_precision() -> None:
    """One that is left out looks as if it had been judged."""
    rows = rows_of(plan_manifest())
    catalog = load_catalog()
    gpus = [name for name in catalog.names() if name != "cpu"]
    assert [(row.accelerator, row.precision) for row in rows] == [
        (name, precision) for name in gpus for precision in ("bf16", "fp8", "nvfp4")
    ]
    for row in rows:
        assert (row.plan is None) == bool(row.why)


def test_a_row_says_what_a_plan_for_it_says() -> None:
    """Whoever writes the row's accelerator and precision into the spec must get the row's figures."""
    row = next(r for r in rows_of(plan_manifest(), 50) if (r.accelerator, r.precision) == ("H200", "fp8"))
    alone = report(plan_manifest(QWEN, "H200", model={"precision": "fp8"}), 50)
    assert row.plan is not None
    assert row.plan.sizing == alone.plan.sizing
    assert alone.sizes is not None
    assert (row.money, row.fleet) == (alone.sizes.money, alone.sizes.fleet)


def test_layouts_for_the_spec_s_own_hardware_do_not_bind_the_others() -> None:
    narrow = rows_of(plan_manifest(hardware={"gpusPerGroup": 8, "gpusPerNode": 8}, parallelism={"tensor": 8}))
    assert [row.plan for row in narrow] == [row.plan for row in rows_of(plan_manifest())]


def test_why_it_does_not_fit_is_short_enough_for_a_table() -> None:
    deep = rows_of(plan_manifest("moonshotai/Kimi-K2-Thinking", model={"contextLength": 262144}))
    whys = {row.why for row in deep if row.why}
    assert all(len(why) <= 64 for why in whys)
    missing = Refusal(
        "DoesNotFit", "m needs 9.0 GiB per GPU: 2.5 GiB too little for the weights; what would fit: x"
    )
    assert brief(missing, "m") == "2.5 GiB too little per GPU for the weights"
    cache = Refusal("DoesNotFit", "m needs 9.0 GiB: 1.5 GiB too little for the KV cache of one request; x")
    foreign = Refusal("InvalidSpec", "MI300X cannot run nvfp4 (m): set model.precision to fp8")
    assert brief(foreign, "m") == "MI300X cannot run nvfp4"
    assert brief(cache, "m") == "1.5 GiB too little per GPU for the KV cache"


def test_prices_that_are_not_known_are_not_zero() -> None:
    lines = compare_text(rows_of(plan_manifest(), 100)).splitlines()
    pcie = next(line for line in lines if line.startswith("H100-PCIe"))
    assert "$" not in pcie
    assert "$" in next(line for line in lines if line.startswith("B200 "))


def test_an_inventory_narrows_the_table_to_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, nodes = tmp_path / "m.yaml", tmp_path / "nodes.yaml"
    file.write_text(yaml.safe_dump(plan_manifest()))
    nodes.write_text("{nodes: [{accelerator: H200, count: 2}, {accelerator: MI300X}]}")
    command = ["plan", "-f", str(file), "--inventory", str(nodes), "--compare", "-o", "json"]
    assert kubectl_moe.main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["accelerator"], row["fits"]) for row in said if row["precision"] != "bf16"] == [
        ("H200", True),
        ("H200", True),
        ("MI300X", True),
        ("MI300X", False),
    ]
    assert said[-1]["why"].startswith("MI300X cannot run nvfp4")


def test_a_model_that_is_not_known_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(plan_manifest("org/own")))
    assert kubectl_moe.main(["plan", "-f", str(file), "--compare"]) == 2
    assert "give its config.json with --config FILE" in capsys.readouterr().err
