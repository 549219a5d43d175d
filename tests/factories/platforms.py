"""The shipped examples on the shipped inventories: each example names its own in the comment at its top."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_operator.cli import kubectl_moe
from moe_operator.cli.places import places
from moe_operator.cli.plan_inputs import Inputs, read_inputs, report_of
from moe_operator.cli.plan_report import PlanReport
from moe_operator.cli.rendered import rendered_objects

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
INVENTORIES = ROOT / "manifests" / "inventories"
_COMMAND = re.compile(r"^# kubectl moe (render -f \S+ --inventory (\S+).*)$", re.MULTILINE)


@dataclass(frozen=True)
class Platform:
    """One example with the command that renders it, to be run in ROOT."""

    name: str
    arguments: tuple[str, ...]
    inventory: Path

    def inputs(self, namespace: str | None = None) -> Inputs:
        """What the command reads, with `-n` where a namespace is given."""
        options = ("-n", namespace) if namespace else ()
        with at_home():
            return read_inputs(kubectl_moe.parser().parse_args([*self.arguments, *options]))

    def report(self, namespace: str | None = None) -> PlanReport:
        """Its plan."""
        found = report_of(self.inputs(namespace))
        assert isinstance(found, PlanReport), found
        return found

    def objects(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """All that the operator would make of it, its record included."""
        inputs = self.inputs(namespace)
        report = report_of(inputs)
        assert isinstance(report, PlanReport), report
        where = places(report, inputs.site.catalog, 1)
        return rendered_objects(report, where, placed=inputs.placed, revision=True)


def platforms() -> list[Platform]:
    """By name, in order."""
    return list(_platforms())


def _platforms() -> Iterator[Platform]:
    for path in sorted(EXAMPLES.glob("*.yaml")):
        found = _COMMAND.search(path.read_text(encoding="utf-8"))
        if found:
            yield Platform(path.stem, tuple(found[1].split()), ROOT / found[2])


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """In ROOT, which the commands in the examples are written for."""
    with contextlib.chdir(ROOT):
        yield
