"""What the cluster's processes are told about the cluster they belong to: one JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster.layout import ClusterDirs

#: Components whose flags can be added to from the command line.
CONFIGURABLE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "lws-manager")


@dataclass(frozen=True)
class ClusterConfig:
    """``programs``: component -> executable. ``extra_flags``: component -> flags that replace or join the
    usual ones.

    ``nodes``: how many nodes the kubelet will register; with none there is no kubelet and pods stay pending.
    ``ephemeral``: the cluster belongs to one command and removes its own state.
    """

    name: str
    programs: dict[str, str]
    lws_manifests: str
    extra_flags: dict[str, list[str]]
    nodes: int
    lws: bool
    ephemeral: bool

    def write(self, dirs: ClusterDirs) -> None:
        dirs.config.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, dirs: ClusterDirs) -> ClusterConfig:
        return cls(**json.loads(dirs.config.read_text()))


def read_name(root: Path) -> ClusterDirs:
    """The directories of the cluster whose root directory is known."""
    return ClusterDirs(name=root.name, root=root)
