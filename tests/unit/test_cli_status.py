"""`kubectl moe status`: what whoever is on call sees first. Lost otherwise: minutes, and the cause of an outage."""

import json
from dataclasses import replace
from typing import Any

import pytest

from factories.cluster_objects import (
    NOW,
    condition,
    deployment_object,
    event_object,
    group_object,
    pod_object,
    revision_object,
)
from moe_operator.api.cost import (
    ComparisonStatus,
    CostFigures,
    CostStatus,
    GpuHours,
    LedgerStatus,
    PriceStatus,
)
from moe_operator.api.deployment import parse
from moe_operator.api.times import format_time
from moe_operator.cli.cost_text import cost_text
from moe_operator.cli.lines import WIDTH
from moe_operator.cli.status_data import status_data
from moe_operator.cli.status_picture import Seen, picture
from moe_operator.cli.status_text import status_text
from moe_operator.cli.units import span
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.observed import pod_facts
from moe_operator.resources.revision import revision_name

OLD = deployment_object({"engine": {"image": "vllm/vllm-openai:v0.31.0", "args": {"max-num-seqs": "128"}}})
NEW_SPEC: dict[str, Any] = {
    "engine": {"image": "vllm/vllm-openai:v0.32.0", "args": {"max-num-seqs": "256"}},
    "model": {"name": "org/tiny-moe", "precision": "fp8"},
}


def serving_pods(slot: int) -> list[dict[str, Any]]:
    """As the operator leaves them once the group is admitted."""
    now = incarnation([pod_facts(pod_object(slot, index), None) for index in range(2)])
    return [pod_object(slot, index, incarnation=now) for index in range(2)]


def story(**overrides: Any) -> Seen:
    """A rollout: one group of the new revision serves, one starts, one of the old drains, and one was lost before."""
    new = deployment_object(NEW_SPEC, generation=2)
    lost = {
        "reason": "EngineExited",
        "message": "the engine in pod tiny-g3-0 ended with code 1: CUDA error",
        "output": ["ERROR CUDA error", "ERROR the engine died"],
    }
    new["status"] |= {
        "revision": revision_name(parse(new)),
        "endpoint": "http://tiny.serving.svc:8000/v1",
        "groups": {"desired": 2, "ready": 1, "summary": "1/2", "updated": 1, "draining": 1},
        "throughput": {"promptTokensPerSecond": 5120, "outputTokensPerSecond": 900},
        "scaling": {
            "desired": 2,
            "reason": "RequestsWaiting",
            "message": "4 requests wait on each of 1 groups",
            "lastChangeTime": format_time(NOW - 1800),
        },
        "recovery": {
            "failures": 1,
            "lastGroup": "tiny-g3",
            "lastFailureTime": format_time(NOW - 7200),
            "lastCause": lost,
        },
        "conditions": [
            condition("Ready", "True", "Serving", "at least 1 groups serve revision tiny-new", 500),
            condition(
                "Reconciling", "True", "RollingOut", "1 of 2 groups serve the wanted revision, 0 are older"
            ),
            condition("GroupsReady", "False", "Scaling", "1 of 2 groups serve; tiny-g2: waiting"),
            condition("CapacityAvailable", "True", "CapacitySufficient", "every pod has found a node"),
        ],
    }
    seen = Seen(
        obj=new,
        groups=[
            group_object(new, 2, 40),
            group_object(OLD, 0, 90_000, draining=60),
            group_object(new, 1, 400),
        ],
        pods=[
            *serving_pods(0),
            *serving_pods(1),
            pod_object(2, 0, ready=False, ago=20),
            pod_object(2, 1, ago=20),
        ],
        revisions=[revision_object(new, 2, 410), revision_object(OLD, 1, 90_010)],
        events=[
            event_object("created group tiny-g2", "GroupWanted", "Create", 40),
            event_object("created group tiny-g1", "Rollout", "Create", 400),
            event_object("group tiny-g1 serves", "Serving", "Admit", 60),
            event_object("draining group tiny-g0", "Superseded", "Drain", 60),
            event_object("group of a former deployment serves", "Serving", "Admit", 50, uid="another"),
        ],
    )
    return replace(seen, **overrides)


