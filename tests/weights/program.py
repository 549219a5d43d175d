"""The real program, as a container runs it."""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "moe_operator.cli.operator", "weights")
LIMIT = 60.0
_NOBODYS_USER = 1_000_680_000  # as OpenShift gives them out


@dataclass(frozen=True)
class Ended:
    """What a run said, and how it ended."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str

    @property
    def outcome(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(line["phase"] for line in self.lines if "phase" in line))


def environment(**more: str) -> dict[str, str]:
    """Nothing of the developer's own: no tokens, proxies or profiles."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    # A container's: nothing is written beside the cache, and the home cannot be.
    return {
        **kept,
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


@contextlib.contextmanager
def somebodys_folder() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A folder of a user without a name, and the command that becomes that user. Our own user where we are not root,
    or where the project lies in folders that are closed to others."""
    become = ("setpriv", f"--reuid={_NOBODYS_USER}", "--regid=0", "--clear-groups")
    alone = os.getuid() != 0 or subprocess.run([*become, *COMMAND, "--help"], capture_output=True).returncode
    # The temporary folder of a test run is its user's own.
    with tempfile.TemporaryDirectory(dir=None if alone else "/tmp") as name:
        folder = Path(name)
        if alone:
            yield folder, ()
            return
        os.chown(folder, _NOBODYS_USER, 0)
        yield folder, become


def start(
    *arguments: str, env: dict[str, str] | None = None, become: tuple[str, ...] = ()
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*become, *COMMAND, *arguments],
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> Ended:
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return Ended(process.returncode, [json.loads(line) for line in out.splitlines()], err)


def run(*arguments: str, env: dict[str, str] | None = None, become: tuple[str, ...] = ()) -> Ended:
    return ended(start(*arguments, env=env, become=become))


def fetch_arguments(cache: Path, url: str, source: str = "hf://acme/moe", *more: str) -> tuple[str, ...]:
    return ("fetch", "--source", source, "--cache", str(cache), "--endpoint", url, "--patience", "3", *more)


def random_bytes(size: int, seed: int = 1) -> bytes:
    """Content that compresses to nothing and repeats nowhere."""
    return random.Random(seed).randbytes(size)


def model(shard: int = 300_000, shards: int = 2) -> dict[str, bytes]:
    """A small repository of the usual shape, with what an engine does not need."""
    weights = {
        f"model-{number:05d}-of-{shards:05d}.safetensors": random_bytes(shard, number)
        for number in range(1, shards + 1)
    }
    return {
        "config.json": b'{"architectures": ["Qwen3MoeForCausalLM"]}',
        "tokenizer.json": random_bytes(5000, 77),
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"# A model",
        "pytorch_model.bin": random_bytes(2000, 78),
        "original/consolidated.00.pth": random_bytes(2000, 79),
        **weights,
    }


NEEDED = {"config.json", "tokenizer.json", "chat_template.jinja"}
