"""From telemetry to a decision in the status, over restarts of the operator. Lost otherwise: GPUs to a surge that never
was, the reasons of the last decisions, or etcd to figures that say the same."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from factories.cluster_objects import deployment_object
from factories.deployments import model_deployment
from factories.groups import admitted, group, view
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.scaling import CHANGES_KEPT, ScalingFigures, ScalingStatus
from moe_operator.api.status import ColdStartStatus, ThroughputStatus
from moe_operator.api.times import format_time
from moe_operator.autoscaler.auto import Want
from moe_operator.autoscaler.decide import UNLIMITED, ScalingDecision, Told
from moe_operator.autoscaler.reading import Buckets, Reading
from moe_operator.controller.kube import MODEL_DEPLOYMENT
from moe_operator.controller.load import GroupRead, Load, load_of
from moe_operator.controller.remembering import INTERVAL
from moe_operator.controller.scale import Scale
from moe_operator.controller.scaling import Scaler
from moe_operator.controller.scaling_status import figures_moved, scaling_status
from moe_operator.controller.store import Store
from moe_operator.runtime.reporting import capacity_short
from moe_operator.telemetry.observation import Snapshot

NOW, CLOCK = 1_800_000_000.0, 5000.0


def deployment(told: ScalingStatus | None = None, /, **spec: Any) -> ModelDeployment:
    made = model_deployment(**{"scaling": {"mode": "Auto", "minGroups": 1, "maxGroups": 8}, **spec})
    return replace(made, status=made.status.model_copy(update={"scaling": told}))


def read(
    at: float, *, running: float = 60.0, ended: float = 0.0, step: float = 0.03, **fields: Any
) -> GroupRead:
    """A group of eight ranks that has `running` requests at work, and has ended so many."""
    reading = Reading(
        at=at,
        running=running,
        waiting=0.0,
        kv=running / 1000,
        finished=ended,
        gaps=ended * 100,
        gap_seconds=ended * 100 * step,
        first_token=Buckets((1.0, float("inf")), (ended, ended)),
        per_token=Buckets((0.04, float("inf")), (ended, ended)),
        ranks=8,
    )
    return GroupRead(**{"ranks": 8, "slots": 256, "reading": reading, **fields})


class Course:
    """A Scaler that looks every fifteen seconds; the status is as it was written last."""

    def __init__(self, scaling: ScalingStatus | None = None) -> None:
        self.scaling = scaling
        self.cold_start: ColdStartStatus | None = None
        self.passed = 0.0
        self.anew: list[str] = []
        self.changes = 0
        self.restart()

    def restart(self) -> None:
        """Another operator, with another clock."""
        self.scaler = Scaler(self.anew.append)
        self.offset = CLOCK + 977 * self.passed

    def look(self, groups: dict[str, GroupRead], **spec: Any) -> Scale:
        load = Load(self.offset + self.passed, groups, {}, ThroughputStatus())
        made = deployment(self.scaling, **spec)
        made = replace(made, status=made.status.model_copy(update={"cold_start": self.cold_start}))
        found = self.scaler.scale(made, load, NOW + self.passed)
        self.changes += found.status != self.scaling
        self.scaling = found.status
        self.passed += 15
        return found

    def run(self, seconds: float, groups: int = 2, **spec: Any) -> Scale:
        """With a load that swings a little."""
        end = self.passed + seconds
        while self.passed < end:
            at, ended = self.offset + self.passed, 1e6 + 20 * self.passed
            step = 0.03 + 0.00005 * (self.passed % 90)
            swing = 60 + self.passed % 90
            found = self.look(
                {f"g{n}": read(at, running=swing, ended=ended, step=step) for n in range(groups)}, **spec
            )
        return found


@pytest.mark.parametrize(
    ("scaling", "desired", "reason"),
    [
        ({"minGroups": 0}, 1, "NoGroupServes"),
        ({"minGroups": 0, "scaleToZeroAfter": "30m"}, 1, "NoGroupServes"),
        ({"minGroups": 2}, 2, "NoGroupServes"),
        ({"minGroups": 0, "maxGroups": 0}, 0, "LimitsLeaveOne"),
        ({"minGroups": 0, "mode": "External"}, 1, "Replicas"),
    ],
)
def test_a_new_deployment_has_changed_no_limits(scaling: dict[str, Any], desired: int, reason: str) -> None:
    """Lost: the time of whoever looks for what changed them."""
    course = Course()
    course.look({}, scaling={"mode": "Auto", "minGroups": 1, "maxGroups": 4, **scaling})
    assert course.scaling is not None
    assert (course.scaling.desired, course.scaling.reason) == (desired, reason)
    assert course.scaling.history == []


def test_what_was_served_before_the_operator_came_is_no_load() -> None:
    """Groups that had answered a million requests when it first looked, and were read a moment later."""
    course = Course(ScalingStatus(desired=2, reason="WithinObjective", message=""))
    course.look({"g0": GroupRead(8, 256, None), "g1": GroupRead(8, 256, None)})
    course.run(60)
    assert course.scaling is not None
    assert course.scaling.figures is not None
    assert float(course.scaling.figures.arrivals) < 100
    assert course.scaling.desired == 2


def test_a_restart_is_no_news() -> None:
    """Lost: a write for every deployment, and a condition that comes and goes."""
    course = Course()
    course.run(1800)
    before = course.scaling
    assert before is not None
    course.restart()
    told = course.look({"g0": GroupRead(8, 256, None), "g1": GroupRead(8, 256, None)}).status
    assert told == before, "what was measured last is the best that is known"


def test_limits_that_leave_a_choice_again_are_not_said_to_leave_none() -> None:
    """Lost: the sense of what is told, for as long as the number that was the only one happens to be right."""
    one, more = (
        {"mode": "Auto", "minGroups": 2, "maxGroups": 2},
        {"mode": "Auto", "minGroups": 2, "maxGroups": 4},
    )
    course = Course()
    course.run(600, scaling=one)
    assert course.scaling is not None
    assert course.scaling.reason == "LimitsLeaveOne"
    assert course.scaling.message == "the limits leave 2 as the only number"
    course.run(600, scaling=more)
    assert (course.scaling.desired, course.scaling.reason) == (2, "WithinObjective")
    assert course.scaling.message.startswith("the load is that of")
    course.run(600, scaling=one)
    assert course.scaling.message == "the limits leave 2 as the only number"


class Loaded(Course):
    """Two groups at their ceiling, of which the load goes: fewer would do, but only after an hour."""

    SPEC: ClassVar[dict[str, Any]] = {
        "mode": "Auto",
        "minGroups": 1,
        "maxGroups": 2,
        "scaleDown": {"window": "60m"},
    }

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0.0

    def hold(self, looks: int, *, full: bool, silent: bool = False) -> list[str]:
        """The reasons that the status had, without repetitions."""
        told: list[str] = []
        running, each, step = (950, 1500, 0.09) if full else (8, 30, 0.021)
        for _ in range(looks):
            self.ended += each
            at = self.offset + self.passed
            groups = {f"g{n}": read(at, running=running, ended=self.ended, step=step) for n in range(2)}
            if silent:
                groups["g1"] = GroupRead(8, 256, None)
            self.look(groups, scaling=self.SPEC)
            assert self.scaling is not None
            if told[-1:] != [self.scaling.reason]:
                told.append(self.scaling.reason)
        return told

    def short(self) -> list[tuple[tuple[str, ...], float]]:
        """What the metric behind the alert says."""
        assert self.scaling is not None
        store = Store()
        store.upsert(MODEL_DEPLOYMENT, deployment_object(scaling=self.scaling.wire()))
        return list(capacity_short(store))


def test_more_groups_are_not_said_to_be_needed_once_fewer_would_do() -> None:
    """Lost: a night's sleep, to an alert about a load that went an hour ago."""
    course = Loaded()
    assert course.hold(60, full=True)[-1] == "AtMaximum"
    assert [labels[-1] for labels, _ in course.short()] == ["AtMaximum"]
    assert course.hold(40, full=False)[-1] == "Observing"
    assert course.short() == []
    assert course.scaling is not None
    assert "1 would do, not yet for long" in course.scaling.message


