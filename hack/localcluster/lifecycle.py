"""Start and stop clusters, seen from outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from localcluster import imagetable
from localcluster.binaries import Binaries, locate
from localcluster.config import ClusterConfig
from localcluster.errors import LocalClusterError
from localcluster.layout import ClusterDirs, cache_root, hack_root, make_private, repository_root
from localcluster.locks import is_locked, try_lock
from localcluster.namespace import Record
from localcluster.say import Say

#: Longer than the supervisor takes to stop everything in order.
_STOP_S = 20.0
_KILL_S = 10.0
_TAIL_LINES = 20


@dataclass(frozen=True)
class Options:
    """How a cluster is to be; see the command line's help."""

    nodes: list[dict[str, Any]]
    lws: bool = True
    images: list[imagetable.Entry] = field(default_factory=list)
    programs: Mapping[str, Path] = field(default_factory=dict)
    extra_flags: Mapping[str, list[str]] = field(default_factory=dict)


def running(dirs: ClusterDirs) -> Record | None:
    """The cluster's first process, if it lives."""
    record = Record.read(dirs.record)
    return record if record is not None and record.alive() and is_locked(dirs.lock) else None


def require_running(dirs: ClusterDirs) -> Record:
    """Raises LocalClusterError if the cluster is not there to be used."""
    record = running(dirs)
    if record is None:
        raise LocalClusterError(
            f"no cluster {dirs.name!r} is running (state: {dirs.root.parent}). "
            f"Start it with `python -m localcluster up --name {dirs.name}`."
        )
    return record


def up(dirs: ClusterDirs, options: Options, say: Say, *, ephemeral: bool = False) -> int:
    """Start a cluster and wait until it is ready.

    Returns the lifeline: a descriptor whose end stops an ephemeral cluster, or -1. A cluster of this name
    that crashed is cleared away first. Raises LocalClusterError, after which nothing is left running.
    """
    binaries = locate(hack_root(), cache_root(), say, options.programs)
    make_private(dirs.root.parent)
    lock = try_lock(dirs.lock)
    if lock is None:
        raise LocalClusterError(
            f"cluster {dirs.name!r} is already running or starting. "
            f"Use it with `python -m localcluster exec --name {dirs.name} -- COMMAND`, "
            f"or stop it with `python -m localcluster down --name {dirs.name}`."
        )
    try:
        _clear(dirs, Record.read(dirs.record))
        _prepare(dirs, options, binaries, ephemeral=ephemeral)
        return _launch(dirs, lock, say, ephemeral=ephemeral)
    finally:
        os.close(lock)


def _clear(dirs: ClusterDirs, record: Record | None) -> None:
    """Remove what is left of an earlier cluster. The lock is ours, so its first process is dead or dying."""
    if record is not None:
        record.signal(signal.SIGKILL)
        if not record.wait_gone(_KILL_S):
            raise LocalClusterError(
                f"process {record.pid} of the earlier cluster {dirs.name!r} does not end; kill it."
            )
    shutil.rmtree(dirs.root, ignore_errors=True)
    if dirs.root.exists():
        raise LocalClusterError(
            f"cannot remove {dirs.root}, left by an earlier cluster: remove it and try again."
        )


def _prepare(dirs: ClusterDirs, options: Options, binaries: Binaries, *, ephemeral: bool) -> None:
    for directory in (dirs.root, dirs.logs, dirs.bin):
        directory.mkdir(mode=0o700)
    for name, program in binaries.programs.items():
        (dirs.bin / name).symlink_to(program)
    dirs.nodes.write_text(yaml.safe_dump(options.nodes, sort_keys=False))
    entries = [*options.images, *imagetable.default_entries(repository_root(), imagetable.installed_engine())]
    dirs.images.write_text(imagetable.table(entries))
    ClusterConfig(
        name=dirs.name,
        programs={name: str(program) for name, program in binaries.programs.items()},
        lws_manifests=str(binaries.lws_manifests),
        extra_flags={name: list(added) for name, added in options.extra_flags.items()},
        nodes=len(options.nodes),
        lws=options.lws,
        ephemeral=ephemeral,
    ).write(dirs)


def _launch(dirs: ClusterDirs, lock: int, say: Say, *, ephemeral: bool) -> int:
    progress_read, progress_write = os.pipe()
    lifeline_read, lifeline_write = os.pipe() if ephemeral else (-1, -1)
    descriptors = [lock, progress_write, lifeline_read]
    command = [sys.executable, "-m", "localcluster.init", str(dirs.root), *map(str, descriptors)]
    with open(dirs.logs / "supervisor.log", "ab") as log:
        launcher = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(hack_root())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor for descriptor in descriptors if descriptor >= 0],
            start_new_session=True,
        )
    os.close(progress_write)
    if lifeline_read >= 0:
        os.close(lifeline_read)
    try:
        _await_ready(dirs, progress_read, say)
    except BaseException:
        launcher.wait()
        stop(dirs)
        if lifeline_write >= 0:
            os.close(lifeline_write)
        raise
    launcher.wait()
    return lifeline_write


def _await_ready(dirs: ClusterDirs, progress: int, say: Say) -> None:
    """Follow the supervisor's lines until ``ready``. Raises LocalClusterError if it fails or ends."""
    with open(progress) as lines:
        for line in lines:
            word, _, text = line.rstrip("\n").partition(" ")
            if word == "ready":
                return
            if word == "failed":
                raise LocalClusterError(f"cluster {dirs.name!r} did not start: " + text.replace("\t", "\n"))
            say(text)
    log = dirs.logs / "supervisor.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    raise LocalClusterError(f"cluster {dirs.name!r} ended while starting; the end of {log}:\n{tail}")


def stop(dirs: ClusterDirs) -> bool:
    """End the cluster's processes: asked first, then killed. Returns whether there were any."""
    record = Record.read(dirs.record)
    if record is None or not record.alive():
        return False
    record.signal(signal.SIGTERM)
    if not record.wait_gone(_STOP_S):
        record.signal(signal.SIGKILL)
        if not record.wait_gone(_KILL_S):
            raise LocalClusterError(
                f"process {record.pid} of cluster {dirs.name!r} does not end even when killed."
            )
    return True


def down(dirs: ClusterDirs, *, keep_logs: bool = True) -> bool:
    """Stop the cluster and remove its state, except for its logs if asked. Returns whether it was running."""
    was_running = stop(dirs)
    if not dirs.root.parent.is_dir():
        return was_running
    lock = try_lock(dirs.lock)
    if lock is None:
        raise LocalClusterError(
            f"cluster {dirs.name!r} is being started by another process; try again when it is up."
        )
    try:
        for entry in dirs.root.iterdir() if dirs.root.exists() else ():
            if keep_logs and entry == dirs.logs:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if not keep_logs:
            shutil.rmtree(dirs.root, ignore_errors=True)
        dirs.lock.unlink(missing_ok=True)
    finally:
        os.close(lock)
    return was_running
