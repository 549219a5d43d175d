"""What comes of the examples on real kinds of nodes, as the command prints it: each golden file is read like a manifest
that somebody will pay hundreds of GPU-hours for."""

import re
from pathlib import Path

import pytest
import yaml

from factories.golden import AGENT, check_golden_text
from factories.platforms import EXAMPLES, INVENTORIES, ROOT, Platform, at_home, platforms
from moe_operator.cli import kubectl_moe
from moe_operator.cli.rendered import SAME
from moe_operator.resources import agent_config

PLATFORMS = platforms()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster to be asked, and an agent that stays the same."""
    monkeypatch.setattr(agent_config, "agent_files", lambda: dict(AGENT))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def _printed(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with at_home():
        assert kubectl_moe.main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == "", "the shipped inventories are without fault"
    return said.out


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda one: one.name)
def test_a_platform_is_rendered_as_reviewed(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag or variable that is wrong for a fabric costs a factor of ten, or the group never starts."""
    text = _printed((*platform.arguments, "--explain"), capsys)
    check_golden_text(f"platforms/{platform.name}", _without_repeats(text))


def _without_repeats(text: str) -> str:
    """The workers' template is the leader's: shown once."""
    groups = [d for d in yaml.safe_load_all(text) if d["kind"] == "LeaderWorkerSet"]
    assert groups
    for group in groups:
        workers = group["spec"]["leaderWorkerTemplate"]
        assert workers["workerTemplate"] == workers["leaderTemplate"]
    shown, folded = re.subn(
        rf"^(    workerTemplate:  # {SAME}\n)(?:     .*\n)+", r"\1", text, flags=re.MULTILINE
    )
    assert folded == len(groups)
    return shown


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda one: one.name)
def test_an_example_is_short(platform: Platform) -> None:
    """The promise is ten lines."""
    text = (EXAMPLES / f"{platform.name}.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10
    assert f"manifests/examples/{platform.name}.yaml" in platform.arguments


def test_every_inventory_is_used_and_every_platform_is_there() -> None:
    """A file that nothing renders is one that nobody knows to work."""
    assert {one.inventory for one in PLATFORMS} == set(INVENTORIES.glob("*.yaml"))
    golden = (ROOT / "tests" / "unit" / "golden" / "platforms").glob("*.yaml")
    assert {path.stem for path in golden} == {one.name for one in PLATFORMS}
    used = {one.report().plan.accelerator for one in PLATFORMS}
    assert {"B200", "GB200", "H200", "H100", "MI355X"} <= used
