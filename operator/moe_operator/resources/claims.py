"""GPUs by ResourceClaims, and the channel of an NVLink domain that spans nodes (dynamic resource allocation).

A claim is made for each pod from a ResourceClaimTemplate: that of the GPUs is a companion of the revision, that of the
channel is made by NVIDIA's controller for the namespace's ComputeDomain (`resources/compute_domain.py`).
"""

import json
from collections.abc import Iterable
from typing import Any

from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.catalog.device_drivers import BY_RESOURCE, DeviceDriver
from moe_operator.resources.compute_domain import CHANNEL_TEMPLATE, needs_compute_domain
from moe_operator.resources.pod_parts import PodParts
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.revision import revision_name

#: Names of the claims in a pod.
GPU_CLAIM = "gpus"
CHANNEL_CLAIM = "nvlink-channel"
#: Label keys whose values are the driver's product name, with dashes or underscores for its blanks.
_PRODUCT_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name")
#: Least memory of a GPU that is asked for, in percent of the planned: drivers keep back more or less of the same
#: memory, while no smaller product of a family comes so near.
_MEMORY_PERCENT = 85


def claim_template_name(rendering: Rendering) -> str:
    """`<deployment>-<hash10>-gpus`: at most 61 characters."""
    return f"{revision_name(rendering.deployment)}-{GPU_CLAIM}"


def claim_parts(rendering: Rendering) -> PodParts:
    """The claims of a pod."""
    plan = rendering.plan
    claims: list[dict[str, Any]] = []
    reasons: dict[str, str] = {}
    if plan.claims:
        claims.append({"name": GPU_CLAIM, "resourceClaimTemplateName": claim_template_name(rendering)})
        reasons[GPU_CLAIM] = (
            f"the pod's {plan.gpus_per_pod} GPUs (ranks in the pod x GPUs of a rank: {plan.ranks_per_pod} x"
            f" {plan.tensor}), by a claim as nodes offer them through ResourceSlices"
        )
    if needs_compute_domain(plan):
        claims.append({"name": CHANNEL_CLAIM, "resourceClaimTemplateName": CHANNEL_TEMPLATE})
        reasons[CHANNEL_CLAIM] = "the node's channel to GPU memory of other nodes in the NVLink domain"
    return PodParts(claims=tuple(claims), reasons=reasons)


def claim_companions(rendering: Rendering) -> tuple[dict[str, Any], ...]:
    """What the pods' claims refer to and the deployment has to make."""
    return (build_claim_template(rendering),) if rendering.plan.claims else ()


def build_claim_template(rendering: Rendering) -> dict[str, Any]:
    """The ResourceClaimTemplate of a pod's GPUs: whole ones of this product. Without namespace and owner."""
    labels = rendering.deployment.labels()
    request = {
        "name": GPU_CLAIM,
        "exactly": {
            "deviceClassName": rendering.device_class,
            "allocationMode": "ExactCount",
            "count": rendering.plan.gpus_per_pod,
            "selectors": [{"cel": {"expression": text}} for text in _selectors(rendering)],
        },
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": claim_template_name(rendering), "labels": labels},
        "spec": {"metadata": {"labels": labels}, "spec": {"devices": {"requests": [request]}}},
    }


def _selectors(rendering: Rendering) -> Iterable[str]:
    """CEL over one device. An attribute that a device lacks would end the whole allocation with an error, not pass
    over the device: each is asked for first."""
    driver = _driver(rendering.profile)
    attributes, capacity = f'device.attributes["{driver.name}"]', f'device.capacity["{driver.name}"]'
    yield f'device.driver == "{driver.name}" && has({attributes}.type) && {attributes}.type == "{driver.whole}"'
    products = product_values(rendering.profile, rendering.plan.device_products)
    if products:
        name = f'{attributes}.productName.replace(" ", "-").replace("_", "-")'
        yield f"has({attributes}.productName) && {name} in {json.dumps(products)}"
    elif memory := rendering.profile.memory_mib:
        least = memory * _MEMORY_PERCENT // 100
        yield f'has({capacity}.memory) && {capacity}.memory.compareTo(quantity("{least}Mi")) >= 0'


def product_values(profile: AcceleratorProfile, seen: Iterable[str]) -> list[str]:
    """The accelerator's product names with dashes: those of the catalogue, and those that nodes' slices were seen to
    say, which may differ where a node is recognised by another label."""
    known = (value for key, values in profile.node_labels if key in _PRODUCT_LABELS for value in values)
    return sorted({name.replace(" ", "-").replace("_", "-") for name in (*known, *seen)})


def _driver(profile: AcceleratorProfile) -> DeviceDriver:
    return BY_RESOURCE[profile.resource_name or ""]
