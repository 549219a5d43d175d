"""The status: what people, kubectl and GitOps tools read. A wrong word here ends a rollout wait too early or never."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment
from factories.groups import LIMITS, NOW, admitted, change_pod, exited, group, starting_pod, view
from kstatus import verdict
from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.status import (
    Cause,
    ModelDeploymentStatus,
    RecoveryStatus,
    ThroughputStatus,
    WeightsStatus,
)
from moe_operator.catalog.policy import PodSecurityLevel
from moe_operator.controller.causes import broken
from moe_operator.controller.conditions import Said
from moe_operator.controller.learned import Learned, Trouble
from moe_operator.controller.status import fold
from moe_operator.controller.weights_state import WeightsView
from moe_operator.planner.governance import Provenance
from moe_operator.resources.revision import Revision

SCALING = ScalingStatus(desired=1, reason="WithinObjective", message="one group")


def revision(name: str = "tiny-a") -> Revision:
    return Revision(
        name=name, hash="a", plan=group_plan(), template={}, engine_arguments=("serve",), image="vllm:1"
    )


def learned(**overrides: Any) -> Learned:
    made = Learned(
        deployment=model_deployment(),
        now=NOW,
        trouble=None,
        revision=revision(),
        plan_notes=(),
        groups=[],
        desired=1,
        minimum=1,
        scaling=SCALING,
        throughput=ThroughputStatus(),
        ledger=RecoveryStatus(),
        figures_written_at=None,
    )
    return replace(made, **overrides)


def conditions(status: ModelDeploymentStatus) -> dict[str, str]:
    return {c.type: f"{c.status}/{c.reason}" for c in status.conditions}


def after(status: ModelDeploymentStatus, **overrides: Any) -> Learned:
    """The next reconcile of a deployment that has this status."""
    return learned(deployment=replace(model_deployment(), status=status), **overrides)


def read(status: ModelDeploymentStatus, deployment: ModelDeployment | None = None) -> str:
    generation = (deployment or model_deployment()).generation
    return verdict({"metadata": {"generation": generation}, "status": status.wire()})


def serving() -> Any:
    return view(admitted(group()))


def test_a_new_deployment_is_in_progress_until_its_groups_serve() -> None:
    status = fold(learned(groups=[view(group(pods=[starting_pod()]))]))
    assert read(status) == "InProgress"
    assert conditions(status)[reasons.RECONCILING] == "True/Starting"
    assert status.groups.summary == "0/1"
    done = fold(after(status, groups=[serving()]))
    assert read(done) == "Current"
    assert reasons.RECONCILING not in conditions(done)
    assert done.groups.summary == "1/1"


def test_folding_the_same_twice_gives_the_same_status_whatever_the_time() -> None:
    once = fold(learned(groups=[serving()]))
    assert fold(after(once, groups=[serving()], now=NOW + 3600)) == once


def test_a_transition_moves_the_time_and_a_mere_reason_does_not() -> None:
    status = fold(learned(groups=[serving()]))
    ready = next(c for c in status.conditions if c.type == "Ready")
    lost = fold(after(status, groups=[], now=NOW + 60))
    changed = next(c for c in lost.conditions if c.type == "Ready")
    assert changed.last_transition_time != ready.last_transition_time
    later = fold(after(lost, trouble=Trouble("X", "y", stalled=False), groups=[], now=NOW + 120))
    assert (
        next(c for c in later.conditions if c.type == "Ready").last_transition_time
        == changed.last_transition_time
    )


def test_a_lost_group_is_named_with_its_cause_and_is_no_rollout() -> None:
    status = fold(learned(groups=[serving()]))
    facts = change_pod(admitted(group()), 1, engine=exited("EngineCore died"))
    cause = broken(facts, LIMITS, {}, NOW)
    lost = fold(after(status, groups=[view(facts, cause=cause)]))
    assert conditions(lost)[reasons.READY].startswith("False/")
    assert reasons.RECONCILING not in conditions(lost)
    assert "EngineCore died" in lost.groups.unhealthy[0].message
    assert read(lost) == "InProgress"


def test_ready_holds_while_the_minimum_serves_although_more_groups_are_on_their_way() -> None:
    status = fold(learned(groups=[serving()]))
    young = view(group(1, pods=[starting_pod("tiny-g1")]))
    more = fold(after(status, groups=[serving(), young], desired=2))
    assert read(more) == "Current", "autoscaling must never make a GitOps wait hang"
    assert conditions(more)[reasons.GROUPS_READY] == f"False/{reasons.SCALING}"


def test_a_rollout_is_in_progress_until_the_last_old_group_is_gone() -> None:
    old = view(replace(admitted(group()), revision="tiny-old"))
    status = fold(learned(groups=[old, view(admitted(group(1)))]))
    assert conditions(status)[reasons.RECONCILING] == f"True/{reasons.ROLLING_OUT}"
    assert read(status) == "InProgress"
    assert status.groups.updated == 1


def test_a_bad_spec_is_stalled_and_what_serves_is_said() -> None:
    trouble = Trouble(reasons.INVALID_LAYOUT, "12 GPUs do not fit nodes of 8", stalled=True)
    status = fold(learned(groups=[serving()], trouble=trouble))
    assert read(status) == "Failed"
    said = conditions(status)
    assert said[reasons.PLANNED] == f"False/{reasons.INVALID_LAYOUT}"
    ready = next(c for c in status.conditions if c.type == "Ready")
    assert "serve on" in ready.message


def test_a_claim_that_not_all_pods_can_mount_stalls_what_must_serve_and_nothing_else() -> None:
    """A GitOps wait must end where only a person can help, and not where one group serves and more cannot."""
    said = Said(
        reasons.WEIGHTS_READY, False, reasons.WEIGHTS_CLAIM_NOT_SHARED, "claim models is ReadWriteOnce"
    )
    none = fold(learned(weights=WeightsView(said, hold=True, most_groups=0, stalled=True)))
    assert read(none) == "Failed"
    assert conditions(none)[reasons.STALLED] == "True/WeightsClaimNotShared"
    assert reasons.RECONCILING not in conditions(none)
    fewer = WeightsView(said, most_groups=1)
    some = fold(learned(groups=[serving()], desired=2, minimum=1, weights=fewer))
    assert read(some) == "Current"
    told = next(c for c in some.conditions if c.type == reasons.GROUPS_READY)
    assert "claim models is ReadWriteOnce" in told.message


def test_missing_nodes_are_waited_for_not_stalled() -> None:
    status = fold(
        learned(trouble=Trouble(reasons.NO_NODES, "no node has B200", stalled=False), revision=None)
    )
    assert read(status) == "InProgress"
    assert reasons.STALLED not in conditions(status)


def test_a_correction_clears_stalled() -> None:
    bad = fold(learned(trouble=Trouble(reasons.INVALID_LAYOUT, "no", stalled=True), revision=None))
    good = fold(after(bad, groups=[serving()]))
    assert reasons.STALLED not in conditions(good)
    assert read(good) == "Current"


def test_scaled_to_zero_is_ready() -> None:
    assert read(fold(learned(desired=0, minimum=0))) == "Current"


def test_a_pod_that_finds_no_node_is_reported_as_missing_capacity() -> None:
    waiting = view(group(pods=[starting_pod(unschedulable="0/3 nodes are available")]))
    status = fold(learned(groups=[waiting]))
    assert conditions(status)[reasons.CAPACITY_AVAILABLE] == f"False/{reasons.UNSCHEDULABLE}"


class TestFigures:
    """Figures that move all the time must not write the status all the time."""

    def figures(self, old: int, new: int, written: float | None) -> int:
        status = fold(learned(groups=[serving()])).model_copy(
            update={"throughput": ThroughputStatus(output_tokens_per_second=old)}
        )
        now = fold(
            after(
                status,
                groups=[serving()],
                throughput=ThroughputStatus(output_tokens_per_second=new),
                figures_written_at=written,
            )
        )
        return now.throughput.output_tokens_per_second

    @pytest.mark.parametrize(
        ("old", "new", "written", "shown"),
        [
            (1000, 1200, None, 1200),
            (1000, 1200, NOW - 31, 1200),
            (1000, 1200, NOW - 29, 1000),
            (1000, 1009, None, 1000),
            (1000, 0, None, 0),
        ],
    )
    def test_they_move_at_most_every_30_s_and_by_1_percent(self, old, new, written, shown) -> None:
        assert self.figures(old, new, written) == shown


def test_the_back_off_is_told_with_its_time() -> None:
    cause = Cause(reason=reasons.ENGINE_EXITED, message="boom")
    ledger = RecoveryStatus(
        failures=3, next_attempt_time="2027-01-15T08:01:00Z", last_cause=cause, last_group="tiny-g0"
    )
    status = fold(learned(ledger=ledger, now=1_800_000_000.0))
    message = next(c for c in status.conditions if c.type == reasons.GROUPS_READY).message
    assert "2027-01-15T08:01:00Z" in message
    assert "boom" in message


# --- provenance ----------------------------------------------------------------------------------

COMMIT = "4f1c0e2d9a8b7c6d5e4f30211203f4e5d6c7b8a9"


def runs(**overrides: Any) -> Provenance:
    made = Provenance(
        model="Qwen/Qwen3-30B-A3B",
        licence="apache-2.0",
        publisher="Qwen",
        source="hf://Qwen/Qwen3-30B-A3B",
        revision=None,
        precision="bf16",
        adapters=(),
        rule="production",
        nodes={"topology.kubernetes.io/region": ("eu-west-1",)},
        pod_security=PodSecurityLevel.BASELINE,
    )
    return replace(made, **overrides)


def fetched(commit: str | None) -> WeightsView:
    status = WeightsStatus(
        source="hf://Qwen/Qwen3-30B-A3B", commit=commit, cache="claim models", entry="Qwen--Qwen3"
    )
    return WeightsView(Said("WeightsReady", True, "Cached", "there"), status)


def test_the_status_says_what_runs_whose_it_is_where_and_by_whose_leave() -> None:
    """Lost: an auditor's questions, answered from a laptop with the manifests and the policy of that day."""
    told = fold(learned(provenance=runs())).provenance
    assert told is not None
    assert told.wire() == {
        "model": "Qwen/Qwen3-30B-A3B",
        "licence": "apache-2.0",
        "publisher": "Qwen",
        "source": "hf://Qwen/Qwen3-30B-A3B",
        "precision": "bf16",
        "adapters": [],
        "nodes": {"topology.kubernetes.io/region": ["eu-west-1"]},
        "podSecurity": "Baseline",
        "policyRule": "production",
    }


