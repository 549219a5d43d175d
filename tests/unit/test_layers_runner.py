"""`make test` must run every layer; a runner that runs none of them would leave CI blind."""

import sys

import pytest

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
    runner.run([Layer("a", checks=(said, FAILS)), Layer("b", checks=(said,), beside=True)])
    assert {"a          | hello", "b          | hello"} <= set(capfd.readouterr().out.splitlines())
    assert (runner.outcomes["a"].passed, runner.outcomes["a"].failed) == (1, 1)
    assert summary(runner.outcomes)[1] is False


def test_a_failed_preparation_is_a_failed_layer() -> None:
    runner = Runner()
    runner.run([Layer("a", prepare=(FAILS,), checks=(PASSES,))])
    assert (runner.outcomes["a"].passed, runner.outcomes["a"].failed) == (0, 1)


def test_a_layer_that_ran_nothing_does_not_pass() -> None:
    text, good = summary({"unit": Outcome(passed=3), "e2e": Outcome()})
    assert not good
    assert "layer e2e ran nothing" in text
