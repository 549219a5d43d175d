"""How many groups, and the words for it. A wrong decision costs a group's GPUs, or every user's patience; one without
its reason costs the operator's owner an evening."""

from dataclasses import replace
from typing import Any

import pytest

from moe_operator.api.reasons import ScalingReason
from moe_operator.api.spec import ScalingMode
from moe_operator.autoscaler.auto import Numbers, Want
from moe_operator.autoscaler.decide import Idle, ScalingInputs, Told, base, decide, floor_text, limits
from moe_operator.autoscaler.floor import Floor
from moe_operator.autoscaler.forecast import Forecaster
from moe_operator.autoscaler.lateness import Curve
from moe_operator.autoscaler.sizing import Losses, Sized
from moe_operator.catalog.saturation import Resource

NUMBERS = Numbers(
    level=1.42,
    forecast=1.6,
    forecaster=Forecaster.LEVEL,
    load=0.71,
    resource=Resource.KV_CACHE,
    arrivals=4.0,
    waiting=0.0,
    lead=345.0,
    up=Sized(3, 0.002),
    down=Sized(2, 0.004),
    late=0.006,
    worth=24.0,
    saturated=False,
    late_as_is=0.034,
    room=1.4,
    losses=Losses(4.0, 1.6, ((1.0, 1.0),), Curve([0.0] * 32), 1, 3),
)


def _inputs(**fields: Any) -> ScalingInputs:
    values: dict[str, Any] = {
        "mode": ScalingMode.AUTO,
        "replicas": 1,
        "min_groups": 1,
        "max_groups": 4,
        "current": 2,
        "serving": 2,
    }
    return ScalingInputs(**{**values, **fields})


def _want(groups: int, **fields: Any) -> Want:
    return Want(groups, replace(NUMBERS, **fields))


# --- External and Advisory -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [ScalingMode.EXTERNAL, ScalingMode.ADVISORY])
@pytest.mark.parametrize(
    ("replicas", "low", "high", "desired", "reason"),
    [
        (3, 1, 4, 3, ScalingReason.REPLICAS),
        (0, 0, 4, 0, ScalingReason.REPLICAS),
        (0, 1, 4, 1, ScalingReason.REPLICAS_LIMITED),
        (9, 1, 4, 4, ScalingReason.REPLICAS_LIMITED),
        (9, 1, None, 9, ScalingReason.REPLICAS),
    ],
)
def test_others_decide_within_the_limits(
    mode: ScalingMode, replicas: int, low: int, high: int | None, desired: int, reason: ScalingReason
) -> None:
    inputs = _inputs(mode=mode, replicas=replicas, min_groups=low, max_groups=high)
    decision = decide(inputs, Want(base(inputs), None))
    assert (decision.desired, decision.reason) == (desired, reason)
    assert str(replicas) in decision.message


def test_advisory_follows_replicas_and_says_what_auto_would_do() -> None:
    inputs = _inputs(mode=ScalingMode.ADVISORY, replicas=2, current=7)
    assert base(inputs) == 2
    decision = decide(inputs, _want(3))
    assert (decision.desired, decision.advised, decision.reason) == (2, 3, ScalingReason.REPLICAS)
    assert "spec.replicas is 2; Auto would have 3 (DemandGrows: the load is that of 1.4" in decision.message
    assert decision.numbers == NUMBERS
    assert decision.told == Told.read(decision.message)
    assert decision.told == Told("spec.replicas is 2; Auto would have 3", "DemandGrows")


@pytest.mark.parametrize(
    ("most", "least", "want", "said"),
    [
        (
            None,
            1,
            3,
            "Auto would have 3 with a maxGroups that allows it, and stays at 1 without one (DemandGrows",
        ),
        (
            None,
            1,
            2,
            "Auto would have 2 with a maxGroups that allows it, and stays at 1 without one (WithinObj",
        ),
        (None, 1, 1, "Auto would have 1 (LoadFitsInFewer"),
        (None, 2, 2, "Auto would have 2 (WithinObjective"),
        (4, 1, 3, "Auto would have 3 (DemandGrows"),
    ],
)
def test_advice_that_needs_a_ceiling_says_so(most: int | None, least: int, want: int, said: str) -> None:
    """Lost: groups under load, when the mode is changed to get what was advised."""
    inputs = _inputs(mode=ScalingMode.ADVISORY, replicas=2, max_groups=most, min_groups=least)
    decision = decide(inputs, _want(want))
    assert decision.advised == want
    assert f"spec.replicas is 2; {said}" in decision.message
    auto = decide(replace(inputs, mode=ScalingMode.AUTO), _want(want))
    assert most is not None or auto.desired == least, "what Auto does then"


