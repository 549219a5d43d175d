"""The namespaces of a running cluster: who owns them, and how to run a command inside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from localcluster import linux
from localcluster.errors import LocalClusterError
from localcluster.layout import ClusterDirs
from localcluster.network import DNS_IP, DOMAIN

#: Set for everything that runs inside a cluster, so that a nested call knows where it is.
INSIDE = "LOCALCLUSTER_INSIDE"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


@dataclass(frozen=True)
class Record:
    """The cluster's first process, as seen from outside, and whether it lives in a user namespace."""

    pid: int
    start_time: int
    user_namespace: bool

    @classmethod
    def of(cls, pid: int, *, user_namespace: bool) -> Record:
        started = linux.start_time(pid)
        if started is None:
            raise ProcessLookupError(f"process {pid} ended before it could be recorded")
        return cls(pid, started, user_namespace)

    @classmethod
    def read(cls, path: Path) -> Record | None:
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.rename(path)

    def alive(self) -> bool:
        return linux.start_time(self.pid) == self.start_time

    def signal(self, number: int) -> None:
        """Does nothing if the process is gone, even if its pid was given to another since."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait_gone(self, seconds: float) -> bool:
        """Whether the process ended within ``seconds``; it ends after every other process of its
        namespace.
        """
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True


def resolv_conf(namespace: str) -> str:
    """The resolver configuration that a kubelet gives to pods of ``namespace``."""
    search = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"search {search}\nnameserver {DNS_IP}\noptions ndots:5\n"


def inner_environment(dirs: ClusterDirs, environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` with the cluster's kubeconfig and programs; without proxies, none of which can be
    reached.
    """
    result = {key: value for key, value in environment.items() if key.lower() not in _PROXIES}
    result["KUBECONFIG"] = str(dirs.kubeconfig)
    result["PATH"] = f"{dirs.bin}:{environment.get('PATH', os.defpath)}"
    result[INSIDE] = dirs.name
    return result


def _enter(record: Record) -> None:
    """Move this process (for PIDs: its children) into the cluster's namespaces, keeping the working
    directory.
    """
    kinds = {"pid": linux.CLONE_NEWPID, "net": linux.CLONE_NEWNET, "mnt": linux.CLONE_NEWNS}
    if record.user_namespace:
        # First, as it gives the right to enter the others.
        kinds = {"user": linux.CLONE_NEWUSER} | kinds
    here = os.getcwd()  # noqa: PTH109
    descriptors = [
        (os.open(f"/proc/{record.pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in kinds.items()
    ]
    try:
        for descriptor, kind in descriptors:
            linux.setns(descriptor, kind)
    finally:
        for descriptor, _ in descriptors:
            os.close(descriptor)
    os.chdir(here)


def run_inside(dirs: ClusterDirs, record: Record | None, command: Sequence[str]) -> int:
    """Run ``command`` inside and return its exit status (128 + n if signal n ended it).

    Standard input and output are the caller's. SIGTERM and SIGHUP are handed on to the command, SIGINT as
    well unless a terminal does that already. The command dies with this process. The caller itself is inside
    afterwards: this is for programs that do nothing else, or from a forked child. ``record`` is None for a
    caller that is inside already. Raises LocalClusterError.
    """
    if record is not None:
        try:
            _enter(record)
        except OSError as error:
            raise LocalClusterError(
                f"cannot enter cluster {dirs.name} (process {record.pid}): {error}. "
                "It can be entered by root and by the user who started it."
            ) from error
    environment = inner_environment(dirs, os.environ)
    child = os.fork()
    if child == 0:
        _become(command, environment)
    terminal = os.isatty(0)

    def hand_on(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGINT or not terminal:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    before = {n: signal.signal(n, hand_on) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: Sequence[str], environment: dict[str, str]) -> None:
    """In the forked child: turn into the command, or end with the shell's status for one that cannot be
    run.
    """
    try:
        linux.die_with_parent()
        os.execvpe(command[0], list(command), environment)
    except FileNotFoundError:
        os.write(2, f"localcluster: {command[0]}: no such program inside the cluster\n".encode())
        os._exit(127)
    except OSError as error:
        os.write(2, f"localcluster: {command[0]}: {error}\n".encode())
        os._exit(126)
