"""The command line: ``python -m localcluster COMMAND``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from localcluster import commands, existing, imagetable, nodes
from localcluster.config import CONFIGURABLE
from localcluster.errors import LocalClusterError
from localcluster.lifecycle import Options
from localcluster.say import to_stderr

DEFAULT_NAME = "demo"


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(
        prog="python -m localcluster", description=sys.modules["localcluster"].__doc__
    )
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        command = sub.add_parser(name, help=text, description=text)
        if named:
            command.add_argument(
                "--name", default=DEFAULT_NAME, help=f"the cluster's name (default: {DEFAULT_NAME})"
            )
        return command

    _cluster_options(add("up", "start a cluster and wait until it is ready"))
    down = add("down", "stop a cluster; its logs stay until the next one of its name")
    down.add_argument("--purge", action="store_true", help="remove the logs as well")
    add("status", "say what runs, and how much memory it takes")
    add("shell", "an interactive shell inside, with kubectl, helm and KUBECONFIG")
    inside = add("exec", "run a command inside; its exit status is passed on")
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    run = sub.add_parser(
        "run", help="start a cluster, run a command inside, stop the cluster whatever happens"
    )
    run.add_argument("--name", help="the cluster's name (default: one of its own)")
    _cluster_options(run)
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    build = add("build", "only build what a cluster needs, and print the directories", named=False)
    build.set_defaults(name=None)
    add("env", "print shell code with functions kubectl and helm that run inside; use with eval")
    for name, text in (
        ("node-fail", "let a node fall silent: no heartbeats, its containers killed"),
        ("node-recover", "let a silent node come back"),
    ):
        add(name, text).add_argument("node")
    logs = add("logs", "print a component's log; without a component, list them")
    logs.add_argument("component", nargs="?")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    return top


def _cluster_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--nodes",
        default="default",
        metavar="WHICH",
        help="none (no kubelet), or default, gpu and YAML files, separated by commas (default: default)",
    )
    command.add_argument("--no-lws", action="store_true", help="leave LeaderWorkerSet out")
    command.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="PATTERN=DIR[:DIR…]",
        help="programs that stand for an image; repeatable",
    )
    command.add_argument("--images", metavar="FILE", help="a YAML file with more entries for the image table")
    command.add_argument(
        "--flag", action="append", default=[], metavar="COMPONENT=FLAG",
        help="add or replace a flag, as in kube-apiserver=--max-requests-inflight=0; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--binary", action="append", default=[], metavar="PROGRAM=PATH", help="use this program; repeatable"
    )


def cluster_options(arguments: argparse.Namespace) -> Options:
    """Raises LocalClusterError for what cannot be meant."""
    images = [imagetable.parse_option(each) for each in arguments.image]
    if arguments.images:
        images += imagetable.read_entries(Path(arguments.images))
    flags: dict[str, list[str]] = {}
    for component, flag in _pairs(arguments.flag, "--flag"):
        if component not in CONFIGURABLE or not flag.startswith("--"):
            raise LocalClusterError(
                f"--flag {component}={flag}: write COMPONENT=--flag=value, "
                f"COMPONENT one of {', '.join(CONFIGURABLE)}."
            )
        flags.setdefault(component, []).append(flag)
    return Options(
        nodes=nodes.load(arguments.nodes),
        lws=not arguments.no_lws,
        images=images,
        programs={program: Path(path).absolute() for program, path in _pairs(arguments.binary, "--binary")},
        extra_flags=flags,
    )


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        left, separator, right = text.partition("=")
        if not separator or not left or not right:
            raise LocalClusterError(f"{option} {text!r}: something is missing around the first '='.")
        pairs.append((left, right))
    return pairs


def argv_of(arguments: argparse.Namespace) -> list[str]:
    """The command after ``--``. Raises LocalClusterError if there is none."""
    argv = list(arguments.argv)
    if argv[:1] == ["--"]:
        argv = argv[1:]
    if not argv:
        raise LocalClusterError(
            f"{arguments.command}: no command given; write `{arguments.command} … -- COMMAND`."
        )
    return argv


def dispatch(arguments: argparse.Namespace) -> int:
    """Run the chosen command; returns the exit status."""
    if existing.wanted() and arguments.command != "build":
        return commands.on_existing(arguments.command, argv_of(arguments) if "argv" in arguments else [])
    match arguments.command:
        case "up":
            return commands.up(arguments.name, cluster_options(arguments), to_stderr)
        case "down":
            return commands.down(arguments.name, keep_logs=not arguments.purge)
        case "status":
            return commands.status(arguments.name)
        case "shell":
            return commands.shell(arguments.name)
        case "exec":
            return commands.execute(arguments.name, argv_of(arguments))
        case "run":
            return commands.run(arguments.name, cluster_options(arguments), argv_of(arguments), to_stderr)
        case "build":
            return commands.build(to_stderr)
        case "env":
            return commands.env(arguments.name)
        case "logs":
            return commands.logs(arguments.name, arguments.component, follow=arguments.follow)
        case _:
            return commands.node(arguments.name, arguments.command, arguments.node)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends a command like SIGINT: with what it started taken down."""
    raise KeyboardInterrupt


def main() -> int:
    """Entry point; returns the exit status. 130 for an interruption by the user, like a shell."""
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return dispatch(arguments)
    except LocalClusterError as error:
        to_stderr(str(error))
        return 1
    except KeyboardInterrupt:
        to_stderr("interrupted")
        return 130
