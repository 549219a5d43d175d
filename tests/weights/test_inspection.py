"""What an operator of the cluster can ask of a cache."""

import json
import subprocess
from pathlib import Path

from weights.hub_server import HubServer
from weights.program import COMMAND, environment, fetch_arguments, run

SHARD = "model-00001-of-00002.safetensors"


def _list(cache: Path, *more: str) -> str:
    return subprocess.run(
        [*COMMAND, "list", "--cache", str(cache), *more],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_a_rotten_byte_is_found_and_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    """Disks lie, rarely; nobody reads 600 GB at each start to see it."""
    arguments = fetch_arguments(tmp_path, hub.url)
    entry = run(*arguments).outcome["entry"]
    verify = ("verify", "--cache", str(tmp_path), "--entry", entry)
    good = run(*verify)
    assert (good.code, good.phases) == (0, ["verifying", "complete"])
    path = tmp_path / entry / "model" / SHARD
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert run(*arguments).code == 0, "the same size: not seen without being asked for"
    bad = run(*verify)
    assert (bad.code, bad.outcome["reason"]) == (5, "Corrupt")
    assert f"{SHARD}: sha256" in bad.outcome["message"]
    assert run(*arguments).code == 0
    assert run(*verify).code == 0


def test_an_entry_that_is_not_there(hub: HubServer, tmp_path: Path) -> None:
    entry = run(*fetch_arguments(tmp_path, hub.url)).outcome["entry"]
    done = run("verify", "--cache", str(tmp_path), "--entry", "other")
    assert (done.code, done.outcome["reason"]) == (3, "NotFound")
    assert entry in done.outcome["message"]
    for name in ("../x", ".moe-operator", ""):
        assert run("verify", "--cache", str(tmp_path), "--entry", name).code == 3


def test_a_cache_is_listed(hub: HubServer, tmp_path: Path) -> None:
    outcome = run(*fetch_arguments(tmp_path, hub.url)).outcome
    (told,) = json.loads(_list(tmp_path, "-o", "json"))
    assert told["usedBytes"] >= told["bytes"]
    assert {
        name: told[name] for name in ("entry", "source", "revision", "commit", "complete", "held", "bytes")
    } == {
        "entry": outcome["entry"],
        "source": "hf://acme/moe",
        "revision": "main",
        "commit": "a" * 40,
        "complete": True,
        "held": False,
        "bytes": outcome["bytes"],
    }
    head, row = _list(tmp_path).splitlines()
    assert head.split()[:2] == ["ENTRY", "STATE"]
    assert row.split()[:2] == [outcome["entry"], "complete"]