@pytest.mark.parametrize("replicas", [0, 2, 9])
@pytest.mark.parametrize("mode", [ScalingMode.ADVISORY, ScalingMode.EXTERNAL])
def test_what_a_message_says_for_long_is_read_back(mode: ScalingMode, replicas: int) -> None:
    """Lost: a write with every look, as each message would seem to be another."""
    for highest in (4, None):
        inputs = _inputs(mode=mode, replicas=replicas, max_groups=highest)
        for want in (_want(1), _want(3), _want(9), Want(base(inputs), None), Want(2, None, blind=1)):
            decision = decide(inputs, want)
            assert decision.told == Told.read(decision.message)


@pytest.mark.parametrize(
    ("mode", "want", "expected"),
    [
        (ScalingMode.AUTO, _want(3), (3, 3, None)),
        (ScalingMode.ADVISORY, _want(3), (2, 3, 3)),
        (ScalingMode.EXTERNAL, _want(3), (2, 3, None)),
        (ScalingMode.EXTERNAL, _want(9), (2, 4, None)),
        (ScalingMode.EXTERNAL, _want(1), (2, 1, None)),
        (ScalingMode.EXTERNAL, Want(2, None, blind=2), (2, 2, None)),
        (ScalingMode.EXTERNAL, replace(_want(3), blind=1), (2, 3, None)),
    ],
)
def test_what_auto_would_have_is_recommended_in_every_mode(
    mode: ScalingMode, want: Want, expected: tuple[int, int, int | None]
) -> None:
    """Lost: whoever scales by the metric, most of all while telemetry is missing."""
    decision = decide(_inputs(mode=mode, replicas=2), want)
    assert (decision.desired, decision.recommended, decision.advised) == expected


@pytest.mark.parametrize("mode", [ScalingMode.ADVISORY, ScalingMode.EXTERNAL])
@pytest.mark.parametrize("replicas", [0, 1])
def test_none_is_never_recommended(mode: ScalingMode, replicas: int) -> None:
    """With none there would be nothing to measure, and nobody to recommend the next."""
    inputs = _inputs(mode=mode, replicas=replicas, min_groups=0, serving=replicas)
    assert decide(inputs, _want(0)).recommended == 1
    assert decide(replace(inputs, max_groups=0), Want(0, None)).recommended == 0


# --- Auto: limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1, 4, (1, 4)), (2, None, (2, 2)), (0, 3, (1, 3)), (0, None, (1, 1)), (0, 0, (0, 0)), (3, 3, (3, 3))],
)
def test_auto_keeps_a_group_to_measure_unless_none_is_allowed(
    low: int, high: int | None, expected: tuple[int, int]
) -> None:
    assert limits(_inputs(min_groups=low, max_groups=high)) == expected


def test_others_may_ask_for_as_many_groups_as_the_api_allows() -> None:
    assert limits(_inputs(mode=ScalingMode.EXTERNAL, min_groups=0, max_groups=None)) == (0, 256)


@pytest.mark.parametrize(("current", "desired"), [(0, 2), (9, 4)])
def test_new_limits_hold_at_once_whatever_is_measured(current: int, desired: int) -> None:
    for want in (_want(1), _want(9), Want(current, None)):
        decision = decide(_inputs(current=current, min_groups=2), want)
        assert (decision.desired, decision.reason) == (desired, ScalingReason.LIMITS_CHANGED)
        assert f"{current} groups" in decision.message


def test_equal_limits_leave_no_choice() -> None:
    decision = decide(_inputs(min_groups=2, max_groups=2), _want(5))
    assert (decision.desired, decision.reason) == (2, ScalingReason.LIMITS_LEAVE_ONE)


