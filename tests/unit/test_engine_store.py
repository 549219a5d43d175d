"""The cache behind the real engine and its tiny model: built once, whole or not at all, always the same."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine.store import built, content_key, is_complete
from engine.tiny_model import tiny_model, write_model

_BUILD = """
import sys, time
from pathlib import Path
from engine.store import built
target, marks = Path(sys.argv[1]), Path(sys.argv[2])

def build(folder):
    with marks.open("a") as sink:
        sink.write("built\\n")
    while not (marks.parent / "go").exists():
        time.sleep(0.01)
    (folder / "content").write_text("whole")

print((built(target, build, lambda message: None) / "content").read_text())
"""


def silent(message: str) -> None:
    return


def test_two_processes_build_once(tmp_path: Path) -> None:
    """Two test runs at once would install 6 GB twice, into each other."""
    command = [sys.executable, "-c", _BUILD, str(tmp_path / "target"), str(tmp_path / "marks")]
    env = {"PYTHONPATH": ":".join(sys.path)}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=30)[0].strip() for process in both] == ["whole", "whole"]
    assert (tmp_path / "marks").read_text() == "built\n"


def test_a_build_that_failed_is_begun_anew(tmp_path: Path) -> None:
    """An interrupted installation would be taken for a whole one, and fail later in strange ways."""
    target = tmp_path / "target"

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        built(target, fails, silent)
    assert not is_complete(target)
    built(target, lambda folder: (folder / "whole").touch(), silent)
    assert is_complete(target)
    assert not (target / "half").exists()


def test_a_whole_folder_is_not_built_again(tmp_path: Path) -> None:
    """Every test run would begin with a build."""
    target = tmp_path / "target"
    built(target, lambda folder: None, silent)

    def must_not_run(folder: Path) -> None:
        raise AssertionError

    assert built(target, must_not_run, silent) == target


def test_keys_tell_different_parts_apart() -> None:
    """Parts that run into one another would share a folder."""
    assert content_key("ab", "c") != content_key("a", "bc")


def test_the_tiny_model_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """Answers could not be compared between machines or layouts."""
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        write_model(tmp_path / name, seed)
    weights = {
        name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again", "other")
    }
    assert weights["first"] == weights["again"]
    assert weights["first"] != weights["other"]


def test_the_tiny_models_weights_are_complete_and_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor that is missing or overlaps another makes the engine fail, or answer nonsense."""
    monkeypatch.setenv("MOE_OPERATOR_CACHE", str(tmp_path))
    folder = tiny_model()
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    end = 0
    parameters = 0
    for tensor in header.values():
        begin, stop = tensor["data_offsets"]
        size = 1
        for extent in tensor["shape"]:
            size *= extent
        assert (begin, stop - begin) == (end, 4 * size)
        end = stop
        parameters += size
    assert len(content) == 8 + length + end
    assert parameters == 625_408
    config = json.loads((folder / "config.json").read_text())
    experts = {name for name in header if ".experts." in name}
    assert len(experts) == config["num_hidden_layers"] * config["num_experts"] * 3
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(tokens.values()) == list(range(256))
