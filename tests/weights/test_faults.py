"""A fetch that something happens to: what is kept, what is refused, how it ends and what it says."""

import hashlib
import re
import signal
import time
from pathlib import Path

import pytest

from harness.wait import wait_for
from moe_operator.weights.folder import Entry
from weights.faulty_server import Fault
from weights.hub_server import HubServer
from weights.program import ended, environment, fetch_arguments, model, run, somebodys_folder, start

SHARD = "model-00001-of-00002.safetensors"
SIZE = 4_000_000
HELD = 2 * 2**20  # a multiple of what the server sends at once


def _entry(cache: Path) -> Path:
    return next(path for path in cache.iterdir() if not path.name.startswith("."))


def _gathered(entry: Path) -> int:
    """Bytes of the shard that are on disk, while it is under way."""
    return Entry(entry).partial_of(SHARD).stat().st_size


def _sha256(name: str, files: dict[str, bytes]) -> str:
    return hashlib.sha256(files[name]).hexdigest()


@pytest.fixture
def big(hub: HubServer) -> dict[str, bytes]:
    """A model whose shards take many reads."""
    files = model(shard=SIZE)
    hub.add("acme/moe", files)
    return files


def test_killed_in_the_middle_of_a_file_goes_on_there(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path
) -> None:
    """Half a terabyte from the start again at each restart may never end."""
    shard = _sha256(SHARD, big)
    hub.plan(shard, Fault(hold_at=HELD))
    process = start(*fetch_arguments(tmp_path, hub.url))
    assert hub.holding.wait(20)
    entry = _entry(tmp_path)
    wait_for("what was sent to be on disk", lambda: _gathered(entry) >= HELD, seconds=20)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    sent = hub.bytes_of(shard)
    hub.go_on.set()
    kept = {part.stat().st_size for part in entry.glob("partial/*")}
    hub.sent.clear()
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert done.code == 0, done
    assert (entry / "model" / SHARD).read_bytes() == big[SHARD]
    ranges = [headers["range"] for _, path, headers in hub.requests if shard in path and headers.get("range")]
    begun = int(ranges[-1].removeprefix("bytes=").rstrip("-"))
    assert begun in kept
    assert begun == sent, "nothing that was sent is sent again"
    assert hub.asked("/api/models/") == 1


def test_a_cut_connection_is_taken_up_where_it_broke(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path
) -> None:
    """Every byte is sent once, however often a network breaks."""
    shard = _sha256(SHARD, big)
    hub.plan(shard, Fault(cut_after=1_000_000), Fault(cut_after=1_500_000), Fault(cut_after=100_000))
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert done.code == 0, done
    assert hub.bytes_of(shard) == SIZE


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "1"}),
        Fault(status=429, headers={"Retry-After": "1"}),
        Fault(status=403),
        Fault(headers={"Content-Range": "bytes 0-99/4000000"}, status=206),
    ],
    ids=lambda fault: f"{fault.status}{'-later' if 'Retry-After' in fault.headers else ''}",
)
def test_a_content_network_that_stumbles_is_asked_again(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path, fault: Fault
) -> None:
    """403 there is an address whose signature ran out: the hub gives a new one."""
    shard = _sha256(SHARD, big)
    hub.plan(shard, fault)
    began = time.monotonic()
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert done.code == 0, done
    assert (tmp_path / done.outcome["entry"] / "model" / SHARD).read_bytes() == big[SHARD]
    if "Retry-After" in fault.headers:
        assert time.monotonic() - began >= 1


def test_a_hub_that_stumbles_at_the_listing_is_asked_again(hub: HubServer, tmp_path: Path) -> None:
    hub.plan("/revision/main", Fault(status=502), Fault(status=429, headers={"Retry-After": "1"}))
    assert run(*fetch_arguments(tmp_path, hub.url)).code == 0


