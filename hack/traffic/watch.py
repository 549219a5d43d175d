"""Watches a deployment's pods while it is changed, and reads in the engines' logs which took which request."""

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import IO, Any, Self

from moe_operator.api import names
from traffic.changes import GroupLife, Lives


class Watch:
    """`kubectl` watches the pods and follows the log of each that takes traffic; both end with the watch.

    Engines tell what they take with `--enable-log-requests`.
    """

    def __init__(self, deployment: str, namespace: str, now: Callable[[], float], id_prefix: str) -> None:
        self._namespace, self._now = namespace, now
        self._selector = f"{names.LABEL_DEPLOYMENT}={deployment},{names.LABEL_GROUP}"
        self._taken = re.compile(rf"Received request \S*?{re.escape(id_prefix)}(\d+)")
        self._lives = Lives()
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        self._followed: set[str] = set()
        self.taken: dict[int, str] = {}
        """Pod by number of request."""

    def __enter__(self) -> Self:
        self._start(
            self._pods,
            "get",
            "pods",
            "-l",
            self._selector,
            "--watch",
            "--output-watch-events",
            "-o",
            "json",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self._processes):
            process.terminate()
        for thread in list(self._threads):
            thread.join(10)

    def groups(self) -> list[GroupLife]:
        """Groups as they were up to now."""
        with self._lock:
            return self._lives.groups()

    def _start(self, read: Callable[[IO[str]], None], *command: str) -> None:
        process = subprocess.Popen(
            ("kubectl", "-n", self._namespace, *command),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        thread = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        self._processes.append(process)
        self._threads.append(thread)
        thread.start()

    def _pods(self, lines: IO[str]) -> None:
        for event in documents(lines):
            with self._lock:
                self._lives.see(self._now(), event)
            meta = event["object"]["metadata"]
            if (
                names.LABEL_TRAFFIC in (meta.get("labels") or {})
                and event["type"] != "DELETED"
                and meta["uid"] not in self._followed
            ):
                self._followed.add(meta["uid"])
                pod = str(meta["name"])
                self._start(partial(self._log, pod), "logs", "-f", pod, "-c", names.ENGINE_CONTAINER)

    def _log(self, pod: str, lines: IO[str]) -> None:
        for line in lines:
            if found := self._taken.search(line):
                self.taken[int(found.group(1))] = pod


def documents(lines: IO[str]) -> Iterator[dict[str, Any]]:
    """JSON objects that follow one another, each over as many lines as it likes, as soon as each is whole."""
    decoder, text = json.JSONDecoder(), ""
    for line in lines:
        text = (text + line).lstrip()
        # An object ends with a bracket that is not indented, or is one line.
        if line[:1] not in ("{", "}") or not line.rstrip().endswith("}"):
            continue
        try:
            found, end = decoder.raw_decode(text)
        except ValueError:
            continue
        yield found
        text = text[end:]
