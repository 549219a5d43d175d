"""What the controller keeps of an autoscaler, and tells of it. Whoever scales by a figure that nobody renews any
more, or that is another deployment's, scales by chance."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import model_deployment
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import ScalingStatus
from moe_operator.autoscaler.auto import TICK
from moe_operator.autoscaler.reading import Reading
from moe_operator.controller.scaling import Advice, GroupRead, Load, Scale, Scaler
from moe_operator.runtime.metrics import SCALING_FIGURES
from moe_operator.runtime.reporting import scaling

SLOTS = 64


def _deployment(mode: str = "External", **fields: Any) -> ModelDeployment:
    made = model_deployment(
        scaling={"mode": mode, "minGroups": 1, "maxGroups": 6, **fields.pop("scaling", {})}
    )
    return replace(made, spec=made.spec.model_copy(update=fields))


def _load(clock: float, share: float | None, groups: int = 1) -> Load:
    """`share` of the KV cache and slots in use in each group; None: no current figures."""
    reading = None
    if share is not None:
        reading = Reading(
            at=clock,
            running=share * SLOTS,
            waiting=0.0,
            kv=share * 0.9,
            finished=clock * share,
            gaps=clock * share * 100,
            gap_seconds=clock * share * 2,
        )
    read = GroupRead(ranks=1, slots=SLOTS, reading=reading)
    return Load(clock, {f"g{at}": read for at in range(groups)}, {}, 0, _deployment().status.throughput)


def _run(
    scaler: Scaler,
    deployment: ModelDeployment,
    share: float | None,
    begin: float,
    end: float,
    groups: int = 1,
) -> Scale:
    scale = None
    clock = begin
    while clock < end:
        scale = scaler.scale(deployment, _load(clock, share, groups), clock)
        clock += 5
    assert scale is not None
    return scale


def _advice(scaler: Scaler, clock: float) -> Advice:
    (found,) = scaler.advice(clock)
    return found


@pytest.mark.parametrize("mode", ["External", "Advisory"])
def test_others_are_told_what_auto_would_have_and_act_themselves(mode: str) -> None:
    scaler, deployment = Scaler(), _deployment(mode)
    scale = _run(scaler, deployment, 0.95, 1000, 1120)
    assert scale.desired == 1
    assert _advice(scaler, 1120).groups > 1
    assert _advice(scaler, 1120).key == deployment.key
    assert scale.status is not None
    assert (scale.status.advised is not None) == (mode == "Advisory")


def test_the_recommendation_goes_down_in_one_step_where_another_decides() -> None:
    """Else it would rest two below what nobody takes down."""
    scaler = Scaler()
    deployment = _deployment(replicas=6)
    _run(scaler, deployment, 0.0, 1000, 1600, groups=6)
    assert _advice(scaler, 1600).groups == 1


def test_it_does_not_fall_while_a_group_says_nothing() -> None:
    scaler, deployment = Scaler(), _deployment(replicas=3)
    _run(scaler, deployment, None, 1000, 2000, groups=3)
    assert (_advice(scaler, 2000).groups, _advice(scaler, 2000).silent) == (3, 3)


def test_a_recommendation_that_is_not_renewed_ends() -> None:
    """A deployment whose reconciles fail must not hold HPA at a number of yesterday."""
    scaler, deployment = Scaler(), _deployment()
    _run(scaler, deployment, 0.95, 1000, 1100)
    assert list(scaler.advice(1100 + TICK + 50))
    assert not list(scaler.advice(1100 + TICK + 70))


def test_one_that_rests_lasts() -> None:
    """Where nothing is asked of the fewest groups, nothing is looked at either."""
    scaler, deployment = Scaler(), _deployment()
    assert _run(scaler, deployment, 0.0, 1000, 1100).recheck_after is None
    assert _advice(scaler, 9000).groups == 1


def test_a_deployment_that_is_gone_is_told_of_no_more() -> None:
    scaler, deployment = Scaler(), _deployment()
    _run(scaler, deployment, 0.5, 1000, 1100)
    scaler.forget(deployment.key)
    assert not list(scaler.advice(1100))


def test_the_window_of_the_spec_holds_from_the_next_look_on_and_nothing_learned_is_lost() -> None:
    scaler = Scaler()
    slow = _deployment("Auto", scaling={"scaleDown": {"window": "30m"}})
    with_two = replace(slow, status=slow.status.model_copy(update={"scaling": _status(2)}))
    assert _run(scaler, with_two, 0.1, 1000, 1600, groups=2).desired == 2
    fast = with_two.spec.scaling.model_copy(
        update={"scale_down": with_two.spec.scaling.scale_down.model_copy(update={"window": "15s"})}
    )
    changed = replace(with_two, spec=with_two.spec.model_copy(update={"scaling": fast}))
    assert _run(scaler, changed, 0.1, 1600, 1620, groups=2).desired == 1


def _status(desired: int) -> ScalingStatus:
    return ScalingStatus(desired=desired, reason="WithinObjective", message="")


def test_every_figure_is_a_series_of_its_deployment() -> None:
    scaler, deployment = Scaler(), _deployment()
    _run(scaler, deployment, 0.95, 1000, 1120)
    for figure in SCALING_FIGURES:
        ((labels, value),) = scaling(scaler.advice(1120), figure)
        assert labels == deployment.key
        assert value >= 0


def test_what_was_not_measured_is_no_series() -> None:
    scaler = Scaler()
    _run(scaler, _deployment(), None, 1000, 1100)
    told = {figure for figure in SCALING_FIGURES if list(scaling(scaler.advice(1100), figure))}
    assert told == {"recommended_groups", "silent_groups"}
