"""Whether the pod was told to drain: a file that all of its API-server processes see."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any


class DrainFlag:
    """The drain as one file. A call that sets it reaches a single process; the file makes it the pod's.

    An emptyDir outlives its container: a pod told to drain is still draining after its engine was restarted
    in place.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "draining.json"

    def is_set(self) -> bool:
        """Whether the pod is draining. One stat call: cheap enough for each response."""
        return self._path.exists()

    def read(self) -> dict[str, Any] | None:
        """Since when (Unix seconds) and why, or None when the pod is not draining."""
        try:
            content = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            content = {}
        return content if isinstance(content, dict) else {}

    def set(self, reason: str) -> None:
        """Start the drain. Told again, the first time and reason stay.

        Raises:
            OSError: if the file cannot be written.
        """
        new = self._path.with_name(f"draining.{os.getpid()}-{time.time_ns()}")
        new.write_text(json.dumps({"since": round(time.time(), 3), "reason": reason}))
        with contextlib.suppress(FileExistsError):
            os.link(new, self._path)
        new.unlink()

    def clear(self) -> None:
        """End the drain."""
        self._path.unlink(missing_ok=True)
