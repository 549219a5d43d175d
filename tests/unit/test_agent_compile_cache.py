"""Compiled kernels, copied in and published: an engine starts whatever storage does, and serving is not disturbed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from moe_operator.agent import compile_cache, compile_publisher
from moe_operator.agent.compile_cache import Place, Record, place_of, read_record, restore, write_record
from moe_operator.agent.compile_publisher import KEEP, Publisher, PublisherThread, collect, main, pack_apart
from moe_operator.agent.compile_snapshot import pack, scan, unpack
from moe_operator.agent.watch import try_lock

HOUR = 3600.0


def place(tmp_path: Path, pod: str = "pod-a") -> Place:
    return Place(tmp_path / pod / "compiled", tmp_path / "store/key-w0.tar.gz", "key-w0")


def compiled(at: Place, *names: str, size: int = 1000) -> None:
    for name in names:
        path = at.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))


def published(tmp_path: Path, *names: str) -> Place:
    """What an earlier pod left in shared storage."""
    earlier = place(tmp_path, "earlier")
    compiled(earlier, *(names or ("vllm/a", "triton/b")))
    pack(earlier.folder, earlier.snapshot, earlier.key)
    return earlier


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {
        "MOE_AGENT_COMPILED": str(tmp_path / "pod/compiled"),
        "MOE_AGENT_COMPILED_STORE": str(tmp_path / "store"),
        "MOE_AGENT_COMPILED_KEY": "0123456789abcdef",
        **more,
    }


def test_nothing_is_done_where_nothing_is_asked_for(tmp_path: Path) -> None:
    assert place_of({}) is None
    thread = PublisherThread(tmp_path, {})
    thread.start()
    assert list(tmp_path.iterdir()) == []


def test_the_name_tells_workers_and_processors_apart(tmp_path: Path) -> None:
    """Kernels use all that a processor can do, and PyTorch does not ask for that when it loads them: an engine on an
    older one would end with an illegal instruction."""
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_text("processor: 0\nflags\t\t: fpu avx2 avx512f\n")
    old.write_text("processor: 0\nflags\t\t: avx2 fpu\n")

    def name(cpu: Path, **more: str) -> str:
        found = place_of(environment(tmp_path, **more), cpu)
        assert found is not None
        assert found.snapshot == tmp_path / "store" / f"{found.key}.tar.gz"
        return found.key

    assert name(new) == name(new, LWS_WORKER_INDEX="0", POD_NAME="other-pod")
    assert name(new).startswith("0123456789abcdef-")
    different = {name(new), name(old), name(new, LWS_WORKER_INDEX="1"), name(tmp_path / "none")}
    different.add(name(new, MOE_AGENT_COMPILED_KEY="fedcba9876543210"))
    assert len(different) == 5
    assert "/" not in name(new, LWS_WORKER_INDEX="../../x")


def test_a_pod_finds_what_an_earlier_one_compiled(tmp_path: Path) -> None:
    published(tmp_path)
    os.utime(place(tmp_path).snapshot, (0, 0))
    at = place(tmp_path)
    assert "2 files of 0.0 MiB from key-w0.tar.gz" in restore(at)
    assert set(scan(at.folder)) == {"vllm/a", "triton/b"}
    assert at.snapshot.stat().st_mtime > 0, "use is not shown: it would be removed as unused"


@pytest.mark.parametrize("trouble", ["none", "torn", "foreign", "folder", "unwritable"])
def test_an_engine_starts_whatever_is_wrong(tmp_path: Path, trouble: str) -> None:
    """Losing a minute of compilation is all that a bad snapshot may cost."""
    at = place(tmp_path)
    if trouble != "none":
        published(tmp_path)
    if trouble == "torn":
        at.snapshot.write_bytes(at.snapshot.read_bytes()[:-9])
    elif trouble == "foreign":
        at.snapshot.write_bytes(b"#!/bin/sh")
    elif trouble == "folder":
        at.snapshot.unlink()
        at.snapshot.mkdir()
    elif trouble == "unwritable":
        at.folder.parent.write_text("a file")
    said = restore(at)
    assert ("no snapshot yet" if trouble == "none" else "cannot be used") in said
    assert "\n" not in said
    assert not at.folder.exists()


def test_storage_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead NFS server would hold every start for ever, with no word in the log."""
    released, ended = threading.Event(), threading.Event()

    def hangs(*_: object) -> None:
        released.wait(30)
        ended.set()

    monkeypatch.setattr(compile_cache, "unpack", hangs)
    assert "did not answer within 0.05 s" in restore(place(tmp_path), patience=0.05)
    assert not ended.is_set(), "it was waited for"
    released.set()


