"""The parent of every container process: a small program that forks, so that the kubelet never has to.

``python -m localcluster.kubelet.launcher FD``: FD is one end of a SOCK_SEQPACKET pair. Each request is one JSON object,
its descriptors beside it; each is answered by ``{"ev": "reply", "seq": n, ...}``, and each end of a process by
``{"ev": "exit", "id": ..., "status": <wait status>}``. Requests:

sandbox  {sandbox, hostname, tmpfs: [{path, size, mode}]}   UTS and IPC namespaces and memory volumes of a pod
release  {sandbox}                                          undo it
start    {id, sandbox}  fds: spec, stdin, stdout, stderr, error   a container: PID 1 of a new PID and mount namespace
exec     {id, container} fds: the same                            a process in a running container's namespaces
signal   {id, signal, group}
probe    {directory}                                        which layering works here (rootfs.probe_layering)

``spec`` is a memfd with the JSON of a ProcessSpec (too large for a packet). ``error`` is closed without a byte once the
program runs; else it carries one JSON object {stage, message}.
The kernel kills every process of a PID namespace with its first one, and that one with the launcher, and the launcher
with the kubelet: nothing a container starts can outlive it.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
from typing import Any, NoReturn, TypedDict

from localcluster.kubelet import rootfs, syscalls

_POD_NAMESPACES = (("uts", syscalls.CLONE_NEWUTS), ("ipc", syscalls.CLONE_NEWIPC))
PACKET = 65536
_MAX_FDS = 8
#: Dispositions that Python or this program changed; a program must find the defaults.
_CHANGED_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)


class ProcessSpec(TypedDict):
    """What to run. ``root`` is None for exec. ``oom_score_adj`` as in /proc/PID/oom_score_adj.

    ``terminal``: the streams are a terminal, which becomes the process's controlling one.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    root: rootfs.RootSpec | None
    oom_score_adj: int
    terminal: bool


