"""Removes from /dev/shm what an engine that ended before left there.

The container's /dev/shm is an emptyDir in memory: it outlives the container, which the kubelet restarts in place. NCCL
and vLLM name their segments anew each time, so that a few crashes fill it, and from then on every start fails (llm-d
#352, vLLM #54002). Removed is only what is older than the container's first process and in no process's memory: no
living engine can have made it or use it, whichever of the engine's processes comes here first.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Set by the operator where /dev/shm is the container's own; without it nothing is touched.
DIRECTORY = "MOE_AGENT_SHM"
#: Set here for the engine's other processes, which inherit it: once is enough.
_DONE = "MOE_AGENT_SHM_CLEARED"
#: Seconds by which a file must be older than the first process: clocks are read one after the other, in ticks.
_MARGIN = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")

_log = logging.getLogger("vllm.moe_agent")


def apply(proc: Path = Path("/proc")) -> None:
    """Clear the folder that the environment names, once in the engine's processes."""
    directory = os.environ.get(DIRECTORY)
    if not directory or _DONE in os.environ:
        return
    os.environ[_DONE] = "1"
    count, size = clear(Path(directory), age_of_container(os.environ, proc), proc)
    if count:
        _log.info(
            "Removed %d files of %.1f MiB from %s, left by an engine that ended before.",
            count,
            size / 2**20,
            directory,
        )


def clear(directory: Path, age: float, proc: Path = Path("/proc")) -> tuple[int, int]:
    """Remove regular files that are older than `age` seconds and that no visible process has mapped or open.

    Returns how many, and their bytes.
    """
    found = list(_old_files(directory, age))
    if not found:
        return 0, 0
    used = _in_use(proc)
    count = size = 0
    for path, status in found:
        if (status.st_dev, status.st_ino) in used:
            continue
        try:
            path.unlink()
        except OSError as error:
            _log.warning("%s could not be removed: %s", path, error)
            continue
        count, size = count + 1, size + status.st_blocks * 512
    return count, size


def age_of_container(environ: Mapping[str, str] = os.environ, proc: Path = Path("/proc")) -> float:
    """Seconds since the container's first process started: the oldest ancestor that was started with the agent's own
    variables, which every process of the container has and none outside of it."""
    pid, age = os.getpid(), _age(os.getpid(), proc)
    while True:
        pid = _parent(pid, proc)
        if pid <= 0 or not _same_container(pid, environ, proc):
            return age
        age = max(age, _age(pid, proc))


def _old_files(directory: Path, age: float) -> Iterator[tuple[Path, os.stat_result]]:
    now = time.time()
    try:
        entries = list(directory.iterdir())
    except OSError as error:
        _log.warning("%s could not be read: %s", directory, error)
        return
    for path in entries:
        try:
            status = path.lstat()
        except OSError:
            continue
        # What was changed last counts too: a file of an earlier engine that a living one writes to is its own.
        newest = max(status.st_ctime, status.st_mtime)
        if stat.S_ISREG(status.st_mode) and now - newest > age + _MARGIN:
            yield path, status


def _in_use(proc: Path) -> set[tuple[int, int]]:
    """(device, inode) of every file that a process of this container has mapped or open, as far as one may see."""
    used: set[tuple[int, int]] = set()
    for process in proc.glob("[0-9]*"):
        for folder in ("map_files", "fd"):
            try:
                entries = list((process / folder).iterdir())
            except OSError:
                continue
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:
                    continue
                used.add((status.st_dev, status.st_ino))
        used |= _mapped(process)
    return used


def _mapped(process: Path) -> set[tuple[int, int]]:
    """From `maps`, which may be read where `map_files` may not."""
    try:
        lines = (process / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) < 6:
            continue
        major, _, minor = fields[3].partition(":")
        found.add((os.makedev(int(major, 16), int(minor, 16)), int(fields[4])))
    return found


def _age(pid: int, proc: Path) -> float:
    """Seconds since the process started."""
    uptime = float((proc / "uptime").read_text().split()[0])
    return uptime - int(_stat(pid, proc)[19]) / _TICKS


def _parent(pid: int, proc: Path) -> int:
    try:
        return int(_stat(pid, proc)[1])
    except OSError:
        return 0


def _stat(pid: int, proc: Path) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second, a name, may hold blanks and brackets."""
    return (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _same_container(pid: int, environ: Mapping[str, str], proc: Path) -> bool:
    wanted = {f"{name}={environ[name]}".encode() for name in (DIRECTORY, "POD_NAME") if name in environ}
    try:
        given = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return bool(wanted) and wanted <= set(given)