GOLDEN = """\
serving/tiny: org/tiny-moe
  Ready       yes for 8m: Serving: at least 1 groups serve revision tiny-new
  Reconciling yes for 3m: RollingOut: 1 of 2 groups serve the wanted revision, 0 are older
  revision    tiny-164e138ce4 (number 2), spec generation 2
  endpoint    http://tiny.serving.svc:8000/v1
  groups      1/2 serve, 1 of the wanted revision, 1 draining
  tokens/s    5120 prompt, 900 output
  scaling     2 wanted: RequestsWaiting: 4 requests wait on each of 1 groups
  last loss   tiny-g3 (2h ago): EngineExited: the engine in pod tiny-g3-0 ended with code 1: CUDA
              error
              | ERROR CUDA error
              | ERROR the engine died

GROUP     REVISION     STATE          PODS   TRAFFIC   AGE   NODES
tiny-g0   146632711e   Draining 60s   2/2    on        25h   b200-00, b200-01
tiny-g1   164e138ce4   Serving        2/2    on        6m    b200-10, b200-11
tiny-g2   164e138ce4   Starting       1/2    off       40s   b200-20, b200-21

REVISION     NUMBER   STATE             GROUPS   AGE   CHANGED
146632711e   1        kept              1        25h   -
164e138ce4   2        wanted, serving   2        6m    image v0.31.0 -> v0.32.0; +2 more

WAITS FOR
  tiny-g0: its requests to end: 4m more at most (rollout.drainDeadline 5m)
  tiny-g2: waiting for the engine in tiny-g2-0

EVENTS
  25h ago   Revision       revision 1 was made: tiny-146632711e
  2h ago    EngineExited   group tiny-g3 is lost: the engine in pod tiny-g3-0 ended with code 1:
                           CUDA error
  30m ago   Scaling        2 groups wanted since then; now RequestsWaiting: 4 requests wait on each
                           of 1 groups
  8m ago    Ready          Ready since then
  6m ago    Revision       revision 2 was made: tiny-164e138ce4
  6m ago    Rollout        created group tiny-g1
  60s ago   Serving        group tiny-g1 serves
  60s ago   Superseded     draining group tiny-g0
  40s ago   GroupWanted    created group tiny-g2
"""


def test_the_whole_picture() -> None:
    assert status_text(picture(story(), NOW), 20) + "\n" == GOLDEN


def test_what_may_not_be_read_is_named_and_the_rest_is_shown() -> None:
    """Lost: everything, for a right that somebody on call lacks."""
    words = "pods may not be read: pods is forbidden"
    text = status_text(picture(story(pods=None, unread=(words,)), NOW), 20)
    assert "tiny-g0   146632711e   Draining 60s   ?/2    ?" in text
    assert "tiny-g1   164e138ce4   Unknown        ?/2    ?" in text
    assert text.endswith(f"NOT SHOWN\n  {words}")
    bare = status_text(
        picture(story(pods=None, groups=None, revisions=None, events=None, unread=(words,)), NOW), 20
    )
    assert "last loss   tiny-g3 (2h ago): EngineExited" in bare
    assert "GroupsReady: Scaling: 1 of 2 groups serve; tiny-g2: waiting" in bare
    assert "tiny-g3 is lost" in bare, "what the status remembers needs no Events"


def test_without_pods_the_status_s_word_on_a_group_counts() -> None:
    seen = story(pods=None)
    unhealthy = [{"name": "tiny-g2", "reason": "Unschedulable", "message": "0/9 nodes are available"}]
    seen.obj["status"]["groups"]["unhealthy"] = unhealthy
    assert picture(seen, NOW).waits[0] == "tiny-g2: Unschedulable: 0/9 nodes are available"


