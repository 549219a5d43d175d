"""Every family of the catalogue on a real control plane. Runs inside a cluster (see `python -m layers families`)."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.tiny_families import Family
from harness.deployments import CHILDREN
from harness.install import install_operator, namespace
from harness.kubectl import apply, items, kubectl
from harness.wait import wait_for
from moe_operator.api import names

NAMESPACE = "families"
#: Tokens. Several windows and blocks long, so that what layers keep of a request differs by their kind.
CONTEXT_LENGTH = 2048


@pytest.fixture(scope="session", autouse=True)
def operator() -> None:
    """The operator, installed with its charts."""
    if not os.environ.get("KUBECONFIG"):
        pytest.exit(
            "no cluster: run `make test-families`, or `python -m localcluster run -- pytest tests/families`",
            2,
        )
    install_operator(replicas=1)
    namespace(NAMESPACE)


def provide_config(family: Family, folder: Path) -> None:
    """A ConfigMap with the model's config.json."""
    apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": family.name, "namespace": NAMESPACE},
            "data": {"config.json": (folder / "config.json").read_text()},
        }
    )


def manifest(family: Family) -> dict[str, Any]:
    """A ModelDeployment that the catalogue has nothing on but the config.json: two pods of one rank where there are
    experts to spread, else one rank.
    """
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": family.name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "name": f"tiny/{family.name}",
                "servedName": family.name,
                "source": f"pvc://{family.name}",
                "configFrom": {"name": family.name},
                "contextLength": CONTEXT_LENGTH,
                "precision": family.precision,
            },
            "hardware": {"accelerator": "cpu", "gpusPerGroup": 2 if family.experts else 1},
            # The usual request is the longest: vLLM counts its cache's tokens in requests of that length.
            "objective": {"inputTokens": CONTEXT_LENGTH // 2, "outputTokens": CONTEXT_LENGTH // 2},
            # Steps shorter than a request: only then do windows let blocks go, which the plan has to count.
            "engine": {"args": {"seed": "0", "max-num-batched-tokens": "256"}},
        },
    }


def delete(family: Family) -> None:
    """Delete a deployment and wait until everything of it is gone: two at once would take a laptop's memory."""
    kubectl("delete", names.PLURAL, family.name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
    selector = f"{names.LABEL_DEPLOYMENT}={family.name}"
    wait_for(
        f"everything of {family.name} gone",
        lambda: not items(CHILDREN, NAMESPACE, selector),
        seconds=120,
        every=0.5,
    )
