"""The page and the picture of a comparison of engines."""

from __future__ import annotations

from dataclasses import dataclass

from verify.engine_figures import Figure
from verify.simulated_engine import Course
from verify.simulator_loads import Load
from verify.step_times import StepTimes


@dataclass(frozen=True)
class Served:
    load: Load
    real: Course
    made: Course
    figures: list[Figure]
    bias: float


@dataclass(frozen=True)
class Outcome:
    served: list[Served]
    times: StepTimes
    sustained: float
    limits: dict[str, int]
    facts: dict[str, str]


def page(outcome: Outcome) -> str:
    return ""


def picture(outcome: Outcome) -> str:
    return ""
