"""The options of `kubectl moe report`, apart from what carries it out."""

import argparse
from typing import TYPE_CHECKING

from moe_operator.cli.report.period import DEFAULT

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_report(commands: "Commands") -> None:
    """`report`."""
    report = commands.add_parser(
        "report",
        help="the technical record of deployments over a period, for audits: models, places, rights, use",
    )
    where = report.add_mutually_exclusive_group()
    where.add_argument("-n", "--namespace", help="default: the current context's")
    where.add_argument("-A", "--all-namespaces", action="store_true", help="those of all namespaces")
    report.add_argument(
        "--since", metavar="DURATION", help=f"the period until now, such as 7d or 12h (default: {DEFAULT})"
    )
    report.add_argument(
        "--from",
        dest="begin",
        metavar="TIME",
        help="its first moment: 2026-11-01 (UTC), or a time in RFC 3339",
    )
    report.add_argument("--to", dest="end", metavar="TIME", help="its end; a date is included; default: now")
    report.add_argument("-o", "--output", choices=("md", "html", "json"), default="md")
    report.add_argument(
        "--prometheus",
        metavar="URL",
        help="where the operator's metrics are kept: without it nothing is of the period",
    )
    report.add_argument(
        "--prometheus-match",
        action="append",
        default=[],
        metavar="LABEL=VALUE",
        help="of this cluster's series, where it has those of others too; may be repeated",
    )
    report.add_argument("--prometheus-token-file", metavar="FILE", help="with the bearer token that it wants")
