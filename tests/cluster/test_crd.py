"""The CRD on a real API server. Without these, a user's mistake is stored and found out hours later."""

import json
import os
import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crd_cases import ACCEPTED, BASE, CHANGES, REFUSED, Case, Change, manifest, merged
from harness.crds import established
from moe_operator.api import crd
from moe_operator.api.cost import (
    BudgetState,
    BudgetStatus,
    ComparisonStatus,
    CostFigures,
    CostStatus,
    GpuHours,
    LedgerStatus,
    PriceSource,
    PriceStatus,
    RequestCounts,
    TokenCounts,
)
from moe_operator.api.deployment import parse
from moe_operator.api.hbm import HbmSource, HbmStatus, WorstGpu
from moe_operator.api.scaling import ScalingStatus
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.api.status import (
    AvoidedNode,
    Cause,
    ColdStartStatus,
    Condition,
    GroupsStatus,
    LatencyStatus,
    ModelDeploymentStatus,
    PercentilesStatus,
    PlanStatus,
    ProvenanceStatus,
    RecoveryStatus,
    RolloutStatus,
    ThroughputStatus,
    UnhealthyGroup,
    WeightsStatus,
)
from moe_operator.api.structural import apply_defaults

CRD_FILE = Path(__file__).parents[2] / crd.FILE
NAMESPACE = "crd-test"
NOW = "2026-01-01T00:00:00Z"

pytestmark = pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="runs inside a cluster")


def _kubectl(*args: str, stdin: Any = None, check: bool = True) -> str:
    text = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(
        ["kubectl", *args], input=text, text=True, capture_output=True, timeout=60, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def _get(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kubectl("get", "mdep", name, "-n", NAMESPACE, "-o", "json"))
    return found


def _put(obj: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "namespace": NAMESPACE, **metadata}}


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    _kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD_FILE))
    established("modeldeployments.moe-operator.dev")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    _kubectl("apply", "-f", "-", stdin=namespace)
    yield
    _kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def stored(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a stored deployment of the test's own."""
    name = f"t{zlib.crc32(request.node.nodeid.encode()):x}"
    yield name
    _kubectl("delete", "mdep", name, "-n", NAMESPACE, "--ignore-not-found")


def _try(obj: dict[str, Any]) -> str:
    return _kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=obj, check=False)


def test_the_api_server_has_no_objection_to_the_schema() -> None:
    """A schema that is not structural, or rules that are too dear, would show in a condition or be refused."""
    conditions = json.loads(_kubectl("get", "crd", "modeldeployments.moe-operator.dev", "-o", "json"))[
        "status"
    ]["conditions"]
    states = {c["type"]: c["status"] for c in conditions}
    assert states["NamesAccepted"] == "True"
    assert states.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.id)
def test_accepts_what_may_be_written_and_fills_in_what_the_operator_would(case: Case) -> None:
    """Defaults that differ between server and operator would show a user one thing and do another."""
    out = _kubectl(
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-o",
        "json",
        "-f",
        "-",
        stdin=_put(case.manifest()),
    )
    written = json.loads(out)
    assert written["spec"] == apply_defaults(crd.schema()["properties"]["spec"], case.manifest()["spec"])
    assert parse(written).spec == ModelDeploymentSpec.model_validate(case.manifest()["spec"])


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refuses_what_may_not_be_written_and_says_what_to_do(case: Case) -> None:
    answer = _try(_put(case.manifest()))
    assert "created" not in answer
    assert case.refused in answer


def test_refuses_a_field_that_does_not_exist() -> None:
    """A misspelt field would be dropped, and its default would hold."""
    assert 'unknown field "spec.scalling"' in _try(_put(manifest(merged(BASE, {"scalling": {}}))))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.id)
def test_changes_what_may_change_and_only_that(change: Change, stored: str) -> None:
    _kubectl("create", "-f", "-", stdin=_put(manifest(merged(BASE, change.before), stored)))
    after = _put(manifest(merged(merged(BASE, change.before), change.after), stored))
    answer = _kubectl("replace", "--validate=strict", "-f", "-", stdin=after, check=False)
    assert (change.refused in answer) if change.refused else ("replaced" in answer), answer


