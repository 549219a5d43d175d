"""What vLLM logs, seen where records are made.

Not among a logger's handlers: vLLM configures logging anew after it has loaded its plugins, and that drops every
handler it did not set itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

_LOGGER = "vllm"


def watch(consider: Callable[[logging.LogRecord], None]) -> None:
    """Show `consider` every record of vLLM's loggers that this process makes from now on."""
    make = logging.getLogRecordFactory()

    def seen(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if str(record.name).partition(".")[0] == _LOGGER:
            # A file that cannot be written, or a message whose arguments do not fit, must not disturb the
            # engine.
            with contextlib.suppress(Exception):
                consider(record)
        return record

    logging.setLogRecordFactory(seen)