def test_figures_are_not_said_to_be_missing_once_they_are_back() -> None:
    course = Loaded()
    course.hold(60, full=True)
    course.hold(40, full=False)
    assert course.hold(20, full=False, silent=True)[-1] == "TelemetryMissing"
    assert course.hold(4, full=False)[-1] == "Observing"


def test_a_restart_ends_nothing_that_nobody_has_measured() -> None:
    """Lost: an alert that resolves and fires again with each upgrade."""
    course = Loaded()
    course.hold(60, full=True)
    before = course.scaling
    course.restart()
    course.look({"g0": GroupRead(8, 256, None), "g1": GroupRead(8, 256, None)}, scaling=course.SPEC)
    assert course.scaling is not None
    assert before is not None
    assert (course.scaling.reason, course.scaling.message) == (before.reason, before.message)


@pytest.mark.parametrize("mode", ["External", "Advisory"])
def test_what_is_said_of_replicas_and_limits_is_of_now(mode: str) -> None:
    """Lost: the reason why `kubectl scale` does nothing, to limits and a number of last week."""
    course = Course()
    for replicas, least, expected in (
        (5, 1, "5, outside the limits 1 to 2"),
        (9, 2, "9, outside the limits 2 to 2"),
    ):
        course.run(120, scaling={"mode": mode, "minGroups": least, "maxGroups": 2}, replicas=replicas)
        assert course.scaling is not None
        assert course.scaling.message.partition(";")[0] == f"spec.replicas is {expected}"
    assert course.scaling is not None
    assert course.scaling.history == [], "two groups all the while"


