"""Clearing /dev/shm. Left full, one crash becomes a group that never starts again; cleared wrongly, a living engine
loses the memory it runs on."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe_operator.agent import shared_memory

_SCRIPT = """
import logging, sys
logging.basicConfig(level="INFO")
from moe_operator.agent import shared_memory
shared_memory._MARGIN = 0.2
shared_memory.apply()
if len(sys.argv) > 1:
    import subprocess
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


def _file(path: Path, age: float, content: bytes = b"x" * 4096) -> Path:
    path.write_bytes(content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def _old_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's change time cannot be set: here it follows the modification's."""
    real = Path.lstat

    class Status:
        def __init__(self, status: os.stat_result) -> None:
            self._status = status
            self.st_ctime = status.st_mtime

        def __getattr__(self, name: str) -> object:
            return getattr(self._status, name)

    monkeypatch.setattr(Path, "lstat", lambda path: Status(real(path)))


@pytest.mark.usefixtures("_old_changes")
def test_what_an_earlier_engine_left_goes(tmp_path: Path) -> None:
    old = [_file(tmp_path / name, 600) for name in ("nccl-a1B2", "psm_0f", "sem.mp-x", "vllm_offload_1.mmap")]
    assert shared_memory.clear(tmp_path, 60) == (4, 4 * 4096)
    assert not any(path.exists() for path in old)


@pytest.mark.usefixtures("_old_changes")
def test_what_is_younger_than_the_container_stays(tmp_path: Path) -> None:
    """Its own processes made it, whichever of them clears."""
    young = _file(tmp_path / "nccl-young", 30)
    assert shared_memory.clear(tmp_path, 60) == (0, 0)
    assert young.exists()


def test_a_file_that_was_touched_again_stays(tmp_path: Path) -> None:
    """Its modification time says old, its change time does not."""
    touched = _file(tmp_path / "psm_1", 600)
    assert shared_memory.clear(tmp_path, 60) == (0, 0)
    assert touched.exists()


@pytest.mark.usefixtures("_old_changes")
def test_what_a_process_has_mapped_stays(tmp_path: Path) -> None:
    path = _file(tmp_path / "psm_2", 600)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 4096)
    # Only the mapping holds it now.
    assert shared_memory.clear(tmp_path, 60) == (0, 0)
    memory.close()
    assert shared_memory.clear(tmp_path, 60)[0] == 1


@pytest.mark.usefixtures("_old_changes")
def test_what_a_process_has_open_stays(tmp_path: Path) -> None:
    path = _file(tmp_path / "psm_3", 600)
    with path.open("rb"):
        assert shared_memory.clear(tmp_path, 60) == (0, 0)
    assert shared_memory.clear(tmp_path, 60)[0] == 1


@pytest.mark.usefixtures("_old_changes")
def test_folders_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = _file(tmp_path.parent / "elsewhere", 600)
    (tmp_path / "link").symlink_to(target)
    assert shared_memory.clear(tmp_path, 0) == (0, 0)
    assert target.exists()


def test_a_folder_that_is_not_there_ends_nothing(tmp_path: Path) -> None:
    assert shared_memory.clear(tmp_path / "none", 0) == (0, 0)


def _run(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MOE_AGENT_SHM": str(tmp_path),
        "POD_NAME": "r1-g0-0",
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments],
        env={name: value for name, value in environ.items() if value},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_an_engine_that_starts_finds_it_cleared(tmp_path: Path) -> None:
    """With real processes: the file is older than the engine's first one."""
    stale = tmp_path / "nccl-stale"
    stale.write_bytes(b"x" * 8192)
    _wait_until_older(stale, 0.2)
    done = _run(tmp_path)
    assert not stale.exists()
    assert "Removed 1 files" in done.stderr


def test_a_later_process_of_the_engine_clears_nothing_of_the_first_ones(tmp_path: Path) -> None:
    """A worker that starts minutes later is in the same container: what its parent made meanwhile is in use."""
    fresh = tmp_path / "nccl-fresh"
    child = f"""
import os, time
from pathlib import Path
from moe_operator.agent import shared_memory
shared_memory._MARGIN = 0.2
fresh = Path({str(fresh)!r})
fresh.write_bytes(b"x")
while time.time() - fresh.stat().st_ctime < 0.5:
    time.sleep(0.05)
os.environ.pop("MOE_AGENT_SHM_CLEARED")
shared_memory.apply()
"""
    _run(tmp_path, child)
    assert fresh.exists()


def test_nothing_is_touched_where_the_operator_does_not_say_so(tmp_path: Path) -> None:
    stale = tmp_path / "nccl-stale"
    stale.write_bytes(b"x")
    _wait_until_older(stale, 0.2)
    _run(tmp_path, MOE_AGENT_SHM="")
    assert stale.exists()


def test_the_containers_age_is_its_first_processs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes outside of the container are older: with their age nothing would ever be cleared."""
    ticks = os.sysconf("SC_CLK_TCK")
    environ = {"MOE_AGENT_SHM": "/dev/shm", "POD_NAME": "r1-g0-0"}
    own = os.getpid()
    tree = {own: (7, 90, environ), 7: (5, 60, environ), 5: (1, 10, {"POD_NAME": "other"}), 1: (0, 0, {})}
    (tmp_path / "uptime").write_text("100.00 1.0\n")
    for pid, (parent, started, variables) in tree.items():
        folder = tmp_path / str(pid)
        folder.mkdir()
        fields = ["S", str(parent), *["0"] * 17, str(started * ticks), "0"]
        (folder / "stat").write_text(f"{pid} (vllm (x) y) {' '.join(fields)}\n")
        (folder / "environ").write_bytes(b"\0".join(f"{k}={v}".encode() for k, v in variables.items()))
    assert shared_memory.age_of_container(environ, tmp_path) == pytest.approx(40)


def _wait_until_older(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + 30
    while time.time() - path.stat().st_ctime < seconds + 0.5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
