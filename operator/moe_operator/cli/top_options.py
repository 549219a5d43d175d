"""The options of `kubectl moe top`, apart from what carries it out."""

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: Seconds between two looks.
EVERY = 5.0
_LEAST, _MOST = 1.0, 3600.0
#: What `--sort` knows; `top_rows.SORTS` has all but the names.
COLUMNS = (
    *("name", "ready", "width", "input", "output", "running", "waiting", "kv", "hbm", "ttft", "tpot"),
    *("imbalance", "cost", "power", "prefix", "draft", "preemptions"),
)


def add_top(commands: "Commands") -> None:
    """`top`."""
    top = commands.add_parser(
        "top",
        help="figures of the moment in a table: of deployments, groups or ranks, and again every few seconds",
    )
    top.add_argument("name", nargs="?", help="of one ModelDeployment; default: all of the namespace")
    where = top.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", help="default: the current context's")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="of the whole cluster")
    what = top.add_mutually_exclusive_group()
    what.add_argument("--groups", action="store_true", help="a line for each group")
    what.add_argument("--ranks", action="store_true", help="a line for each rank")
    top.add_argument(
        "--sort",
        choices=COLUMNS,
        default="name",
        metavar="COLUMN",
        help=f"the largest first: one of {', '.join(COLUMNS)} (default: %(default)s)",
    )
    top.add_argument(
        "-w",
        "--watch",
        nargs="?",
        type=_seconds,
        const=EVERY,
        metavar="SECONDS",
        help=f"again every so many seconds ({EVERY:g}) until Ctrl-C",
    )
    top.add_argument("-o", "--output", choices=("text", "wide", "json"), default="text")
    top.add_argument(
        "--operator",
        metavar="NAMESPACE[/NAME]",
        help="where the operator is, and what its release is called (default: moe-system/moe-operator)",
    )


def _seconds(text: str) -> float:
    try:
        every = float(text)
    except ValueError:
        every = math.nan
    if not _LEAST <= every <= _MOST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds from {_LEAST:g} to {_MOST:g}; NAME comes before --watch"
        )
    return every
