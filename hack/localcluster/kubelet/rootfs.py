"""A container's own file tree, built from the machine's directories without changing them.

Every top-level directory of the machine is shown through an overlay whose writes land in a layer private to the
container, so an image needs no files of its own and nothing a container writes reaches the machine. Where overlays are
refused (a directory with mounts locked by an outer user namespace, a kernel without overlayfs), the directory is bound
read-only, and missing mount points below it are made by mirroring the deepest existing parent: one bind per child.
/tmp, /run, /var/tmp, /dev, /dev/shm and /proc are always the container's own; programs that lie there all the same
(a checkout below /tmp) are shown at their place.

Runs in the launcher's forked child, already inside a fresh mount namespace: it imports nothing lazily.
"""

# Paths below another root, with links that must be followed as the container would: plain strings, not pathlib.
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH110, PTH112, PTH114, PTH115, PTH116, PTH118, PTH120, PTH208, PTH211
from __future__ import annotations

import errno
import os
import re
import stat
from typing import Any, TypedDict

from localcluster.kubelet import syscalls

#: Made afresh for each container; never taken from the machine.
PRIVATE_DIRS = ("/tmp", "/run", "/var/tmp")
_SPECIAL = frozenset({"proc", "sys", "dev", "tmp", "run", "lost+found"})
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class MountSpec(TypedDict):
    """One volume in one container, or with ``sub_path`` one path of that volume."""

    source: str
    target: str
    sub_path: str
    read_only: bool


class RootSpec(TypedDict):
    """How to build one container's root.

    ``point``: an empty directory to build on; ``layer``: an empty directory for what the container writes;
    ``layering``: ``disk`` (layer on its file system), ``tmpfs`` (layer in memory) or ``bind`` (no overlays);
    ``programs``: directories of the machine to show even below a private one; ``cwd``: a directory to have, created if
    missing; ``shm``: what to show at /dev/shm;
    ``state``: the kubelet's directory, whose mounts no container needs.
    """

    point: str
    layer: str
    layering: str
    programs: list[str]
    cwd: str
    shm: str
    state: str
    read_only: bool
    mounts: list[MountSpec]


class RootError(Exception):
    """The root cannot be built as asked; the text names the mount."""


def resolve(root: str, path: str) -> str:
    """Where ``path`` of the container lies below ``root``, following links as the container would see them.

    The last parts need not exist. Raises RootError after 40 links (ELOOP).
    """
    pending = [part for part in path.split("/") if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            if done:
                done.pop()
            continue
        here = os.path.join(root, *done, part)
        try:
            target = os.readlink(here)
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > 40:
            raise RootError(f"{path}: more than 40 symbolic links")
        if target.startswith("/"):
            done = []
        pending = [step for step in target.split("/") if step not in ("", ".")] + pending
    return os.path.join(root, *done)


def hidden_programs(directories: list[str]) -> list[str]:
    """Those of ``directories`` that a private directory hides, outermost only."""
    hidden = [
        path
        for path in sorted({os.path.realpath(directory) for directory in directories})
        if any(path.startswith(private + "/") for private in PRIVATE_DIRS) and os.path.isdir(path)
    ]
    return [path for path in hidden if not any(path.startswith(outer + "/") for outer in hidden)]


def mount_points_below(directory: str) -> list[str]:
    """What is mounted below ``directory`` (not on it), outermost first."""
    found: list[str] = []
    with open("/proc/self/mountinfo", "rb") as handle:
        for line in handle:
            raw = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), line.split()[4])
            point = os.fsdecode(raw)
            if point.startswith(directory.rstrip("/") + "/") and point not in found:
                found.append(point)
    return sorted(found, key=lambda point: point.count("/"))


