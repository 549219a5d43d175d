"""Manifests and reports for the tests of `kubectl moe plan`."""

from typing import Any

from moe_operator.api import names
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.operator_config import default_config
from moe_operator.cli.inventory_source import usual
from moe_operator.cli.manifest import deployment_of
from moe_operator.cli.plan_report import PlanReport, make_report
from moe_operator.planner.plan import Refusal

QWEN = "Qwen/Qwen3.5-397B-A17B"


def plan_manifest(model: str = QWEN, accelerator: str = "B200", /, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment as a user writes it; `spec` adds to its spec, key by key."""
    made: dict[str, Any] = {"model": {"name": model}, "hardware": {"accelerator": accelerator}}
    for key, value in spec.items():
        made[key] = {**made.get(key, {}), **value}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "qwen"}, "spec": made}


def report_or_refusal(obj: dict[str, Any], rate: float | None = None) -> PlanReport | Refusal:
    """Planned for the catalogue's usual nodes."""
    site = default_config()
    deployment = deployment_of(obj)
    nodes = usual(deployment.spec, site.catalog)
    return make_report(deployment, nodes, site, load_models(), requests_per_second=rate)


def report(obj: dict[str, Any] | None = None, rate: float | None = None) -> PlanReport:
    """The same where there is a plan."""
    found = report_or_refusal(obj or plan_manifest(), rate)
    assert isinstance(found, PlanReport)
    return found