def test_a_server_that_knows_no_ranges_begins_anew(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path
) -> None:
    """Its first byte must not land in the middle of the file."""
    shard = _sha256(SHARD, big)
    hub.plan(shard, Fault(cut_after=1_000_000), Fault(whole=True))
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert done.code == 0, done
    assert hub.bytes_of(shard) == SIZE + 1_000_000
    assert (tmp_path / done.outcome["entry"] / "model" / SHARD).read_bytes() == big[SHARD]


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_corrupted_once_is_fetched_again(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    ending = _sha256(name, big) if name == SHARD else name
    hub.plan(ending, *([] if name == SHARD else [Fault()]), Fault(corrupt_at=20))
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert done.code == 0, done
    assert (tmp_path / done.outcome["entry"] / "model" / name).read_bytes() == big[name]


@pytest.mark.parametrize(
    ("name", "kind"), [(SHARD, "sha256"), ("config.json", "git-sha1")], ids=["large", "small"]
)
def test_corrupted_twice_is_refused_by_name(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path, name: str, kind: str
) -> None:
    """A model that serves with one wrong byte answers wrongly, and nobody knows why."""
    hub.always(
        _sha256(name, big) if name == SHARD else f"cache/models/acme/moe/{'a' * 40}/{name}",
        Fault(corrupt_at=9),
    )
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert (done.code, done.outcome["reason"]) == (5, "Corrupt")
    assert name in done.outcome["message"]
    assert kind in done.outcome["message"]
    assert not (tmp_path / done.outcome["entry"] / "model" / name).exists()
    hub._always.clear()
    assert run(*fetch_arguments(tmp_path, hub.url)).code == 0, "the source was mended"


def test_parts_that_a_crash_left_wrong_are_no_fault_of_the_source(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path
) -> None:
    """A loss of power leaves files of the right length full of zeros."""
    shard = _sha256(SHARD, big)
    hub.plan(shard, Fault(cut_after=1_000_000))
    hub.always(shard, Fault(status=500))
    first = run(*fetch_arguments(tmp_path, hub.url, "hf://acme/moe", "--patience", "1"))
    assert (first.code, first.outcome["reason"]) == (6, "Unreachable")
    entry = tmp_path / first.outcome["entry"]
    part = max(entry.glob("partial/*"), key=lambda path: path.stat().st_size)
    part.write_bytes(bytes(part.stat().st_size))
    hub.always(shard, None)
    hub.plan(shard, Fault(), Fault(corrupt_at=5))
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert done.code == 0, done
    assert (entry / "model" / SHARD).read_bytes() == big[SHARD]


@pytest.mark.parametrize(
    "header", [{"X-Repo-Commit": "c" * 40}, {"X-Linked-ETag": '"%s"' % ("d" * 64)}, {"X-Linked-Size": "5"}]
)
def test_a_hub_that_speaks_of_another_file_is_not_believed(
    hub: HubServer, tmp_path: Path, header: dict[str, str]
) -> None:
    """A mirror that ignores the commit would mix two versions of a model."""
    hub.always(SHARD, Fault(headers=header))
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert (done.code, done.outcome["reason"]) == (5, "Corrupt")
    assert next(iter(header)) in done.outcome["message"]
    assert not (tmp_path / done.outcome["entry"] / "model" / SHARD).exists()


def test_told_to_stop_says_so_and_keeps_what_there_is(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path
) -> None:
    """A node that drains must not wait for a download, nor lose it."""
    hub.plan(_sha256(SHARD, big), Fault(hold_at=HELD))
    message = tmp_path / "message"
    cache = tmp_path / "cache"
    process = start(*fetch_arguments(cache, hub.url), "--message-file", str(message))
    assert hub.holding.wait(20)
    wait_for("a silent connection", lambda: _gathered(_entry(cache)) >= HELD, seconds=20)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert time.monotonic() - began < 10, "a read waits for 30 s: nobody waits for the read"
    assert done.outcome["bytes"] >= HELD
    assert (done.code, done.outcome["reason"]) == (143, "Interrupted")
    assert message.read_text().startswith('{"reason": "Interrupted"')
    assert not list((cache / ".moe-operator").glob("*.lease")), "a successor need not wait"
    hub.go_on.set()
    assert run(*fetch_arguments(cache, hub.url)).code == 0


def test_told_to_stop_while_the_hub_is_silent(hub: HubServer, tmp_path: Path) -> None:
    """A stop that comes too late is a SIGKILL, and the next pod on another node waits for a dead one's lease."""
    hub.plan("/revision/main", Fault(hold_at=0))
    process = start(*fetch_arguments(tmp_path, hub.url))
    assert hub.holding.wait(20)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert time.monotonic() - began < 10
    assert (done.code, done.outcome["reason"]) == (143, "Interrupted")
    assert not list((tmp_path / ".moe-operator").glob("*.lease"))


def test_a_waiting_process_says_so_and_takes_over_from_a_dead_one(
    hub: HubServer, big: dict[str, bytes], tmp_path: Path
) -> None:
    """Else one killed pod would keep all others out."""
    hub.plan(_sha256(SHARD, big), Fault(hold_at=2_000_000))
    first = start(*fetch_arguments(tmp_path, hub.url))
    assert hub.holding.wait(20)
    second = start(*fetch_arguments(tmp_path, hub.url))
    assert second.stdout is not None
    said = second.stdout.readline()
    assert '"waiting"' in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    hub.go_on.set()
    done = ended(second)
    assert done.code == 0, done
    assert hub.bytes_of(_sha256(SHARD, big)) < 2 * SIZE


UNAUTHORIZED = ("Unauthorized", 3)
NOT_FOUND = ("NotFound", 3)


@pytest.mark.parametrize(
    ("prepare", "source", "env", "ends", "says"),
    [
        ("missing", "hf://acme/nothing", {}, UNAUTHORIZED, "private or does not exist"),
        ("missing", "hf://acme/nothing", {"HF_TOKEN": "t"}, NOT_FOUND, "check the name"),
        ("private", "hf://acme/moe", {}, UNAUTHORIZED, "no token (HF_TOKEN)"),
        ("private", "hf://acme/moe", {"HF_TOKEN": "wrong"}, UNAUTHORIZED, "the token in HF_TOKEN"),
        ("gated", "hf://acme/moe", {"HF_TOKEN": "good"}, UNAUTHORIZED, "accept its licence at http"),
        ("revision", "hf://acme/moe", {}, NOT_FOUND, "no revision 'v9'"),
        ("empty", "hf://acme/moe", {}, ("BadSource", 3), "no weights for an engine among its 1 files"),
        ("traversal", "hf://acme/moe", {}, ("BadSource", 3), "it leads out of its folder"),
        ("fine", "https://huggingface.co/acme/moe", {}, ("BadSource", 3), "hf://ORG/NAME or s3://"),
        ("fine", "hf://acme", {}, ("BadSource", 3), "is not the name of a repository"),
    ],
)
def test_what_a_person_must_mend_says_what_to_do(
    hub: HubServer,
    tmp_path: Path,
    prepare: str,
    source: str,
    env: dict[str, str],
    ends: tuple[str, int],
    says: str,
) -> None:
    repository = hub.repositories["acme/moe"]
    more: tuple[str, ...] = ()
    if prepare in ("private", "gated"):
        repository.token = "good"
    repository.gated = prepare == "gated"
    if prepare == "revision":
        more = ("--revision", "v9")
    if prepare == "empty":
        repository.commits["a" * 40] = {"README.md": b"soon"}
    if prepare == "traversal":
        repository.commits["a" * 40]["additional_chat_templates/../../../../x.jinja"] = b"x"
    done = run(*fetch_arguments(tmp_path, hub.url, source, *more), env=environment(**env))
    assert (done.outcome["reason"], done.code) == ends
    assert says in done.outcome["message"]
    assert not (tmp_path.parent / "x.jinja").exists()


def test_an_address_that_nobody_answers_at_is_worth_another_try(tmp_path: Path) -> None:
    done = run(*fetch_arguments(tmp_path, "http://127.0.0.1:9", "hf://acme/moe", "--patience", "1"))
    assert (done.code, done.outcome["reason"]) == (6, "Unreachable")
    assert "127.0.0.1:9" in done.outcome["message"]
    assert "tries" in done.outcome["message"]


def test_an_endpoint_that_is_no_hub_is_told(hub: HubServer, tmp_path: Path) -> None:
    """A captive portal or a wrong path answers 200 with a page."""
    hub.always("/revision/main", Fault(status=200))
    done = run(*fetch_arguments(tmp_path, hub.url))
    assert (done.code, done.outcome["reason"]) == (3, "BadSource")
    assert f"{hub.url} does not answer as a hub does" in done.outcome["message"]


def test_a_cache_that_this_user_cannot_write_is_told(hub: HubServer) -> None:
    with somebodys_folder() as (folder, become):
        folder.chmod(0o555)
        done = run(*fetch_arguments(folder, hub.url), become=become)
    assert (done.code, done.outcome["reason"]) == (3, "BadCache")
    assert "fsGroup" in done.outcome["message"]


def test_a_complete_model_serves_from_a_volume_that_is_only_read(hub: HubServer) -> None:
    """Serving pods mount a shared claim read-only: an old time of use must not keep them from starting."""
    with somebodys_folder() as (folder, become):
        outcome = run(*fetch_arguments(folder, hub.url), become=become).outcome
        state = folder / outcome["entry"] / "state.json"
        state.write_text(
            re.sub(r'"last_used": "[^"]+"', '"last_used": "2026-01-01T00:00:00+00:00"', state.read_text())
        )
        state.parent.chmod(0o555)
        asked = len(hub.requests)
        done = run(*fetch_arguments(folder, hub.url), become=become)
        state.parent.chmod(0o755)
    assert done.code == 0, done
    assert len(hub.requests) == asked


def test_a_name_that_is_wrong_leaves_no_folder(hub: HubServer, tmp_path: Path) -> None:
    run(*fetch_arguments(tmp_path, hub.url, "hf://acme/nothing"))
    assert [path.name for path in tmp_path.iterdir()] == [".moe-operator"]


def test_a_cache_that_is_a_file_is_told(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    done = run(*fetch_arguments(tmp_path / "cache", hub.url))
    assert (done.code, done.outcome["reason"]) == (3, "BadCache")
    assert "cannot be used by user" in done.outcome["message"]


def test_links_that_somebody_planted_are_not_followed(hub: HubServer, tmp_path: Path) -> None:
    """On a shared volume a link could make one tenant's fetch overwrite another's files."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("mine")
    cache = tmp_path / "cache"
    entry = cache / run(*fetch_arguments(cache, hub.url)).outcome["entry"]
    shard = entry / "model" / SHARD
    shard.unlink()
    shard.symlink_to(victim / "precious")
    assert run(*fetch_arguments(cache, hub.url)).code == 0
    assert (victim / "precious").read_text() == "mine"
    assert not shard.is_symlink()
    for file in (entry / "model").iterdir():
        file.unlink()
    (entry / "model").rmdir()
    (entry / "model").symlink_to(victim)
    done = run(*fetch_arguments(cache, hub.url))
    assert (done.code, done.outcome["reason"]) == (3, "BadCache")
    assert {path.name for path in victim.iterdir()} == {"precious"}
