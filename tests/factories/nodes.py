"""Node objects as the API server returns them."""

from typing import Any

from moe_operator.catalog.accelerators import load_catalog


def node(
    name: str,
    *,
    labels: dict[str, str] | None = None,
    capacity: dict[str, Any] | None = None,
    taints: list[dict[str, str]] | None = None,
    cordoned: bool = False,
) -> dict[str, Any]:
    """A Node."""
    spec: dict[str, Any] = {"unschedulable": True} if cordoned else {}
    if taints:
        spec["taints"] = taints
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {"capacity": {"cpu": "64", "memory": "512Gi", "pods": "110", **(capacity or {})}},
    }


def gpu_nodes(
    accelerator: str, count: int, gpus: int = 8, prefix: str = "", **more: Any
) -> list[dict[str, Any]]:
    """Nodes that carry the accelerator's usual label and offer its resource. `rdma`: what they offer of a network."""
    profile = load_catalog().accelerator(accelerator)
    assert profile is not None
    assert profile.resource_name is not None
    key, values = profile.node_labels[0]
    return [
        node(
            f"{prefix or profile.name.lower()}-{i}",
            labels={key: values[0], **more.get("labels", {})},
            capacity={profile.resource_name: str(gpus), **more.get("rdma", {})},
            taints=more.get("taints"),
            cordoned=more.get("cordoned", False),
        )
        for i in range(count)
    ]