def test_what_auto_would_do_is_said_for_the_reason_of_now() -> None:
    """Lost: the trust of whoever reads for a week that nothing is known yet of groups that serve."""
    course, spec = Course(), {"mode": "Advisory", "minGroups": 1, "maxGroups": 8}

    def said() -> str:
        assert course.scaling is not None
        return course.scaling.message.partition(":")[0]

    course.look({}, scaling=spec, replicas=2)
    assert said() == "spec.replicas is 2; Auto would have 2 (NoGroupServes"
    course.look({"g0": GroupRead(8, 256, None)}, scaling=spec, replicas=2)
    assert said() == "spec.replicas is 2; Auto would have 2 (Observing"
    patient = {**spec, "scaleDown": {"window": "60m"}}
    course.run(300, scaling=patient, replicas=2)
    assert said() == "spec.replicas is 2; Auto would have 2 (Observing"
    assert course.scaling is not None
    assert "1 would do, not yet for long" in course.scaling.message
    course.run(300, scaling={**patient, "minGroups": 2}, replicas=2)
    assert said() == "spec.replicas is 2; Auto would have 2 (WithinObjective"


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        (Told("a", "DemandGrows"), Told("a", "DemandGrows"), False),
        (Told("a", "DemandGrows"), Told("a", "RequestsWaiting"), False),
        (Told("a", "RequestsWaiting"), Told("a", "DemandGrows"), False),
        (Told("a", "WithinObjective"), Told("a", "Observing"), False),
        (Told("a", "AtMaximum"), Told("a", "Observing"), False),
        (Told("a", "NoGroupServes"), Told("a", "Observing"), True),
        (Told("a", "Observing"), Told("a", "WithinObjective"), True),
        (Told("a", "AtMaximum"), Told("a", "WithinObjective"), True),
        (Told("a", "DemandGrows"), Told("b", "DemandGrows"), True),
        (Told("a", "DemandGrows"), Told("a"), True),
        (Told("a"), Told("a", "DemandGrows"), True),
        (Told("a"), Told("a"), False),
        (Told("a, limits 1 to 20"), Told("a, limits 1 to 2"), True),
    ],
)
def test_advice_is_told_anew_where_it_is_news(before: Told, now: Told, news: bool) -> None:
    """Lost: etcd, to advice that nobody follows: waiting requests come and go with every look."""

    def decision(told: Told, why: str) -> ScalingDecision:
        return ScalingDecision(1, ScalingReason.REPLICAS, told.text(why), 3, 3, told=told)

    told = scaling_status(None, decision(before, "the load is that of 2.1 (or so)"), Want(1, None), 0.0, NOW)
    after = scaling_status(told, decision(now, "the load is that of 2.3"), Want(1, None), 0.0, NOW)
    assert (after != told) == news
    assert after.message == (now.text("the load is that of 2.3") if news else told.message)


