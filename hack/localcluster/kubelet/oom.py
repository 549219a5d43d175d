"""Whether memory was what ended a container."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

#: Seconds between the kernel's kill and the moment at which the dead process has given its memory back and is seen.
_WINDOW = 10.0


def kernel_kills(text: str) -> int:
    """How many processes the out-of-memory killer has ended, from /proc/vmstat; 0 where the kernel does not count."""
    for line in text.splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


class KernelKills:
    """Follows the kernel's count. It is the machine's, so it is asked only about a SIGKILL that nobody here sent."""

    def __init__(self, source: Path = Path("/proc/vmstat")) -> None:
        self._source = source
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), self._count())])

    def _count(self) -> int:
        return kernel_kills(self._source.read_text())

    def sample(self) -> None:
        """Call every few seconds: remembers when the count was what."""
        now = time.monotonic()
        self._seen.append((now, self._count()))
        while len(self._seen) > 1 and self._seen[1][0] < now - _WINDOW:
            self._seen.popleft()

    def happened(self) -> bool:
        """Whether the killer struck within the last seconds."""
        return self._count() > self._seen[0][1]
