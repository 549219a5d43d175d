"""When a cached build may be used: a wrong key runs yesterday's control plane, or builds for minutes each
time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster import binaries, locks, recipes, tell, toolchain
from localcluster.errors import LocalClusterError
from localcluster.layout import hack_root
from localcluster.recipes import Recipe, Target, cache_key


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "go.mod").write_text("module m\n")
    (tmp_path / "go.sum").write_text("x v1.0.0 h1:aaa=\n")
    (tmp_path / "main.go").write_text("package main\n")
    return Recipe("m", tmp_path, (Target(".", "m"),), ("-trimpath",))


def test_the_key_stays_while_nothing_changes(recipe: Recipe) -> None:
    (recipe.module / "README.md").write_text("not a source")
    assert cache_key(recipe, "go1.26.8", "x86_64") == cache_key(recipe, "go1.26.8", "x86_64")


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go", "extra.go"])
def test_the_key_follows_the_sources(recipe: Recipe, file: str) -> None:
    before = cache_key(recipe, "go1.26.8", "x86_64")
    with (recipe.module / file).open("a") as handle:
        handle.write("// changed\n")
    assert cache_key(recipe, "go1.26.8", "x86_64") != before


def test_the_key_follows_compiler_machine_and_flags(recipe: Recipe) -> None:
    keys = {
        cache_key(recipe, "go1.26.8", "x86_64"),
        cache_key(recipe, "go1.26.9", "x86_64"),
        cache_key(recipe, "go1.26.8", "aarch64"),
        cache_key(replace(recipe, flags=("-trimpath", "-race")), "go1.26.8", "x86_64"),
        cache_key(replace(recipe, targets=(Target("./cmd", "m"),)), "go1.26.8", "x86_64"),
        cache_key(replace(recipe, assets=(("mod", "dir", "name"),)), "go1.26.8", "x86_64"),
    }
    assert len(keys) == 6


def test_the_modules_pin_the_versions_that_are_promised() -> None:
    """Each staging module must be replaced: one left at v0.0.0 breaks the build for everybody with an
    empty cache.
    """
    text = (hack_root() / "controlplane" / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{recipes.KUBERNETES_VERSION}" in text
    staging = "v0." + recipes.KUBERNETES_VERSION.partition(".")[2]
    replaced = {line.split()[0] for line in text.splitlines() if "=>" in line}
    assert len(replaced) == 33
    assert all(line.endswith(staging) for line in text.splitlines() if "=>" in line)
    add_ons = (hack_root() / "addons" / "go.mod").read_text()
    assert "sigs.k8s.io/lws v0.9.0" in add_ons
    assert f"helm.sh/helm/v4 v{recipes.HELM_VERSION}" in add_ons


def test_the_version_stamp_reaches_both_packages_that_report_it() -> None:
    stamps = recipes.version_stamps("1.36.3")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.36.3+local" in stamps
        assert f"-X {package}.gitMinor=36" in stamps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go1.26.8\n", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go1.26rc1", (1, 26, 0)),
        ("devel +abc", None),
    ],
)
def test_go_versions_are_read(text: str, expected: tuple[int, ...] | None) -> None:
    assert toolchain.version_of(text) == expected


def test_an_old_go_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.21.1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = toolchain.find_go(tmp_path / "cache")
    assert found.command == tmp_path / "cache" / "toolchains" / found.version / "go" / "bin" / "go"
    go.write_text("#!/bin/sh\necho go1.26.0\n")
    assert toolchain.find_go(tmp_path / "cache").command == go


def executable(directory: Path, name: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_named_programs_come_before_bundles(tmp_path: Path) -> None:
    named, bundled = (
        executable(tmp_path / "named", "apiserver"),
        executable(tmp_path / "bundle", "kube-apiserver"),
    )
    environment = {"TEST_ASSET_KUBE_APISERVER": str(named), "KUBEBUILDER_ASSETS": str(tmp_path / "bundle")}
    assert binaries.prebuilt("kube-apiserver", environment) == named
    del environment["TEST_ASSET_KUBE_APISERVER"]
    assert binaries.prebuilt("kube-apiserver", environment) == bundled
    assert binaries.prebuilt("kube-scheduler", environment) is None


def test_a_named_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """Falling back in silence would test another version than the one that was asked for."""
    with pytest.raises(LocalClusterError, match="TEST_ASSET_ETCD"):
        binaries.prebuilt("etcd", {"TEST_ASSET_ETCD": str(tmp_path / "nothing")})


def test_an_installed_control_plane_of_another_release_is_not_used(tmp_path: Path) -> None:
    program = executable(tmp_path, "kube-apiserver")
    program.write_text("#!/bin/sh\necho Kubernetes v1.30.1\n")
    assert not binaries.right_version("kube-apiserver", program)
    program.write_text(f"#!/bin/sh\necho Kubernetes v{recipes.KUBERNETES_VERSION}\n")
    assert binaries.right_version("kube-apiserver", program)


def test_a_lock_is_held_by_every_process_that_inherited_it(tmp_path: Path) -> None:
    """This is how a cluster counts as running: from its start until the last of its own processes ends."""
    path = tmp_path / "lock"
    descriptor = locks.try_lock(path)
    assert descriptor is not None
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
    ) as holder:
        os.close(descriptor)
        assert locks.is_locked(path)
        assert locks.try_lock(path) is None
        holder.communicate(b"\n")
    assert not locks.is_locked(path)


def test_a_lock_whose_file_was_removed_excludes_nobody_wrongly(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = locks.try_lock(path)
    assert first is not None
    path.unlink()
    second = locks.try_lock(path)
    assert second is not None
    os.close(first)
    assert locks.try_lock(path) is None
    os.close(second)


def test_who_waits_for_a_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_TELL_EVERY_S", 0.05)
    monkeypatch.setattr(locks, "_POLL_S", 0.01)
    path = tmp_path / "lock"
    descriptor = locks.try_lock(path)
    assert descriptor is not None
    said = threading.Event()
    order: list[str] = []

    def say(line: str) -> None:
        order.append(line)
        said.set()

    def wait() -> None:
        with locks.exclusive(path, say, "the build"):
            order.append("mine")

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert said.wait(10)
    assert "mine" not in order
    os.close(descriptor)
    waiting.join(10)
    assert order[-1] == "mine"
    assert "the build by another process" in order[0]


def test_a_long_command_is_never_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuous integration takes a silent build for a hanging one."""
    monkeypatch.setattr(tell, "_TELL_EVERY_S", 0.02)
    told: list[float] = []
    enough = tmp_path / "enough"

    def count(seconds: float) -> None:
        told.append(seconds)
        if len(told) == 3:
            enough.touch()

    script = f"until [ -e {enough} ]; do sleep 0.01; done; echo out; echo err >&2; exit 3"
    assert tell.run_telling(["sh", "-c", script], tmp_path / "log", count) == 3
    assert len(told) >= 3
    assert told == sorted(told)
    assert (tmp_path / "log").read_text() == "out\nerr\n"


def test_an_interrupted_command_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell, "_TELL_EVERY_S", 0.02)
    pid = tmp_path / "pid"

    def interrupt(_seconds: float) -> None:
        if pid.exists() and pid.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell.run_telling(["sh", "-c", f"echo $$ > {pid}; exec sleep 300"], tmp_path / "log", interrupt)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
