"""Room on a real file system that is too small: what goes, what stays, and what a person is told."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moe_operator.catalog.weights_layout import entry_name
from weights.faulty_server import Fault
from weights.hub_server import HubServer
from weights.program import COMMAND, Ended, ended, environment, fetch_arguments, model

MIB = 2**20
#: A mount of our own; without root in a user namespace, where the kernel allows that.
_UNSHARE = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--mount", "--user", "--map-root-user")


class Volume:
    """A tmpfs of a given size that exists only in a namespace of its own, held by a shell."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        mount = f'mount -t tmpfs -o size={size} none "{folder}" && echo ready && read -r _'
        self._shell = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._shell.stdout is not None
        assert self._shell.stdout.readline() == "ready\n"

    @property
    def path(self) -> Path:
        """The volume as this process sees it."""
        return Path(f"/proc/{self._shell.pid}/root{self.folder}")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The program, inside."""
        inside = ("nsenter", f"--target={self._shell.pid}", "--mount", "--wdns=/")
        if os.getuid() != 0:
            inside = (*inside, "--user", "--preserve-credentials")
        return subprocess.Popen(
            [*inside, *COMMAND, *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fetch(self, hub: HubServer, source: str, *more: str) -> Ended:
        return ended(self.start(*fetch_arguments(self.folder, hub.url, source, *more)))

    def close(self) -> None:
        self._shell.communicate()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    folder = tmp_path / "cache"
    folder.mkdir()
    held = Volume(folder, 16 * MIB)
    yield held
    held.close()


def _add(hub: HubServer, name: str, size: int = 5 * MIB) -> str:
    """A model of two such shards."""
    hub.add(f"acme/{name}", {key: value + name.encode() for key, value in model(shard=size).items()})
    return entry_name(f"hf://acme/{name}")


def _used_ago(volume: Volume, entry: str, seconds: float) -> None:
    path = volume.path / entry / "state.json"
    state = json.loads(path.read_text())
    state["last_used"] = datetime.fromtimestamp(time.time() - seconds, UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps(state))


def _entries(volume: Volume) -> set[str]:
    return {path.name for path in volume.path.iterdir() if not path.name.startswith(".")}


def test_what_does_not_fit_is_refused_before_the_first_byte(hub: HubServer, volume: Volume) -> None:
    """Hours of download must not end at a full disk."""
    _add(hub, "huge", size=9 * MIB)
    done = volume.fetch(hub, "hf://acme/huge")
    assert (done.code, done.outcome["reason"]) == (4, "DiskFull")
    assert "needs 18.0 MiB more" in done.outcome["message"]
    assert "are free" in done.outcome["message"]
    assert hub.asked("/resolve/") == 0


def test_the_reserve_stays_free(hub: HubServer, volume: Volume) -> None:
    name = _add(hub, "one")
    assert volume.fetch(hub, "hf://acme/one", "--reserve-free", "8Mi").code == 4
    done = volume.fetch(hub, "hf://acme/one", "--reserve-free", "5Mi")
    assert (done.code, done.outcome["entry"]) == (0, name)


def test_the_least_recently_used_goes_and_no_more(hub: HubServer, volume: Volume) -> None:
    """A cache that keeps everything fills; one that removes too much fetches everything again."""
    old, older = _add(hub, "old", 2 * MIB), _add(hub, "older", 2 * MIB)
    new, foreign = _add(hub, "new", 4 * MIB), volume.path / "not-ours"
    foreign.mkdir()
    (foreign / "data").write_bytes(bytes(MIB))
    for each in ("old", "older"):
        assert volume.fetch(hub, f"hf://acme/{each}").code == 0
    _used_ago(volume, old, 7200)
    _used_ago(volume, older, 9000)
    done = volume.fetch(hub, "hf://acme/new")
    assert done.code == 0, done
    assert "collecting" in done.phases
    assert _entries(volume) == {old, new, "not-ours"}


def test_what_is_in_use_or_was_just_used_stays(hub: HubServer, volume: Volume) -> None:
    """An engine that restarts in place must find its weights."""
    used, recent = _add(hub, "used", 3 * MIB), _add(hub, "recent", 3 * MIB)
    _add(hub, "new", 4 * MIB)
    for each in ("used", "recent"):
        assert volume.fetch(hub, f"hf://acme/{each}").code == 0
    _used_ago(volume, used, 9000)
    done = volume.fetch(hub, "hf://acme/new", "--in-use", used)
    assert (done.code, done.outcome["reason"]) == (4, "DiskFull")
    assert used in done.outcome["message"]
    assert recent in done.outcome["message"]
    assert _entries(volume) >= {used, recent}
    # The deployment is deleted: nobody needs to do anything else.
    assert volume.fetch(hub, "hf://acme/new").code == 0


def test_nothing_goes_where_all_that_may_go_is_not_enough(hub: HubServer, volume: Volume) -> None:
    old = _add(hub, "old", 2 * MIB)
    _add(hub, "huge", size=9 * MIB)
    assert volume.fetch(hub, "hf://acme/old").code == 0
    _used_ago(volume, old, 9000)
    assert volume.fetch(hub, "hf://acme/huge").code == 4
    assert old in _entries(volume)


def test_full_in_the_middle_keeps_what_there_is_and_goes_on(hub: HubServer, volume: Volume) -> None:
    """Others write to the same volume: the check at the beginning is no promise."""
    name = _add(hub, "one")
    shard = next(path for path in model() if path.endswith("1-of-00002.safetensors"))
    sha256 = _sha256(hub, shard)
    hub.plan(sha256, Fault(hold_at=2 * MIB))
    process = volume.start(*fetch_arguments(volume.folder, hub.url, "hf://acme/one"))
    assert hub.holding.wait(20)
    ballast = volume.path / "ballast"
    with pytest.raises(OSError, match="No space left"):
        _fill(ballast)
    hub.go_on.set()
    done = ended(process)
    assert (done.code, done.outcome["reason"]) == (4, "DiskFull"), done
    assert "are there and are kept" in done.outcome["message"]
    assert f"Largest in {volume.folder}: {name}" in done.outcome["message"]
    ballast.unlink()
    sent = hub.bytes_of(sha256)
    done = volume.fetch(hub, "hf://acme/one")
    assert done.code == 0, done
    again = hub.bytes_of(sha256) - sent
    assert again < 4 * MIB, f"{again} bytes again of a shard of 5 MiB of which 2 MiB were there"


def test_two_models_at_once_are_not_promised_the_same_room(hub: HubServer, volume: Volume) -> None:
    """Each would fit alone: the second must not find out at half of its bytes."""
    _add(hub, "one")
    _add(hub, "two")
    shard = next(path for path in model() if path.endswith("1-of-00002.safetensors"))
    hub.plan(_sha256(hub, shard, "acme/one"), Fault(hold_at=MIB))
    first = volume.start(*fetch_arguments(volume.folder, hub.url, "hf://acme/one"))
    assert hub.holding.wait(20)
    done = volume.fetch(hub, "hf://acme/two")
    assert (done.code, done.outcome["reason"]) == (4, "DiskFull")
    assert "promised to downloads under way" in done.outcome["message"]
    hub.go_on.set()
    assert ended(first).code == 0


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))


def _sha256(hub: HubServer, name: str, repository: str = "acme/one") -> str:
    return hashlib.sha256(hub.repositories[repository].commits["a" * 40][name]).hexdigest()
