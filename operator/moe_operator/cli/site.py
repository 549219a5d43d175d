"""The operator's configuration for commands: plans cost and choose as the operator's own do."""

import argparse

from moe_operator.catalog.operator_config import (
    LARGEST_FILE,
    OperatorConfig,
    OperatorConfigError,
    default_config,
    read_config,
)
from moe_operator.cli.errors import UsageError
from moe_operator.cli.manifest import read_text


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--operator-config FILE`."""
    parser.add_argument(
        "--operator-config",
        metavar="FILE",
        help="the operator's configuration (the chart's `config` value): prices, images, hardware of this site",
    )


def config_of(arguments: argparse.Namespace) -> OperatorConfig:
    """What the option says, or the default. Raises UsageError."""
    path = arguments.operator_config
    if path is None:
        return default_config()
    try:
        return read_config(read_text(path, LARGEST_FILE, "an operator's configuration"))
    except OperatorConfigError as error:
        raise UsageError(f"{path}: {error}") from error
