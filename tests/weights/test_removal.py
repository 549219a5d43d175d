"""Entries that somebody wants gone: whole, never under another's hands, and whatever ends the run.

What is lost otherwise: weights that another pod is about to read, folders that are nobody's cache, or terabytes that
no later run finds.
"""

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from weights.faulty_server import Fault
from weights.hub_server import HubServer
from weights.program import Ended, ended, fetch_arguments, model, run, start

SHARD = "model-00002-of-00002.safetensors"


def remove(cache: Path, *entries: str) -> Ended:
    return run(*arguments(cache, *entries))


def arguments(cache: Path, *entries: str) -> tuple[str, ...]:
    return ("remove", "--cache", str(cache), *(word for entry in entries for word in ("--entry", entry)))


def fetched(cache: Path, hub: HubServer, source: str = "hf://acme/moe") -> str:
    return str(run(*fetch_arguments(cache, hub.url, source)).outcome["entry"])


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def trash(cache: Path) -> list[Path]:
    return list((cache / ".moe-operator" / "trash").iterdir())


def test_an_entry_goes_whole_and_the_next_fetch_brings_it_again(hub: HubServer, tmp_path: Path) -> None:
    hub.add("acme/law", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x" * 5000})
    cache, message = tmp_path / "cache", tmp_path / "message"
    entry, law = fetched(cache, hub), fetched(cache, hub, "hf://acme/law")
    done = run(*arguments(cache, entry), "--message-file", str(message))
    assert (done.code, done.outcome["reason"], done.outcome["entry"]) == (0, "Complete", entry)
    assert done.outcome["bytes"] >= 600_000
    assert json.loads(message.read_text()) == done.outcome
    assert done.phases == ["removing", "complete"]
    assert names(cache) == {".moe-operator", law}
    assert trash(cache) == []
    assert not list((cache / ".moe-operator").glob("*.lease*"))
    assert fetched(cache, hub) == entry
    assert remove(cache, entry, law).outcome["message"] == "2 removed"
    assert names(cache) == {".moe-operator"}


def test_what_is_not_there_is_removed(hub: HubServer, tmp_path: Path) -> None:
    """A Job whose pod is lost at its last moment runs again."""
    entry = fetched(tmp_path, hub)
    done = remove(tmp_path, entry, "acme-other-0000000000")
    assert (done.code, done.outcome["message"]) == (0, "1 removed, 1 not there")
    assert remove(tmp_path, entry).code == 0


def test_an_entry_that_is_being_fetched_stays_and_the_others_go(hub: HubServer, tmp_path: Path) -> None:
    """Somebody wants it: they would download for hours into a folder that is gone."""
    hub.add("acme/law", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x" * 5000})
    law = fetched(tmp_path, hub, "hf://acme/law")
    hub.plan(hashlib.sha256(model()[SHARD]).hexdigest(), Fault(hold_at=100_000))
    process = start(*fetch_arguments(tmp_path, hub.url))
    assert hub.holding.wait(20)
    (entry,) = names(tmp_path) - {".moe-operator", law}
    done = remove(tmp_path, entry, law)
    assert (done.code, done.outcome["reason"], done.outcome["entry"]) == (6, "Busy", entry)
    assert "works on it, so it stays" in done.outcome["message"]
    assert law not in names(tmp_path)
    hub.go_on.set()
    assert ended(process).code == 0
    assert remove(tmp_path, entry).code == 0


def test_what_was_fetched_while_a_removal_waited_stays(hub: HubServer, tmp_path: Path) -> None:
    """A lease without a sign of life belongs to the dead, or to somebody who is just done."""
    entry = fetched(tmp_path, hub)
    lease = tmp_path / ".moe-operator" / f"{entry}.lease"
    lease.write_text(json.dumps({"token": "a", "host": "pod", "kernel": "another node's", "beats": 1}))
    process = start(*arguments(tmp_path, entry))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["phase"] == "waiting"
    state = tmp_path / entry / "state.json"
    state.write_text(state.read_text().replace('"complete": true', '"complete":  true').replace(
        json.loads(state.read_text())["last_used"], "2031-01-01T00:00:00+00:00"))  # fmt: skip
    lease.unlink()
    done = ended(process)
    assert (done.code, done.outcome["reason"]) == (6, "Busy")
    assert entry in names(tmp_path)


def test_the_lease_of_a_node_that_is_gone_holds_for_half_a_minute(hub: HubServer, tmp_path: Path) -> None:
    entry = fetched(tmp_path, hub)
    lease = tmp_path / ".moe-operator" / f"{entry}.lease"
    lease.write_text(json.dumps({"token": "a", "host": "pod", "kernel": "another node's", "beats": 1}))
    began = time.monotonic()
    assert remove(tmp_path, entry).code == 0
    assert 29 < time.monotonic() - began < 50
    assert entry not in names(tmp_path)


def test_what_a_crashed_fetch_left_goes_without_a_wait(hub: HubServer, tmp_path: Path) -> None:
    hub.plan(hashlib.sha256(model()[SHARD]).hexdigest(), Fault(hold_at=100_000))
    process = start(*fetch_arguments(tmp_path, hub.url))
    assert hub.holding.wait(20)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.go_on.set()
    (entry,) = names(tmp_path) - {".moe-operator"}
    began = time.monotonic()
    assert remove(tmp_path, entry).code == 0
    assert time.monotonic() - began < 10
    assert names(tmp_path) == {".moe-operator"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_is_ended_in_the_middle_is_done_by_the_next(
    hub: HubServer, tmp_path: Path, how: signal.Signals
) -> None:
    """At no time is there half of an entry, and no byte stays for ever."""
    entry = fetched(tmp_path, hub)
    for number in range(20_000):
        (tmp_path / entry / "model" / f"file-{number}").touch()
    process = start(*arguments(tmp_path, entry))
    while entry in names(tmp_path):
        assert process.poll() is None
    process.send_signal(how)
    killed = ended(process)
    assert trash(tmp_path), "it was done before it could be ended: more files"
    if how is signal.SIGTERM:
        assert (killed.code, killed.outcome["reason"]) == (143, "Interrupted")
    assert entry not in names(tmp_path)
    done = remove(tmp_path, entry)
    assert (done.code, done.outcome["message"]) == (0, "1 not there")
    assert trash(tmp_path) == []
    assert fetched(tmp_path, hub) == entry


def test_half_an_entry_goes_too(hub: HubServer, tmp_path: Path) -> None:
    """As a person, or another program, may leave it."""
    entry = fetched(tmp_path, hub)
    (tmp_path / entry / "state.json").unlink()
    (tmp_path / entry / "model" / SHARD).unlink()
    assert remove(tmp_path, entry).code == 0
    assert names(tmp_path) == {".moe-operator"}


def test_what_is_not_the_programs_stays(hub: HubServer, tmp_path: Path) -> None:
    """A claim may hold more than a cache; a mistyped name must cost nothing."""
    fetched(tmp_path, hub)
    folder, outside = tmp_path / "datasets", tmp_path.parent / f"{tmp_path.name}-outside"
    folder.mkdir()
    (folder / "train.parquet").touch()
    outside.mkdir()
    (outside / "state.json").touch()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "file").touch()
    before = names(tmp_path)
    for name, said in (("datasets", "train.parquet"), ("link", "no folder"), ("file", "no folder")):
        done = remove(tmp_path, name)
        assert (done.code, done.outcome["reason"]) == (3, "BadCache"), name
        assert said in done.outcome["message"]
    for name in ("../x", ".moe-operator", ".", "", "a/b"):
        assert remove(tmp_path, name).code == 3, name
    assert names(tmp_path) == before
    assert (outside / "state.json").exists()
    shutil.rmtree(outside)


def test_links_in_an_entry_are_not_followed(hub: HubServer, tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    entry = fetched(cache, hub)
    outside.mkdir()
    (outside / "kept").touch()
    (cache / entry / "model" / "folder").symlink_to(outside)
    (cache / entry / "model" / "file").symlink_to(outside / "kept")
    assert remove(cache, entry).code == 0
    assert (outside / "kept").exists()
    assert trash(cache) == []


def test_a_cache_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = remove(tmp_path / "mistyped", "acme-moe-main-0000000000")
    assert (done.code, done.outcome["reason"]) == (3, "BadCache")
    assert not (tmp_path / "mistyped").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_files_of_another_user_are_named(hub: HubServer, tmp_path: Path) -> None:
    """Nobody finds terabytes in a folder with a dot otherwise."""
    from weights.program import somebodys_folder

    with somebodys_folder() as (folder, become):
        if not become:
            pytest.skip("the project lies in a folder that is closed to others")
        entry = str(run(*fetch_arguments(folder, hub.url), become=become).outcome["entry"])
        os.chown(folder / entry / "model", 0, 0)
        (folder / entry / "model").chmod(0o755)
        done = run(*arguments(folder, entry), become=become)
        assert (done.code, done.outcome["reason"]) == (3, "BadCache")
        assert (
            "cannot be deleted by user" in done.outcome["message"]
            or "cannot be used" in done.outcome["message"]
        )
