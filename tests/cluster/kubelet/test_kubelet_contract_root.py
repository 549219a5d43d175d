"""A container's root in each of the ways that kernels and user namespaces allow."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubelet_contract import row
from localcluster.kubelet.launcher import ProcessSpec
from localcluster.kubelet.rootfs import MountSpec, RootSpec
from localcluster.kubelet.spawner import LaunchError, Spawner
from localcluster.namespace import INSIDE

pytestmark = pytest.mark.skipif(
    INSIDE not in os.environ, reason="needs namespaces of its own: run it in a cluster"
)


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Spawner]:
    started = Spawner()
    started.start_launcher()
    for name in ("point", "layer", "shm", "volume"):
        (tmp_path / name).mkdir()
    shm = {"path": str(tmp_path / "shm"), "size": 2**20, "mode": 0o1777}
    await started.request("sandbox", sandbox="pod", hostname="rank-0", tmpfs=[shm])
    yield started
    started.close()


def there(*paths: str) -> list[str]:
    return [path for path in paths if Path(path).exists()]


async def run(
    spawner: Spawner,
    where: Path,
    layering: str,
    argv: list[str],
    *,
    programs: tuple[str, ...] = (),
    mount: str = "/etc/new/deep",
    read_only: bool = False,
) -> tuple[int, str]:
    volume = MountSpec(source=str(where / "volume"), target=mount, sub_path="", read_only=False)
    root = RootSpec(
        point=str(where / "point"),
        layer=str(where / "layer"),
        layering=layering,
        programs=list(programs),
        cwd="/work-dir",
        shm=str(where / "shm"),
        state=str(where),
        read_only=read_only,
        mounts=[volume],
    )
    output = bytearray()
    spec = ProcessSpec(
        argv=argv, env={"PATH": os.defpath}, cwd="/work-dir", root=root, oom_score_adj=0, terminal=False
    )
    process = await spawner.start("pod", spec, lambda data, _: output.extend(data))
    status = await process.exited
    await process.drained.wait()
    return os.waitstatus_to_exitcode(status), output.decode()


@row("private-root")
@pytest.mark.parametrize("layering", ["disk", "tmpfs", "bind"])
async def test_no_way_of_building_a_root_lets_writes_out(
    spawner: Spawner, tmp_path: Path, layering: str
) -> None:
    """On a machine that refuses overlays a container must not write to the machine instead."""
    mark = f"kubelet-root-{os.getpid()}"
    script = f"pwd; hostname; echo kept > /etc/new/deep/file; touch /tmp/{mark} && ls /tmp; ls /etc/passwd; "
    script += (
        f"for d in /etc /usr /var /root; do touch $d/{mark}; done 2> /dev/null; ls /proc | grep -c '^[0-9]'"
    )
    code, output = await run(spawner, tmp_path, layering, ["sh", "-c", script])
    assert code == 0
    # sh, ls, grep and at most a subshell: the processes of nobody else.
    *lines, processes = output.split()
    assert lines == ["/work-dir", "rank-0", mark, "/etc/passwd"]
    assert int(processes) <= 4
    assert (tmp_path / "volume" / "file").read_text() == "kept\n"
    places = [f"{folder}/{mark}" for folder in ("/etc", "/usr", "/var", "/root", "/tmp")]
    assert there(*places, "/etc/new") == []


@row("private-root")
@pytest.mark.parametrize("layering", ["disk", "tmpfs", "bind"])
@pytest.mark.parametrize(("mount", "read_only"), [("/etc/new/deep", False), ("/tmp", True)])
async def test_a_checkout_below_tmp_is_seen(
    spawner: Spawner, tmp_path: Path, layering: str, mount: str, read_only: bool
) -> None:
    """Who clones the project below /tmp would find that no pod of the local cluster can start its program."""
    programs = tmp_path / "programs"
    (programs / "bin").mkdir(parents=True)
    (programs / "bin" / "hello").write_text("#!/bin/sh\necho hello\ntouch $0.written 2> /dev/null\n")
    (programs / "bin" / "hello").chmod(0o755)
    code, output = await run(
        spawner,
        tmp_path,
        layering,
        ["sh", "-c", f"{programs}/bin/hello; ls /tmp"],
        programs=(str(programs), str(programs / "bin")),
        mount=mount,
        read_only=read_only,
    )
    assert (code, output.split()) == (0, ["hello", tmp_path.parts[2]])
    assert there(str(programs / "bin" / "hello.written")) == []


@row("exit-states")
async def test_a_program_that_may_not_run_is_named(spawner: Spawner, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match='exec: "/etc/passwd": permission denied') as caught:
        await run(spawner, tmp_path, "disk", ["/etc/passwd"])
    assert caught.value.stage == "start"
