"""`kubectl moe simulate`: what a deployment's autoscaling would do with a trace of requests, beside other policies.

The simulator needs numpy and numba, which the operator itself does without: it is imported when the command runs.
"""

import argparse
import math
import sys
from typing import TYPE_CHECKING

from moe_operator.api.base import parse_duration
from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import UsageError
from moe_operator.cli.plan_inputs import add_source, read_inputs, report_of

if TYPE_CHECKING:
    from moe_operator.cli.simulation import Simulation

_MOST_GROUPS = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_source(parser)
    parser.add_argument(
        "--trace",
        required=True,
        metavar="CSV",
        help="requests: columns t_seconds,prompt_tokens,output_tokens[,cached_prefix_tokens_inf], maybe gzipped",
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        metavar="NAME",
        help="one or several, or `all`; default: the operator's own and a few to compare",
    )
    parser.add_argument("-o", "--output", choices=("text", "json", "html"), default="text")
    parser.add_argument(
        "--cold-start",
        type=_duration,
        default=300.0,
        metavar="TIME",
        help="of a group, as 90s or 5m; default 5m",
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of what is drawn; default 0")
    parser.add_argument(
        "--scale", type=_scale, default=1.0, metavar="X", help="times the trace's rate; default 1"
    )
    parser.add_argument("--min-groups", type=_groups, metavar="N", help="instead of spec.scaling.minGroups")
    parser.add_argument("--max-groups", type=_groups, metavar="N", help="instead of spec.scaling.maxGroups")
    parser.add_argument(
        "--start-groups",
        type=_groups,
        metavar="N",
        help="ready at the beginning; default: what the trace's first minutes need",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 if there is no plan. Raises UsageError."""
    _needs_simulator()
    from moe_operator.cli import simulation
    from moe_operator.simulator.trace import TraceError

    names = simulation.policy_names(arguments.policy)
    inputs = read_inputs(arguments)
    report = report_of(inputs)
    if isinstance(report, list):
        from moe_operator.cli.plan_text import refusal_text

        for refusal in report:
            print(refusal_text(refusal), file=sys.stderr)
        return 1
    try:
        found = simulation.simulation(
            report,
            arguments.trace,
            names,
            cold_start=arguments.cold_start,
            seed=arguments.seed,
            scale=arguments.scale,
            least=arguments.min_groups,
            most=arguments.max_groups,
            start=arguments.start_groups,
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except TraceError as error:
        raise UsageError(f"--trace: {error}") from error
    except OSError as error:
        raise UsageError(f"--trace {arguments.trace} cannot be read: {error.strerror or error}") from error
    print(_output(arguments.output, found))
    return 0


def _output(kind: str, found: "Simulation") -> str:
    if kind == "json":
        from moe_operator.cli.simulation_data import simulation_data

        return data_text(simulation_data(found), "json")
    if kind == "html":
        from moe_operator.cli.simulation_html import simulation_html

        return simulation_html(found)
    from moe_operator.cli.simulation_text import simulation_text

    return simulation_text(found)


def _needs_simulator() -> None:
    try:
        import numba  # noqa: F401
        import numpy  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"simulate needs numpy and numba, which are not installed ({error}): "
            "pip install 'moe-operator[simulator]', or `pip install .[simulator]` from a checkout"
        ) from error


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s or 5m") from error
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0s and 24h")
    return float(seconds)


def _scale(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not (math.isfinite(factor) and 0 < factor <= 1e4):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 (10000 at most)")
    return factor


def _seed(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at most nine digits")


def _groups(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= _MOST_GROUPS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of groups from 1 to {_MOST_GROUPS}")
