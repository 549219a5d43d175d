"""Files that a kubelet shows to containers, and logs that it keeps of them."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kubelet_contract import row
from localcluster.kubelet import atomicdir, containerlog, etcfiles, payload, rootfs
from localcluster.kubelet.containerlog import ContainerLog, LogOptions
from localcluster.kubelet.environment import PodFacts
from localcluster.kubelet.server import log_options

FACTS = PodFacts("10.244.1.7", "10.244.1.1", {"cpu": "8", "memory": "16Gi"})
POD: dict[str, Any] = {
    "metadata": {"name": "engine-0", "namespace": "serving", "uid": "u", "labels": {"a": "b"}},
    "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "2"}}}]},
}


def files(volume: dict[str, Any], objects: dict[tuple[str, str], Any] | None = None) -> payload.Files:
    found = objects or {}
    return payload.files(volume, POD, FACTS, lambda kind, name: found.get((kind, name)), {"token": "t0k"})


@row("volume-config")
def test_items_choose_keys_paths_and_modes() -> None:
    objects = {
        ("ConfigMap", "c"): {
            "data": {"a": "1", "b": "2"},
            "binaryData": {"z": base64.b64encode(b"\0").decode()},
        }
    }
    assert files({"configMap": {"name": "c"}}, objects) == {
        "a": (b"1", 0o644),
        "b": (b"2", 0o644),
        "z": (b"\0", 0o644),
    }
    chosen = {
        "name": "c",
        "defaultMode": 0o400,
        "items": [{"key": "a", "path": "x/y", "mode": 0o755}, {"key": "b", "path": "b"}],
    }
    assert files({"configMap": chosen}, objects) == {"x/y": (b"1", 0o755), "b": (b"2", 0o400)}


@row("volume-config", "volume-token")
def test_a_projected_volume_joins_its_sources() -> None:
    objects = {
        ("ConfigMap", "kube-root-ca.crt"): {"data": {"ca.crt": "PEM"}},
        ("Secret", "s"): {"data": {"k": base64.b64encode(b"v").decode()}},
    }
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"secret": {"name": "s"}},
    ]
    shown = files({"name": "v", "projected": {"sources": sources}}, objects)
    assert {path: data for path, (data, _) in shown.items()} == {
        "token": b"t0k",
        "ca.crt": b"PEM",
        "namespace": b"serving",
        "k": b"v",
    }


@row("volume-config")
def test_what_a_volume_lacks_is_named_unless_it_is_optional() -> None:
    with pytest.raises(payload.NotReadyError, match='secret "none" not found'):
        files({"secret": {"secretName": "none"}})
    with pytest.raises(payload.NotReadyError, match="has no key 'k'"):
        files({"configMap": {"name": "c", "items": [{"key": "k", "path": "k"}]}}, {("ConfigMap", "c"): {}})
    assert files({"secret": {"secretName": "none", "optional": True}}) == {}


@row("volume-config")
def test_a_change_shows_whole_and_what_is_gone_goes(tmp_path: Path) -> None:
    """An engine that reads two files of one ConfigMap must never see an old and a new one."""
    assert atomicdir.write(tmp_path, {"a": (b"1", 0o644), "d/b": (b"1", 0o600)})
    held = os.open(tmp_path / "..data", os.O_RDONLY)
    try:
        assert stat.S_IMODE((tmp_path / "d" / "b").stat().st_mode) == 0o600
        assert not atomicdir.write(tmp_path, {"a": (b"1", 0o644), "d/b": (b"1", 0o600)})
        assert atomicdir.write(tmp_path, {"a": (b"2", 0o644), "c": (b"2", 0o644)})
        # Who entered the old set sees it go as one; nobody sees half of the new one there.
        assert os.listdir(held) == []  # noqa: PTH208 (by descriptor)
    finally:
        os.close(held)
    visible = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith("..")}
    assert visible == {"a": b"2", "c": b"2"}
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("..2")]) == 1


@row("volume-config")
@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..data"])
def test_a_volume_path_cannot_leave_its_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="must be relative"):
        atomicdir.write(tmp_path / "volume", {path: (b"", 0o644)})


@row("private-root")
def test_links_of_a_container_are_followed_inside_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")
    (tmp_path / "out").symlink_to("../../../../etc")
    assert rootfs.resolve(str(tmp_path), "/var/run/secrets/x") == str(tmp_path / "run/secrets/x")
    assert rootfs.resolve(str(tmp_path), "/out/passwd") == str(tmp_path / "etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(rootfs.RootError, match="more than 40"):
        rootfs.resolve(str(tmp_path), "/loop")


DNS = etcfiles.DnsSettings(
    "10.96.0.10", "cluster.local", "nameserver 9.9.9.9\nsearch example.org\noptions timeout:1\n"
)


@row("pod-files")
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            "nameserver 10.96.0.10\n"
            "search serving.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "nameserver 9.9.9.9\nsearch example.org\noptions timeout:1\n"),
        ({"hostNetwork": True}, "nameserver 9.9.9.9\nsearch example.org\noptions timeout:1\n"),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.2.3.4"],
                    "searches": ["a.b"],
                    "options": [{"name": "edns0"}],
                },
            },
            "nameserver 1.2.3.4\nsearch a.b\noptions edns0\n",
        ),
        (
            {"dnsConfig": {"searches": ["x"], "options": [{"name": "ndots", "value": "2"}]}},
            "nameserver 10.96.0.10\n"
            "search serving.svc.cluster.local svc.cluster.local cluster.local x\noptions ndots:2\n",
        ),
    ],
)
def test_a_pod_resolves_names_by_its_policy(spec: dict[str, Any], expected: str) -> None:
    assert etcfiles.resolv_conf({**POD, "spec": {**POD["spec"], **spec}}, DNS) == expected


@row("pod-files")
def test_a_pod_knows_its_own_names() -> None:
    spec = {"hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["x", "y"]}]}
    pod = {**POD, "spec": spec}
    assert etcfiles.hostname(pod) == "h"
    hosts = etcfiles.hosts(pod, "10.244.1.7").splitlines()
    assert "10.244.1.7\th.s.serving.svc.cluster.local\th" in hosts
    assert "1.1.1.1\tx\ty" in hosts
    long = {"metadata": {"name": "a" * 62 + ".b", "namespace": "n"}, "spec": {}}
    assert etcfiles.hostname(long) == "a" * 62


async def collected(path: Path, live: ContainerLog | None, **options: Any) -> str:
    parts = [chunk async for chunk in containerlog.stream(path, live, LogOptions(**options))]
    return b"".join(parts).decode()


def written(path: Path, lines: Iterable[str]) -> ContainerLog:
    log = ContainerLog(path)
    for line in lines:
        log.write(line.encode(), "stdout")
    return log


@row("logs")
async def test_a_log_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = written(path, ["one\ntw", "o\n", "x" * 40_000 + "\n", "end"])
    log.write(b"err\n", "stderr")
    log.close()
    assert await collected(path, log) == "one\ntwo\n" + "x" * 40_000 + "\nerr\nend"
    assert await collected(path, log, tail=3) == "x" * 40_000 + "\nerr\nend"
    assert await collected(path, log, tail=0) == ""
    assert await collected(path, log, streams=("stderr",)) == "err\n"
    assert await collected(path, log, limit=5) == "one\nt"
    assert await collected(path, log, since=4e9) == ""
    stamped = (await collected(path, log, timestamps=True)).splitlines()[0]
    assert stamped.endswith("Z one")
    assert stamped[:4].isdigit()


@row("logs")
async def test_a_follower_gets_each_line_once_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = written(path, ["old\n"])
    got: list[bytes] = []

    async def follow() -> None:
        got.extend([chunk async for chunk in containerlog.stream(path, log, LogOptions(follow=True))])

    task = asyncio.create_task(follow())
    for number in range(50):
        log.write(f"{number}\n".encode(), "stdout")
        await asyncio.sleep(0)
    log.close()
    await asyncio.wait_for(task, 5)
    assert b"".join(got).decode().splitlines() == ["old", *(str(number) for number in range(50))]


def total_size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


@row("logs")
async def test_a_large_log_keeps_its_newest_part(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = ContainerLog(path)
    line = b"y" * 10_000 + b"\n"
    for _ in range(2 * containerlog.ROTATE_AT // len(line) + 10):
        log.write(line, "stdout")
    log.write(b"last\n", "stdout")
    log.close()
    size = total_size(tmp_path)
    assert containerlog.ROTATE_AT < size < 2.1 * containerlog.ROTATE_AT
    assert (await collected(path, log, tail=1)) == "last\n"
    assert len((await collected(path, log, tail=1000)).splitlines()) == 1000  # reaches into the older file


@row("logs")
def test_wrong_log_options_are_refused_with_their_value() -> None:
    assert log_options({"tailLines": "5", "follow": "true", "stream": "Stderr"}) == LogOptions(
        follow=True, tail=5, streams=("stderr",)
    )
    with pytest.raises(ValueError, match="tailLines must be a whole number, not 'x'"):
        log_options({"tailLines": "x"})
    with pytest.raises(ValueError, match="limitBytes must not be negative: -1"):
        log_options({"limitBytes": "-1"})
