"""From the last release to this checkout, in a cluster of its own (see `python -m layers e2e`)."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.tiny_model import tiny_model
from harness.deployments import wait_ready
from harness.install import MODEL_CLAIM, install_operator, namespace, provide_model
from harness.kubectl import apply
from harness.release import VERSION, ReleaseMissingError, provide_release_image, release
from moe_operator.api import names

NAMESPACE, NAME = "upgrade", "old"


def manifest(**spec: Any) -> dict[str, Any]:
    """A ModelDeployment with fields that the release knows: one group of two pods, replaced in place."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "name": "tiny-moe",
                "source": f"pvc://{MODEL_CLAIM}",
                "contextLength": 16384,
                "precision": "fp32",
            },
            "hardware": {"accelerator": "cpu"},
            "engine": {"args": {"seed": "0"}},
            "rollout": {"maxSurge": 0, "maxUnavailable": 1},
            **spec,
        },
    }


@pytest.fixture(scope="session")
def released() -> Path:
    """The tree of the release, whose operator runs in the cluster and has a group that serves."""
    if not os.environ.get("KUBECONFIG"):
        pytest.exit(
            "no cluster: run `make test-upgrade`, or `python -m localcluster run -- pytest tests/upgrade`", 2
        )
    try:
        tree = release()
    except ReleaseMissingError as error:
        pytest.skip(str(error))
    provide_release_image(tree)
    install_operator(charts=tree / "charts", tag=VERSION)
    namespace(NAMESPACE)
    provide_model(tiny_model(), NAMESPACE)
    apply(manifest(), manager="e2e")
    wait_ready(NAME, NAMESPACE, seconds=600)
    return tree