def test_an_operator_that_is_away_is_told_from_one_that_works() -> None:
    """Lost: hours spent on the model when it is the operator that does not run."""
    seen = story()
    seen.obj["metadata"]["generation"] = 3
    assert picture(seen, NOW).waits[0] == (
        "the operator to look at the spec: it is at generation 3, the status at 2"
    )
    bare = deployment_object()
    bare["status"] = {}
    fresh = picture(Seen(bare, [], [], [], []), NOW)
    assert fresh.waits[0].startswith("the operator: it has never written a status")
    text = status_text(fresh, 20)
    assert "Ready       not known" in text
    assert "no groups" in text
    assert "no revisions" in text


def test_a_spec_that_cannot_be_read_hides_nothing_of_the_rest() -> None:
    seen = story()
    seen.obj["spec"]["hardware"] = {"gpusPerGroup": "many"}
    text = status_text(picture(seen, NOW), 20)
    assert "spec        spec.hardware.gpusPerGroup" in text
    assert "tiny-g1   164e138ce4   Serving" in text


def test_a_broken_group_says_why_before_it_is_replaced() -> None:
    seen = story()
    assert seen.pods is not None
    pods = [*serving_pods(0), serving_pods(1)[0]]
    waits = picture(replace(seen, pods=pods), NOW).waits
    assert "tiny-g1: its replacement: PodLost: 1 of 2 pods of group tiny-g1 are gone" in waits


def test_what_runs_and_by_whose_leave_is_in_the_head() -> None:
    """Lost: what an auditor asks for."""
    seen = story()
    seen.obj["status"]["provenance"] = {
        "model": "Qwen/Qwen3-30B-A3B",
        "licence": "apache-2.0",
        "publisher": "Qwen",
        "source": "hf://Qwen/Qwen3-30B-A3B",
        "revision": "main",
        "precision": "bf16",
        "nodes": {"topology.kubernetes.io/region": ["eu-west-1", "eu-central-1"]},
        "podSecurity": "Baseline",
        "policyRule": "production",
    }
    said = " ".join(status_text(picture(seen, NOW), 20).split())
    assert "hf://Qwen/Qwen3-30B-A3B at main (not pinned), bf16; licence apache-2.0, publisher Qwen" in said
    assert (
        "policy rule production; on topology.kubernetes.io/region eu-west-1 or eu-central-1; Pod Security Standard"
        " Baseline" in said
    )


def test_restarts_are_a_column_where_there_are_any() -> None:
    seen = story()
    assert "RESTARTS" not in status_text(picture(seen, NOW), 20)
    text = status_text(picture(replace(seen, pods=[pod_object(1, 0, restarts=3)]), NOW), 20)
    assert "RESTARTS" in text


def test_a_stalled_deployment_names_whom_it_waits_for() -> None:
    seen = story()
    message = "a group of 9 does not spread evenly"
    seen.obj["status"]["conditions"] = [
        condition(
            "Ready", "False", "InvalidLayout", f"{message} (1 groups of the last good revision serve on)"
        ),
        condition("Planned", "False", "InvalidLayout", message),
        condition("ScalingActive", "False", "Replicas", "spec.replicas is 2"),
        condition("Stalled", "True", "InvalidLayout", message),
    ]
    found = picture(seen, NOW)
    assert found.waits[-1] == "you: InvalidLayout: the message beside Stalled says what to change"
    text = status_text(found, 20)
    assert text.count(message) == 1
    assert "Ready       no for 3m: InvalidLayout (1 groups of the last good revision serve on)" in text


def test_lines_fit_whatever_the_names() -> None:
    """Lost: a table that a terminal breaks into a puzzle."""
    seen = story()
    assert seen.pods is not None
    for pod in seen.pods:
        pod["spec"]["nodeName"] = f"ip-10-0-{pod['metadata']['name']}.eu-central-1.compute.internal"
    for lws in seen.groups or ():
        lws["metadata"]["annotations"]["moe-operator.dev/domain"] = "nvidia.com/gpu.clique=" + "a" * 60
    seen.obj["status"]["conditions"][0]["message"] = "word " * 200
    for absolute in (False, True):
        text = status_text(picture(seen, NOW), 20, absolute=absolute)
        assert max(map(len, text.splitlines())) <= WIDTH


