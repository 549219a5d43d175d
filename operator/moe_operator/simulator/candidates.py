"""Every policy that can be simulated, made for one deployment: the operator's own and the published ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.policies import BASELINES, Baseline, operator
from moe_operator.simulator.policies.baseline import Served, Tunable
from moe_operator.simulator.policy import Policy
from moe_operator.simulator.result import Objective

OPERATOR = "operator"
#: The operator's sweep as those of the others are: what asks for most groups first.
_FROM_MOST = replace(operator.TUNABLE, grid=tuple(sorted(operator.TUNABLE.grid, reverse=True)))


@dataclass(frozen=True)
class Candidate:
    """One policy. Settings are of its own kind; `None` where it has none to choose."""

    name: str
    defaults: Callable[[EngineModel, Objective], Any]
    """As it comes, with the deployment's own facts and objective filled in."""
    variants: Callable[[EngineModel, Objective], list[Any]]
    """What a sweep tries; empty: nothing is to be tuned."""
    make: Callable[[Any, EngineModel, Objective], Policy]
    """A fresh policy."""
    tunable: Tunable | None = None
    """What the variants differ in, one for each of its grid; those that ask for most groups come first."""


def served(engine: EngineModel, objective: Objective) -> Served:
    """What a published autoscaler may be told of a deployment."""
    return Served(
        ttft=objective.ttft,
        tpot=objective.tpot,
        ranks=engine.ranks,
        slots=engine.slots,
        batched_tokens=engine.batch_tokens,
        kv_tokens=engine.kv_tokens,
    )


def candidates() -> dict[str, Candidate]:
    """By name, in the order of reports."""
    return {candidate.name: candidate for candidate in (_OWN, *map(_published, BASELINES.values()))}


def _published(baseline: Baseline) -> Candidate:
    return Candidate(
        name=baseline.name,
        defaults=lambda engine, objective: baseline.published(served(engine, objective)),
        variants=lambda engine, objective: list(baseline.variants(served(engine, objective))),
        make=lambda settings, engine, objective: baseline.make(settings),
        tunable=baseline.tunable,
    )


def _own(settings: Any, engine: EngineModel, objective: Objective) -> Policy:
    # It asks more of a view than the contract has, which the simulator's own knows.
    made: Any = operator.Operator(settings)
    policy: Policy = made
    return policy


_OWN = Candidate(
    name=OPERATOR,
    defaults=lambda engine, objective: operator.OperatorSettings(served(engine, objective)),
    variants=lambda engine, objective: list(
        _FROM_MOST.variants(operator.OperatorSettings(served(engine, objective)))
    ),
    make=_own,
    tunable=_FROM_MOST,
)
