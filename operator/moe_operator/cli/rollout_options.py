"""The options of `kubectl moe status`, `rollout`, `autoscaler` and `wake`, apart from what carries them out."""

import argparse
from typing import TYPE_CHECKING

from moe_operator.api.base import parse_duration

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: Events that a status shows.
LAST = 20
#: What a rollout is given; large weights take long.
TIMEOUT = "30m"
#: For how long a deployment is woken.
WAKE_FOR = "2h"


def add_status(commands: "Commands") -> None:
    """`status`."""
    status = commands.add_parser(
        "status", help="how a deployment is: groups, revisions, what is waited for, what happened"
    )
    _add_deployment(status)
    _add_times(status)
    status.add_argument(
        "--last", type=_count, default=LAST, metavar="N", help="events to show (default: %(default)s)"
    )


def add_rollout(commands: "Commands") -> None:
    """`rollout` and what is below it."""
    rollout = commands.add_parser("rollout", help="the revisions of a deployment: history, status, undo")
    below = rollout.add_subparsers(dest="rollout", required=True, metavar="COMMAND")
    history = below.add_parser("history", help="the kept revisions, and what changed from each to the next")
    _add_deployment(history)
    _add_times(history)
    status = below.add_parser("status", help="wait until the present spec serves; exit 1 when that cannot be")
    _add_deployment(status)
    status.add_argument(
        "--timeout", type=_duration, default=TIMEOUT, metavar="DURATION", help="default: %(default)s"
    )
    undo = below.add_parser("undo", help="the patch of the spec that leads back to a kept revision")
    _add_deployment(undo)
    undo.add_argument(
        "--to-revision",
        metavar="R",
        help="number or name; default: the one made before the wanted one, or the one in effect where the spec is"
        " refused",
    )
    undo.add_argument("--apply", action="store_true", help="send the patch instead of printing it")


def add_wake(commands: "Commands") -> None:
    """`wake`."""
    wake = commands.add_parser("wake", help="have at least one group of a deployment for a while")
    _add_deployment(wake)
    wake.add_argument(
        "--for",
        dest="seconds",
        type=_duration,
        default=WAKE_FOR,
        metavar="DURATION",
        help="from now (default: %(default)s)",
    )


def add_autoscaler(commands: "Commands") -> None:
    """`autoscaler` and what is below it."""
    autoscaler = commands.add_parser("autoscaler", help="how a deployment is scaled: explain")
    below = autoscaler.add_subparsers(dest="autoscaler", required=True, metavar="COMMAND")
    explain = below.add_parser(
        "explain", help="why it has as many groups as it has: the last decisions, and the numbers behind each"
    )
    _add_deployment(explain)
    _add_times(explain)


def _add_deployment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the ModelDeployment")
    parser.add_argument("-n", "--namespace", help="default: the current context's")


def _add_times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--absolute", action="store_true", help="times as they are, in UTC, and not as ages")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
