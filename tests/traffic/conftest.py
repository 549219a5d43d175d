"""A served deployment of real vLLM groups under open-loop load. Runs inside a cluster (`python -m layers traffic`)."""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.tiny_model import tiny_model
from harness.deployments import CHILDREN, deployment, engine_pods, group_of, ready_endpoints, wait_ready
from harness.install import MODEL_CLAIM, install_operator, namespace, provide_model
from harness.kubectl import apply, items, kubectl
from harness.wait import wait_for
from moe_operator.api import names
from traffic.arrivals import Mix
from traffic.run import Run

NAMESPACE, NAME, MODEL = "traffic", "tiny", "tiny-moe"
#: Ranks of a group. One is lighter by half; two are what has to drain as one.
RANKS = int(os.environ.get("TRAFFIC_RANKS", "2"))
#: Requests of each scenario of a planned change, at least.
REQUESTS = int(os.environ.get("TRAFFIC_REQUESTS", "500"))
#: Requests a second: what two cores answer beside a group that starts, with room to spare.
RATE = float(os.environ.get("TRAFFIC_RATE", "3"))
#: Seconds that a drain waits: far above a short request, below a long stream.
DRAIN_DEADLINE = 20.0
MIX = Mix(rate=RATE)
SEED = int(os.environ.get("TRAFFIC_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture(scope="session", autouse=True)
def operator() -> Iterator[None]:
    """The operator, two replicas, and the tiny model's weights."""
    if not os.environ.get("KUBECONFIG"):
        pytest.exit(
            "no cluster: run `make test-traffic`, or `python -m localcluster run -- pytest tests/traffic`", 2
        )
    install_operator()
    namespace(NAMESPACE)
    provide_model(tiny_model(), NAMESPACE)
    yield
    kubectl("delete", names.PLURAL, NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
    wait_for(
        "everything gone",
        lambda: not items(CHILDREN, NAMESPACE, f"{names.LABEL_DEPLOYMENT}={NAME}"),
        seconds=120,
        every=0.5,
    )


def manifest(*, image: str | None = None, **args: str) -> dict[str, Any]:
    """The deployment without its number of groups, which `scale` sets; all scenarios begin with what is not given."""
    # Each engine's log tells which requests it took.
    engine: dict[str, Any] = {"args": {"seed": "0", "max-num-seqs": "32", "enable-log-requests": "", **args}}
    if image:
        engine["image"] = image
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "name": MODEL,
                "source": f"pvc://{MODEL_CLAIM}",
                "contextLength": 2048,
                "precision": "fp32",
            },
            "hardware": {"accelerator": "cpu", "gpusPerGroup": RANKS},
            "scaling": {"mode": "External", "minGroups": 1, "maxGroups": 3},
            "rollout": {"maxSurge": 1, "maxUnavailable": 0, "drainDeadline": f"{DRAIN_DEADLINE:g}s"},
            "engine": engine,
        },
    }


def serving_groups() -> set[str]:
    """Groups with a ready endpoint in the Service."""
    groups = {p["metadata"]["name"]: group_of(p) for p in engine_pods(NAME, NAMESPACE)}
    return {groups[pod] for pod in ready_endpoints(NAME, NAMESPACE).values() if pod in groups}


def settled(replicas: int) -> bool:
    """Whether so many groups serve, of the wanted revision, and no other is there."""
    obj = deployment(NAME, NAMESPACE)
    status = obj.get("status") or {}
    groups = status.get("groups") or {}
    there = {o["metadata"]["name"] for o in items("leaderworkersets", NAMESPACE)}
    return (
        status.get("observedGeneration") == obj["metadata"]["generation"]
        and groups.get("ready") == groups.get("updated") == replicas
        and len(there) == replicas
        and serving_groups() == there
    )


def scale(groups: int) -> None:
    """As people do it."""
    kubectl("scale", f"{names.PLURAL}/{NAME}", "-n", NAMESPACE, f"--replicas={groups}")


Serve = Callable[..., None]


@pytest.fixture
def serve() -> Serve:
    """Applies the deployment and waits until it is as wanted, with nothing else left."""

    def served(replicas: int = 1, **wanted: Any) -> None:
        apply(manifest(**wanted), manager="traffic")
        scale(replicas)
        wait_ready(NAME, NAMESPACE, seconds=300)
        wait_for("all groups as wanted", lambda: settled(replicas), seconds=300, every=1)

    return served


def layout(groups: str) -> str:
    """Groups in words."""
    return f"{groups} of {RANKS} rank{'s' if RANKS > 1 else ''}"


def run(scenario: str, groups: str, mix: Mix = MIX) -> Run:
    """A scenario's load."""
    return Run(scenario, NAME, NAMESPACE, layout=layout(groups), mix=mix, seed=SEED)
