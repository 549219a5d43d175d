"""How long a group took to come up, by part. A wrong part sends people after the wrong remedy."""

from dataclasses import replace
from typing import Any

from factories.deployments import group_plan, model_deployment
from factories.groups import NOW, admitted, change_pod, group, pod, view
from moe_operator.api.status import ColdStartStatus, RecoveryStatus, ThroughputStatus
from moe_operator.api.times import format_time
from moe_operator.cli.status_text import start_text
from moe_operator.controller.cold_start import newest_start
from moe_operator.controller.learned import Learned
from moe_operator.controller.observed import EngineFacts, GroupFacts, PodFacts, group_facts
from moe_operator.controller.status import fold
from moe_operator.resources.revision import Revision
from moe_operator.telemetry.agent_page import read_agent_state
from moe_operator.telemetry.observation import PodObservation


def started(index: int = 0, *, late: float = 0.0, **overrides: Any) -> PodFacts:
    """A pod that was scheduled after 2 s, ran after 32 and was ready after 100, or `late` seconds later."""
    return replace(
        pod(index=index),
        created_at=NOW,
        scheduled_at=NOW + 2,
        ready_at=NOW + 100 + late,
        engine=EngineFacts(running_since=NOW + 32 + late),
        **overrides,
    )


def serving(*pods: PodFacts, **overrides: Any) -> GroupFacts:
    return admitted(group(pods=list(pods), size=len(pods), created_at=NOW - 1, **overrides))


def seen(*pods: PodFacts, **phases: float) -> dict[str, PodObservation]:
    return {
        one.uid: PodObservation(one.uid, NOW, 0, 0, 0, 0.0, 0.0, None, None, NOW, phases=phases)
        for one in pods
    }


def test_a_start_is_told_by_its_parts() -> None:
    pods = (started(0), started(1, late=8))
    start = newest_start(None, [view(serving(*pods))], seen(*pods, weights=40.4, graphs=12.0, init=30.0))
    assert start == ColdStartStatus(
        group="tiny-g0",
        created_time=format_time(NOW - 1),
        total=109,
        schedule=2,
        image=38,
        weights=40,
        graphs=12,
        engine=68,
    )
    text = "tiny-g0 in 109 s: scheduled 2, image 38, engine 68 (weights 40, graphs 12)"
    assert start_text(start) == text


def test_what_init_containers_bring_is_no_image() -> None:
    one = started(initialized_at=NOW + 20)
    start = newest_start(None, [view(serving(one))], seen(one))
    assert start is not None
    assert (start.schedule, start.download, start.image) == (2, 18, 12)
    assert "download 18, image 12" in start_text(start)


def test_nothing_is_said_before_the_engines_were_asked() -> None:
    """Else the status would be written twice, and say first that nothing was loaded."""
    one, other = started(0), started(1)
    assert newest_start(None, [view(serving(one, other))], seen(one)) is None


def test_a_start_is_measured_once() -> None:
    """A pod that is unready for a moment has another time of readiness; the start was not longer for it."""
    one = started()
    first = newest_start(None, [view(serving(one))], seen(one))
    again = replace(one, ready_at=NOW + 5000)
    assert newest_start(first, [view(serving(again))], seen(again)) == first


def test_the_newest_group_counts_and_its_name_may_have_been_another_groups() -> None:
    one = started()
    first = newest_start(None, [view(serving(one))], seen(one))
    later = admitted(group(pods=[replace(one, ready_at=NOW + 900)], size=1, created_at=NOW + 800))
    second = newest_start(first, [view(later)], seen(one))
    assert second is not None
    assert (second.group, second.total) == ("tiny-g0", 100)


def test_a_restarted_engine_does_not_tell_of_the_groups_start() -> None:
    one = replace(started(), engine=EngineFacts(restarts=1, running_since=NOW + 400))
    assert newest_start(None, [view(serving(one))], seen(one)) is None


def test_the_last_start_stays_while_no_group_serves() -> None:
    """The next cold start is expected to take as long."""
    one = started()
    first = newest_start(None, [view(serving(one))], seen(one))
    broken = change_pod(serving(one), 0, ready=False)
    assert newest_start(first, [view(broken)], {}) == first
    assert newest_start(first, [], {}) == first


def test_the_status_carries_it() -> None:
    one = started()
    status = fold(
        Learned(
            deployment=model_deployment(),
            now=NOW,
            trouble=None,
            revision=Revision("tiny-a", "a", group_plan(), {}, ("serve",), "vllm:1"),
            plan_notes=(),
            groups=[view(serving(one))],
            desired=1,
            minimum=1,
            scaling=None,
            throughput=ThroughputStatus(),
            ledger=RecoveryStatus(),
            figures_written_at=None,
            observations=seen(one, weights=7.0),
        )
    )
    assert status.wire()["coldStart"]["weights"] == 7


def test_times_are_read_from_the_pod() -> None:
    def condition(kind: str, status: str, at: float) -> dict[str, str]:
        return {"type": kind, "status": status, "lastTransitionTime": format_time(at)}

    obj = {
        "metadata": {"name": "tiny-g0-0", "uid": "u", "creationTimestamp": format_time(NOW), "labels": {}},
        "spec": {"initContainers": [{"name": "weights"}], "nodeName": "n"},
        "status": {
            "conditions": [
                condition("PodScheduled", "True", NOW + 1),
                condition("Initialized", "True", NOW + 5),
                condition("Ready", "False", NOW + 6),
            ]
        },
    }
    lws = {"metadata": {"name": "tiny-g0", "uid": "l", "creationTimestamp": format_time(NOW)}, "spec": {}}
    facts = group_facts(lws, 0, [obj], None).pods[0]
    assert (facts.created_at, facts.scheduled_at, facts.initialized_at, facts.ready_at) == (
        NOW,
        NOW + 1,
        NOW + 5,
        None,
    )
    del obj["spec"]["initContainers"]  # type: ignore[attr-defined]
    assert group_facts(lws, 0, [obj], None).pods[0].initialized_at is None


def test_an_agent_of_an_earlier_version_says_nothing_of_phases() -> None:
    state = read_agent_state(b'{"in_flight": 2}')
    assert state is not None
    assert (state.in_flight, dict(state.phases)) == (2, {})
    for page in (b"", b"[]", b'{"in_flight": "many"}', b'{"in_flight": 1, "phases": {"weights": "long"}}'):
        assert read_agent_state(page) is None
