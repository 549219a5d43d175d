"""Snapshots of compiled kernels: an engine must never run half of one, nor files that it put somewhere else."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from moe_operator.agent import compile_snapshot
from moe_operator.agent.compile_snapshot import SnapshotError, pack, scan, unpack

KEY = "key-w0"


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """A folder as compilers leave it."""
    folder = tmp_path / "kernels"
    for name, content in {
        "vllm/torch_compile_cache/a/rank_0_0/model": b"graph" * 1000,
        "triton/b/kernel.so": os.urandom(5000),
        "inductor/locks/x.lock": b"",
        "vllm/gpu_p2p_access_cache_for_0,1.json": b"{}",
        "vllm/startup_plan/startup_plan_1.json": b"{}",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "triton/b/kernel.so").chmod(0o755)
    os.utime(folder / "triton/b/kernel.so", ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    (folder / "triton/link").symlink_to("/etc/passwd")
    return folder


def snapshot(tmp_path: Path, kernels: Path) -> Path:
    target = tmp_path / "store" / "one.tar.gz"
    pack(kernels, target, KEY)
    return target


def foreign(path: Path, *members: tuple[tarfile.TarInfo, bytes], about: object = None) -> Path:
    """A snapshot that someone else made."""
    with tarfile.open(path, "w:gz") as tar:
        text = json.dumps(about or {"format": 1, "key": KEY, "files": len(members)}).encode()
        for info, content in ((tarfile.TarInfo("about.json"), text), *members):
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def named(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_kernels_come_back_as_they_were(tmp_path: Path, kernels: Path) -> None:
    """Builders compare times to the nanosecond: rounded, everything would be built anew."""
    source = snapshot(tmp_path, kernels)
    content = unpack(source, tmp_path / "new", KEY)
    assert content == scan(kernels) == scan(tmp_path / "new")
    assert set(content) == {"vllm/torch_compile_cache/a/rank_0_0/model", "triton/b/kernel.so"}
    for name in content:
        assert (tmp_path / "new" / name).read_bytes() == (kernels / name).read_bytes()
    assert os.access(tmp_path / "new/triton/b/kernel.so", os.X_OK)
    assert [path.name for path in source.parent.iterdir()] == ["one.tar.gz"]


def test_what_is_true_of_one_machine_stays_there(tmp_path: Path, kernels: Path) -> None:
    """vLLM reads back which GPUs reach each other, and does not measure it anew: on another node it may be wrong."""
    unpack(snapshot(tmp_path, kernels), tmp_path / "new", KEY)
    assert not list((tmp_path / "new").rglob("gpu_p2p*"))
    assert not list((tmp_path / "new").rglob("startup_plan*"))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 0.9999])
def test_of_a_torn_snapshot_nothing_is_used(tmp_path: Path, kernels: Path, share: float) -> None:
    """A node that dies while it writes must not take the next engines along."""
    source = snapshot(tmp_path, kernels)
    whole = source.read_bytes()
    source.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SnapshotError):
        unpack(source, tmp_path / "new", KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels", "store"]


def test_changed_bytes_are_noticed(tmp_path: Path, kernels: Path) -> None:
    """Storage that returns other bytes than were written: the engine would run them."""
    source = snapshot(tmp_path, kernels)
    whole = bytearray(gzip.decompress(source.read_bytes()))
    packed = bytearray(gzip.compress(bytes(whole), 0))
    packed[len(packed) // 2] ^= 1
    source.write_bytes(packed)
    with pytest.raises(SnapshotError):
        unpack(source, tmp_path / "new", KEY)


@pytest.mark.parametrize(
    "member",
    [
        named("content/../../escaped"),
        named("/escaped"),
        named("content"),
        named("elsewhere/x"),
        named("content/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        named("content/x", type=tarfile.LNKTYPE, linkname="about.json"),
        named("content/x", type=tarfile.CHRTYPE),
        named("content/x", type=tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, member: tarfile.TarInfo) -> None:
    """Who can write to the claim could otherwise replace files of the engine's container."""
    source = foreign(tmp_path / "bad.tar.gz", (named("content/good"), b"x"), (member, b""))
    with pytest.raises(SnapshotError, match="no plain file below"):
        unpack(source, tmp_path / "new", KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar.gz"]


def test_an_entry_does_not_replace_another(tmp_path: Path) -> None:
    source = foreign(tmp_path / "bad.tar.gz", (named("content/a"), b"x"), (named("content/a"), b"y"))
    with pytest.raises(OSError, match="exists"):
        unpack(source, tmp_path / "new", KEY)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": 1, "key": "other", "files": 1}, "another key, 'other'"),
        ({"format": 2, "key": KEY, "files": 1}, "another format"),
        ({"format": 1, "key": KEY, "files": 2}, "holds 1 of 2 files"),
        ({"format": 1, "key": KEY, "files": "many"}, "ValueError"),
        ({"format": 1, "key": KEY}, "KeyError"),
        (["x"], "another format"),
    ],
)
def test_a_foreign_snapshot_is_left_alone(tmp_path: Path, about: object, message: str) -> None:
    source = foreign(tmp_path / "x.tar.gz", (named("content/a"), b"x"), about=about)
    with pytest.raises(SnapshotError, match=message):
        unpack(source, tmp_path / "new", KEY)
    assert not (tmp_path / "new").exists()