def test_a_snapshot_that_comes_too_late_is_not_put_in_place(tmp_path: Path) -> None:
    """The engine compiles into the same folder by then."""
    published(tmp_path)
    at = place(tmp_path)
    with pytest.raises(compile_cache.SnapshotError, match="took too long"):
        unpack(at.snapshot, at.folder, at.key, lambda: True)
    assert not at.folder.exists()


def test_an_engine_restarted_in_place_keeps_its_kernels(tmp_path: Path) -> None:
    at = place(tmp_path)
    restore(at)
    compiled(at, "vllm/own")
    published(tmp_path)
    assert "ran in this pod before" in restore(at)
    assert set(scan(at.folder)) == {"vllm/own"}


def test_a_snapshot_that_its_first_engine_does_not_survive_is_not_used_again(tmp_path: Path) -> None:
    """Each start of the pod would end in the same way, and with it each group of the revision."""
    published(tmp_path)
    at = place(tmp_path)
    restore(at)
    assert "did not become ready" in restore(at)
    assert not at.folder.exists()
    compiled(at, "vllm/own")
    assert "ran in this pod before" in restore(at)
    assert set(scan(at.folder)) == {"vllm/own"}


def test_kernels_of_an_engine_that_was_ready_are_kept(tmp_path: Path) -> None:
    published(tmp_path)
    at = place(tmp_path)
    restore(at)
    record = read_record(at)
    assert record is not None
    write_record(at, Record(record.restored, ready=True))
    assert "ran in this pod before" in restore(at)
    assert set(scan(at.folder)) == {"vllm/a", "triton/b"}


