"""The image's recipe. No image can be built here, so its steps and its contents are checked one by one."""

import re
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import runtime_requirements

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def _instructions() -> list[list[tuple[str, str]]]:
    """Stages of the Dockerfile, each a list of (instruction, arguments), from the first FROM on."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    stages: list[list[tuple[str, str]]] = []
    for line in filter(str.strip, lines):
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((word, arguments.strip()))
    return stages


def _needed(package: str, found: set[str]) -> set[str]:
    """Distributions that a package needs on this machine, by what they say of themselves."""
    for text in metadata.requires(package) or ():
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            _needed(name, found)
    return found


def test_the_image_holds_what_the_operator_needs_and_no_test_tools() -> None:
    """A package too few is an operator that does not start; one too many is somebody's vulnerability report."""
    kept = set(runtime_requirements.runtime(LOCK))
    needed = _needed("moe-operator", set())
    assert needed <= kept
    assert not {"pytest", "mypy", "ruff", "hypothesis", "cryptography"} & kept
    elsewhere = {"tzdata", "colorama", "httpx2-jsfetch"}  # for Windows, and for Python inside a browser
    assert kept - needed <= elsewhere, "what is there for?"


def test_every_package_of_the_image_is_pinned_by_hash() -> None:
    for packages in ((), ("hatchling",)):
        for name, lines in runtime_requirements.runtime(LOCK, *packages).items():
            assert re.match(rf"{re.escape(name)}(\[.*\])?==", lines)
            assert "--hash=sha256:" in lines, f"{name} has no hash"
            assert not lines.endswith("\\")


def test_a_package_that_is_not_in_the_lock_is_no_silent_nothing() -> None:
    with pytest.raises(KeyError):
        runtime_requirements.runtime(LOCK, "not-in-the-lock")


def test_the_image_runs_as_no_root_and_starts_the_operator() -> None:
    final = dict(_instructions()[-1])
    user = final["USER"].partition(":")[0]
    assert user.isdigit(), "a kubelet can check runAsNonRoot only for a number"
    assert int(user) > 0
    assert final["ENTRYPOINT"] == '["moe-operator"]'


def test_no_step_takes_what_is_not_pinned() -> None:
    for stage in _instructions():
        for word, arguments in stage:
            assert word != "ADD"
            if word == "FROM":
                assert re.search(r":\S", arguments)
                assert ":latest" not in arguments
            if "pip install" in arguments:
                for command in arguments.split("&&"):
                    if "pip install" in command:
                        assert "--require-hashes" in command or "/tmp/wheels/" in command
            if "pip wheel" in arguments:
                assert "--no-build-isolation" in arguments, "else pip fetches the newest build tools"


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for stage in _instructions():
        for word, arguments in stage:
            if word != "COPY" or "--from=" in arguments:
                continue
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source.rstrip("/"), pattern) for pattern in allowed), (
                    f"{source} is ignored"
                )
