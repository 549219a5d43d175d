"""Publishes the kernels that this pod's engine compiled, for engines that start later.

One thread of one of the pod's API servers looks at the folder; packing is a process of its own with the lowest
priority, so that neither the event loop nor the interpreter's lock is held up. Publishers do not wait for each other:
each makes a whole file, and the last one's stays.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .compile_cache import Place, Record, place_of, read_record, write_record
from .compile_snapshot import NEW_SUFFIX, SUFFIX, Content, SnapshotError, pack, scan
from .watch import try_lock

#: Seconds between two looks at the folder, the first pair of which is closer.
_LOOK = 600.0
_FIRST_LOOK = 20.0
#: Kernels that came later are worth another snapshot from this share of its bytes on, or after this many seconds.
_SHARE = 0.01
_AT_LEAST_EVERY = 24 * 3600.0
#: A snapshot is in use: seconds between two signs of it. Engines that run for months start no new one from it.
_TOUCH = 24 * 3600.0
#: Seconds after which a snapshot that nobody used is removed, and what a publisher that ended left.
KEEP = 30 * 24 * 3600.0
_KEEP_UNFINISHED = 24 * 3600.0
_PACKING_LIMIT = 3600.0
_LOWEST_PRIORITY = 19

_log = logging.getLogger("vllm.moe_agent")


@dataclass
class Publisher:
    """What is published of one pod's folder, and when it is worth doing so again."""

    place: Place
    published: Content | None = None
    """What the snapshot is known to hold."""
    at: float = 0.0
    """When that was last tried, in seconds of the caller's clock."""
    touched: float = 0.0
    failed: Content | None = None
    """What could not be published: it is tried again the next day."""
    seen: Content = field(default_factory=dict)

    def due(self, now: float) -> Content | None:
        """Look once: the folder's content, if it is worth a snapshot and has not moved since the last look."""
        content, last = scan(self.place.folder), self.seen
        self.seen = content
        if not content or content != last:
            return None
        if content == self.failed and now - self.at < _AT_LEAST_EVERY:
            return None
        if self.published is None or not self._exists():
            return content
        if content.keys() <= self.published.keys():
            return None
        new = sum(entry.size for name, entry in content.items() if name not in self.published)
        total = sum(entry.size for entry in content.values())
        return content if new >= _SHARE * total or now - self.at >= _AT_LEAST_EVERY else None

    def look(self, now: float, packed: Callable[[Place], str]) -> str:
        """Look once and publish if due. `packed` packs the folder; its answer is what went wrong.

        Returns what is worth a line in the log.
        """
        content = self.due(now)
        if content is None:
            self._show_use(now)
            return ""
        trouble, self.at = packed(self.place), now
        if trouble:
            again, self.failed = self.failed is not None, content
            return "" if again else f"Compiled kernels cannot be published: {trouble}"
        self.published, self.failed, self.touched = content, None, now
        size = sum(entry.size for entry in content.values()) / 2**20
        return f"Compiled kernels: {len(content)} files of {size:.1f} MiB published as {self.place.snapshot.name}."

    def _exists(self) -> bool:
        try:
            return self.place.snapshot.exists()
        except OSError:
            return True

    def _show_use(self, now: float) -> None:
        if self.published is not None and now - self.touched >= _TOUCH:
            self.touched = now
            with contextlib.suppress(OSError):
                os.utime(self.place.snapshot)


class PublisherThread:
    """Looks at the folder while the engine serves; nothing where kernels are not shared."""

    def __init__(self, directory: Path, environ: Mapping[str, str] = os.environ) -> None:
        """`directory`: shared by the pod's processes, of which one looks."""
        self._place = place_of(environ)
        self._lock = directory / "compiled.lock"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """The engine is ready: from now on what it compiled is worth keeping."""
        if self._place is not None and self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._place,), name="moe-agent-publisher", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Look no more. A snapshot under way is left to itself, and to the container's end."""
        self._stop.set()

    def _run(self, place: Place) -> None:
        try:
            with self._lock.open("w") as handle:
                while not try_lock(handle.fileno()):
                    if self._stop.wait(_LOOK):
                        return
                self._look_on(place)
        except Exception:
            _log.exception("Compiled kernels are not published")

    def _look_on(self, place: Place) -> None:
        record = read_record(place) or Record(None, ready=True)
        write_record(place, Record(record.restored, ready=True))
        now = time.monotonic()
        publisher = Publisher(place, published=record.restored, at=now, touched=now)
        publisher.look(now, pack_apart)
        wait = _FIRST_LOOK
        while not self._stop.wait(wait):
            said = publisher.look(time.monotonic(), pack_apart)
            if said:
                _log.info("%s", said)
            wait = _FIRST_LOOK if publisher.published is None and publisher.failed is None else _LOOK


def pack_apart(place: Place) -> str:
    """Pack in a process of its own. The answer is what went wrong."""
    command = [sys.executable, "-m", f"{__package__}.compile_publisher"]
    try:
        ended = subprocess.run(
            [*command, str(place.folder), str(place.snapshot), place.key],
            # The folder it runs in may hold modules of any name.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PACKING_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{place.snapshot} was not written within {_PACKING_LIMIT:g} s"
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    if ended.returncode == 0:
        return ""
    return ended.stderr.strip().rpartition("\n")[2] or f"its process ended with {ended.returncode}"


def collect(store: Path, now: float, keep: float = KEEP) -> list[str]:
    """Remove snapshots that no engine used for `keep` seconds, and what was left unfinished.

    `now`: by the clock of the files. Returns the names of what went.
    """
    gone = []
    for path in store.iterdir():
        unfinished = path.name.startswith(".") and path.name.endswith(NEW_SUFFIX)
        if not unfinished and not path.name.endswith(SUFFIX):
            continue
        # Another publisher may be at it too, or the volume be read-only.
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > (_KEEP_UNFINISHED if unfinished else keep):
                path.unlink()
                gone.append(path.name)
    return gone


def main(folder: str, snapshot: str, key: str) -> int:
    """Publish once. The last line of standard error says what went wrong."""
    with contextlib.suppress(OSError):
        os.nice(_LOWEST_PRIORITY)
    place = Place(Path(folder), Path(snapshot), key)
    try:
        pack(place.folder, place.snapshot, place.key)
        # By the storage's own clock: that of the file just written.
        collect(place.snapshot.parent, place.snapshot.stat().st_mtime)
    except (SnapshotError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