# --- Auto: what is wanted ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("want", "desired", "reason", "words"),
    [
        (_want(3), 3, "DemandGrows", "in 345 s, when another group would serve, 1.6 full groups"),
        (_want(3), 3, "DemandGrows", "3.4 % of requests late as it is, 0.2 % of requests with 3"),
        (_want(3, saturated=True, waiting=7), 3, "RequestsWaiting", "; 7 requests wait"),
        (_want(9), 4, "DemandGrows", "with 9, but maxGroups is 4"),
        (_want(1), 1, "LoadFitsInFewer", "with 1 0.4 % of requests would be late at the most"),
        (_want(2), 2, "WithinObjective", "the load is that of 1.4 full groups, by KV cache"),
        (replace(_want(2), held_until=9.0), 2, "Observing", "2 would do, not yet for long"),
        (replace(_want(2), blind=1), 2, "TelemetryMissing", "1 of 2 groups give no current figures"),
        (Want(2, None, blind=2), 2, "TelemetryMissing", "2 of 2 groups give no current figures"),
        (Want(2, None), 2, "Observing", "2 of 2 groups serve, no figures of them yet"),
    ],
)
def test_each_decision_says_why(want: Want, desired: int, reason: str, words: str) -> None:
    decision = decide(_inputs(), want)
    assert (decision.desired, decision.reason) == (desired, reason)
    assert words in decision.message
    assert decision.numbers == want.numbers


def test_the_ceiling_is_named_where_it_is_in_the_way() -> None:
    decision = decide(_inputs(current=4), _want(6))
    assert (decision.desired, decision.reason) == (4, ScalingReason.AT_MAXIMUM)
    assert decision.message.endswith("but maxGroups is 4")


@pytest.mark.parametrize("current", [2, 4])
def test_where_the_width_was_chosen_the_ceiling_is_told_in_it(current: int) -> None:
    """The number is not the one in the spec then."""
    decision = decide(_inputs(current=current, width=16), _want(6))
    assert decision.message.endswith("but maxGroups leaves 4 of 16 GPUs")


def test_nothing_is_measured_before_a_group_serves() -> None:
    decision = decide(_inputs(serving=0), Want(2, None))
    assert (decision.desired, decision.reason) == (2, ScalingReason.NO_GROUP_SERVES)


# --- Auto: to zero and back ----------------------------------------------------------------------


def _idle(quiet: float | None = 1800.0, *, recent: bool = False) -> Idle:
    return Idle(1800.0, "30m", quiet, recent)


WOKEN = Floor(1, 1, ScalingReason.WOKEN, "at least 1 until T (annotation)", 9.0)
OFFICE = Floor(2, 2, ScalingReason.SCHEDULED, "at least 2 until 19:00 UTC (schedule office)", 9.0)


@pytest.mark.parametrize(
    ("fields", "desired", "reason", "words"),
    [
        ({"current": 1, "idle": _idle()}, 0, "Idle", "no request came for 30m (scaling.scaleToZeroAfter)"),
        ({"current": 3, "idle": _idle()}, 0, "Idle", "kubectl moe wake asks for one"),
        ({"current": 1, "idle": _idle(1799.0)}, 1, "Observing", "1 of 1 groups serve"),
        ({"current": 1, "idle": _idle(None)}, 1, "Observing", ""),
        ({"current": 1, "idle": None}, 1, "Observing", ""),
        ({"current": 1, "idle": _idle(), "min_groups": 1}, 1, "Observing", ""),
        ({"current": 1, "idle": _idle(), "floor": WOKEN}, 1, "Observing", ""),
        ({"current": 0, "idle": _idle(None)}, 0, "Idle", "there is none that a request could come to"),
        ({"current": 0, "idle": _idle(None, recent=True)}, 1, "Woken", "as the last group left the traffic"),
        ({"current": 0, "idle": _idle(None), "floor": WOKEN}, 1, "Woken", WOKEN.text),
        ({"current": 0, "idle": _idle(None), "floor": OFFICE}, 2, "Scheduled", OFFICE.text),
        ({"current": 1, "idle": _idle(), "floor": OFFICE}, 2, "Scheduled", OFFICE.text),
        ({"current": 1, "floor": OFFICE, "min_groups": 1}, 2, "Scheduled", OFFICE.text),
        ({"current": 1, "floor": OFFICE, "min_groups": 4}, 4, "LimitsChanged", "outside the limits 4 to 4"),
        ({"current": 0, "idle": None}, 1, "LimitsChanged", "0 groups are outside the limits 1 to 4"),
        ({"current": 1, "idle": _idle(), "max_groups": 0}, 0, "LimitsChanged", "outside the limits 0 to 0"),
        ({"current": 0, "idle": _idle(), "max_groups": 0}, 0, "LimitsLeaveOne", "leave 0"),
        ({"current": 0, "idle": _idle(), "max_groups": 0, "floor": WOKEN}, 0, "LimitsLeaveOne", "leave 0"),
        (
            {"current": 0, "idle": _idle(), "max_groups": 1, "floor": OFFICE},
            1,
            "Scheduled",
            "but maxGroups is 1",
        ),
        ({"current": 0, "idle": _idle(), "max_groups": None, "floor": OFFICE}, 2, "Scheduled", OFFICE.text),
    ],
)
def test_the_last_group_goes_only_when_nothing_asks_for_one(
    fields: dict[str, Any], desired: int, reason: str, words: str
) -> None:
    inputs = _inputs(**{"min_groups": 0, "serving": min(1, fields["current"]), **fields})
    decision = decide(inputs, Want(base(inputs), None))
    assert (decision.desired, decision.reason) == (desired, reason)
    assert words in decision.message


