"""What is decided about one start of a container, and the process that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.kubelet.launcher import ProcessSpec
from localcluster.kubelet.oom import KernelKills
from localcluster.kubelet.rootfs import MountSpec, RootSpec
from localcluster.kubelet.spawner import Spawner

Obj = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """What all containers share."""

    spawner: Spawner
    kernel_kills: KernelKills
    layering: str
    point: Path
    state: Path
    programs: tuple[str, ...] = ()
    """Directories that images' programs come from: containers see them wherever they lie."""


@dataclass(frozen=True)
class Launch:
    """Everything decided about one start. ``mounts`` are the volumes only."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    mounts: list[MountSpec]
    shm: Path
    read_only: bool
    oom_score_adj: int
    pod_ip: str


def container_spec(
    launch: Launch, machine: Machine, container: Obj, pod_directory: Path, home: Path
) -> ProcessSpec:
    """The first process of a container. ``home``: a directory for this run, made here."""
    layer, message = home / "layer", home / "termination-log"
    layer.mkdir(parents=True)
    message.touch()
    message.chmod(0o666)
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    own = [
        MountSpec(
            source=str(pod_directory / "etc" / name),
            target=f"/etc/{name}",
            sub_path="",
            read_only=False,
        )
        for name in ("hosts", "hostname", "resolv.conf")
    ]
    own.append(MountSpec(source=str(message), target=path, sub_path="", read_only=False))
    taken = {mount["target"] for mount in launch.mounts}
    root = RootSpec(
        point=str(machine.point),
        layer=str(layer),
        layering=machine.layering,
        programs=list(machine.programs),
        cwd=launch.cwd,
        shm=str(launch.shm),
        state=str(machine.state),
        read_only=launch.read_only,
        mounts=[*(mount for mount in own if mount["target"] not in taken), *launch.mounts],
    )
    return ProcessSpec(
        argv=launch.argv,
        env=launch.env,
        cwd=launch.cwd,
        root=root,
        oom_score_adj=launch.oom_score_adj,
        terminal=False,
    )


def exec_spec(launch: Launch, argv: list[str], terminal: bool) -> ProcessSpec:
    """A command beside a running container's own process."""
    env = launch.env | ({"TERM": "xterm"} if terminal else {})
    return ProcessSpec(argv=argv, env=env, cwd=launch.cwd, root=None, oom_score_adj=0, terminal=terminal)
