"""Whether a claim can be mounted by all pods that need it. Pure.

Kubernetes says it late and elsewhere: on all nodes but one, pods of a ReadWriteOnce claim stay in ContainerCreating
("Multi-Attach error", an Event), and of a ReadWriteOncePod claim the scheduler places one pod.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.api import reasons
from moe_operator.resources.weight_claims import Holds, MountedClaim

_ONE_NODE, _ONE_POD, _READ_ONLY, _SHARED = (
    "ReadWriteOnce",
    "ReadWriteOncePod",
    "ReadOnlyMany",
    "ReadWriteMany",
)
_ADVICE = {
    Holds.CACHE: "name a ReadWriteMany claim, or storageClassName of shared storage, or hostPath in weights.cache",
    Holds.MODEL: "name a claim with ReadOnlyMany or ReadWriteMany in model.source",
    Holds.ADAPTERS: "name a claim with ReadOnlyMany or ReadWriteMany in model.adapters",
    Holds.KERNELS: "name a ReadWriteMany claim, or hostPath, in engine.compileCache",
}
_ANEW = "a claim's modes cannot be changed, so to keep its name delete it and make it again"


@dataclass(frozen=True)
class Use:
    """What is wanted of a claim."""

    pods: int
    """Of a group, on a node each."""
    groups: int
    """Wanted."""
    one_node: bool = False
    """Whether the cluster is a single node, which all pods share."""
    proven: bool = False
    """Whether pods run with it that its modes do not promise: storage without attachment (NFS) lets them, and a volume
    that lies on one node brings its pods there."""


@dataclass(frozen=True)
class ModeFault:
    """Why a claim cannot do."""

    reason: str
    message: str
    most_groups: int
    """Groups that can run with it all the same."""


def mode_fault(claim: Mapping[str, Any], mounted: MountedClaim, use: Use) -> ModeFault | None:
    """What is wrong with this claim for this use; None where nothing is known to be."""
    found = _modes(claim)
    said = f"claim {mounted.name} ({mounted.holds}) is {' and '.join(sorted(found))}"
    if mounted.written and found == {_READ_ONLY}:
        return ModeFault(
            reasons.WEIGHTS_BAD_CACHE,
            f"{said}: nothing can be written into it. {_read_only_advice(mounted)}",
            0,
        )
    if not found or found & {_SHARED, _READ_ONLY} or use.proven or use.pods * use.groups <= 1:
        return None
    if found == {_ONE_NODE} and use.one_node:
        return None
    who = "one pod" if found == {_ONE_POD} else "pods on one node"
    most = 1 if use.pods == 1 else 0
    groups = "1 group is" if use.groups == 1 else f"{use.groups} groups are"
    pods = "1 pod" if use.pods == 1 else f"{use.pods} pods"
    effect = "One group is made; for more" if most else "None is made:"
    return ModeFault(
        reasons.WEIGHTS_CLAIM_NOT_SHARED,
        f"{said}: only {who} at a time can mount it, and {groups} wanted of {pods} each. {effect}"
        f" {_ADVICE[mounted.holds]} ({_ANEW})",
        most,
    )


def _read_only_advice(mounted: MountedClaim) -> str:
    if mounted.holds is Holds.KERNELS:
        return _sentence(_ADVICE[Holds.KERNELS])
    return (
        "Write to the same storage by a ReadWriteMany claim, or read what is there with"
        f" model.source: pvc://{mounted.name}/FOLDER"
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def mode_note(claim: Mapping[str, Any], mounted: MountedClaim) -> str | None:
    """What to know of a claim that one node or pod at a time can mount, and that does for now."""
    found = _modes(claim)
    if not found or found & {_SHARED, _READ_ONLY}:
        return None
    who = "one pod" if found == {_ONE_POD} else "pods on one node"
    turns = ", the one that downloads and the engine's in turn" if mounted.holds is Holds.CACHE else ""
    return f"claim {mounted.name} is {' and '.join(sorted(found))}: only {who} at a time can mount it{turns}"


def _modes(claim: Mapping[str, Any]) -> frozenset[str]:
    """Those of the claim and of the volume that it is bound to: the volume's decide how often it may be attached."""
    status, spec = claim.get("status") or {}, claim.get("spec") or {}
    return frozenset((*(spec.get("accessModes") or ()), *(status.get("accessModes") or ())))
