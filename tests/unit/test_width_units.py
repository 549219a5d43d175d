"""Numbers of groups in two widths at a time. What is counted wrongly is drained, or made twice, when widths change."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from factories.deployments import model_deployment, revision_of_width
from factories.groups import group, view
from moe_operator.api import reasons
from moe_operator.api.scaling import ChosenWidthStatus, ScalingStatus
from moe_operator.autoscaler.capacity import Share
from moe_operator.autoscaler.demand import DemandMeter
from moe_operator.autoscaler.group_window import GroupLoad
from moe_operator.autoscaler.width_units import WidthUnits, chosen_width, most_groups, with_chosen_width
from moe_operator.catalog.saturation import Resource
from moe_operator.controller.mixed_widths import measures
from moe_operator.controller.width_news import width_news
from moe_operator.resources.revision import spec_hash

WIDER, NARROWER = WidthUnits(16, 8, 215, 2, 4), WidthUnits(4, 8, 45, 5, 2)


def _chosen(**fields: Any) -> ChosenWidthStatus:
    values: dict[str, Any] = {
        "gpus": 16,
        "planned": 8,
        "before": 8,
        "percent": 215,
        "groups": 2,
        "groups_before": 3,
        "since": "2026-11-30T12:00:00Z",
    }
    return ChosenWidthStatus(**{**values, **fields})


def _scaling(**fields: Any) -> ScalingStatus:
    return ScalingStatus(**{"desired": 2, "reason": "WithinObjective", "message": "", **fields})


@pytest.mark.parametrize(
    ("units", "before", "after"),
    [
        (WIDER, 1, 1),
        (WIDER, 2, 1),
        (WIDER, 3, 2),
        (WIDER, 4, 2),
        (WIDER, 5, 3),
        (NARROWER, 1, 3),
        (NARROWER, 2, 5),
    ],
)
def test_no_fewer_than_take_as_much(units: WidthUnits, before: int, after: int) -> None:
    assert units.from_groups_of(8, before) == after


@pytest.mark.parametrize("units", [WIDER, NARROWER, WidthUnits(32, 8, 380), WidthUnits(1, 8, 5)])
def test_a_number_that_goes_there_and_back_stays(units: WidthUnits) -> None:
    """Every pass of the operator converts: a number must not creep."""
    for number in range(40):
        after = units.from_groups_of(8, number)
        assert units.from_groups_of(8, units.in_groups_of(8, after)) == after


@pytest.mark.parametrize(
    ("max_groups", "gpus", "most"),
    [(6, 16, 3), (5, 16, 2), (1, 16, 1), (6, 4, 12), (0, 16, 0), (None, 16, None)],
)
def test_max_groups_is_a_budget_of_gpus(max_groups: int | None, gpus: int, most: int | None) -> None:
    """Six groups of eight GPUs paid for are not six of sixteen."""
    assert most_groups(max_groups, _chosen(gpus=gpus)) == most


def test_while_groups_move_both_widths_keep_to_the_budget() -> None:
    """Six of 4 GPUs go for two of 8: a third would need nine of those before to stay meanwhile."""
    chosen = _chosen(gpus=8, planned=4, before=4, groups=2, groups_before=6)
    assert most_groups(6, chosen) == 3
    assert most_groups(6, chosen, moving=True) == 2


def test_without_a_choice_max_groups_is_what_it_says() -> None:
    assert most_groups(6, None) == 6


@pytest.mark.parametrize(
    ("spec", "applies"),
    [
        ({}, True),
        ({"hardware": {"accelerator": "B200", "gpusPerGroup": 8}}, False),
        ({"parallelism": {"tensor": 2}}, False),
        ({"scaling": {"width": "Fixed"}}, True),
    ],
)
def test_a_choice_gives_way_to_the_spec_alone(spec: dict[str, Any], applies: bool) -> None:
    deployment = model_deployment(**spec)
    assert (chosen_width(deployment.spec, _scaling(chosen_width=_chosen())) is not None) is applies


def test_the_field_is_in_no_revision_s_name_and_a_choice_is() -> None:
    """An upgrade moves nothing; a choice moves groups as a user's own word does."""
    plain = model_deployment(hardware={"accelerator": "B200"})
    assert spec_hash(plain) == spec_hash(
        model_deployment(hardware={"accelerator": "B200"}, scaling={"width": "Auto"})
    )
    status = plain.status.model_copy(update={"scaling": _scaling(chosen_width=_chosen())})
    wide = with_chosen_width(replace(plain, status=status))
    asked = model_deployment(hardware={"accelerator": "B200", "gpusPerGroup": 16})
    assert spec_hash(wide) == spec_hash(asked)
    back = plain.status.model_copy(update={"scaling": _scaling(chosen_width=_chosen(gpus=8, before=16))})
    own = with_chosen_width(replace(plain, status=back))
    assert spec_hash(own) == spec_hash(plain), "the way back is to the kept revision"