def test_a_change_is_kept_with_what_it_was_made_of() -> None:
    course = Course(ScalingStatus(desired=1, reason="WithinObjective", message=""))
    for _ in range(40):
        at = course.offset + course.passed
        course.look({"g0": read(at, running=950, ended=500 * course.passed, step=0.09)})
    assert course.scaling is not None
    assert course.scaling.desired > 1
    change = course.scaling.history[0]
    assert (change.before, change.after) == (1, course.scaling.history[0].after)
    assert change.reason in ("DemandGrows", "RequestsWaiting")
    assert change.message is None
    assert change.figures is not None
    assert float(change.figures.load) > 0.5
    assert change.figures.worth_having >= change.after


def test_changes_without_figures_have_words_and_only_the_last_are_kept() -> None:
    scaling = ScalingStatus(desired=1, reason="Replicas", message="")
    for replicas in range(2, 2 + 2 * CHANGES_KEPT):
        made = replace(
            deployment(scaling, scaling={"mode": "External"}),
            spec=deployment(None, scaling={"mode": "External"}, replicas=replicas).spec,
        )
        found = Scaler().scale(made, Load(0, {}, {}, ThroughputStatus()), NOW + replicas).status
        assert found is not None
        scaling = found
    assert replicas < UNLIMITED
    assert len(scaling.history) == CHANGES_KEPT
    assert scaling.history[-1].after == scaling.desired == replicas
    assert scaling.history[-1].message == f"spec.replicas is {replicas}"
    assert scaling.history[-1].time == format_time(NOW + replicas)
    assert scaling.history[-1].figures is None


def test_what_was_learned_is_written_after_ten_minutes_and_not_at_every_look() -> None:
    course = Course()
    course.run(INTERVAL - 60)
    assert course.scaling is not None
    assert course.scaling.learned is None
    course.run(120)
    assert course.scaling is not None
    first = course.scaling.learned
    assert first is not None
    course.run(INTERVAL - 60)
    assert course.scaling.learned == first


def test_a_successor_with_another_clock_goes_on_from_it() -> None:
    course = Course()
    course.run(1900)
    assert course.scaling is not None
    learned = course.scaling.learned
    assert learned is not None
    course.restart()
    course.look({"g0": GroupRead(8, 0, None), "g1": GroupRead(8, 0, None)})
    course.run(60)
    assert course.anew == [], "of groups that nobody has read yet nothing is known to be otherwise"
    kept = course.scaler._kept[deployment().key]
    assert kept.autoscaler._meter.work == pytest.approx((learned.request_milliseconds or 0) / 1000, rel=0.1)
    assert kept.starts.seen == ()


def test_who_changes_the_objective_has_it_learned_anew() -> None:
    course = Course()
    course.run(1900)
    course.run(60, objective={"timePerOutputToken": "20ms"})
    assert course.anew == ["OtherGroups"]


