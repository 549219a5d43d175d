"""A fetch that goes well: what is there at its end, what is asked for, and how often."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from weights.hub_server import HubServer
from weights.program import NEEDED, ended, environment, fetch_arguments, model, run, somebodys_folder, start

FILES = NEEDED | {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_engine_gets_what_it_needs_and_nothing_else(hub: HubServer, tmp_path: Path) -> None:
    """Else a volume holds the same weights twice, or a pickle that nobody asked for."""
    message = tmp_path / "message"
    done = run(*fetch_arguments(tmp_path / "cache", hub.url), "--message-file", str(message))
    assert done.code == 0, done
    outcome = done.outcome
    entry = tmp_path / "cache" / outcome["entry"]
    content = model()
    assert _names(entry / "model") == FILES
    assert all((entry / "model" / name).read_bytes() == content[name] for name in FILES)
    total = sum(len(content[name]) for name in FILES)
    assert outcome == {
        "reason": "Complete",
        "message": "5 files",
        "commit": "a" * 40,
        "bytes": total,
        "entry": outcome["entry"],
    }
    assert json.loads(message.read_text()) == outcome
    assert done.phases[0] == "resolving"
    assert done.phases[-3:] == ["downloading", "verifying", "complete"]
    last = done.lines[-2]
    assert (last["bytes"], last["totalBytes"], last["files"], last["totalFiles"]) == (total, total, 5, 5)
    state = json.loads((entry / "state.json").read_text())
    assert state["complete"] is True
    assert {file["name"]: file["sha256"] for file in state["files"]} == {
        name: hashlib.sha256(content[name]).hexdigest() for name in FILES
    }
    assert list((entry / "partial").iterdir()) == []


def test_a_complete_entry_asks_nobody_and_is_found_at_once(hub: HubServer, tmp_path: Path) -> None:
    """A serving pod that restarts while the hub is away must start."""
    arguments = fetch_arguments(tmp_path, hub.url)
    first = run(*arguments)
    asked = len(hub.requests)
    began = time.monotonic()
    second = run(*arguments)
    took = time.monotonic() - began
    assert second.outcome == first.outcome
    assert second.phases == ["complete"]
    assert len(hub.requests) == asked
    assert took < 3, f"{took:.1f} s: a look at a folder and the interpreter's start"


def test_a_complete_entry_needs_no_client_of_anything(hub: HubServer, tmp_path: Path) -> None:
    """What is imported here is paid by every start of every serving pod."""
    run(*fetch_arguments(tmp_path, hub.url))
    script = (
        "import sys; from moe_operator.cli import weights_command as w; code = w.main(sys.argv[1:]);"
        "heavy = {'huggingface_hub', 'httpx2', 'awscrt', 'urllib3', 'kopf', 'kubernetes', 'pydantic', 'yaml'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *fetch_arguments(tmp_path, hub.url)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_branch_that_moves_on_changes_nothing_in_the_cache(hub: HubServer, tmp_path: Path) -> None:
    """Pods of one deployment would serve different weights."""
    arguments = fetch_arguments(tmp_path, hub.url)
    first = run(*arguments).outcome
    repository = hub.repositories["acme/moe"]
    repository.commits["b" * 40] = {**model(), "config.json": b'{"other": 1}'}
    repository.branches["main"] = "b" * 40
    entry = tmp_path / first["entry"]
    (entry / "model" / "model-00001-of-00002.safetensors").unlink()
    again = run(*arguments)
    assert (again.code, again.outcome["commit"]) == (0, "a" * 40)
    assert b"Qwen3" in (entry / "model" / "config.json").read_bytes()
    assert hub.asked("/api/models/") == 1, "the commit and the files were known"


def test_a_file_of_another_size_is_fetched_again_and_only_that(hub: HubServer, tmp_path: Path) -> None:
    arguments = fetch_arguments(tmp_path, hub.url)
    entry = tmp_path / run(*arguments).outcome["entry"]
    broken = entry / "model" / "model-00002-of-00002.safetensors"
    broken.write_bytes(b"short")
    before = dict(hub.sent)
    assert run(*arguments).code == 0
    assert broken.read_bytes() == model()[broken.name]
    grown = {
        path: hub.sent[path] - before.get(path, 0) for path in hub.sent if hub.sent[path] != before.get(path)
    }
    assert list(grown.values()) == [300_000]


def test_more_files_can_be_taken_later(hub: HubServer, tmp_path: Path) -> None:
    arguments = fetch_arguments(tmp_path, hub.url)
    run(*arguments)
    sent = hub.bytes_of("")
    done = run(*arguments, "--include", "original/*")
    assert done.code == 0
    assert (tmp_path / done.outcome["entry"] / "model/original/consolidated.00.pth").is_file()
    assert hub.bytes_of("") - sent < 10_000, "the listing and one small file"
    asked = len(hub.requests)
    assert run(*arguments).code == 0
    assert len(hub.requests) == asked, "who needs less is content with more"


def test_a_token_is_sent_to_the_hub_alone(hub: HubServer, tmp_path: Path) -> None:
    """The content network is another company's; the hub server refuses a token there."""
    hub.repositories["acme/moe"].token = "hf_secret"
    done = run(*fetch_arguments(tmp_path, hub.url), env=environment(HF_TOKEN="hf_secret\n"))
    assert done.code == 0
    assert all("authorization" not in headers for _, path, headers in hub.requests if path.startswith("/cdn"))
    everything = json.dumps(done.lines) + done.stderr
    assert "hf_secret" not in everything
    assert "Signature" not in everything


def test_eight_at_once_download_once(hub: HubServer, tmp_path: Path) -> None:
    """Pods of a node, or of a cluster on one claim, start together."""
    processes = [start(*fetch_arguments(tmp_path, hub.url)) for _ in range(8)]
    results = [ended(process) for process in processes]
    assert [one.code for one in results] == [0] * 8
    assert len({json.dumps(one.outcome) for one in results}) == 1
    content = model()
    for name in FILES:
        sha256 = hashlib.sha256(content[name]).hexdigest()
        assert hub.bytes_of(sha256) + hub.bytes_of(f"/{name}") == len(content[name]), name
    assert hub.asked("/api/models/") == 1
    assert not list((tmp_path / ".moe-operator").glob("*.lease*"))


def test_a_user_that_no_image_knows_fills_a_cache_of_its_own(hub: HubServer) -> None:
    """Clusters run containers as users without a name or a home."""
    with somebodys_folder() as (folder, become):
        done = run(*fetch_arguments(folder, hub.url), become=become)
        assert done.code == 0, done
        assert (folder / done.outcome["entry"] / "state.json").stat().st_uid == folder.stat().st_uid
