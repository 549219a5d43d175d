"""Waiting for CRDs to be served."""

from harness.kubectl import items
from harness.wait import wait_for


def established(*names: str) -> None:
    """Until the CRDs of these names (every one, when none is given) are established.

    Not `kubectl wait`: it fails at once on a CRD whose status has null for conditions, as one has that was just made.
    """

    def served() -> bool:
        of_interest = [crd for crd in items("crd") if not names or crd["metadata"]["name"] in names]
        return len(of_interest) >= max(1, len(names)) and all(_established(crd) for crd in of_interest)

    wait_for(f"CRDs {', '.join(names) or 'of the cluster'} are established", served, seconds=30)


def _established(crd: dict[str, object]) -> bool:
    status = crd.get("status")
    conditions = (status.get("conditions") if isinstance(status, dict) else None) or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