def _full_status() -> ModelDeploymentStatus:
    cause = Cause(
        reason="EngineExited",
        message="out of blocks",
        pod="p",
        node="n",
        exit_code=1,
        domain="k=v",
        output=["ERROR out of blocks"],
    )
    span = CostFigures(
        since=NOW, gpu_hours=GpuHours(total="3.5", serving="3", idle="0.5"), cost="7.00", idle_cost="1.00",
        tokens=TokenCounts(input=9, cached_input=3, output=8), requests=RequestCounts(completed=5, aborted=1),
        per_million_tokens="0.41", per_million_input_tokens="0.20", per_million_output_tokens="0.90",
        per_request="1.17", per_completed_request="1.40", unpriced_gpu_hours="0.1",
        energy_kwh="4.1", energy_kwh_per_million_tokens="0.24",
    )  # fmt: skip
    return ModelDeploymentStatus(
        observed_generation=1,
        conditions=[
            Condition(
                type="Ready", status="True", reason="Serving", message="2 of 3 groups serve",
                last_transition_time=NOW, observed_generation=1,
            )
        ],
        plan=PlanStatus(
            accelerator="B200", width=16, pods_per_group=2, ranks_per_pod=8, tensor=1, data=16,
            expert_parallel=16, precision="bf16", context_length=131072, image="example.com/vllm:1",
        ),
        revision="model-abc", replicas=2, selector="a=b",
        groups=GroupsStatus(
            desired=3, current=3, ready=2, updated=2, draining=1, summary="2/3",
            unhealthy=[UnhealthyGroup(name="g", reason="EngineExited", message="m", since=NOW)],
        ),
        throughput=ThroughputStatus(prompt_tokens_per_second=9000, output_tokens_per_second=1234),
        scaling=ScalingStatus(desired=3, reason="RequestsWaiting", message="7 wait", last_change_time=NOW),
        recovery=RecoveryStatus(
            failures=1, last_failure_time=NOW, next_attempt_time=NOW, last_cause=cause, last_group="g",
            counted=["u"], avoided_domains=["nvidia.com/gpu.clique=a.1"], revision="model-1",
            window_start_time=NOW, losses_in_window=1, parked_until=NOW,
            suspect_nodes=[AvoidedNode(name="n", losses=2, last_time=NOW)],
        ),
        rollout=RolloutStatus(revision="model-1", updated=1, progress_time=NOW),
        cold_start=ColdStartStatus(
            group="g", created_time=NOW, total=90, schedule=1, download=2, image=3, weights=40, compile=20,
            graphs=10, engine=84,
        ),
        weights=WeightsStatus(
            source="hf://org/model", revision="v1", commit="c" * 40, cache="claim c", entry="e", bytes=1,
            total_bytes=2, percent=50, ready_since=NOW,
        ),
        provenance=ProvenanceStatus(
            model="org/model", licence="mit", publisher="org", source="hf://org/model", revision="v1", commit="c" * 40,
            precision="bf16", adapters=["hf://org/a"], nodes={"zone": ["a"]}, pod_security="Baseline", policy_rule="p",
        ),
        latency=LatencyStatus(
            window_seconds=300, time_to_first_token_milliseconds=PercentilesStatus(p50="412", p95="1830", p99="2210"),
            time_per_output_token_milliseconds=PercentilesStatus(p50="23.1", p95="31", p99="48.2"),
        ),
        hbm=HbmStatus(
            source=HbmSource.ESTIMATED, used_mib=170_000, capacity_mib=180_000, percent=94, summary="~94%", gpus=16,
            measured_gpus=15, weights_mib=90_000, kv_used_mib=20_000, kv_free_mib=50_000, other_mib=10_000,
            bandwidth_percent=41, planner_error_percent="5.2", off_plan_since=NOW,
            worst=WorstGpu(group="g", pod="p", node="n", rank=3, gpu="3", percent=96),
        ),
        cost=CostStatus(
            time=NOW, since=NOW, currency="USD", per_million_tokens="0.41", last_hour=span, last_day=span, total=span,
            price=PriceStatus(per_gpu_hour="2.10", source=PriceSource.SPEC, message="spec.cost.pricePerGPUHour"),
            comparison=ComparisonStatus(
                api_cost="9.10", saving="2.10", saving_percent=23, break_even_tokens_per_day=1_000_000
            ),
            budget=BudgetStatus(
                state=BudgetState.WITHIN, period_start=NOW, resets_at=NOW, spent="7.00", amount="500", message="m"
            ),
            ledger=LedgerStatus(version="1", state="{}"),
        ),
        endpoint="http://model.crd-test:8000/v1", engine_arguments=["--port", "8000"],
    )  # fmt: skip


def _write_status(name: str, status: ModelDeploymentStatus) -> None:
    patch = json.dumps({"status": status.wire()})
    _kubectl("patch", "mdep", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)