def test_a_snapshot_does_not_fill_the_nodes_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few compressed MB can be many GB of zeros."""
    monkeypatch.setattr(compile_snapshot, "MAX_BYTES", 10_000)
    source = foreign(
        tmp_path / "x.tar.gz", (named("content/a"), bytes(6000)), (named("content/b"), bytes(6000))
    )
    with pytest.raises(SnapshotError, match="more than"):
        unpack(source, tmp_path / "new", KEY)
    assert not (tmp_path / "new").exists()


def test_libraries_that_wrote_first_keep_their_files(tmp_path: Path, kernels: Path) -> None:
    """Some write a log as soon as they are imported: the snapshot comes all the same."""
    source = snapshot(tmp_path, kernels)
    (tmp_path / "new/triton/b").mkdir(parents=True)
    (tmp_path / "new/triton/b/kernel.so").write_bytes(b"mine")
    (tmp_path / "new/log").write_bytes(b"imported")
    assert set(unpack(source, tmp_path / "new", KEY)) == set(scan(kernels))
    assert (tmp_path / "new/triton/b/kernel.so").read_bytes() == b"mine"
    assert (tmp_path / "new/vllm/torch_compile_cache/a/rank_0_0/model").read_bytes() == b"graph" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels", "new", "store"]


def test_what_a_killed_engine_half_unpacked_does_not_stay(tmp_path: Path, kernels: Path) -> None:
    """Each restart in place would leave some gigabytes on the node's disk."""
    source = snapshot(tmp_path, kernels)
    (tmp_path / ".new.0123.new/triton").mkdir(parents=True)
    unpack(source, tmp_path / "new", KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernels", "new", "store"]


def test_two_publishers_leave_one_whole_snapshot(tmp_path: Path, kernels: Path) -> None:
    """Groups of one revision start, and publish, side by side."""
    target = tmp_path / "store/one.tar.gz"
    threads = [threading.Thread(target=pack, args=(kernels, target, KEY)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unpack(target, tmp_path / "new", KEY) == scan(kernels)
    assert [path.name for path in target.parent.iterdir()] == ["one.tar.gz"]


def test_who_reads_a_snapshot_while_the_next_one_comes_reads_it_to_its_end(
    tmp_path: Path, kernels: Path
) -> None:
    """Written over in place, it would be torn for every engine that is just starting."""
    target = snapshot(tmp_path, kernels)
    whole = target.read_bytes()
    with target.open("rb") as reader:
        begun = reader.read(10)
        (kernels / "triton/more.so").write_bytes(os.urandom(5000))
        pack(kernels, target, KEY)
        assert begun + reader.read() == whole
    assert target.read_bytes() != whole


def test_a_folder_that_moves_is_not_published(
    tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM rewrites its index in place: half of it must not get out, and the last snapshot stays."""
    target = snapshot(tmp_path, kernels)
    before = target.read_bytes()
    write = compile_snapshot._write

    def meanwhile(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        (kernels / "vllm/torch_compile_cache/a/rank_0_0/model").write_bytes(b"anew")

    monkeypatch.setattr(compile_snapshot, "_write", meanwhile)
    with pytest.raises(SnapshotError, match="changed while"):
        pack(kernels, target, KEY)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["one.tar.gz"]


def test_a_full_disk_keeps_the_last_snapshot_and_leaves_nothing(
    tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = snapshot(tmp_path, kernels)
    before = target.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compile_snapshot.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pack(kernels, target, KEY)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["one.tar.gz"]
