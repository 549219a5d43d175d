"""What a revision's groups need of the nodes that they are put on."""

from typing import Any

from moe_operator.api import names
from moe_operator.catalog.accelerators import Catalog
from moe_operator.planner.placement import Need
from moe_operator.planner.pod_requests import extended_requests
from moe_operator.resources.revision import Revision


def need_of(revision: Revision, catalog: Catalog) -> Need | None:
    """What one group asks for; None for a group that finds its own place: one without devices, one behind a queue,
    which may let it in much later, and one of several pods for which it does not matter where they stand."""
    need = devices_of(revision, catalog)
    if need is None or queued(revision) or (need.pods > 1 and need.domain is None):
        return None
    return need


def devices_of(revision: Revision, catalog: Catalog) -> Need | None:
    """The same whoever chooses its place; None for a plan without devices."""
    plan = revision.plan
    profile = catalog.accelerator(plan.accelerator)
    if profile is None or profile.resource_name is None:
        return None
    devices = extended_requests(pod_spec(revision)) | {profile.resource_name: plan.gpus_per_pod}
    domain = plan.transport.domain if plan.transport is not None else None
    return Need(plan.pods_per_group, plan.gpus_per_pod, profile.resource_name, devices, domain)


def pod_spec(revision: Revision) -> dict[str, Any]:
    """Of the revision's pods."""
    spec: dict[str, Any] = revision.template["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    return spec


def queued(revision: Revision) -> bool:
    """Whether a queue admits its groups, perhaps much later."""
    template = revision.template["leaderWorkerTemplate"]["workerTemplate"]
    return names.ANNOTATION_QUEUE in (template["metadata"].get("annotations") or {})
