"""Parts of the fetch that decide by themselves: checksums, room, patience, the lease."""

import base64
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights import lease as leases
from moe_operator.weights.collection import GRACE, Occupant, choose
from moe_operator.weights.digests import Digest, Verifier, from_base64
from moe_operator.weights.errors import FetchError, InterruptedFetchError, LeaseLostError, TransientError
from moe_operator.weights.lease import EXPIRY, Claim, held
from moe_operator.weights.retry import Patience, persistently
from moe_operator.weights.state import read_state

CONTENT = bytes(range(256)) * 40
PART = 3000


def _parts(kind: str) -> str:
    parts = [CONTENT[start : start + PART] for start in range(0, len(CONTENT), PART)]
    return hashlib.new(kind, b"".join(hashlib.new(kind, part).digest() for part in parts)).hexdigest()


@pytest.mark.parametrize(
    "digest",
    [
        Digest("sha256", hashlib.sha256(CONTENT).hexdigest()),
        Digest("git-sha1", hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()),
        Digest("md5", hashlib.md5(CONTENT).hexdigest()),
        Digest("md5-parts", _parts("md5"), PART),
        Digest("sha256-parts", _parts("sha256"), PART),
        None,
    ],
    ids=lambda digest: digest.kind if digest else "none",
)
@pytest.mark.parametrize("step", [1, 999, 3000, 3001, 20000])
def test_a_checksum_does_not_depend_on_how_the_bytes_come(digest: Digest | None, step: int) -> None:
    verifier = Verifier(len(CONTENT), digest)
    for start in range(0, len(CONTENT), step):
        assert verifier.fault(), "not all of it yet"
        verifier.update(memoryview(CONTENT)[start : start + step])
    assert verifier.fault() is None
    assert verifier.sha256 == hashlib.sha256(CONTENT).hexdigest()
    if digest is not None:
        wrong = Verifier(len(CONTENT), digest)
        wrong.update(memoryview(CONTENT[:-1] + b"\0"))
        assert digest.kind in (wrong.fault() or "")


def test_parts_that_end_with_the_file_have_no_empty_one() -> None:
    content = bytes(2 * PART)
    expected = hashlib.md5(hashlib.md5(bytes(PART)).digest() * 2).hexdigest()
    verifier = Verifier(len(content), Digest("md5-parts", expected, PART))
    verifier.update(memoryview(content))
    assert verifier.fault() is None


