"""What the program says while it works: one JSON object per line, and the outcome at its end."""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from moe_operator.catalog.weights_layout import Reason

_EVERY = 2.0  # seconds between two lines of one phase
_WINDOW = 10.0  # seconds that the rate is taken over
_LONGEST_MESSAGE = 2000  # a kubelet keeps 4096 bytes of a termination message


class Phase(StrEnum):
    """What is being done."""

    RESOLVING = "resolving"
    WAITING = "waiting"
    COLLECTING = "collecting"
    REMOVING = "removing"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: Reason
    message: str
    entry: str
    commit: str = ""
    bytes: int = 0
    """Of the model that are in the cache; of a removal, those that it freed."""

    def line(self) -> str:
        return json.dumps(
            {
                "reason": self.reason,
                "message": self.message[:_LONGEST_MESSAGE],
                "commit": self.commit or None,
                "bytes": self.bytes,
                "entry": self.entry,
            }
        )


class Progress:
    """Counts of one run; threads add to them."""

    def __init__(
        self, out: TextIO | None = None, *, adapter: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`adapter`: the source of one that is fetched before its model. The lines then name it and carry no counts,
        which are the model's."""
        self._out, self._clock, self._adapter = out or sys.stdout, clock, adapter
        self._lock = threading.Lock()
        self._phase: Phase | None = None
        self._message = ""
        self._written = float("-inf")
        self._samples: deque[tuple[float, int]] = deque()
        self._received = 0
        self.commit, self.bytes, self.total_bytes, self.files, self.total_files = "", 0, 0, 0, 0

    def phase(self, phase: Phase, message: str = "") -> None:
        """Say at once that another phase began, or that the same goes on with another message in its turn."""
        with self._lock:
            changed = phase != self._phase
            self._phase, self._message = phase, message
            self._say(force=changed)

    def present(self, count: int, *, files: int = 0) -> None:
        """Bytes found on disk, or fewer than were thought."""
        with self._lock:
            self.bytes += count
            self.files += files

    def received(self, count: int) -> None:
        """Bytes that came from the source."""
        with self._lock:
            self.bytes += count
            self._received += count
            self._say(force=False)

    def tick(self) -> None:
        """Say how far it is, if a line is due."""
        with self._lock:
            self._say(force=False)

    def end(self, outcome: Outcome, termination: Path | None) -> None:
        """The last line; the same to the termination message."""
        self.phase(Phase.COMPLETE if outcome.reason == Reason.COMPLETE else Phase.FAILED, outcome.message)
        self._write(outcome.line())
        if termination is not None:
            try:
                termination.write_text(outcome.line(), encoding="utf-8")
            except OSError as error:
                print(f"{termination}: {error.strerror or error}", file=sys.stderr)

    def _say(self, *, force: bool) -> None:
        now = self._clock()
        if not force and now - self._written < _EVERY:
            return
        self._written = now
        if self._adapter:
            about = {"phase": self._phase, "adapter": self._adapter, "message": self._message}
            self._write(json.dumps(about))
            return
        self._samples.append((now, self._received))
        while now - self._samples[0][0] > _WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        began, before = self._samples[0]
        rate = (self._received - before) / (now - began) if now > began else 0.0
        self._write(
            json.dumps(
                {
                    "phase": self._phase,
                    "bytes": self.bytes,
                    "totalBytes": self.total_bytes,
                    "files": self.files,
                    "totalFiles": self.total_files,
                    "commit": self.commit or None,
                    "bytesPerSecond": round(rate),
                    "message": self._message,
                }
            )
        )

    def _write(self, line: str) -> None:
        try:
            print(line, file=self._out, flush=True)
        except OSError:  # whoever read has gone; the work is not theirs alone
            self._out = open("/dev/null", "w")  # noqa: SIM115