def _overlay_option(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


class Root:
    """Builds one root. ``build`` leaves the process inside it."""

    def __init__(self, spec: RootSpec) -> None:
        self.spec = spec
        self.root = spec["point"]
        self.layer = spec["layer"]
        self._serial = 0
        #: Directories of the new root that are plain views of the machine's: nothing may be created below them.
        self._bound: list[str] = []
        #: Mounts that readOnlyRootFilesystem makes read-only.
        self._own: list[str] = []
        self._volumes: list[str] = []

    def build(self) -> None:
        """Raises RootError or OSError."""
        os.umask(0)
        if self.spec["layering"] == "tmpfs":
            syscalls.mount("layer", self.layer, "tmpfs", 0, "mode=0755")
        base = self._fresh("root")
        syscalls.bind(base, self.root, recursive=False)
        self._own.append(self.root)
        for name in sorted(os.listdir("/")):
            self._graft_top(name)
        for path in PRIVATE_DIRS:
            self._private(path)
        self._proc()
        self._sys()
        self._dev()
        for mount in sorted(self.spec["mounts"], key=lambda entry: entry["target"].count("/")):
            self._volume(mount)
        # After the volumes: one at /tmp hides what lies below it too.
        for path in hidden_programs(self.spec["programs"]):
            self._graft(path, self._make_point(path, "dir"))
        self._make_point(self.spec["cwd"], "dir")
        if self.spec["read_only"]:
            # A volume over one of them, at /tmp say, stays as it is: remounting would reach the volume.
            for point in set(self._own) - set(self._volumes):
                syscalls.remount_read_only(point)
        self._enter()

    def _fresh(self, name: str) -> str:
        self._serial += 1
        path = os.path.join(self.layer, f"{self._serial}-{name}")
        os.mkdir(path, 0o755)
        return path

    # -- the machine's directories -------------------------------------------------------------------------------

    def _graft_top(self, name: str) -> None:
        source, target = "/" + name, os.path.join(self.root, name)
        if name in _SPECIAL:
            return
        info = os.lstat(source)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(info.st_mode):
            with open(target, "wb"):
                pass
            syscalls.bind(source, target, recursive=False)
        elif stat.S_ISDIR(info.st_mode):
            os.mkdir(target, 0o755)
            # A home of another user (a mapped root's /root): the container gets an empty one instead.
            if os.access(source, os.R_OK | os.X_OK):
                self._graft(source, target)

    def _graft(self, source: str, target: str) -> None:
        if self.spec["layering"] != "bind":
            upper, work = self._fresh("upper"), self._fresh("work")
            options = (
                f"lowerdir={_overlay_option(source)},upperdir={_overlay_option(upper)},"
                f"workdir={_overlay_option(work)}"
            )
            if not syscalls.in_initial_user_namespace():
                options = "userxattr," + options
            try:
                syscalls.mount("overlay", target, "overlay", 0, options)
            except OSError:
                pass
            else:
                os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))
                self._own.append(target)
                for point in mount_points_below(source):
                    if point.startswith(self.spec["state"]):
                        continue
                    inner = resolve(self.root, point)
                    if os.path.lexists(inner) and os.access(point, os.R_OK):
                        syscalls.bind(point, inner, recursive=False)
                        self._bound.append(inner)
                return
        syscalls.bind(source, target)
        self._own.append(target)
        self._bound.append(target)
        # Read-only whatever the pod says: writes would reach the machine.
        syscalls.remount_read_only(target)

    def _mirror(self, directory: str) -> None:
        """Replace a bound directory of the new root by a private one whose entries show the old ones."""
        copy = self._fresh("mirror")
        for name in os.listdir(directory):
            old, new = os.path.join(directory, name), os.path.join(copy, name)
            info = os.lstat(old)
            if stat.S_ISLNK(info.st_mode):
                os.symlink(os.readlink(old), new)
                continue
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(new)
            else:
                with open(new, "wb"):
                    pass
            syscalls.bind(old, new)
        syscalls.bind(copy, directory)
        self._own.append(directory)
        self._bound = [path for path in self._bound if path != directory]
        self._bound += [
            os.path.join(directory, name)
            for name in os.listdir(directory)
            if not os.path.islink(os.path.join(directory, name))
        ]

    def _is_bound(self, path: str) -> bool:
        best, bound = "", False
        for candidate in (*self._bound, *self._own, *self._volumes):
            if (path == candidate or path.startswith(candidate + "/")) and len(candidate) >= len(best):
                best, bound = candidate, candidate in self._bound
        return bound

    def _make_point(self, path: str, kind: str) -> str:
        """The place below the new root for ``path`` of the container, created if missing."""
        point = resolve(self.root, path)
        if os.path.lexists(point):
            if os.path.isdir(point) != (kind == "dir"):
                raise RootError(
                    f"mount point {path} exists and is not a {'directory' if kind == 'dir' else 'file'}"
                )
            return point
        parent = os.path.dirname(point)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        if self._is_bound(parent):
            self._mirror(parent)
        if kind == "dir":
            os.makedirs(point, 0o755)
        else:
            os.makedirs(os.path.dirname(point), 0o755, exist_ok=True)
            with open(point, "wb"):
                pass
        return point

    # -- the container's own -------------------------------------------------------------------------------------

    def _private(self, path: str) -> None:
        mode = 0o755 if path == "/run" else 0o1777
        point = self._make_point(path, "dir")
        private = self._fresh("private")
        os.chmod(private, mode)
        syscalls.bind(private, point, recursive=False)
        self._own.append(point)
        if path == "/run":
            os.mkdir(os.path.join(point, "lock"), 0o1777)

    def _proc(self) -> None:
        point = self._make_point("/proc", "dir")
        try:
            syscalls.mount("proc", point, "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        except OSError as error:
            # A container engine hides parts of /proc, so the kernel gives no fuller view: keep the outer one.
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            syscalls.bind("/proc", point)

    def _sys(self) -> None:
        point = self._make_point("/sys", "dir")
        syscalls.bind("/sys", point)
        syscalls.remount_read_only(point)

    def _dev(self) -> None:
        point = self._make_point("/dev", "dir")
        syscalls.mount("dev", point, "tmpfs", syscalls.MS_NOSUID, "mode=0755,size=64k")
        for name in _DEVICES:
            if os.path.exists("/dev/" + name):
                node = os.path.join(point, name)
                with open(node, "wb"):
                    pass
                syscalls.bind("/dev/" + name, node, recursive=False)
        for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            os.symlink("/proc/self/" + target, os.path.join(point, name))
        os.mkdir(os.path.join(point, "pts"), 0o755)
        options = "newinstance,ptmxmode=0666,mode=0620"
        try:
            syscalls.mount("devpts", os.path.join(point, "pts"), "devpts", syscalls.MS_NOSUID, options)
            os.symlink("pts/ptmx", os.path.join(point, "ptmx"))
        except OSError:
            os.rmdir(os.path.join(point, "pts"))  # no terminals inside; nothing else needs them
        os.mkdir(os.path.join(point, "shm"), 0o1777)
        syscalls.bind(self.spec["shm"], os.path.join(point, "shm"), recursive=False)

    # -- volumes ---------------------------------------------------------------------------------------------------

    def _volume(self, mount: MountSpec) -> None:
        source = mount["source"]
        if mount["sub_path"]:
            source = self._sub_path(source, mount["sub_path"])
        point = self._make_point(mount["target"], "dir" if os.path.isdir(source) else "file")
        syscalls.bind(source, point)
        self._volumes.append(point)
        if mount["read_only"]:
            syscalls.remount_read_only(point)

    @staticmethod
    def _sub_path(volume: str, sub_path: str) -> str:
        """A path inside the volume, made as a directory when missing; links may not lead out of the volume."""
        source, base = os.path.realpath(os.path.join(volume, sub_path)), os.path.realpath(volume)
        if source != base and not source.startswith(base + "/"):
            raise RootError(f"subPath {sub_path!r} leads out of its volume")
        if not os.path.lexists(source):
            os.makedirs(source, 0o755)
        return source

    def _enter(self) -> None:
        os.chdir(self.root)
        # Stack the old root below the new one, then drop it: works without a place to put it.
        syscalls.pivot_root(".", ".")
        syscalls.unmount(".")
        os.chdir("/")


def probe_layering(directory: str) -> str:
    """Which ``layering`` works with layers below ``directory``. Call in a throw-away mount namespace."""
    for name in ("lower", "upper", "work", "merged", "memory"):
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    for layering in ("disk", "tmpfs"):
        base = directory
        try:
            if layering == "tmpfs":
                base = os.path.join(directory, "memory")
                syscalls.mount("layer", base, "tmpfs", 0, "mode=0755")
                os.mkdir(os.path.join(base, "upper"))
                os.mkdir(os.path.join(base, "work"))
            options = (
                f"lowerdir={_overlay_option(directory + '/lower')},"
                f"upperdir={_overlay_option(base + '/upper')},workdir={_overlay_option(base + '/work')}"
            )
            if not syscalls.in_initial_user_namespace():
                options = "userxattr," + options
            syscalls.mount("overlay", directory + "/merged", "overlay", 0, options)
            os.mkdir(directory + "/merged/written")
        except OSError:
            continue
        return layering
    return "bind"


def as_root_spec(raw: dict[str, Any]) -> RootSpec:
    """The spec as it came over the launcher's socket."""
    return RootSpec(
        point=raw["point"],
        layer=raw["layer"],
        layering=raw["layering"],
        programs=raw["programs"],
        cwd=raw["cwd"],
        shm=raw["shm"],
        state=raw["state"],
        read_only=raw["read_only"],
        mounts=raw["mounts"],
    )
