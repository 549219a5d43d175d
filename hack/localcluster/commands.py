"""What each command of the command line does. All return an exit status."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence

from localcluster import existing, lifecycle, linux
from localcluster.errors import LocalClusterError
from localcluster.layout import ClusterDirs, cache_root, hack_root
from localcluster.lifecycle import Options, require_running
from localcluster.namespace import INSIDE, run_inside
from localcluster.say import Say, to_stderr

_FOLLOW_S = 0.3
_CONTROL_TIMEOUT_S = 30.0
_TIDY_UP_S = 30.0


def up(name: str, options: Options, say: Say) -> int:
    dirs = ClusterDirs.of(name)
    if lifecycle.running(dirs) is not None and dirs.ready.exists():
        say(f"cluster {name!r} is already up; its options were not changed")
        return 0
    lifecycle.up(dirs, options, say)
    say(f"cluster {name!r} is up. Work in it: python -m localcluster shell --name {name}")
    return 0


def down(name: str, *, keep_logs: bool) -> int:
    was_running = lifecycle.down(ClusterDirs.of(name), keep_logs=keep_logs)
    to_stderr(f"cluster {name!r} " + ("is down" if was_running else "was not running"))
    return 0


def execute(name: str, argv: Sequence[str]) -> int:
    dirs = ClusterDirs.of(name)
    if os.environ.get(INSIDE) == name:
        # Already inside, where the record's pid means nothing.
        return run_inside(dirs, None, argv)
    return run_inside(dirs, require_running(dirs), argv)


def status(name: str) -> int:
    dirs = ClusterDirs.of(name)
    if os.environ.get(INSIDE) != name:
        require_running(dirs)
        if not dirs.ready.exists():
            raise LocalClusterError(
                f"cluster {name!r} is starting; see `python -m localcluster logs supervisor --name {name}`."
            )
    os.environ["PYTHONPATH"] = str(hack_root())
    return execute(name, [sys.executable, "-m", "localcluster.status", str(dirs.root)])


def shell(name: str) -> int:
    program = os.environ.get("SHELL", "/bin/sh")
    to_stderr(f"shell inside cluster {name!r}; kubectl and helm are on PATH; leave with exit")
    return execute(name, [program, "-i"])


def run(name: str | None, options: Options, argv: Sequence[str], say: Say) -> int:
    """The cluster ends with this process however that ends: its supervisor watches a pipe that only this
    process holds.
    """
    dirs = ClusterDirs.of(name or f"run-{os.getpid()}")
    kept = False
    lifeline = lifecycle.up(dirs, options, say, ephemeral=True)
    try:
        status = _run_in_child(dirs, argv, lifeline)
        kept = status != 0
        return status
    finally:
        lifecycle.down(dirs, keep_logs=kept)
        os.close(lifeline)
        if kept:
            say(f"the cluster's logs are in {dirs.logs}")


def _run_in_child(dirs: ClusterDirs, argv: Sequence[str], lifeline: int) -> int:
    """Entering the namespaces is for good, so a child does it; signals are handed on to it and from it to
    the command.
    """
    record = require_running(dirs)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # The lifeline must have one holder, and the child must not outlive it.
            os.close(lifeline)
            linux.die_with_parent()
            status = run_inside(dirs, record, argv)
        except LocalClusterError as error:
            to_stderr(str(error))
        finally:
            os._exit(status)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        _let_finish(child)
        raise


def _let_finish(child: int) -> None:
    """Give an interrupted command time to tidy up. From a terminal it got the interruption itself; else
    it is told.
    """
    if not os.isatty(0):
        os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + _TIDY_UP_S
    try:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() >= deadline:
                raise TimeoutError
            time.sleep(0.02)
    except (KeyboardInterrupt, TimeoutError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def build(say: Say) -> int:
    from localcluster.binaries import locate

    binaries = locate(hack_root(), cache_root(), say)
    for name, path in binaries.programs.items():
        print(f"{name}\t{path}")
    return 0


def env(name: str) -> int:
    dirs = ClusterDirs.of(name)
    require_running(dirs)
    python = f"PYTHONPATH={shlex.quote(str(hack_root()))} {shlex.quote(sys.executable)}"
    prefix = f"{python} -m localcluster exec --name {name} --"
    print(f"# KUBECONFIG is for programs that run inside: {dirs.kubeconfig}")
    for program in ("kubectl", "helm"):
        print(f'{program}() {{ {prefix} {program} "$@"; }}')
    return 0


def node(name: str, operation: str, which: str) -> int:
    """``node-fail`` or ``node-recover``, carried out by the kubelet."""
    dirs = ClusterDirs.of(name)
    address = dirs.kubelet / "control.sock"
    if not address.exists():
        raise LocalClusterError(
            f"cluster {name!r} has no kubelet to ask (no {address}): is it up, and not with --nodes none?"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(_CONTROL_TIMEOUT_S)
        try:
            control.connect(str(address))
            control.sendall(json.dumps({"op": operation, "node": which}).encode() + b"\n")
            answer = control.makefile("rb").readline()
        except OSError as error:
            raise LocalClusterError(f"the kubelet of cluster {name!r} does not answer: {error}") from error
    print(answer.decode().strip())
    try:
        return 0 if json.loads(answer).get("ok", True) and not json.loads(answer).get("error") else 1
    except ValueError as error:
        raise LocalClusterError(f"the kubelet of cluster {name!r} answered {answer!r}") from error


def logs(name: str, component: str | None, *, follow: bool) -> int:
    dirs = ClusterDirs.of(name)
    known = sorted(path.stem for path in dirs.logs.glob("*.log"))
    if component not in known:
        what = "choose a component" if component is None else f"no log of {component!r}"
        raise LocalClusterError(f"{what}; cluster {name!r} has: {', '.join(known) or 'none'}.")
    with open(dirs.logs / f"{component}.log", "rb") as log:
        while True:
            while chunk := log.read(1 << 16):
                sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            if not follow:
                return 0
            time.sleep(_FOLLOW_S)


def on_existing(command: str, argv: Sequence[str]) -> int:
    """The commands that make sense with a cluster that is not ours to start or stop."""
    match command:
        case "up":
            existing.check()
            to_stderr("using the existing cluster of KUBECONFIG; LeaderWorkerSet is installed")
            return 0
        case "exec" | "run":
            existing.check()
            return existing.run(argv)
        case "shell":
            return existing.run([os.environ.get("SHELL", "/bin/sh"), "-i"])
        case "status":
            return existing.run(["kubectl", "get", "nodes"])
        case "down" | "env":
            to_stderr("USE_EXISTING_CLUSTER=true: nothing to do, the existing cluster is left as it is")
            return 0
        case _:
            raise LocalClusterError(
                f"{command} needs a cluster of localcluster's own; unset USE_EXISTING_CLUSTER."
            )
