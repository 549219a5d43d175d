"""Groups whose GPUs failed, by what DCGM exporter says of their nodes."""

from collections.abc import Iterable, Sequence

from moe_operator.api import reasons
from moe_operator.api.status import Cause
from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.telemetry.accelerator_faults import AcceleratorFault


def with_faulty_accelerators(
    namespace: str, groups: Iterable[GroupFacts], faults: Sequence[AcceleratorFault]
) -> dict[str, Cause]:
    """Causes by group. A fault concerns groups that were there before it was seen: later ones were made knowing it."""
    found = {}
    for group in groups:
        if group.deleting:
            continue
        hit = next(
            (
                (pod, fault)
                for fault in faults
                if fault.seen_at > group.created_at
                for pod in group.pods
                if _concerns(fault, namespace, pod)
            ),
            None,
        )
        if hit is not None:
            found[group.name] = _cause(*hit)
    return found


def _concerns(fault: AcceleratorFault, namespace: str, pod: PodFacts) -> bool:
    """Whether the pod has the GPU; on its node is enough where the exporter does not say whose it is."""
    if pod.node != fault.node:
        return False
    return not fault.pods or (namespace, pod.name) in fault.pods


def _cause(pod: PodFacts, fault: AcceleratorFault) -> Cause:
    return Cause(
        reason=reasons.ACCELERATOR_FAULT,
        message=f"{fault.gpu} of pod {pod.name} on node {fault.node} failed: {fault.what}"[:900],
        pod=pod.name,
        node=fault.node,
    )
