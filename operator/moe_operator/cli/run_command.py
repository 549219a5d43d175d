"""`moe-operator run` and `moe-operator crd`: runs the operator, or prints its CRD."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from moe_operator.api import crd
from moe_operator.api.base import parse_duration
from moe_operator.catalog.operator_config import OperatorConfigError, default_config, read_config
from moe_operator.catalog.weights_site import IMAGE_VARIABLE, run_by
from moe_operator.runtime import logs
from moe_operator.runtime.connection import NoConnectionError, current_namespace
from moe_operator.runtime.process import Options, run

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Exits with 0 after a clean stop, 1 when the lease was lost or a part failed, 2 for misuse."""
    given = _parser().parse_args(arguments)
    if given.command == "crd":
        sys.stdout.write(crd.render())
        return
    logs.configure(given.log_level, given.log_format)
    log.info("moe-operator %s", version("moe-operator"))
    try:
        code = _run(options(given))
    except OperatorConfigError as error:
        log.critical("%s: %s", given.config, error)
        code = 2
    except (NoConnectionError, OSError) as error:
        log.critical("%s", error)
        code = 1
    logging.shutdown()
    # Not sys.exit: it would wait for the threads of watches, and a standby waits for us.
    sys.stdout.flush()
    os._exit(code)


def options(given: argparse.Namespace) -> Options:
    """What the parsed command line means. Raises OperatorConfigError, or OSError where its file cannot be read."""
    config = read_config(Path(given.config).read_text("utf-8")) if given.config else default_config()
    own = given.lease_namespace or current_namespace()
    return Options(
        namespaces=tuple(dict.fromkeys(given.namespace)),
        lease_namespace=own,
        lease_name=given.lease_name,
        identity=given.identity,
        host=given.host,
        health_port=given.health_port,
        metrics_port=given.metrics_port,
        kubeconfig=given.kubeconfig,
        workers=given.workers,
        resync=given.resync,
        agent_key_secret=given.agent_key_secret,
        config=replace(
            config,
            network=replace(config.network, operator_namespace=own),
            weights=run_by(config.weights, os.environ.get(IMAGE_VARIABLE)),
        ),
    )


def _run(chosen: Options) -> int:
    """Run in a loop that is left as it is at the end: the process ends with it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(run(chosen))


def _parser() -> argparse.ArgumentParser:
    environ = os.environ
    parser = argparse.ArgumentParser(
        prog="moe-operator", description="Runs mixture-of-experts models on vLLM expert-parallel groups."
    )
    parser.add_argument("--version", action="version", version=version("moe-operator"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("crd", help="print the CustomResourceDefinition")
    # Known here for the help only: `cli.operator` does not come this far with it.
    commands.add_parser("weights", help="fill a cache with a model's weights, check it, list it")
    command = commands.add_parser(
        "run", help="run the operator", formatter_class=argparse.RawTextHelpFormatter
    )
    add = command.add_argument
    add(
        "--namespace",
        action="append",
        default=[],
        metavar="NS",
        help="serve this namespace only; may be repeated (default: all namespaces)",
    )
    add(
        "--lease-namespace",
        metavar="NS",
        help="namespace of the leader's Lease (default: the operator's own)",
    )
    add(
        "--lease-name",
        default="moe-operator",
        metavar="NAME",
        help="name of the Lease (default: %(default)s)",
    )
    add(
        "--agent-key-secret",
        metavar="NAME",
        help="Secret in the Lease's namespace that holds the key by which agents in engines know the operator; made\n"
        "if it is not there (default: none, and whoever reaches an engine can tell it to drain)",
    )
    add(
        "--identity",
        default=environ.get("POD_NAME") or socket.gethostname(),
        metavar="NAME",
        help="name of this replica in the Lease (default: $POD_NAME or the host's name)",
    )
    add(
        "--host",
        default=environ.get("POD_IP") or "0.0.0.0",
        metavar="ADDRESS",
        help="address to serve health and metrics on (default: $POD_IP or all)",
    )
    add(
        "--health-port",
        type=_port,
        default=8080,
        metavar="PORT",
        help="of /healthz and /readyz (default: 8080)",
    )
    add("--metrics-port", type=_port, default=9090, metavar="PORT", help="of /metrics (default: 9090)")
    add(
        "--kubeconfig",
        metavar="FILE",
        help="how to reach the API server (default: the pod's ServiceAccount, else $KUBECONFIG)",
    )
    add(
        "--config",
        metavar="FILE",
        help="what this site knows better than the catalogue: prices, images, hardware (default: nothing)",
    )
    add("--workers", type=_count, default=8, metavar="N", help="deployments worked on at once (default: 8)")
    add(
        "--resync",
        type=_interval,
        default=(300.0, 600.0),
        metavar="MIN-MAX",
        help="time between two full looks at the cluster, drawn between the two (default: 5m-10m)",
    )
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: info)")
    add("--log-format", choices=("json", "console"), default="json", help="(default: json)")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 (any free one) to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to 256")
    return int(text)


def _interval(text: str) -> tuple[float, float]:
    """`5m-10m`, or one duration for both."""
    low, _, high = text.partition("-")
    try:
        seconds = parse_duration(low), parse_duration(high or low)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, or two of them as in 5m-10m") from error
    if not 1.0 <= seconds[0] <= seconds[1]:
        raise argparse.ArgumentTypeError(f"{text!r}: the first must be at least 1s and not above the second")
    return seconds