def test_keeps_every_field_of_the_status(stored: str) -> None:
    """A field that the schema lacks is dropped without a word, and the operator writes it again for ever."""
    full = _full_status()
    assert all(value not in (None, [], {}) for value in full.model_dump().values()), (
        "the status above is full"
    )
    _kubectl("create", "-f", "-", stdin=_put(manifest(BASE, stored)))
    _write_status(stored, full)
    assert _get(stored)["status"] == full.wire()


def test_refuses_a_status_with_two_conditions_of_a_type(stored: str) -> None:
    _kubectl("create", "-f", "-", stdin=_put(manifest(BASE, stored)))
    full = _full_status()
    twice = full.model_copy(update={"conditions": [*full.conditions, *full.conditions]})
    with pytest.raises(AssertionError, match="Duplicate value"):
        _write_status(stored, twice)


def _table(name: str, *options: str) -> dict[str, str]:
    header, row = _kubectl("get", "mdep", name, "-n", NAMESPACE, *options).splitlines()
    starts = [title.start() for title in re.finditer(r"\S+", header)]
    ends = [*starts[1:], max(len(header), len(row))]
    return {header[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


def test_kubectl_get_shows_what_an_operator_looks_for_first(stored: str) -> None:
    _kubectl("create", "-f", "-", stdin=_put(manifest(BASE, stored)))
    _write_status(stored, _full_status())
    narrow = _table(stored)
    assert list(narrow) == ["NAME", "MODEL", "READY", "WIDTH", "TOK/S", "HBM", "$/MTOK", "REASON", "AGE"]
    assert [narrow[title] for title in ("MODEL", "READY", "WIDTH", "TOK/S", "HBM", "$/MTOK", "REASON")] == [
        "org/model", "2/3", "16", "1234", "~94%", "0.41", "Serving",
    ]  # fmt: skip
    wide = _table(stored, "-o", "wide")
    assert [wide[title] for title in ("PRECISION", "CONTEXT", "ENDPOINT", "IMAGE")] == [
        "bf16", "131072", "http://model.crd-test:8000/v1", "example.com/vllm:1",
    ]  # fmt: skip


def test_scales_by_kubectl_as_hpa_does(stored: str) -> None:
    _kubectl("create", "-f", "-", stdin=_put(manifest(BASE, stored)))
    path = f"/apis/moe-operator.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/{stored}/scale"
    assert json.loads(_kubectl("get", "--raw", path))["spec"]["replicas"] == 1, "an answer before any status"
    _write_status(stored, _full_status())
    _kubectl("scale", f"mdep/{stored}", "-n", NAMESPACE, "--replicas=4")
    scale = json.loads(_kubectl("get", "--raw", path))
    assert scale["spec"]["replicas"] == 4
    assert scale["status"] == {"replicas": 2, "selector": "a=b"}
    assert _get(stored)["spec"]["replicas"] == 4
    _kubectl("scale", f"mdep/{stored}", "-n", NAMESPACE, "--replicas=300", check=False)
    assert _get(stored)["spec"]["replicas"] == 4, "the bound of spec.replicas holds for /scale too"


def _apply_as(manager: str, obj: dict[str, Any]) -> None:
    _kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=obj)


def test_two_teams_add_flags_and_variables_without_undoing_each_other(stored: str) -> None:
    """Kustomize layers and GitOps tools apply parts of one object: lists must merge by name, maps by key."""
    first = merged(BASE, {"engine": {"args": {"seed": "1"}, "env": [{"name": "A", "value": "1"}]}})
    _apply_as("one", _put(manifest(first, stored)))
    second = {"engine": {"args": {"max-num-seqs": "8"}, "env": [{"name": "B", "value": "2"}]}}
    _apply_as("two", _put(manifest(merged(BASE, second), stored)))
    engine = _get(stored)["spec"]["engine"]
    assert engine["args"] == {"seed": "1", "max-num-seqs": "8"}
    assert sorted(entry["name"] for entry in engine["env"]) == ["A", "B"]


def test_kubernetes_own_objects_pass_through_as_written(stored: str) -> None:
    """A pruned toleration or secret reference is a pod on the wrong node, or without its token."""
    case = next(case for case in ACCEPTED if case.id == "pod template")
    _kubectl("create", "-f", "-", stdin=_put(manifest(case.manifest()["spec"], stored)))
    assert _get(stored)["spec"]["podTemplate"] == case.manifest()["spec"]["podTemplate"]


def test_kubectl_explains_every_field() -> None:
    text = _kubectl("explain", "mdep.spec", "--recursive")
    for name in ("gpusPerGroup", "stallLimit", "imagePullSecrets", "timePerOutputToken"):
        assert name in text
    assert "fall back along" in _kubectl("explain", "mdep.spec.hardware.accelerators")
