"""`kubectl moe plan`: how a deployment would be laid out, how much it holds, how fast it may be, what it costs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moe_operator.cli.data_text import data_text
from moe_operator.cli.errors import UsageError
from moe_operator.cli.plan_inputs import Inputs, faults, read_inputs, report_of
from moe_operator.cli.plan_report import PlanReport
from moe_operator.planner.plan import Refusal

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def run(arguments: argparse.Namespace) -> int:
    """Exit 0; 1 if there is no plan. Raises UsageError."""
    inputs = read_inputs(arguments)
    if arguments.compare:
        broken = faults(inputs)
        return _refuse(arguments, broken) if broken else _compare(arguments, inputs)
    report = report_of(inputs, arguments.requests_per_second)
    if isinstance(report, list):
        return _refuse(arguments, report)
    if arguments.svg:
        _write_svg(arguments.svg, report)
    print(_output(arguments, inputs, report))
    return 0


def _output(arguments: argparse.Namespace, inputs: Inputs, report: PlanReport) -> str:
    kind = arguments.output
    if arguments.lock:
        from moe_operator.cli.lock import locked_manifest

        return data_text(locked_manifest(inputs.obj, report), "json" if kind == "json" else "yaml")
    if kind in ("json", "yaml"):
        from moe_operator.cli.plan_data import plan_data

        return data_text(plan_data(report, explain=arguments.explain), kind)
    from moe_operator.cli.plan_text import plan_text

    text = plan_text(report, plain=not _unicode(), arguments=not arguments.explain)
    if arguments.explain:
        from moe_operator.cli.explain import explain_text

        text = f"{text}\n\n{explain_text(report)}"
    return text


def _compare(arguments: argparse.Namespace, inputs: Inputs) -> int:
    from moe_operator.cli import compare

    model = inputs.model()
    if model is None:
        raise UsageError(
            f"spec.model.name: the catalogue has no model {inputs.deployment.spec.model.name!r}, so there is"
            " nothing to compare: give its config.json with --config FILE"
        )
    rows = list(
        compare.compare(
            inputs.deployment,
            inputs.nodes,
            inputs.site.catalog,
            inputs.models,
            model,
            arguments.requests_per_second,
        )
    )
    if arguments.output in ("json", "yaml"):
        print(data_text(compare.compare_data(rows), arguments.output))
    else:
        print(f"{model.name} on the accelerators of {inputs.nodes.source}; speed is an estimate\n")
        print(compare.compare_text(rows))
    return 0 if any(row.plan is not None for row in rows) else 1


def _refuse(arguments: argparse.Namespace, refusals: list[Refusal]) -> int:
    """What is piped into `kubectl apply` stays empty; scripts get the refusal as data."""
    from moe_operator.cli.plan_data import refusal_data
    from moe_operator.cli.plan_text import refusal_text

    if arguments.output in ("json", "yaml") and not arguments.lock:
        print(data_text(refusal_data(refusals[0]), arguments.output))
        return 1
    out = sys.stderr if arguments.lock else sys.stdout
    for refusal in refusals:
        print(refusal_text(refusal), file=out)
    return 1


def _write_svg(path: str, report: PlanReport) -> None:
    from moe_operator.cli.plan_svg import memory_svg

    picture = memory_svg(report)
    if picture is None:
        raise UsageError(
            f"--svg: {report.deployment.spec.model.name!r} is not in the catalogue, so nothing is known of its"
            " memory: give its config.json with --config FILE"
        )
    try:
        Path(path).write_text(picture, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--svg {path} cannot be written: {error}") from error


def _unicode() -> bool:
    return "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