def test_events_are_bounded_newest_last_and_a_series_is_told_twice() -> None:
    seen = story()
    assert seen.events is not None
    seen.events.append(event_object("group tiny-g5 serves", "Serving", "Admit", 3000, again=(4, 10)))
    found = picture(seen, NOW)
    assert [e.text for e in found.timeline if "tiny-g5" in e.text] == ["group tiny-g5 serves"] * 2
    text = status_text(found, 2)
    assert "EVENTS (the last 2 of 11)" in text
    assert text.endswith("10s ago   Serving       group tiny-g5 serves (4 times, first 50m ago)")
    assert "EVENTS" not in status_text(found, 0)


def test_a_loss_that_an_event_tells_is_told_once() -> None:
    seen = story()
    assert seen.events is not None
    note = "group tiny-g3 is lost: the engine in pod tiny-g3-0 ended with code 1: CUDA error"
    seen.events.append(event_object(note, "EngineExited", "Replace", 7195))
    assert [e.step for e in picture(seen, NOW).timeline].count("lost") == 1


def test_a_decision_that_an_event_tells_is_told_once_with_its_numbers_of_then() -> None:
    """The status has only those of now."""
    without = [one for one in picture(story(), NOW).timeline if one.step == "scaling"]
    assert len(without) == 1
    note = "1 → 2 groups: the load is that of 0.9 full groups"
    event = event_object(note, "DemandGrows", "Scale", round(NOW - without[0].at) + 1)
    (told,) = [one for one in picture(story(events=[event]), NOW).timeline if one.step == "scaling"]
    assert (told.reason, told.text) == ("DemandGrows", note)


def test_a_group_that_drained_and_stays_is_told() -> None:
    """Else it was about to go, and then it serves, and nobody says why."""
    events = [
        event_object("draining group tiny-g0", "ScaledDown", "Drain", 60),
        event_object(
            "group tiny-g0 drains no longer: more groups are wanted again", "Undrained", "Undrain", 50
        ),
        event_object("group tiny-g0 serves", "Serving", "Admit", 49),
    ]
    found = picture(story(events=events), NOW)
    assert [entry.step for entry in found.timeline if "tiny-g0" in entry.text] == [
        "draining",
        "returns",
        "serves",
    ]


def test_json_has_all_of_it_with_times_in_full() -> None:
    data = json.loads(json.dumps(status_data(picture(story(), NOW), 20)))
    assert data["groups"][0]["drainingSince"] == "2027-01-15T07:59:00Z"
    assert data["groups"][1]["state"] == "Serving"
    assert data["groups"][1]["podsReady"] == data["groups"][1]["pods"] == 2
    assert data["revisions"][1]["changes"][0] == {
        "path": "engine.args.max-num-seqs",
        "before": "128",
        "after": "256",
    }
    assert data["events"][-1] == {
        "time": "2027-01-15T07:59:20Z",
        "step": "created",
        "reason": "GroupWanted",
        "message": "created group tiny-g2",
        "count": 1,
        "since": None,
    }
    assert status_data(picture(story(pods=None, groups=None), NOW), 0)["groups"] is None


def test_revisions_of_early_versions_are_compared_by_what_they_rendered() -> None:
    seen = story(
        revisions=[revision_object(story().obj, 1, 410), revision_object(OLD, 1, 90_010, with_spec=False)]
    )
    lines = picture(seen, NOW).revisions or ()
    assert [line.kept.written is None for line in lines] == [True, False]
    paths = {change.path for change in lines[1].changes or ()}
    assert {"image", "arguments.max-num-seqs"} <= paths


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7500, "2h5m"),
        (36_000, "10h"),
        (200_000, "2d"),
    ],
)
def test_ages_are_as_fine_as_anybody_needs(seconds: float, says: str) -> None:
    assert span(seconds) == says


