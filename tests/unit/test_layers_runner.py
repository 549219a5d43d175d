"""`make test` must run every layer; a runner that runs none of them would leave CI blind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.wait import wait_for
from layers.__main__ import chosen, summary
from layers.run import Outcome, Runner
from layers.table import LAYERS, Layer

PASSES, FAILS = (sys.executable, "-c", ""), (sys.executable, "-c", "raise SystemExit(3)")


def test_no_names_means_every_layer_but_optional_ones() -> None:
    assert chosen([]) == [layer.name for layer in LAYERS if not layer.optional]


def test_named_layers_run_in_the_order_of_the_layers() -> None:
    assert chosen(["faults", "lint"]) == ["lint", "faults"]


def test_an_unknown_layer_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        chosen(["units"])
    assert exit_.value.code == 2
    assert "no layer units (choose from lint, unit" in capsys.readouterr().err


def test_lanes_run_beside_each_other_and_every_line_names_its_layer(
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = (sys.executable, "-c", "print('hello')")
    runner = Runner()
    runner.run([Layer("a", checks=(said, FAILS)), Layer("b", checks=(said,), engine=True)])
    assert {"a          | hello", "b          | hello"} <= set(capfd.readouterr().out.splitlines())
    assert (runner.outcomes["a"].passed, runner.outcomes["a"].failed) == (1, 1)
    assert summary(runner.outcomes)[1] is False


@pytest.mark.parametrize("engine", [False, True])
def test_a_run_that_is_told_to_stop_takes_its_commands_along(tmp_path: Path, engine: bool) -> None:
    """Else a cluster with its engines would stay behind, as clusters end with whoever started them."""
    script = f"""
import signal, sys
from layers.run import Runner
from layers.table import Layer
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
wait = (sys.executable, "-c", "import pathlib, time; pathlib.Path({str(tmp_path / "up")!r}).touch(); time.sleep(60)")
Runner().run([Layer("a", checks=(wait,)), Layer("b", checks=(wait,), engine={engine})])
"""
    environment = {**os.environ, "PYTHONPATH": "hack"}
    runner = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL)
    wait_for("a command", (tmp_path / "up").exists, seconds=20, every=0.05)
    runner.terminate()
    assert runner.wait(timeout=20) == 143


def test_a_failed_preparation_is_a_failed_layer() -> None:
    runner = Runner()
    runner.run([Layer("a", prepare=(FAILS,), checks=(PASSES,))])
    assert (runner.outcomes["a"].passed, runner.outcomes["a"].failed) == (0, 1)


def test_a_layer_that_ran_nothing_does_not_pass() -> None:
    text, good = summary({"unit": Outcome(passed=3), "e2e": Outcome()})
    assert not good
    assert "layer e2e ran nothing" in text


def test_the_end_names_each_failure_with_its_message(tmp_path: Path) -> None:
    """Of a long log one often sees no more than its end."""
    test = tmp_path / "test_broken.py"
    test.write_text("def test_sums():\n    assert 1 + 1 == 3, 'two\\nlines'\n")
    runner = Runner()
    runner.run([Layer("a", checks=(FAILS,), tests=((sys.executable, "-m", "pytest", "-q", str(test)),))])
    text, _ = summary(runner.outcomes)
    assert "test_broken::test_sums: AssertionError: two lines" in text.splitlines()[-1]
    assert "raise SystemExit(3)" in text.splitlines()[-2]
