"""`kubectl moe render`: every object that the operator would make of a deployment, to read, compare or check."""

import argparse
import sys

from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import UsageError
from moe_operator.cli.places import places
from moe_operator.cli.plan_inputs import add_source, read_inputs, report_of
from moe_operator.cli.rendered import rendered_objects, rendered_text
from moe_operator.planner.plan import Refusal

#: As many as `scaling.maxGroups` may be.
_MOST_GROUPS = 256


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_source(parser)
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml")
    parser.add_argument("--groups", type=_groups, default=1, metavar="N", help="so many groups; default 1")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="with comments: why each argument, variable and resource is there",
    )
    parser.add_argument(
        "--revision",
        action="store_true",
        help="also the ControllerRevision in which the operator keeps all this",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 if there is no plan: then nothing goes to standard output. Raises UsageError."""
    if arguments.explain and arguments.output == "json":
        raise UsageError("--explain writes comments, which JSON does not have: leave -o json out")
    inputs = read_inputs(arguments)
    report = report_of(inputs)
    if isinstance(report, list):
        _refuse(report)
        return 1
    where = places(report, inputs.site.catalog, arguments.groups)
    objects = rendered_objects(report, where, placed=inputs.placed, revision=arguments.revision)
    if arguments.output == "json":
        print(data_text({"apiVersion": "v1", "kind": "List", "items": objects}, "json"))
    else:
        print(rendered_text(report, objects, explain=arguments.explain))
    return 0


def _refuse(refusals: list[Refusal]) -> None:
    from moe_operator.cli.plan_text import refusal_text

    for refusal in refusals:
        print(refusal_text(refusal), file=sys.stderr)


def _groups(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= _MOST_GROUPS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST_GROUPS}")
