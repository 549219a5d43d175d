"""promtool, and a Prometheus on loopback: what Prometheus itself makes of rules and queries.

`python -m harness.prometheus` only builds both.
"""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from harness.wait import wait_for
from localcluster.build import ensure_built
from localcluster.layout import cache_root, hack_root
from localcluster.recipes import prometheus as recipe
from localcluster.say import to_stderr


class PrometheusError(RuntimeError):
    """It refused; the message has its words."""


def programs() -> Path:
    """Where promtool and prometheus are; builds them when the cache has none."""
    return ensure_built(recipe(hack_root()), cache_root(), to_stderr)


def promtool(*arguments: str) -> str:
    """What it printed. Raises PrometheusError where it found a fault."""
    done = subprocess.run(
        [str(programs() / "promtool"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PrometheusError(f"promtool {arguments[0]}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Server:
    """The API of one that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer under /api/v1. Raises PrometheusError with the words of a refusal."""
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            said = json.load(error).get("error", error.reason)
            raise PrometheusError(f"{path} {parameters}: {said}") from error

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False


@contextmanager
def running(folder: Path, data: Path | None = None) -> Iterator[Server]:
    """One without targets, over the blocks in `data`; its log is in `folder`."""
    config = folder / "prometheus.yml"
    config.write_text("global: {}\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        str(programs() / "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data or folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = Server(f"http://127.0.0.1:{port}")
            wait_for("Prometheus", server.ready, seconds=30)
            yield server
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    programs()
