"""Models in S3 stores: the same promises, as far as the store states checksums."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from awscrt import checksums

from weights.faulty_server import Fault
from weights.program import Ended, environment, fetch_arguments, model, random_bytes, run
from weights.s3_server import Object, S3Server, sha256_header

SHARD = "model-00001-of-00002.safetensors"
KEY = f"moe/v1/{SHARD}"
SIZE = 2_000_000
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret-of-tests"}


@pytest.fixture
def store() -> Iterator[S3Server]:
    with S3Server() as server:
        for name, content in model(shard=SIZE).items():
            server.objects[f"moe/v1/{name}"] = Object(content)
        server.objects["moe/v1/"] = Object(b"")
        server.objects["moe/v10/config.json"] = Object(b"another model")
        yield server


def _fetch(store: S3Server, cache: Path, *more: str, **env: str) -> Ended:
    return run(
        *fetch_arguments(cache, store.url, "s3://models/moe/v1", *more),
        env=environment(**{**CREDENTIALS, **env}),
    )


def test_a_prefix_becomes_a_model(store: S3Server, tmp_path: Path) -> None:
    store.access_key = "AKIATEST"
    done = _fetch(store, tmp_path)
    assert done.code == 0, done
    folder = tmp_path / done.outcome["entry"] / "model"
    content = model(shard=SIZE)
    assert {path.name for path in folder.iterdir()} == {
        name for name in content if "/" not in name and not name.endswith((".md", ".bin"))
    }
    assert all(path.read_bytes() == content[path.name] for path in folder.iterdir())
    asked = len(store.requests)
    assert _fetch(store, tmp_path).outcome == done.outcome
    assert len(store.requests) == asked
    assert "secret-of-tests" not in str(done)


def test_a_cut_connection_is_taken_up_where_it_broke(store: S3Server, tmp_path: Path) -> None:
    store.plan(SHARD, Fault(), Fault(cut_after=1_000_000))  # the head goes well
    assert _fetch(store, tmp_path).code == 0
    assert store.bytes_of(SHARD) == SIZE


def _uploads() -> dict[str, Object]:
    content = random_bytes(SIZE, 1)
    crc = {
        name: base64.b64encode(step(content).to_bytes(size, "big")).decode()
        for name, step, size in (
            ("crc32", checksums.crc32, 4),
            ("crc32c", checksums.crc32c, 4),
            ("crc64nvme", checksums.crc64nvme, 8),
        )
    }
    kms = {"x-amz-server-side-encryption": "aws:kms"}
    full = {"x-amz-checksum-type": "FULL_OBJECT"}
    return {
        "md5": Object(content),
        "md5-parts": Object(content, part_size=700_000),
        "sha256": Object(content, headers=sha256_header(content) | kms),
        **{
            name: Object(content, part_size=700_000, headers={f"x-amz-checksum-{name}": text} | full | kms)
            for name, text in crc.items()
        },
    }


@pytest.mark.parametrize("upload", list(_uploads()))
def test_what_the_store_states_is_checked(store: S3Server, tmp_path: Path, upload: str) -> None:
    """However it was uploaded: one wrong byte is found, and the right bytes are not refused."""
    store.objects[KEY] = _uploads()[upload]
    store.always(SHARD, Fault(corrupt_at=1_500_000))
    done = _fetch(store, tmp_path)
    assert (done.code, done.outcome["reason"]) == (5, "Corrupt"), done
    assert SHARD in done.outcome["message"]
    assert f"{upload} " in done.outcome["message"]
    store.always(SHARD, None)
    assert _fetch(store, tmp_path).code == 0


def test_an_object_without_a_checksum_is_checked_by_its_size(store: S3Server, tmp_path: Path) -> None:
    """An ETag of an object encrypted by KMS is no MD5: to compare it would refuse good weights."""
    store.objects[KEY].headers["x-amz-server-side-encryption"] = "aws:kms"
    store.always(SHARD, Fault(corrupt_at=5))
    assert _fetch(store, tmp_path).code == 0


def test_an_object_replaced_in_the_middle_is_not_mixed(store: S3Server, tmp_path: Path) -> None:
    """Half of one upload and half of the next would be a file that never was."""
    new = random_bytes(SIZE, 9)
    arguments = (store, tmp_path, "--patience", "1")
    store.plan(SHARD, Fault(), Fault(cut_after=1_000_000))
    store._always[SHARD] = Fault(status=503)
    assert _fetch(*arguments).code == 6
    store.always(SHARD, None)
    store.objects[KEY] = Object(new)
    done = _fetch(*arguments)
    assert done.code == 0, done
    assert (tmp_path / done.outcome["entry"] / "model" / SHARD).read_bytes() == new


@pytest.mark.parametrize(
    ("source", "env", "ends", "says"),
    [
        ("s3://models/moe/v1", {"AWS_ACCESS_KEY_ID": "OTHER"}, ("Unauthorized", 3), "asked as OTHER"),
        (
            "s3://models/moe/v1",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            ("Unauthorized", 3),
            "without credentials",
        ),
        ("s3://other/moe/v1", {}, ("NotFound", 3), "NoSuchBucket"),
        ("s3://models/nothing", {}, ("NotFound", 3), "nothing is stored under this prefix"),
        ("s3://models", {}, ("BadSource", 3), "s3://BUCKET/PREFIX"),
        ("s3://models/moe/v10", {}, ("BadSource", 3), "no weights for an engine among its 1 files"),
        (
            "s3://models/moe/v1",
            {
                "AWS_ACCESS_KEY_ID": "",
                "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent",
                "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
            },
            ("Unreachable", 6),
            "no credentials from AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
    ],
)
def test_what_a_person_must_mend_says_what_to_do(
    store: S3Server, tmp_path: Path, source: str, env: dict[str, str], ends: tuple[str, int], says: str
) -> None:
    store.access_key = "AKIATEST"
    arguments = fetch_arguments(tmp_path, store.url, source, "--patience", "1")
    done = run(*arguments, env=environment(**{**CREDENTIALS, **env}))
    assert (done.outcome["reason"], done.code) == ends, done
    assert says in done.outcome["message"]


def test_a_revision_of_a_bucket_is_refused(store: S3Server, tmp_path: Path) -> None:
    """Else somebody believes to serve a version that nothing selects."""
    done = _fetch(store, tmp_path, "--revision", "v2")
    assert (done.code, done.outcome["reason"]) == (3, "BadSource")
    assert "prefix of its own" in done.outcome["message"]