@pytest.mark.parametrize(
    ("revision", "weights", "commit"),
    [
        (None, None, None),
        ("main", None, None),
        (COMMIT, None, COMMIT),
        ("main", fetched(COMMIT), COMMIT),
        (COMMIT, fetched(None), COMMIT),
    ],
)
def test_a_commit_is_told_only_where_it_is_known(
    revision: str | None, weights: WeightsView | None, commit: str | None
) -> None:
    """Lost: trust in the rest, to a branch's name that stands for a commit that moved on."""
    told = fold(learned(provenance=runs(revision=revision), weights=weights)).provenance
    assert told is not None
    assert (told.revision, told.commit) == (revision, commit)


def test_a_refused_spec_does_not_change_what_is_said_of_that_which_runs() -> None:
    """Lost: the record of what serves, to a manifest that was never allowed."""
    good = fold(learned(provenance=runs(), groups=[serving()]))
    trouble = Trouble("PolicyViolation", "no", stalled=True)
    told = fold(after(good, trouble=trouble, groups=[serving()]))
    assert told.provenance == good.provenance
    other = fold(after(good, trouble=trouble, revision=revision("tiny-b")))
    assert other.provenance is None, "nothing was said of this revision"
    assert fold(after(good, trouble=trouble, revision=None)).provenance is None
