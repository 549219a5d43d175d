"""`make test` must run every layer; a runner that runs none of them would leave CI blind."""

import pytest

from layers.__main__ import LAYERS, chosen


def test_no_names_means_every_layer() -> None:
    assert chosen([]) == [layer.name for layer in LAYERS]


def test_named_layers_run_in_the_order_of_the_layers() -> None:
    assert chosen(["faults", "lint"]) == ["lint", "faults"]


def test_an_unknown_layer_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        chosen(["units"])
    assert exit_.value.code == 2
    assert "no layer units (choose from lint, unit" in capsys.readouterr().err