def test_figures_that_say_the_same_are_not_news() -> None:
    def told(load: str, waiting: int = 0) -> ScalingStatus:
        figures = ScalingFigures(
            load=load,
            arrivals="3",
            waiting=waiting,
            forecast="1",
            forecaster="Level",
            lead_seconds=345,
            worth_having=2,
            late_percent="0.1",
            late_percent_then="0.1",
            enough=2,
            worth="36",
        )
        return ScalingStatus(desired=2, reason="WithinObjective", message="", figures=figures)

    assert not figures_moved(told("12.00"), told("12.10"))
    assert figures_moved(told("12.00"), told("12.50"))
    assert not figures_moved(told("0.01"), told("0.02"))
    assert figures_moved(told("1.00"), told("1.00", waiting=9))
    assert figures_moved(told("what"), told("1.00"))
    assert figures_moved(told("nan"), told("1.00"))
    bare = ScalingStatus(desired=2, reason="WithinObjective", message="")
    assert figures_moved(bare, told("1.00"))
    assert not figures_moved(bare, bare)
    assert not figures_moved(None, bare)


def test_autoscalers_begin_with_the_step_that_was_planned() -> None:
    """Of the revision that a group runs, not of the one that is wanted; without a plan with nothing."""
    facts = admitted(group(0, revision="tiny-a")), admitted(group(1, revision="tiny-b"))
    snapshot = Snapshot({}, CLOCK)
    load = load_of([view(one) for one in facts], snapshot, {"tiny-b": 0.02})
    planned = [load.serving[f"tiny-g{n}"].idle_step_time for n in range(2)]
    assert planned == [None, 0.02]

    course = Course()
    course.look({"g1": read(CLOCK, idle_step_time=0.02)})
    kept = course.scaler._kept[deployment().key]
    assert kept.autoscaler.profile.idle_step_time == 0.02
    course.look({"g0": read(CLOCK), "g1": read(CLOCK, idle_step_time=0.021)})
    assert course.scaler._kept[deployment().key] is kept, "what was learned of groups like these stays"
    course.look({"g2": read(CLOCK, idle_step_time=0.06)})
    assert course.scaler._kept[deployment().key] is not kept, "another engine"


def started(group: str, seconds: int) -> ColdStartStatus:
    return ColdStartStatus(
        group=group, created_time=format_time(NOW), total=seconds, schedule=1, image=1, engine=seconds - 2
    )


def test_a_cold_start_is_learned_once_whatever_else_is_learned_anew() -> None:
    """Lost: what other starts said of how early a group has to be ordered, to one that counts for several."""
    course = Course()
    course.cold_start = started("g0", 900)
    course.run(60)
    for percentile in ("90", "95", "99"):
        course.run(60, objective={"timePerOutputToken": f"{percentile}ms"})
    assert course.scaler._kept[deployment().key].starts.seen == (900.0,)
    course.cold_start = started("g1", 700)
    course.run(60, objective={"timePerOutputToken": "99ms"})
    assert course.scaler._kept[deployment().key].starts.seen == (900.0, 700.0)


def test_a_successor_without_a_group_orders_as_early_as_was_learned() -> None:
    """Lost: the first hour of a schedule, to groups that take half an hour and are ordered six minutes ahead."""
    morning = {"name": "morning", "from": "08:55", "to": "12:00", "minGroups": 3}
    scaling = {"mode": "Auto", "minGroups": 1, "maxGroups": 8, "schedules": [morning]}
    course = Course()
    lengths = (1800,) * 19 + (100,)
    for number, seconds in enumerate(lengths):
        course.cold_start = started(f"g{number}", seconds)
        course.run(15)
    course.run(1800)
    assert course.scaling is not None
    assert course.scaling.learned is not None
    assert course.scaling.learned.cold_starts == 20
    course.restart()
    now = format_time(NOW + course.passed)
    assert now == "2027-01-15T08:35:00Z", "twenty minutes before"
    assert course.look({}, scaling=scaling).floor == 3
    course.run(60)
    assert course.anew == []
    assert course.scaler._kept[deployment().key].starts.seen == lengths, "each of them once"