class Launcher:
    """Serves one socket until it closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._ids: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._sandboxes: dict[str, tuple[list[tuple[int, int]], list[str]]] = {}
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._own = [
            (os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
            for name, kind in _POD_NAMESPACES
        ]
        self._wakeup, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Returns when the kubelet is gone; whatever still runs is then killed."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._wakeup, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._wakeup:
                    os.read(self._wakeup, 4096)
                    self._reap()
                elif not self._receive():
                    for pid in self._ids:
                        os.kill(pid, signal.SIGKILL)
                    return

    def _receive(self) -> bool:
        try:
            data, fds = _receive(self._channel)
        except ConnectionResetError:
            return False
        if not data:
            return False
        request = json.loads(data)
        reply: dict[str, Any] = {"ev": "reply", "seq": request["seq"]}
        try:
            reply.update(getattr(self, "_do_" + request["op"])(request, fds))
        except OSError as error:
            reply["error"] = str(error)
        finally:
            for descriptor in fds:
                os.close(descriptor)
        self._send(reply)
        return True

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            return  # the kubelet is gone; serve() sees it next

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            identity = self._ids.pop(pid, None)
            if identity is not None:
                del self._pids[identity]
                self._send({"ev": "exit", "id": identity, "status": status})

    # -- requests --------------------------------------------------------------------------------------------------

    def _do_sandbox(self, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        mounted: list[str] = []
        self._sandboxes[request["sandbox"]] = ([], mounted)
        for volume in request["tmpfs"]:
            size = f",size={volume['size']}" if volume["size"] else ""
            syscalls.mount(
                "tmpfs",
                volume["path"],
                "tmpfs",
                syscalls.MS_NOSUID | syscalls.MS_NODEV,
                f"mode={volume['mode']:o}{size}",
            )
            mounted.append(volume["path"])
        try:
            syscalls.unshare(syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC)
            socket.sethostname(request["hostname"])
            self._sandboxes[request["sandbox"]][0].extend(
                (os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
                for name, kind in _POD_NAMESPACES
            )
        finally:
            for descriptor, kind in self._own:
                syscalls.setns(descriptor, kind)
        return {}

    def _do_release(self, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        namespaces, mounted = self._sandboxes.pop(request["sandbox"], ([], []))
        for descriptor, _ in namespaces:
            os.close(descriptor)
        for path in reversed(mounted):
            syscalls.unmount(path)
        return {}

    def _do_start(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        spec = read_spec(fds[0])
        namespaces = self._sandboxes[request["sandbox"]][0]
        # unshare(CLONE_NEWPID) moves only the next child; a second one is refused until we look at our own again.
        syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
        finally:
            if os.getpid() != 1:
                syscalls.setns(self._own_pid_namespace, syscalls.CLONE_NEWPID)
        if pid == 0:
            self._child(spec, fds, namespaces, None)
        return self._remember(request["id"], pid)

    def _do_exec(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        spec = read_spec(fds[0])
        target = self._pids.get(request["container"])
        if target is None:
            raise OSError(errno.ESRCH, "the container is not running")
        process = os.pidfd_open(target)
        try:
            syscalls.setns(process, syscalls.CLONE_NEWPID)
            pid = os.fork()
            if pid == 0:
                self._child(spec, fds, [], process)
            syscalls.setns(self._own_pid_namespace, syscalls.CLONE_NEWPID)
        finally:
            os.close(process)
        return self._remember(request["id"], pid)

    def _remember(self, identity: str, pid: int) -> dict[str, Any]:
        self._ids[pid] = identity
        self._pids[identity] = pid
        return {"pid": pid}

    def _do_signal(self, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        pid = self._pids.get(request["id"])
        if pid is None:
            return {"delivered": False}
        (os.killpg if request["group"] else os.kill)(pid, request["signal"])
        return {"delivered": True}

    def _do_probe(self, request: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        read, write = os.pipe2(os.O_CLOEXEC)
        if os.fork() == 0:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            os.write(write, rootfs.probe_layering(request["directory"]).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            return {"layering": pipe.read() or "bind"}

    # -- the forked side -------------------------------------------------------------------------------------------

    def _child(
        self, spec: ProcessSpec, fds: list[int], namespaces: list[tuple[int, int]], target: int | None
    ) -> NoReturn:
        """Becomes the program; every failure goes to the error pipe. Never returns into the launcher's loop."""
        _, stdin, stdout, stderr, error_pipe = fds
        stage = "create"
        try:
            signal.set_wakeup_fd(-1)
            for number in _CHANGED_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            syscalls.die_with_parent()
            os.setsid()
            if spec["oom_score_adj"]:
                with open("/proc/self/oom_score_adj", "w") as handle:
                    handle.write(str(spec["oom_score_adj"]))
            if target is not None:
                syscalls.setns(target, syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNS)
            else:
                for descriptor, kind in namespaces:
                    syscalls.setns(descriptor, kind)
                syscalls.unshare(syscalls.CLONE_NEWNS)
            if spec["root"] is not None:
                rootfs.Root(spec["root"]).build()
            os.umask(0o022)
            os.chdir(spec["cwd"])
            stage = "start"
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            if spec["terminal"]:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            execute(spec)
        except BaseException as error:
            os.write(error_pipe, json.dumps({"stage": stage, "message": str(error)}).encode())
        os._exit(128)


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, closed on exec (socket.recv_fds ignores the flag in Python 3.11)."""
    numbers = array.array("i")
    data, ancillary, _, _ = channel.recvmsg(
        PACKET, socket.CMSG_LEN(_MAX_FDS * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, body in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(body[: len(body) - len(body) % numbers.itemsize])
    return data, list(numbers)


def read_spec(descriptor: int) -> ProcessSpec:
    """The ProcessSpec in a memfd."""
    with os.fdopen(os.dup(descriptor), "rb") as handle:
        handle.seek(0)
        spec: ProcessSpec = json.loads(handle.read())
    return spec


def execute(spec: ProcessSpec) -> NoReturn:
    """execve with the container's own PATH. Raises OSError with a container engine's words for what is missing."""
    name = spec["argv"][0]
    if "/" in name:
        candidates = [name]
    else:
        candidates = [f"{folder or '.'}/{name}" for folder in spec["env"].get("PATH", os.defpath).split(":")]
    denied = False
    for candidate in candidates:
        try:
            os.execve(candidate, spec["argv"], spec["env"])
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            continue
        except PermissionError:
            denied = True
    if denied:
        raise OSError(errno.EACCES, f'exec: "{name}": permission denied')
    where = "no such file or directory" if "/" in name else "executable file not found in $PATH"
    raise OSError(errno.ENOENT, f'exec: "{name}": {where}')


def main(argv: list[str]) -> int:
    """Entry point of the launcher's own process."""
    syscalls.die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the kubelet stops first, in its own order
    # Namespaces of its own, so that it may return to them: those it was born in may belong to an outer user namespace.
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    channel = socket.socket(fileno=int(argv[1]))
    channel.set_inheritable(False)
    Launcher(channel).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
