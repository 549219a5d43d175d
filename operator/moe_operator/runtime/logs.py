"""Structured logs: one JSON object a line (or coloured text), with the deployment's key where it applies.

Modules log through the standard library; structlog renders. So libraries' lines come out the same way.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from moe_operator.controller.store import Key

Format = Literal["json", "console"]


@contextmanager
def bound_key(key: Key) -> Iterator[None]:
    """Lines logged inside, by this task and those it starts, carry key=namespace/name."""
    with structlog.contextvars.bound_contextvars(key="/".join(key)):
        yield


def configure(level: str, format_: Format) -> None:
    """Send all logs to standard error. `level` as the standard library names it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if format_ == "json":
        final: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    else:
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # kopf tells of every event at INFO, aiohttp of every probe.
    for chatty in ("kopf", "aiohttp.access", "kubernetes", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # That it leaves the process's signals alone is what we want of it.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
