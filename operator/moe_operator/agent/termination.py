"""Puts the engine's last errors into the container's termination message.

vLLM exits with code 0 when its engine dies, and the pod's logs vanish with the pod; the termination message
stays in the pod's status, which is how a cause reaches a user. Kubernetes takes at most 4096 bytes of it, so
the file is kept below that: the lines that name the root cause stay, and of the others the newest. All of the
pod's processes (API servers, engine cores, workers) write the one file, under a lock, in place: it is
a mount and cannot be replaced.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from . import records

LIMIT = 4096
LINE_LIMIT = 600
_DEFAULT_LOG = "/dev/termination-log"
# What an engine's end begins with. vLLM says some of it at WARNING ("engine core exited unexpectedly").
_END = re.compile(
    r"unexpectedly|died with|fatal error|failed to start|initialization failed|hit an exception|uncaught"
    r"|No space left",
    re.IGNORECASE,
)
# What names trouble that has a reason of its own in the deployment's status. The operator reads the lines; here they
# only have to stay.
_CAUSE = re.compile(
    r"out of memory|OutOfMemory|MemoryError|Cannot allocate|can't allocate memory|No available memory"
    r"|available KV cache memory|desired [CG]PU memory utilization|requested memory for kv"
    r"|CUDA error|HIP error|Cuda failure|illegal memory access|uncorrectable|launch failure|fallen off the bus"
    r"|GPU is lost"
    r"|Safetensor|deserializing|no module or parameter named|Attempted to load weight|any model weights"
    r"|not initialized from checkpoint|Invalid repository ID|gated repo|Client Error|No such file"
    r"|address already in use|EADDRINUSE|validation errors? for"
    r"|NCCL|gloo|NVSHMEM|DeepEP|NIXL|UCX|ibv_|client socket",
    re.IGNORECASE,
)
# What follows from an error that another process has told: its own, or that of a peer that was lost.
_AFTER = re.compile(
    r"root cause above|EngineDeadError|engine core exited unexpectedly|initialization failed"
    r"|closed by peer|reset by peer|communicator was aborted|remote process",
    re.IGNORECASE,
)
# vLLM's dumps of configuration and scheduler beside a fatal error: long, no cause, and partly the users'
# content.
_DUMPS = ("Dumping input data", "Dumping scheduler")
_installed = False  # a forked child has its parent's, and keeps it


def install(environ: Mapping[str, str] = os.environ) -> bool:
    """Start recording in this process. Whether the log can be written; called again, it changes nothing."""
    global _installed
    path = Path(environ.get("MOE_TERMINATION_LOG") or _DEFAULT_LOG)
    if not os.access(path, os.W_OK) and not (not path.exists() and os.access(path.parent, os.W_OK)):
        return False
    if not _installed:
        _installed = True
        records.watch(lambda record: _consider(record, path))
        _record_uncaught(path)
    return True


def _consider(record: logging.LogRecord, path: Path) -> None:
    """Write errors, and warnings that tell of an engine's death."""
    if record.levelno < logging.WARNING:
        return
    text = _one_line(record.getMessage())
    if text.startswith(_DUMPS):
        return
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        text += f" [{_describe(record.exc_info[1])}]"
    if record.levelno >= logging.ERROR or _END.search(text):
        where = f"{record.processName} {record.filename}:{record.lineno}"
        append(path, f"{_clock(record.created)} {where}: {text}")


def append(path: Path, line: str) -> None:
    """Add one line, keeping the file within LIMIT bytes; safe with several processes.

    Raises:
        OSError: if the file cannot be written.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        old = os.pread(fd, 4 * LIMIT, 0).decode(errors="replace").splitlines()
        content = "".join(kept + "\n" for kept in bounded([*old, _cut(line)])).encode()
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def bounded(lines: list[str]) -> list[str]:
    """What is kept of these lines, oldest first: the root cause, then the newest that fit."""
    pinned = _roots(lines)
    room = LIMIT - sum(_size(lines[index]) for index in pinned)
    kept = set(pinned)
    for index in range(len(lines) - 1, -1, -1):
        if index in pinned:
            continue
        room -= _size(lines[index])
        if room < 0:
            break
        kept.add(index)
    return [lines[index] for index in sorted(kept)]


def _roots(lines: list[str]) -> set[int]:
    """The first line that names a known cause and the first that tells of an end, neither for another's sake; else
    the first that tells of an end at all. What the API server says last only points at them.
    """
    found = set()
    for pattern in (_CAUSE, _END):
        for index, line in enumerate(lines):
            if pattern.search(line) and not _AFTER.search(line):
                found.add(index)
                break
    if not found:
        found = {index for index, line in enumerate(lines) if _END.search(line) or _CAUSE.search(line)}
    return set(sorted(found)[:2])


def _record_uncaught(path: Path) -> None:
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            try:
                append(path, f"{_clock(time.time())} uncaught{_place(trace)}: {_describe(error)}")
            except OSError as failure:
                print(f"{path}: {failure}", file=sys.stderr)
        previous(kind, error, trace)

    sys.excepthook = hook


def _place(trace: TracebackType | None) -> str:
    """Where in vLLM it was raised: its checks of arguments raise what anything else does too."""
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if (at := file.rfind("/vllm/")) >= 0:
            place = f" in {file[at + 1 :]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _describe(error: BaseException) -> str:
    """The error, and where it stems from another, that one too; room for both where one is long."""
    text = f"{type(error).__name__}: {_one_line(str(error))}"
    seen = {id(error)}
    root = error
    while (cause := root.__cause__ or root.__context__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        root = cause
    if root is not error:
        text = f"{_cut(text, LINE_LIMIT // 3)}; from {type(root).__name__}: {_one_line(str(root))}"
    return text


def _one_line(text: str) -> str:
    """A message in one line. Of a traceback, the lines before it and the last: what was tried, what went
    wrong.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    trace = next((index for index, line in enumerate(lines) if line.startswith("Traceback (most")), None)
    if trace is not None:
        lines = [*lines[:trace], lines[-1]]
    return " ".join(line for line in lines if not line.startswith("For further information visit"))


def _cut(line: str, limit: int = LINE_LIMIT) -> str:
    encoded = line.encode()
    if len(encoded) <= limit:
        return line
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def _size(line: str) -> int:
    return len(line.encode()) + 1


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
