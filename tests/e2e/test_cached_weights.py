"""Real vLLM on weights that were downloaded once: two pods that each fetched for themselves would double what a team
pays for, and an engine that asked the hub once more would not start where there is none."""

import pytest

from e2e.conftest import COMPILED, HUB_MODEL, NAMESPACE, Maker
from e2e.engine_helpers import greedy_tokens
from engine.tiny_model import tiny_model
from harness.deployments import condition, deployment, engine_pods, wait_ready
from harness.kubectl import items, kubectl
from harness.wait import wait_for
from moe_operator.api import names
from weights.hub_server import HubServer

pytestmark = pytest.mark.timeout(600)

NAME, MODEL = "cached", HUB_MODEL


@pytest.fixture(scope="module", autouse=True)
def served(make: Maker) -> None:
    make(
        NAME,
        model={"name": MODEL, "contextLength": 2048, "precision": "fp32"},
        hardware={"accelerator": "cpu", "gpusPerGroup": 2, "gpusPerNode": 1},
        engine={"args": COMPILED},
        weights={"cache": {"storageClassName": "local", "size": "1Gi"}},
    )


def _given(hub: HubServer) -> int:
    """Bytes of files that the hub gave out."""
    return sum(sent for path, sent in hub.sent.items() if "/api/models/" not in path)


def test_two_engines_serve_weights_that_came_once(hub: HubServer) -> None:
    size = sum(path.stat().st_size for path in tiny_model().iterdir() if path.is_file())
    assert 0 < _given(hub) <= size, "each file once, and not those that no engine needs"
    status = deployment(NAME, NAMESPACE)["status"]
    assert status["weights"]["percent"] == 100
    assert status["weights"]["commit"] == "a" * 40
    ready = condition({"status": status}, "WeightsReady")
    assert ready is not None
    assert ready["reason"] == "WeightsCached"
    bases = [f"http://{pod['status']['podIP']}:{names.HTTP_PORT}" for pod in engine_pods(NAME, NAMESPACE)]
    assert len(bases) == 2
    answers = [greedy_tokens(base, "The quick brown fox", 16, model=MODEL) for base in bases]
    assert answers[0] == answers[1]


def test_the_start_is_told_by_its_parts() -> None:
    """The engine's own words of its start come through agent, telemetry and status."""
    start = wait_for(
        "a measured start", lambda: deployment(NAME, NAMESPACE)["status"].get("coldStart"), seconds=60
    )
    assert start["group"] == f"{NAME}-g0"
    assert start["total"] >= start["engine"] >= start["weights"]
    assert start["engine"] > 0


def test_a_new_revision_downloads_nothing(hub: HubServer) -> None:
    before = _given(hub)
    change = '{"spec":{"engine":{"args":{"seed":"7","compilation-config.mode":"0"}}}}'
    kubectl("patch", names.PLURAL, NAME, "-n", NAMESPACE, "--type=merge", "-p", change)
    wait_ready(NAME, NAMESPACE, seconds=300)
    assert _given(hub) == before
    assert len(items("jobs", NAMESPACE)) == 1
