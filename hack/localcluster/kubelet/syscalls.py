"""The Linux calls that containers need and Python 3.11 does not wrap. Every function raises OSError.

Imported by the launcher, which must stay small: nothing here imports more than ctypes and os.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 0x20, 0x400, 0x800
MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 0x1000, 0x4000, 0x40000, 0x200000
MNT_DETACH = 0x2

_PR_SET_PDEATHSIG = 1
#: pivot_root(2) has no libc wrapper; numbers from the kernel's syscall tables.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            filesystem.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {filesystem or source} on {target}",
    )


def bind(source: str, target: str, recursive: bool = True) -> None:
    """Show ``source`` at ``target`` too, with what is mounted below it when ``recursive``."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def remount_read_only(target: str) -> None:
    """Make one bind mount read-only. Flags locked by an outer user namespace must be repeated, or EPERM."""
    kept = 0
    have = os.statvfs(target).f_flag
    for statvfs_flag, mount_flag in (
        (os.ST_NOSUID, MS_NOSUID),
        (os.ST_NODEV, MS_NODEV),
        (os.ST_NOEXEC, MS_NOEXEC),
        (os.ST_NOATIME, MS_NOATIME),
        (os.ST_NODIRATIME, MS_NODIRATIME),
        (os.ST_RELATIME, MS_RELATIME),
    ):
        if have & statvfs_flag:
            kept |= mount_flag
    mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily by default."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(flags)), f"unmount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError (ENOSYS) on a machine whose call number is not known here."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, f"pivot_root: call number for machine {platform.machine()!r} is not known")
    _check(_libc.syscall(ctypes.c_long(number), new_root.encode(), put_old.encode()), "pivot_root")


def unshare(flags: int) -> None:
    """Move this process (its future children, for CLONE_NEWPID) into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespaces behind a namespace file or a pidfd."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), "setns")


def die_with_parent() -> None:
    """SIGKILL this process when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def in_initial_user_namespace() -> bool:
    """False where user ids are mapped: there overlayfs keeps its marks in user.* attributes."""
    with open("/proc/self/uid_map") as handle:
        return handle.read().split() == ["0", "0", "4294967295"]