def test_only_the_first_process_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers start while others compile: a second copy would come in between."""
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MOE_AGENT_COMPILED_DONE", raising=False)
    calls: list[Place] = []
    monkeypatch.setattr(compile_cache, "restore", lambda at: calls.append(at) or "")
    compile_cache.apply()
    compile_cache.apply()
    assert len(calls) == 1


class Packing:
    """Counts what would be packed."""

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble
        self.count = 0

    def __call__(self, at: Place) -> str:
        self.count += 1
        if not self.trouble:
            pack(at.folder, at.snapshot, at.key)
        return self.trouble


def test_kernels_are_published_once_they_rest(tmp_path: Path) -> None:
    publisher, packing = Publisher(place(tmp_path)), Packing()
    assert publisher.look(0, packing) == "", "nothing is there yet"
    compiled(publisher.place, "vllm/a")
    assert publisher.look(20, packing) == ""
    compiled(publisher.place, "vllm/b")
    assert publisher.look(40, packing) == "", "it moved since the last look"
    assert "2 files" in publisher.look(60, packing)
    assert publisher.look(80, packing) == ""
    assert packing.count == 1


def test_later_kernels_are_published_if_they_are_worth_it(tmp_path: Path) -> None:
    """Each request of a new length may compile a kernel: packing gigabytes for each would never end."""
    publisher, packing = Publisher(place(tmp_path)), Packing()
    compiled(publisher.place, "vllm/a", size=1_000_000)
    for now in (0, 20):
        publisher.look(now, packing)
    compiled(publisher.place, "triton/tiny", size=100)
    for now in (HOUR, 2 * HOUR):
        publisher.look(now, packing)
    assert packing.count == 1
    compiled(publisher.place, "triton/large", size=50_000)
    for now in (3 * HOUR, 4 * HOUR):
        publisher.look(now, packing)
    assert packing.count == 2
    compiled(publisher.place, "triton/tiny-too", size=100)
    for now in (28 * HOUR, 29 * HOUR):
        publisher.look(now, packing)
    assert packing.count == 3, "a day later the little counts as well"


def test_what_came_from_the_snapshot_is_not_published_again(tmp_path: Path) -> None:
    published(tmp_path)
    at = place(tmp_path)
    restore(at)
    record = read_record(at)
    assert record is not None
    publisher, packing = Publisher(at, published=record.restored), Packing()
    for now in (0, 20, 600):
        publisher.look(now, packing)
    assert packing.count == 0
    at.snapshot.unlink()
    publisher.look(1200, packing)
    assert packing.count == 1, "somebody removed it"


def test_trouble_is_said_once_and_tried_again_the_next_day(tmp_path: Path) -> None:
    """A line every ten minutes would bury what a user looks for; a volume may be made larger."""
    publisher, packing = Publisher(place(tmp_path)), Packing("OSError: No space left on device")
    compiled(publisher.place, "vllm/a")
    said = [publisher.look(now, packing) for now in (0, 20, 620, 1220)]
    assert [bool(line) for line in said] == [False, True, False, False]
    assert "No space left" in said[1]
    assert packing.count == 1
    assert publisher.look(25 * HOUR, packing) == ""
    assert packing.count == 2
    packing.trouble = ""
    assert "published" in publisher.look(50 * HOUR, packing)


def test_a_snapshot_in_use_shows_it(tmp_path: Path) -> None:
    """An engine that serves for months would lose the snapshot that its successor needs."""
    publisher, packing = Publisher(place(tmp_path)), Packing()
    compiled(publisher.place, "vllm/a")
    for now in (0, 20):
        publisher.look(now, packing)
    os.utime(publisher.place.snapshot, (0, 0))
    publisher.look(HOUR, packing)
    assert publisher.place.snapshot.stat().st_mtime == 0
    publisher.look(25 * HOUR, packing)
    assert publisher.place.snapshot.stat().st_mtime > 0


def test_unused_snapshots_go(tmp_path: Path) -> None:
    """Every change of image or arguments makes a new name: the claim would fill."""
    now = 100 * 24 * HOUR
    ages = {
        "old-w0.tar.gz": KEEP + 1,
        "used-w0.tar.gz": KEEP - 1,
        ".x.tar.gz.1.new": 25 * HOUR,
        ".y.tar.gz.2.new": HOUR,
        "of-somebody.txt": 2 * KEEP,
    }
    for name, age in ages.items():
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (now - age, now - age))
    assert sorted(collect(tmp_path, now)) == [".x.tar.gz.1.new", "old-w0.tar.gz"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"used-w0.tar.gz", ".y.tar.gz.2.new", "of-somebody.txt"}


def test_packing_is_a_process_of_its_own(tmp_path: Path) -> None:
    """In the server's process it would hold the interpreter's lock while requests wait."""
    at = place(tmp_path)
    compiled(at, "vllm/a")
    assert pack_apart(at) == ""
    assert set(unpack(at.snapshot, tmp_path / "new", at.key)) == {"vllm/a"}
    at.snapshot.unlink()
    at.snapshot.parent.rmdir()
    at.snapshot.parent.write_text("no folder")
    assert "Error" in pack_apart(at)
    assert "\n" not in pack_apart(at)


def test_a_read_only_or_full_place_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(compile_publisher, "pack", full)
    monkeypatch.setattr(compile_publisher.os, "nice", lambda _: 0)
    assert main(str(tmp_path / "a"), str(tmp_path / "b.tar.gz"), "key") == 1
    assert capsys.readouterr().err.strip() == "OSError: [Errno 30] Read-only file system"


def test_a_ready_engine_proves_its_snapshot_and_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_publisher, "_FIRST_LOOK", 0.01)
    packed = threading.Event()

    def packing(at: Place) -> str:
        pack(at.folder, at.snapshot, at.key)
        packed.set()
        return ""

    monkeypatch.setattr(compile_publisher, "pack_apart", packing)
    given = environment(tmp_path)
    at = place_of(given)
    assert at is not None
    restore(at)
    compiled(at, "vllm/a")
    thread = PublisherThread(tmp_path, given)
    thread.start()
    try:
        assert packed.wait(10)
    finally:
        thread.stop()
    record = read_record(at)
    assert record is not None
    assert record.ready
    assert at.snapshot.exists()


def test_one_process_of_a_pod_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod may have an API server for each rank."""
    asked = threading.Event()

    def refused(fd: int) -> bool:
        asked.set()
        return False

    monkeypatch.setattr(compile_publisher, "try_lock", refused)
    monkeypatch.setattr(compile_publisher, "pack_apart", lambda at: pytest.fail("packed by a second process"))
    thread = PublisherThread(tmp_path, environment(tmp_path))
    thread.start()
    assert asked.wait(10)
    thread.stop()
    with (tmp_path / "compiled.lock").open("w") as handle:
        assert try_lock(handle.fileno())