# --- Groups of two widths ------------------------------------------------------------------------

KEPT = {"tiny-old": revision_of_width("tiny-old", 8), "tiny-a": revision_of_width("tiny-a", 16)}


def test_groups_of_the_width_before_count_in_proportion() -> None:
    views = [view(group(slot, revision="tiny-old" if slot < 3 else "tiny-a")) for slot in range(4)]
    found = measures(WIDER, 2, 1, KEPT["tiny-a"], KEPT, views)
    assert found.desired == 2
    assert dict(found.worth) == {f"tiny-g{slot}": Fraction(2, 4) for slot in range(3)}
    assert dict(found.size) == {f"tiny-g{slot}": Fraction(1, 2) for slot in range(3)}


def test_while_groups_are_still_made_of_the_width_before_the_number_is_theirs() -> None:
    """A paused rollout, or a spec in trouble: two wide groups are four of those that run, and none of them goes."""
    views = [view(group(slot, revision="tiny-old")) for slot in range(4)]
    found = measures(WIDER, 2, 1, KEPT["tiny-old"], KEPT, views)
    assert (found.desired, found.worth, found.surplus(views)) == (4, {}, 0)
    mixed = [*views[:2], view(group(5, revision="tiny-a"))]
    assert measures(WIDER, 2, 1, KEPT["tiny-old"], KEPT, mixed).surplus(mixed) == 1


def test_the_floor_counts_groups_of_any_width() -> None:
    narrow = {"tiny-old": revision_of_width("tiny-old", 8), "tiny-a": revision_of_width("tiny-a", 4)}
    views = [view(group(slot, revision="tiny-old")) for slot in range(2)]
    found = measures(NARROWER, 2, 2, narrow["tiny-a"], narrow, views)
    assert set(found.worth.values()) == {Fraction(1)}


def test_without_a_choice_every_group_counts_for_one() -> None:
    """A width that a user changes is rolled out as ever."""
    views = [view(group(slot, revision="tiny-old")) for slot in range(2)]
    found = measures(None, 2, 1, KEPT["tiny-a"], KEPT, views)
    assert (found.desired, found.worth, found.size) == (2, {}, {})


def _load(share: float, worth: float = 1.0) -> GroupLoad:
    return GroupLoad(
        share=Share(share, Resource.STEP_TIME),
        running=10.0,
        at_work=80.0,
        waiting=0.0,
        step_time=0.05,
        arrivals=4.0,
        late_first=0.0,
        late_tokens=0.0,
        judged=4.0,
        worth=worth,
    )


def test_demand_is_the_same_in_groups_of_either_width() -> None:
    """Else the number of groups would leap with each that moves."""
    narrow = DemandMeter().look(0.0, [_load(0.8), _load(0.8), _load(0.8)], [])
    mixed = DemandMeter().look(0.0, [_load(0.8), _load(0.8, worth=2.0)], [])
    assert narrow is not None
    assert mixed is not None
    assert mixed.level == pytest.approx(narrow.level)
    assert mixed.load == pytest.approx(narrow.load)


# --- What is told --------------------------------------------------------------------------------


def test_news_are_told_once() -> None:
    before = _scaling()
    found = _scaling(recommended_width=16, width_message="because")
    told = [(reason, note) for _, reason, note in width_news(before, found)]
    assert told == [(reasons.WIDTH_RECOMMENDED, "groups of 16 GPUs are recommended: because")]
    assert not list(width_news(found, found.model_copy(update={"desired": 3})))
    assert not list(width_news(found, before)), "that it is gone"
    chosen = _scaling(chosen_width=_chosen(), width_message="because")
    assert [reason for _, reason, _ in width_news(found, chosen)] == [reasons.WIDTH_CHOSEN]
    assert not list(width_news(chosen, chosen))


def test_giving_up_is_a_warning_and_told_once() -> None:
    chosen = _scaling(chosen_width=_chosen())
    later = "2026-11-30T13:00:00Z"
    back = _chosen(gpus=8, before=16, percent=47, since=later, given_up=16, given_up_time=later)
    told = list(width_news(chosen, _scaling(chosen_width=back)))
    assert [(type_, reason) for type_, reason, _ in told] == [("Warning", reasons.WIDTH_GIVEN_UP)]
    other = back.model_copy(update={"gpus": 4, "before": 8, "since": "2026-11-30T20:00:00Z"})
    told = list(width_news(_scaling(chosen_width=back), _scaling(chosen_width=other)))
    assert [reason for _, reason, _ in told] == [reasons.WIDTH_CHOSEN]
