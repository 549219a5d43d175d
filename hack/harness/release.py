"""The last release, brought back from this repository's history: what an upgrade begins with."""

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import yaml

from engine.store import built, cache_root
from harness.images import add_image
from harness.install import IMAGE_REPOSITORY, ROOT

VERSION = "0.1.0"
#: By its commit, as clones may lack tags.
COMMIT = "24cfb61fc3826d9437ad55f5ddbe463bfc542c84"


class ReleaseMissingError(Exception):
    """This clone does not reach back to the release; the message says how to make it."""


def release() -> Path:
    """The release's tree, in the cache. Raises ReleaseMissingError."""
    known = subprocess.run(
        ["git", "-C", str(ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"], capture_output=True, check=False
    )
    if known.returncode != 0:
        raise ReleaseMissingError(
            f"this clone lacks the commit of release {VERSION}: run `git fetch --unshallow`, or"
            f" `git fetch origin {COMMIT}`"
        )
    return built(cache_root() / "releases" / COMMIT[:12], _extract, lambda text: None)


def _extract(folder: Path) -> None:
    command = ["git", "-C", str(ROOT), "archive", COMMIT, "operator", "charts", "pyproject.toml"]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def provide_release_image(tree: Path) -> None:
    """Let the operator's image of this version run the release's code, with the checkout's dependencies."""
    chart = yaml.safe_load((tree / "charts" / "moe-operator" / "Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION
    add_image(f"{IMAGE_REPOSITORY}:{VERSION}", PYTHONPATH=str(tree / "operator"))
