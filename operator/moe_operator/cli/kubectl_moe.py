"""`kubectl moe`: what a deployment would be, and how it is. Reads only; `rollout undo --apply` and `wake` alone write.

Plan, status, top, rollout, autoscaler, report and wake are imported when they are called: a plan from files needs no
client of Kubernetes.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence

from moe_operator.cli import (
    accelerators_command,
    models_command,
    render_command,
    rollout_options,
    simulate_command,
    top_options,
)
from moe_operator.cli.errors import UsageError
from moe_operator.cli.plan_inputs import add_source
from moe_operator.cli.report import options as report_options


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(prog="kubectl moe", description=(__doc__ or "").partition("\n")[0])
    top.add_argument("--kubeconfig", help="default: $KUBECONFIG, ~/.kube/config")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_plan(commands.add_parser("plan", help="how a deployment would be laid out, without applying it"))
    render_command.add_options(
        commands.add_parser("render", help="every object that the operator would make of a deployment")
    )
    simulate_command.add_options(
        commands.add_parser(
            "simulate", help="what scaling would do with a trace of requests, by several policies"
        )
    )
    rollout_options.add_status(commands)
    top_options.add_top(commands)
    rollout_options.add_rollout(commands)
    rollout_options.add_wake(commands)
    rollout_options.add_autoscaler(commands)
    report_options.add_report(commands)
    models_command.add_parser(commands)
    accelerators_command.add_parser(commands)
    return top


def _add_plan(plan: argparse.ArgumentParser) -> None:
    add_source(plan)
    plan.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text")
    plan.add_argument(
        "--explain", action="store_true", help="the reason for every argument and every constant"
    )
    what = plan.add_mutually_exclusive_group()
    what.add_argument("--compare", action="store_true", help="all accelerators and precisions in a table")
    what.add_argument("--lock", action="store_true", help="the manifest with every derived field written out")
    plan.add_argument("--svg", metavar="FILE", help="write a picture of one GPU's memory")
    plan.add_argument(
        "--requests-per-second", type=_rate, metavar="N", help="say how many groups this load needs"
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (math.isfinite(rate) and 0 < rate <= 1e9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return rate


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0; 1 if there is no plan or no such object; 2 for a usage error."""
    arguments = parser().parse_args(argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read (`| head`) has enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UsageError as error:
        print(f"kubectl moe: {error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "plan":
        from moe_operator.cli import plan_command

        return plan_command.run(arguments)
    if arguments.command == "status":
        from moe_operator.cli import status_command

        return status_command.run(arguments)
    if arguments.command == "top":
        from moe_operator.cli import top_command

        return top_command.run(arguments)
    if arguments.command == "rollout":
        from moe_operator.cli import rollout_command

        return rollout_command.run(arguments)
    if arguments.command == "wake":
        from moe_operator.cli import wake_command

        return wake_command.run(arguments)
    if arguments.command == "autoscaler":
        from moe_operator.cli import autoscaler_command

        return autoscaler_command.run(arguments)
    if arguments.command == "report":
        from moe_operator.cli.report import command as report_command

        return report_command.run(arguments)
    run = {
        "render": render_command.run,
        "simulate": simulate_command.run,
        "models": models_command.run,
        "accelerators": accelerators_command.run,
    }[arguments.command]
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
