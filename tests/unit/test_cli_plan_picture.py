"""The memory of one GPU as a bar and as a picture: proportions must be true, or the picture lies."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from factories.plans import plan_manifest, report
from moe_operator.cli import kubectl_moe
from moe_operator.cli.memory_bar import cells, memory_bar, parts
from moe_operator.cli.plan_svg import memory_svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([50, 30, 10, 10], [5, 3, 1, 1]),
        ([1, 1, 1, 9997], [1, 1, 1, 7]),
        ([100, 0, 0, 0], [10, 0, 0, 0]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([33, 33, 34, 0], [3, 3, 4, 0]),
    ],
)
def test_cells_are_in_proportion_and_none_vanishes(sizes: list[int], expected: list[int]) -> None:
    assert cells(sizes, 10) == expected


def test_the_bar_and_its_legend_for_one_example() -> None:
    """Rounded to cells, in the order of the legend; the legend has the figures."""
    found = report(plan_manifest("meta-llama/Llama-3.1-8B", "H100", hardware={"gpusPerGroup": 1}))
    assert found.plan.sizing is not None
    lines = memory_bar(found.plan.sizing, plain=True, width=40)
    assert lines[0].startswith("[#######")
    assert len(lines[0]) == 42
    assert [line[:11].rstrip() for line in lines[1:]] == [
        "# weights",
        "= KV cache",
        "+ buffers",
        ". headroom",
    ]
    assert lines[1].split()[2:5] == ["15.0", "GiB", "18.8%"]
    shares = [float(line.split("%")[0].split()[-1]) for line in lines[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    sizing = report().plan.sizing
    assert sizing is not None
    assert all(line.isascii() for line in memory_bar(sizing, plain=True))
    assert "█" in memory_bar(sizing, plain=False)[0]


def test_the_picture_is_well_formed_and_in_proportion() -> None:
    found = report()
    picture = memory_svg(found)
    assert picture is not None
    root = ElementTree.fromstring(picture)
    bars = {
        rect.get("class"): float(rect.get("width", "0"))
        for rect in root.iter(f"{SVG}rect")
        if rect.find(f"{SVG}title") is not None
    }
    assert found.plan.sizing is not None
    whole = sum(bars.values())
    for width, part in zip(bars.values(), parts(found.plan.sizing), strict=True):
        assert width / whole == pytest.approx(part.size / found.plan.sizing.capacity_bytes, abs=0.001)
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert texts[0] == "Qwen/Qwen3.5-397B-A17B (fp8) on B200"
    assert "prefers-color-scheme: dark" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", ""), (
        "it must need nothing from elsewhere"
    )


def test_names_cannot_break_the_picture() -> None:
    """A model's name is the user's: markup in it must stay text."""
    found = report()
    assert found.plan.sizing is not None
    object.__setattr__(found.plan.sizing, "model", "<script>&" + "x" * 200)
    picture = memory_svg(found)
    assert picture is not None
    root = ElementTree.fromstring(picture)
    assert next(root.iter(f"{SVG}text")).text.startswith("<script>&xxx")  # type: ignore[union-attr]


def test_a_picture_of_what_is_not_known_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, nodes, picture = tmp_path / "m.yaml", tmp_path / "n.yaml", tmp_path / "memory.svg"
    file.write_text(yaml.safe_dump(plan_manifest()))
    nodes.write_text("{nodes: [{accelerator: B200}]}")
    command = ["plan", "-f", str(file), "--inventory", str(nodes), "--svg"]
    assert kubectl_moe.main([*command, str(picture)]) == 0
    assert picture.read_text(encoding="utf-8").startswith("<svg ")
    assert kubectl_moe.main([*command, str(tmp_path / "absent" / "x.svg")]) == 2
    assert "--svg" in capsys.readouterr().err
    file.write_text(yaml.safe_dump(plan_manifest("org/own")))
    assert kubectl_moe.main([*command, str(tmp_path / "own.svg")]) == 2
    assert not (tmp_path / "own.svg").exists()
