"""Kernels that an earlier engine compiled, copied in before this one starts.

Engines write to a folder of their own pod. What one published in shared storage is copied in by the first of the
engine's processes, before anything is compiled; whatever is wrong with it, the engine starts, and compiles.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .compile_snapshot import SUFFIX, Content, Entry, SnapshotError, unpack

#: The pod's own folder, the shared one, and the operator's part of the key. Without the first two nothing is done.
FOLDER = "MOE_AGENT_COMPILED"
STORE = "MOE_AGENT_COMPILED_STORE"
KEY = "MOE_AGENT_COMPILED_KEY"
#: Set here for the engine's other processes, which inherit it.
_DONE = "MOE_AGENT_COMPILED_DONE"
#: Seconds that an engine waits for shared storage.
PATIENCE = 180.0

_log = logging.getLogger("vllm.moe_agent")


@dataclass(frozen=True)
class Place:
    """Where kernels are in this pod, and what they are called in shared storage."""

    folder: Path
    snapshot: Path
    key: str

    @property
    def record(self) -> Path:
        """Says how the folder came about. Beside it, so that it goes with the pod as the folder does."""
        return self.folder.with_name(f"{self.folder.name}.json")


def place_of(environ: Mapping[str, str] = os.environ, cpuinfo: Path = Path("/proc/cpuinfo")) -> Place | None:
    """What the environment asks for; None where kernels are not shared."""
    folder, store, key = environ.get(FOLDER), environ.get(STORE), environ.get(KEY)
    if not folder or not store or not key:
        return None
    worker = environ.get("LWS_WORKER_INDEX") or "0"
    # The operator's part says image, accelerator and arguments. Added is what only the container knows. Compilers use
    # all that this machine's processor can do, and what they made is not asked for that when it is loaded.
    about = (key, _version("vllm"), _version("torch"), platform.python_version(), _processor(cpuinfo), worker)
    digest = hashlib.sha256("\0".join(about).encode()).hexdigest()[:16]
    name = f"{key}-{digest}-w{worker}" if worker.isdigit() else f"{key}-{digest}"
    return Place(Path(folder), Path(store) / f"{name}{SUFFIX}", name)


def apply() -> None:
    """Copy the snapshot in, once in the engine's processes."""
    place = place_of()
    if place is None or _DONE in os.environ:
        return
    os.environ[_DONE] = "1"
    said = restore(place)
    if _log.isEnabledFor(logging.INFO):
        _log.info("%s", said)
    else:  # vLLM loads its plugins before it sets its loggers up
        print(said, file=sys.stderr, flush=True)


def restore(place: Place, patience: float = PATIENCE) -> str:
    """Fill the pod's folder from the snapshot, unless an engine of this pod has filled it before.

    Returns what was done, for people. Storage that does not answer within `patience` seconds is given up.
    """
    record = read_record(place)
    if record is not None:
        if record.restored is None or record.ready:
            return "Compiled kernels: those of the engine that ran in this pod before."
        # A snapshot is the likeliest cause of what only its first user meets: go on without it.
        shutil.rmtree(place.folder, ignore_errors=True)
        write_record(place, Record(None, ready=False))
        return "Compiled kernels: none taken, as the engine that had the snapshot did not become ready."
    began, ended, outcome = time.monotonic(), threading.Event(), _Outcome()

    def copy() -> None:
        try:
            outcome.content = unpack(place.snapshot, place.folder, place.key, ended.is_set)
        except FileNotFoundError:
            outcome.reason = "no snapshot yet"
        except (SnapshotError, OSError) as error:
            outcome.reason = f"{place.snapshot.name} cannot be used: {error}"
        else:
            with contextlib.suppress(OSError):  # read-only: those who may write tell use by it
                os.utime(place.snapshot)

    thread = threading.Thread(target=copy, name="moe-agent-compiled", daemon=True)
    thread.start()
    thread.join(patience)
    ended.set()
    write_record(place, Record(outcome.content, ready=False))
    if outcome.content is None:
        return (
            f"Compiled kernels: {outcome.reason or f'{place.snapshot} did not answer within {patience:g} s'}."
        )
    size = sum(entry.size for entry in outcome.content.values()) / 2**20
    return (
        f"Compiled kernels: {len(outcome.content)} files of {size:.1f} MiB from {place.snapshot.name}"
        f" in {time.monotonic() - began:.1f} s."
    )


@dataclass
class _Outcome:
    content: Content | None = None
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """How the pod's folder came about."""

    restored: Content | None
    """From a snapshot, with these files; None: compiled here."""
    ready: bool
    """Whether an engine became ready with it."""


def read_record(place: Place) -> Record | None:
    """What an engine of this pod wrote down; None for nothing."""
    try:
        data = json.loads(place.record.read_text(encoding="utf-8"))
        files = data["restored"]
        content = None if files is None else {name: Entry(*entry) for name, entry in files.items()}
        return Record(content, bool(data["ready"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(place: Place, record: Record) -> None:
    """Write it down for engines that start in this pod later."""
    files = None
    if record.restored is not None:
        files = {name: (entry.size, entry.mtime) for name, entry in record.restored.items()}
    new = place.record.with_name(f"{place.record.name}.new")
    with contextlib.suppress(OSError):
        place.record.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"restored": files, "ready": record.ready}), encoding="utf-8")
        new.replace(place.record)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _processor(cpuinfo: Path) -> str:
    """The machine's kind and its instruction sets."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.partition(":")[0].strip() in ("flags", "Features")), "")
    return f"{platform.machine()} {' '.join(sorted(flags.partition(':')[2].split()))}"
