"""Real vLLM groups on a real control plane. Runs inside a cluster (see `python -m layers e2e`)."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.tiny_model import tiny_model
from harness.deployments import CHILDREN, deployment, wait_ready
from harness.install import MODEL_CLAIM, install_operator, namespace, provide_model
from harness.kubectl import apply, items, kubectl
from harness.wait import wait_for
from moe_operator.api import names
from weights.hub_server import HubServer

NAMESPACE = "e2e"
#: What the hub of these tests calls the tiny model.
HUB_MODEL = "acme/tiny-moe"
#: A deployment that several modules use, one after the other: starts less.
STEADY = "steady"
#: Seconds after which it is asked for a token while nobody else asks.
IDLE_CANARY = 20.0
#: Without vLLM's compiler, which takes half of a start. A module that is about starts leaves it on.
EAGER = {"seed": "0", "compilation-config.mode": "0"}
COMPILED = {"seed": "0"}


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A hub that has the tiny model, as HUB_MODEL."""
    with HubServer() as server:
        folder = tiny_model()
        server.add(HUB_MODEL, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
        yield server


@pytest.fixture(scope="session", autouse=True)
def operator(hub: HubServer) -> None:
    """The operator, installed once with all that any module asks of it: two replicas, a hub, figures of the kubelets;
    and the tiny model's weights."""
    if not os.environ.get("KUBECONFIG"):
        pytest.exit("no cluster: run `make test-e2e`, or `python -m localcluster run -- pytest tests/e2e`", 2)
    settings = (f"config.weights.endpoint={hub.url}", "config.telemetry.kubelet.metrics=Enabled")
    install_operator(values=settings)
    namespace(NAMESPACE)
    provide_model(tiny_model(), NAMESPACE)


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment of the tiny model on CPU ranks; `spec` overrides whole fields of the spec."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "name": "tiny-moe",
                "source": f"pvc://{MODEL_CLAIM}",
                "contextLength": 2048,
                "precision": "fp32",
            },
            "hardware": {"accelerator": "cpu"},
            "engine": {"args": EAGER},
            **spec,
        },
    }


def delete(name: str) -> None:
    """Delete a deployment and wait until everything of it is gone."""
    kubectl("delete", names.PLURAL, name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
    selector = f"{names.LABEL_DEPLOYMENT}={name}"
    wait_for(
        f"everything of {name} gone", lambda: not items(CHILDREN, NAMESPACE, selector), seconds=120, every=0.5
    )


@pytest.fixture(scope="session")
def steady(operator: None) -> Iterator[None]:
    """One group of one rank that takes one request at a time, scaled by the operator itself. A group goes soon after
    it was needed last, yet not before one that was wanted has started; latencies are wide enough that slots decide on
    any machine."""
    wanted = manifest(
        STEADY,
        hardware={"accelerator": "cpu", "gpusPerGroup": 1},
        objective={"timeToFirstToken": "10s", "timePerOutputToken": "1s"},
        scaling={"minGroups": 1, "maxGroups": 2, "scaleDown": {"window": "90s"}},
        recovery={"idleCanary": f"{IDLE_CANARY:.0f}s"},
        engine={"args": {**EAGER, "max-num-seqs": "1", "enable-log-requests": ""}},
    )
    apply(wanted, manager="e2e")
    wait_ready(STEADY, NAMESPACE, seconds=300)
    yield
    delete(STEADY)


Maker = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def make() -> Iterator[Maker]:
    """Applies deployments and waits until they are Ready; deletes them at the end of the module."""
    made: list[str] = []

    def maker(name: str, *, ready: bool = True, **spec: Any) -> dict[str, Any]:
        made.append(name)
        apply(manifest(name, **spec), manager="e2e")
        return wait_ready(name, NAMESPACE, seconds=300) if ready else deployment(name, NAMESPACE)

    yield maker
    for name in made:
        delete(name)