def test_advice_goes_to_zero_and_the_groups_stay() -> None:
    inputs = _inputs(mode=ScalingMode.ADVISORY, replicas=2, min_groups=0, current=2, idle=_idle())
    decision = decide(inputs, Want(2, None))
    assert (decision.desired, decision.advised) == (2, 0)
    assert "Auto would have 0 (Idle: no request came for 30m" in decision.message
    at_none = replace(inputs, replicas=0, current=0)
    assert decide(at_none, Want(0, None)).advised == 0
    awake = replace(inputs, replicas=1, idle=_idle(5.0))
    assert decide(awake, _want(0)).advised == 1, "never to none by load alone"


@pytest.mark.parametrize("mode", [ScalingMode.EXTERNAL, ScalingMode.ADVISORY])
def test_what_is_scheduled_is_a_limit_to_others_too(mode: ScalingMode) -> None:
    inputs = _inputs(mode=mode, replicas=0, min_groups=0, floor=OFFICE)
    decision = decide(inputs, Want(base(inputs), None))
    assert (decision.desired, decision.reason) == (2, ScalingReason.REPLICAS_LIMITED)
    assert floor_text(inputs) == OFFICE.text
    assert floor_text(replace(inputs, min_groups=2)) is None, "the spec asks for as many itself"


# --- A budget that is spent ------------------------------------------------------------------------

_SPENT = "60.00 of 60.00 USD a day are spent (cost.budget)"


def test_a_spent_budget_holds_what_auto_would_add_and_says_why() -> None:
    decision = decide(_inputs(held=_SPENT), _want(3))
    assert (decision.desired, decision.reason) == (2, ScalingReason.BUDGET_HOLDS)
    assert _SPENT in decision.message
    assert decision.recommended == 2, "HPA and KEDA are held too"


@pytest.mark.parametrize(("want", "desired"), [(2, 2), (1, 1)])
def test_a_spent_budget_keeps_nothing_from_staying_or_going(want: int, desired: int) -> None:
    held, free = (decide(_inputs(held=text), _want(want)) for text in (_SPENT, None))
    assert held == free
    assert held.desired == desired


def test_floors_are_served_whatever_was_spent() -> None:
    floor = Floor(groups=3, due=3, text="at least 3 (schedule office)", reason=ScalingReason.SCHEDULED)
    for mode in ScalingMode:
        inputs = _inputs(mode=mode, replicas=4, held=_SPENT, floor=floor)
        assert decide(inputs, _want(base(inputs))).desired == 3


@pytest.mark.parametrize("mode", [ScalingMode.EXTERNAL, ScalingMode.ADVISORY])
@pytest.mark.parametrize(
    ("replicas", "desired", "reason"),
    [
        (3, 2, ScalingReason.BUDGET_HOLDS),
        (9, 2, ScalingReason.BUDGET_HOLDS),
        (2, 2, ScalingReason.REPLICAS),
        (1, 1, ScalingReason.REPLICAS),
        (0, 1, ScalingReason.REPLICAS_LIMITED),
    ],
)
def test_a_spent_budget_holds_replicas_too(
    mode: ScalingMode, replicas: int, desired: int, reason: ScalingReason
) -> None:
    inputs = _inputs(mode=mode, replicas=replicas, held=_SPENT)
    decision = decide(inputs, Want(base(inputs), None))
    assert (decision.desired, decision.reason) == (desired, reason)
