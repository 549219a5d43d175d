"""How GitOps tools read an object, by the rules of kstatus: what `kubectl wait`, Flux and Argo CD go by."""

from collections.abc import Mapping
from typing import Any


def verdict(obj: Mapping[str, Any]) -> str:
    """InProgress, Failed, Terminating or Current."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = obj.get("status") or {}
    if status.get("observedGeneration") != obj["metadata"].get("generation"):
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or []}
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Reconciling") == "True" or conditions.get("Ready", "False") != "True":
        return "InProgress"
    return "Current"
