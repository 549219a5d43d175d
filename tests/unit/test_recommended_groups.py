"""What the controller keeps of an autoscaler, and tells of it. Whoever scales by a figure that nobody renews any
more, or that is another deployment's, scales by chance."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import model_deployment
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ChosenWidthStatus, LearnedStatus, ScalingStatus
from moe_operator.autoscaler.auto import TICK
from moe_operator.autoscaler.reading import Reading
from moe_operator.controller.load import GroupRead, Load
from moe_operator.controller.scale import Scale, held
from moe_operator.controller.scaling import Advice, Scaler
from moe_operator.runtime.metrics import SCALING_FIGURES
from moe_operator.runtime.reporting import scaling

SLOTS = 64


def _deployment(mode: str = "External", **fields: Any) -> ModelDeployment:
    made = model_deployment(
        scaling={"mode": mode, "minGroups": 1, "maxGroups": 6, **fields.pop("scaling", {})}
    )
    return replace(made, spec=made.spec.model_copy(update=fields))


def _load(clock: float, share: float | None, groups: int = 1, width: int = 0) -> Load:
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
    read = GroupRead(ranks=1, slots=SLOTS, reading=reading, width=width)
    return Load(clock, {f"g{at}": read for at in range(groups)}, {}, _deployment().status.throughput)


def _run(
    scaler: Scaler,
    deployment: ModelDeployment,
    share: float | None,
    begin: float,
    end: float,
    groups: int = 1,
    width: int = 0,
) -> Scale:
    scale = None
    clock = begin
    while clock < end:
        scale = scaler.scale(deployment, _load(clock, share, groups, width), clock)
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


# --- Groups of another width ---------------------------------------------------------------------


def _narrow(mode: str, desired: int, learned: LearnedStatus | None = None, **fields: Any) -> ModelDeployment:
    """Groups of 8 GPUs go for twice as many of 4, as wide as the operator chose."""
    chosen = ChosenWidthStatus(
        gpus=4,
        planned=8,
        before=8,
        percent=50,
        groups=6,
        groups_before=3,
        since="2026-11-30T12:00:00Z",
    )
    made = _deployment(mode, **fields)
    scaling = _status(desired).model_copy(update={"chosen_width": chosen, "learned": learned})
    return replace(made, status=made.status.model_copy(update={"scaling": scaling}))


@pytest.mark.parametrize("mode", ["External", "Auto"])
def test_the_recommendation_is_of_the_width_that_was_chosen(mode: str) -> None:
    """As `spec.replicas` is taken; and the GPUs of six groups of the plan's own are those of twelve."""
    scaler = Scaler()
    _run(scaler, _narrow(mode, 6, replicas=6), 0.97, 1000, 1300, groups=6, width=4)
    assert 6 < _advice(scaler, 1300).groups <= 12


@pytest.mark.parametrize("mode", ["External", "Auto"])
def test_while_groups_move_it_is_so_too_and_does_not_fall(mode: str) -> None:
    """Three wide ones serve yet, for the six that are wanted."""
    scaler, deployment = Scaler(), _narrow(mode, 6, replicas=6)
    scale = _run(scaler, deployment, 0.0, 1000, 2000, groups=3, width=8)
    assert scale.desired == _advice(scaler, 2000).groups == 6
    assert scale.losses is None, "of groups of another width"
    _run(scaler, deployment, 0.97, 2000, 2300, groups=3, width=8)
    assert 6 < _advice(scaler, 2300).groups <= 12


def test_what_was_learned_of_another_width_is_not_recalled() -> None:
    """Its loads are another group's, though ranks and slots may be alike."""
    scaler, learned = Scaler(), None
    for clock in range(1000, 2000, 5):
        scale = _run(scaler, _narrow("Auto", 2), 0.5, clock, clock + 5, groups=2, width=4)
        learned = learned or (scale.status.learned if scale.status else None)
    assert learned is not None
    for width, why in ((4, []), (8, ["OtherGroups"])):
        told: list[str] = []
        _run(Scaler(told.append), _narrow("Auto", 2, learned), 0.5, 5000, 5060, groups=2, width=width)
        assert told == why


def test_a_spec_that_cannot_be_read_leaves_groups_that_move_as_they_are() -> None:
    """Else six narrow ones that are wanted would be six wide ones."""
    units = held(_narrow("Auto", 6)).units
    assert units is not None
    assert units.stand_for(8, 6) == 3


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
