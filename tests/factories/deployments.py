"""ModelDeployments and plans for tests of the pure parts."""

from dataclasses import replace
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment, parse
from moe_operator.catalog.accelerators import AcceleratorProfile, load_catalog
from moe_operator.catalog.operator_config import OperatorConfig, default_config
from moe_operator.planner.plan import Plan
from moe_operator.resources.group import render_revision
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.revision import Revision

UID = "6f3c9d1e-0000-4000-8000-000000000001"


def model_deployment(name: str = "tiny", namespace: str = "serving", **spec: Any) -> ModelDeployment:
    """A ModelDeployment as the API server would return it; `spec` in camelCase, over a minimal one."""
    return parse(
        {
            "metadata": {"name": name, "namespace": namespace, "uid": UID, "generation": 1},
            "spec": {"model": {"name": "org/tiny-moe"}, "hardware": {"accelerator": "cpu"}, **spec},
        }
    )


def manifest(name: str, namespace: str, replicas: int | None = None, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment as a user writes it: up to four groups, of one node of eight GPUs. Without `replicas`, which
    another writes; `spec` in camelCase."""
    wanted = {} if replicas is None else {"replicas": replicas}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"name": "org/tiny-moe"},
            "hardware": {"accelerator": "B200", "gpusPerGroup": 8},
            "scaling": {"mode": "External", "maxGroups": 4},
            **wanted,
            **spec,
        },
    }


def group_plan(
    pods: int = 1, ranks: int = 1, tensor: int = 1, *, accelerator: str = "cpu", expert_parallel: bool = True
) -> Plan:
    """A group of `pods` pods with `ranks` ranks each and `tensor` GPUs a rank."""
    return Plan(
        accelerator=accelerator,
        width=pods * ranks * tensor,
        pods_per_group=pods,
        ranks_per_pod=ranks,
        tensor=tensor,
        data=pods * ranks,
        expert_parallel=expert_parallel,
        gpus_per_pod=ranks * tensor,
    )


def rendering(deployment: ModelDeployment, plan: Plan, config: OperatorConfig | None = None) -> Rendering:
    """The plan to be rendered at a site that says nothing, or at the one of `config`."""
    return Rendering(deployment, plan, config or default_config())


def revision_of(deployment: ModelDeployment, plan: Plan, config: OperatorConfig | None = None) -> Revision:
    """The revision that the operator makes of a plan."""
    return render_revision(rendering(deployment, plan, config))


def revision_of_width(name: str, width: int) -> Revision:
    """A revision of which nothing but the width matters."""
    return replace(revision_of(model_deployment(), group_plan(ranks=width)), name=name)


def profile_of(name: str) -> AcceleratorProfile:
    """An accelerator of the shipped catalogue."""
    profile = load_catalog().accelerator(name)
    assert profile is not None, name
    return profile