def test_what_a_deployment_waits_for_is_said() -> None:
    """Somebody would look for a fault where GPUs are short."""
    seen = story()
    seen.obj["status"]["scaling"] |= {
        "granted": 1,
        "waiting": {
            "groups": 1,
            "gpusPerGroup": 8,
            "accelerator": "B200",
            "reason": "BehindOthers",
            "message": "waits for 1 group of 8 GPUs (B200): behind team-a/qwen",
            "behind": ["team-a/qwen"],
            "since": format_time(NOW - 600),
        },
    }
    text = " ".join(status_text(picture(seen, NOW), 20).split())
    assert "2 wanted, 1 granted: RequestsWaiting" in text
    assert "GPUs waits for 1 group of 8 GPUs (B200): behind team-a/qwen (BehindOthers, for 10m)" in text


def test_what_is_said_of_the_width_is_shown() -> None:
    """A recommendation that nobody reads saves nothing."""
    seen = story()
    seen.obj["status"]["scaling"] |= {"recommendedWidth": 16, "widthMessage": "for what was asked of late"}
    text = " ".join(status_text(picture(seen, NOW), 20).split())
    assert "width 16 GPUs are recommended: for what was asked of late" in text
    chosen = {"gpus": 16, "planned": 8, "before": 8, "percent": 215}
    chosen |= {"groups": 1, "groupsBefore": 2, "since": format_time(NOW - 600)}
    seen.obj["status"]["scaling"] |= {"recommendedWidth": None, "chosenWidth": chosen}
    text = " ".join(status_text(picture(seen, NOW), 20).split())
    assert "width 16 GPUs, chosen in place of 8 (10m ago): for what was asked of late" in text


class TestCost:
    STATUS = CostStatus(
        time="2026-01-01T00:00:00Z",
        since="2026-01-01T00:00:00Z",
        currency="USD",
        price=PriceStatus(per_gpu_hour="2.10", message="spec.cost.pricePerGPUHour"),
        per_million_tokens="0.41",
        last_hour=CostFigures(since="2026-01-01T00:00:00Z"),
        last_day=CostFigures(
            since="2026-01-01T00:00:00Z", gpu_hours=GpuHours(total="192.0000", idle="12.5000"), cost="403.20"
        ),
        total=CostFigures(since="2026-01-01T00:00:00Z"),
        comparison=ComparisonStatus(
            api_cost="900.00", saving="-90.00", saving_percent=-10, break_even_tokens_per_day=1
        ),
        ledger=LedgerStatus(version="1", state="a ledger"),
    )

    def test_it_is_said_in_one_line(self) -> None:
        assert cost_text(self.STATUS) == (
            "0.41 USD per million tokens; last day 192.0000 GPU-hours, 12.5000 of them idle: 403.20 USD;"
            " 2.10 USD per GPU-hour (spec.cost.pricePerGPUHour); 10 % more than by cost.compareTo"
        )

    def test_energy_is_said_where_it_is_known(self) -> None:
        day = self.STATUS.last_day.model_copy(
            update={"energy_kwh": "134.2", "energy_kwh_per_million_tokens": "0.24"}
        )
        told = cost_text(self.STATUS.model_copy(update={"last_day": day}))
        assert "403.20 USD; 134.2 kWh, 0.24 kWh per million tokens; 2.10 USD per GPU-hour" in told

    def test_the_ledger_is_the_operators_alone(self) -> None:
        seen = story()
        seen.obj["status"]["cost"] = self.STATUS.wire()
        shown = picture(seen, NOW)
        assert "0.41 USD per million tokens" in status_text(shown, 5)
        data = status_data(shown, 5)["status"]["cost"]
        assert data["perMillionTokens"] == "0.41"
        assert "ledger" not in data