@pytest.mark.parametrize(
    ("kind", "value"), [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_cyclic_checks_have_their_published_values(kind: str, value: str) -> None:
    """The check value of each algorithm's catalogue entry: of the digits 1 to 9."""
    stated = from_base64(kind, base64.b64encode(bytes.fromhex(value)).decode())
    verifier = Verifier(9, stated)
    verifier.update(memoryview(b"1234"))
    verifier.update(memoryview(b"56789"))
    assert verifier.fault() is None


NOW = 1_000_000.0
OLD = NOW - GRACE - 1


def _names(chosen: list[Occupant] | None) -> list[str] | None:
    return None if chosen is None else [one.name for one in chosen]


@pytest.mark.parametrize(
    ("short", "goes"),
    [
        (0, []),
        (1, ["oldest"]),
        (10, ["oldest"]),
        (11, ["oldest", "older"]),
        (30, ["oldest", "older"]),
        (31, None),
    ],
)
def test_the_oldest_go_until_it_fits(short: int, goes: list[str] | None) -> None:
    occupants = [
        Occupant("young", 100, NOW - GRACE),
        Occupant("older", 20, OLD - 1),
        Occupant("oldest", 10, OLD - 2),
        Occupant("used", 100, OLD - 3, wanted=True),
    ]
    assert _names(choose(occupants, short, NOW)) == goes


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_patience_ends_with_the_numbers() -> None:
    clock, stop = _Clock(), threading.Event()
    patience = Patience(10, stop, clock=clock)
    patience.wait(TransientError("http://x answers 500"))
    clock.now = 9.9
    patience.progressed()
    clock.now = 19.8
    patience.wait(TransientError("http://x answers 500", retry_after=0.01))
    clock.now = 20.0
    with pytest.raises(FetchError, match=r"http://x answers 500; 2 tries in 10 s without a byte") as ended:
        patience.wait(TransientError("http://x answers 500"))
    assert ended.value.reason == Reason.UNREACHABLE


def test_what_a_server_asks_for_is_waited_within_reason() -> None:
    with pytest.raises(FetchError, match="asks to wait 3600 s"):
        Patience(10, threading.Event()).wait(TransientError("http://x answers 429", retry_after=3600))


def test_a_wait_ends_when_the_process_must() -> None:
    stop = threading.Event()
    stop.set()

    def work() -> None:
        raise TransientError("later", retry_after=60)

    with pytest.raises(InterruptedFetchError):
        persistently(work, Patience(100, stop))


def _from_another_node(path: Path, token: str = "theirs", beats: int = 1) -> None:
    path.write_text(json.dumps({"token": token, "host": "pod-b", "kernel": "another", "beats": beats}))


def test_one_holds_and_others_wait(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    first = Claim(path).try_acquire()
    assert first is not None
    second = Claim(path)
    assert second.try_acquire() is None
    assert held(path)
    first.release()
    assert not held(path)
    again = second.try_acquire()
    assert again is not None
    again.release()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_of_another_node_that_beats_is_left_alone(tmp_path: Path) -> None:
    """However long it takes, and whatever its clock says."""
    path, clock = tmp_path / "x.lease", _Clock()
    claim = Claim(path, clock=clock)
    for beat in range(5):
        _from_another_node(path, beats=beat)
        os.utime(path, (0, 0))
        assert claim.try_acquire() is None
        clock.now += EXPIRY - 1
    assert claim.holder == "pod-b"


def test_a_holder_of_another_node_that_stands_still_is_replaced(tmp_path: Path) -> None:
    """A node that lost power gives nothing back."""
    path, clock = tmp_path / "x.lease", _Clock()
    claim = Claim(path, clock=clock)
    _from_another_node(path)
    assert claim.try_acquire() is None
    clock.now += EXPIRY
    lease = claim.try_acquire()
    assert lease is not None
    assert json.loads(path.read_text())["token"] != "theirs"
    lease.release()


def test_who_is_late_does_not_take_the_lease_of_who_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two waiters judge the same dead holder; the second must give back what it took by mistake."""
    path, clock = tmp_path / "x.lease", _Clock()
    _from_another_node(path)
    slow = Claim(path, clock=clock)
    assert slow.try_acquire() is None
    clock.now += EXPIRY
    judged = leases.Claim._gone

    def after_another(self: Claim) -> bool:
        gone = judged(self)
        _from_another_node(path, token="quicker")  # between the judgement and the deed
        return gone

    monkeypatch.setattr(leases.Claim, "_gone", after_another)
    assert slow.try_acquire() is None
    assert json.loads(path.read_text())["token"] == "quicker"
    assert [file.name for file in tmp_path.iterdir()] == ["x.lease"]


def test_a_holder_that_was_replaced_stops_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped for minutes and wakes up."""
    monkeypatch.setattr(leases, "BEAT", 0.01)
    path = tmp_path / "x.lease"
    lease = Claim(path).try_acquire()
    assert lease is not None
    lease.check()
    path.unlink()
    _from_another_node(path)
    lease._thread.join(5)
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.release()
    assert json.loads(path.read_text())["token"] == "theirs"


def test_a_holder_whose_beat_does_not_come_through_stops_before_others_may_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that is away for a minute."""
    lease = Claim(tmp_path / "x.lease").try_acquire()
    assert lease is not None
    before = leases.time.monotonic()
    monkeypatch.setattr(leases.time, "monotonic", lambda: before + EXPIRY / 2 + 1)
    with pytest.raises(LeaseLostError):
        lease.check()
    monkeypatch.undo()
    lease.release()


def test_locks_that_everybody_gets_prove_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre without its flock option, some NFS: there only a counter that stands still tells."""
    path = tmp_path / "x.lease"
    lease = Claim(path).try_acquire()
    assert lease is not None
    monkeypatch.setattr(leases.fcntl, "flock", lambda *_: None)
    assert Claim(path).try_acquire() is None
    monkeypatch.undo()
    lease.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 99}', '{"version": 1}'])
def test_a_state_that_cannot_be_read_is_no_state(tmp_path: Path, text: str) -> None:
    """The entry is then begun anew, from what is there."""
    path = tmp_path / "state.json"
    path.write_text(text)
    assert read_state(path) is None
