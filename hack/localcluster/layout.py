"""Where things lie: the repository, the cache of built programs, and the state of each running cluster."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError

#: Cluster names become directory names and parts of Unix socket paths (at most 107 bytes in all).
NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?")
#: Longest path below a cluster's directory that must fit into a Unix socket address.
_LONGEST_SOCKET = "kubelet/control.sock"
_UNIX_PATH_MAX = 107


def repository_root() -> Path:
    """The checkout that this package belongs to."""
    return Path(__file__).resolve().parent.parent.parent


def hack_root() -> Path:
    """The directory to put on PYTHONPATH so that ``localcluster`` can be imported."""
    return Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """Where built programs are kept between runs: ``$MOE_OPERATOR_CACHE``, else below the user's cache
    directory.
    """
    explicit = os.environ.get("MOE_OPERATOR_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "moe-operator"


def state_root() -> Path:
    """Where running clusters keep their state: ``$MOE_OPERATOR_STATE``, else a private directory below /tmp.

    Not XDG_RUNTIME_DIR: that is a small tmpfs, and pods' emptyDir volumes and logs live here too.
    """
    explicit = os.environ.get("MOE_OPERATOR_STATE")
    return Path(explicit) if explicit else Path(f"/tmp/moe-operator-{os.getuid()}")


def make_private(directory: Path) -> Path:
    """Create ``directory`` readable by its owner only, and refuse one that somebody else made."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise LocalClusterError(
            f"{directory} is not a directory owned by uid {os.geteuid()} (owner: uid {info.st_uid}). "
            "Remove it or set MOE_OPERATOR_STATE to a directory of your own."
        )
    return directory


@dataclass(frozen=True)
class ClusterDirs:
    """The files of one cluster. ``logs`` outlives the cluster until the next one of the same name starts."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str, state: Path | None = None) -> ClusterDirs:
        """Raises LocalClusterError for a name or a place that cannot work."""
        if not NAME_PATTERN.fullmatch(name):
            raise LocalClusterError(
                f"cluster name {name!r} cannot be used: "
                "write at most 30 lower-case letters, digits and inner hyphens."
            )
        root = (state if state is not None else state_root()).absolute() / name
        length = len(str(root / _LONGEST_SOCKET).encode())
        if length > _UNIX_PATH_MAX:
            raise LocalClusterError(
                f"{root} is too long: its sockets' paths would have {length} bytes, "
                f"Linux allows {_UNIX_PATH_MAX}. "
                "Set MOE_OPERATOR_STATE to a shorter directory or choose a shorter name."
            )
        return cls(name=name, root=root)

    @property
    def lock(self) -> Path:
        """Held (flock) by the cluster's first process for as long as it lives."""
        return self.root.parent / f".{self.name}.lock"

    @property
    def record(self) -> Path:
        """JSON of namespace.Record: which process owns the namespaces."""
        return self.root / "cluster.json"

    @property
    def config(self) -> Path:
        """JSON of config.ClusterConfig."""
        return self.root / "config.json"

    @property
    def ready(self) -> Path:
        """Exists once the cluster has come up."""
        return self.root / "ready"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; usable inside the namespaces only."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def bin(self) -> Path:
        """Links to the programs in use; first on PATH of everything run inside."""
        return self.root / "bin"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes.yaml"

    @property
    def images(self) -> Path:
        return self.root / "images.yaml"
