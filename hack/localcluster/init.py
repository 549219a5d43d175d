"""The first process of a cluster's PID namespace. ``python -m localcluster.init ROOT LOCK_FD PROGRESS_FD
LIFELINE_FD``

The program makes the namespaces, forks, records the child and ends. The child is process 1 of the cluster: it
starts the supervisor, reaps orphans, hands SIGTERM on, and ends when the supervisor ends. The kernel then
kills whatever is left in the namespace, and does so as well when this process itself is killed: that is why
no crash leaves processes behind.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from localcluster import linux
from localcluster.namespace import Record, resolv_conf
from localcluster.netlink import configure_loopback
from localcluster.network import POD_CIDR, SERVICE_CIDR

_NAMESPACES = linux.CLONE_NEWNET | linux.CLONE_NEWNS | linux.CLONE_NEWPID


def enter_new_namespaces() -> bool:
    """Returns whether a user namespace was needed, which is the case without CAP_SYS_ADMIN. Raises
    OSError.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        linux.unshare(_NAMESPACES)
        return False
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    linux.unshare(linux.CLONE_NEWUSER)
    # Without the capability to map groups, a process must first give up setgroups(2) (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    linux.unshare(_NAMESPACES)
    return True


def furnish(root: Path) -> None:
    """Give the namespaces their own /proc, loopback and resolver; called in process 1."""
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    configure_loopback((POD_CIDR, SERVICE_CIDR))
    resolver = root / "resolv.conf"
    resolver.write_text(resolv_conf("default"))
    if Path("/etc/resolv.conf").exists():
        linux.mount(str(resolver), "/etc/resolv.conf", "", linux.MS_BIND)


def reap_until(supervisor: int) -> int:
    """Collect every child until the supervisor ends; returns its exit status."""

    def hand_on(number: int, _frame: FrameType | None) -> None:
        os.kill(supervisor, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, hand_on)
    while True:
        pid, status = os.wait()
        if pid == supervisor:
            return os.waitstatus_to_exitcode(status)


def run_as_first(root: Path, progress: int, arguments: list[str]) -> NoReturn:
    """Process 1. Never returns."""
    os.setsid()
    try:
        furnish(root)
    except OSError as error:
        hint = "Inside a container, run the container privileged." if error.errno == errno.EPERM else ""
        os.write(progress, f"failed cannot set up the cluster's namespaces: {error}. {hint}\n".encode())
        os._exit(1)
    supervisor = os.fork()
    if supervisor == 0:
        os.execv(sys.executable, [sys.executable, "-m", "localcluster.supervisor", *arguments])
    # The pipe's reader takes its end for the supervisor's end.
    os.close(progress)
    os._exit(abs(reap_until(supervisor)))


def main() -> None:
    root, _lock, progress, _lifeline = Path(sys.argv[1]), *map(int, sys.argv[2:])
    try:
        user_namespace = enter_new_namespaces()
    except OSError as error:
        os.write(progress, f"failed {refused(error)}\n".encode())
        sys.exit(1)
    recorded, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        # Both share one mount namespace: with the child's /proc mounted, the parent could not look the child
        # up.
        os.close(let_go)
        if os.read(recorded, 1) == b"":
            os._exit(1)
        os.close(recorded)
        run_as_first(root, progress, sys.argv[1:])
    Record.of(child, user_namespace=user_namespace).write(root / "cluster.json")
    os.write(let_go, b".")


def refused(error: OSError) -> str:
    """What a user can do when the kernel refuses namespaces."""
    return (
        f"the kernel refused new namespaces ({error}). Run as root, or allow unprivileged user namespaces: "
        "user.max_user_namespaces > 0, and where they exist kernel.unprivileged_userns_clone=1 and "
        "kernel.apparmor_restrict_unprivileged_userns=0; a container needs CAP_SYS_ADMIN."
    )


if __name__ == "__main__":
    main()
