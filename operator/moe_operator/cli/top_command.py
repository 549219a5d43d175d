"""`kubectl moe top`: figures of the moment in a table, once or again every few seconds."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from textwrap import wrap

from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse, without_spec
from moe_operator.api.times import format_time
from moe_operator.cli.cluster import Obj, list_deployments, with_client
from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import ClusterError, UsageError
from moe_operator.cli.fitting import Line, Piece, Style, clean, painted
from moe_operator.cli.operator_page import FiguresReader, NoFiguresError, Place
from moe_operator.cli.top_data import top_data
from moe_operator.cli.top_rows import Look, View, ordered, rows
from moe_operator.cli.top_screen import Screen
from moe_operator.cli.top_text import heading, notes, top_lines
from moe_operator.cli.top_watch import again
from moe_operator.runtime.kube_client import AioKubeClient

#: Shells' own for a command that SIGTERM ended.
_TERMINATED = 128 + signal.SIGTERM
#: Seconds that a window is given to come to its new size.
_SETTLED = 0.2


@dataclass(frozen=True)
class _Request:
    """What was asked for."""

    namespace: str | None
    name: str | None
    view: View
    sort: str
    output: str
    every: float | None

    def lines(self, look: Look, width: int | None) -> list[Line]:
        shown = ordered(rows(look, self.view), self.sort)
        if not shown:
            return []
        return top_lines(
            shown, self.view, namespaces=self.namespace is None, wide=self.output == "wide", width=width
        )

    def data(self, look: Look) -> dict[str, object]:
        return top_data(look, ordered(rows(look, self.view), self.sort), self.view)

    def nothing(self, look: Look) -> str | None:
        """Why there is no row."""
        if not look.deployments:
            return "there are no ModelDeployments" + (
                f" in namespace {self.namespace}" if self.namespace else ""
            )
        if self.view is not View.DEPLOYMENTS and look.page is not None and not rows(look, self.view):
            return f"there are no {self.view} yet that the operator has figures of"
        return None

    def refusal(self, look: Look) -> str | None:
        """Why what was asked for cannot be shown."""
        if self.view is View.DEPLOYMENTS or look.page is not None or not look.deployments:
            return None
        return f"--{self.view} needs the operator's figures: {look.missing}"


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 where there is no such deployment, no answer, or no figures of groups or ranks. Raises UsageError."""
    if arguments.name and arguments.all_namespaces:
        raise UsageError("one deployment is in one namespace: give -n in place of -A")
    place = Place.read(arguments.operator)
    view = View.GROUPS if arguments.groups else View.RANKS if arguments.ranks else View.DEPLOYMENTS

    async def work(client: AioKubeClient, context: str) -> int:
        space = None if arguments.all_namespaces else arguments.namespace or context
        request = _Request(space, arguments.name, view, arguments.sort, arguments.output, arguments.watch)
        reader = FiguresReader(client, place)

        async def look() -> Look:
            return await _look(client, reader, request)

        return _show(request, await look()) if request.every is None else await _watch(request, look)

    try:
        return with_client(arguments.kubeconfig, work)
    except KeyboardInterrupt:
        if arguments.watch is None:
            raise
        return 0  # the way to end it
    except asyncio.CancelledError:
        return _TERMINATED
    except ClusterError as error:
        print(f"kubectl moe: {clean(str(error))}", file=sys.stderr)
        return 1


async def _look(client: AioKubeClient, reader: FiguresReader, request: _Request) -> Look:
    """Raises ClusterError where the deployments cannot be read; figures may lack."""
    found = tuple(map(_parsed, await list_deployments(client, request.namespace, request.name)))
    try:
        page = await reader.read(request.namespace, request.name)
    except NoFiguresError as error:
        return Look(found, None, str(error), time.time())
    return Look(found, page, None, time.time())


def _parsed(obj: Obj) -> ModelDeployment:
    """One with a spec that cannot be read has a status all the same."""
    try:
        return parse(obj)
    except InvalidSpecError:
        return without_spec(obj)


# --- once -------------------------------------------------------------------------------------------


def _show(request: _Request, look: Look) -> int:
    if request.output == "json":
        print(data_text(request.data(look), "json"))
    elif lines := request.lines(look, _width()):
        print("\n".join(painted(line, colour=_colour()) for line in lines))
    if refusal := request.refusal(look):
        _say(refusal)
        return 1
    for text in _said(request, look):
        _say(text)
    return 0


def _said(request: _Request, look: Look) -> list[str]:
    nothing = request.nothing(look)
    return [*notes(look), *([nothing] if nothing else [])]


def _say(text: str) -> None:
    print(f"kubectl moe: {clean(text)}", file=sys.stderr)


def _width() -> int | None:
    """Columns of the terminal; None where there is none, as for `less -S` or a file."""
    return shutil.get_terminal_size((120, 40)).columns if sys.stdout.isatty() else None


def _colour() -> bool:
    """https://no-color.org: any value but an empty one."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# --- again and again --------------------------------------------------------------------------------


async def _watch(request: _Request, look: Callable[[], Awaitable[Look]]) -> int:
    every = request.every or 0.0
    if request.output != "json" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        # Told to stop, or left by its terminal, it goes by way of `with`, which gives the terminal back.
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, task.cancel if task else lambda: None)
        with Screen(_write) as screen:
            await again(
                look, lambda seen, trouble: _draw(screen, request, seen, trouble), asyncio.sleep, every
            )
    said: list[str] = []

    def append(seen: Look, trouble: str | None) -> None:
        _append(request, seen, trouble, said)

    return await again(look, append, asyncio.sleep, every)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _draw(screen: Screen, request: _Request, look: Look, trouble: str | None) -> None:
    columns, height = shutil.get_terminal_size((120, 40))
    lines = [heading(look, request.every or 0.0, columns), (), *request.lines(look, columns)]
    refusal = request.refusal(look)
    below = [refusal] if refusal else _said(request, look)
    for text in [*below, *([trouble] if trouble else [])]:
        lines += [(), *((Piece(part, Style.WARNING),) for part in wrap(clean(text), columns))]
    screen.draw(lines, columns, height, colour=_colour())


def _append(request: _Request, look: Look, trouble: str | None, said: list[str]) -> None:
    """`said`: what stands on standard error already, which is not repeated while it stays the same."""
    if trouble is None:
        if request.output == "json":
            _write(json.dumps(request.data(look)) + "\n")
        else:
            lines = [painted(line, colour=False) for line in request.lines(look, _width())]
            _write("\n".join([format_time(look.taken_at), *lines, "", ""]))
    refusal = request.refusal(look)
    texts = [refusal] if refusal else _said(request, look)
    texts += [trouble] if trouble else []
    for text in texts:
        if text not in said:
            _say(text)
    said[:] = texts
