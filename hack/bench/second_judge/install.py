"""Fetches the other simulator with pip into the project's cache, outside of every environment."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.store import built, cache_root, content_key

_PIN = Path(__file__).with_name("requirements.txt")
_WITHOUT = ("nixl_connect", "llm", "runtime")


class InstallError(Exception):
    """It is not to be had here; the message has pip's last lines."""


def core(say: Any = lambda message: None) -> Any:
    """Its compiled module, installed first if need be. Raises InstallError."""
    folder = built(cache_root() / "second-judge" / content_key(_PIN.read_text()), _install, say)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module("dynamo._core")


def release() -> str:
    """Name and version."""
    return _PIN.read_text().partition("ai-dynamo-runtime==")[2].split()[0]


def _install(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--require-hashes", "--only-binary", ":all:", "--target", str(folder), "--requirement", str(_PIN)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(
            f"Dynamo's runtime {release()} could not be installed (it is built for Linux on x86-64):\n"
            f"{done.stderr[-2000:]}"
        )
    # Its Python is for live deployments; an empty package would do.
    for name in _WITHOUT:
        shutil.rmtree(folder / "dynamo" / name, ignore_errors=True)
