"""The way back to a kept revision: which one, the patch of `spec`, and who would undo it. Pure: objects in, values out.

Going back is nothing but the former spec: the operator finds the kept revision by its hash, and renders what ran then.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.cli.errors import UsageError
from moe_operator.cli.revision_history import KeptRevision, wanted_revision
from moe_operator.cli.spec_changes import Change, changes, merge_patch
from moe_operator.resources.revision import written_parts

#: Field manager of what this command writes.
MANAGER = "kubectl-moe"


@dataclass(frozen=True)
class Undo:
    """What leads back."""

    target: KeptRevision
    patch: dict[str, Any]
    """JSON merge patch of the ModelDeployment; empty where its spec is that of the revision already."""
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Owner:
    """A field manager that others than people at a terminal write with, and what of the patch it owns."""

    manager: str
    applied: bool
    """Whether it applies whole manifests, on the server or on its own side."""
    paths: tuple[str, ...]

    @property
    def by_hand(self) -> bool:
        """Whether it is kubectl: nothing repeats by itself what it wrote."""
        return self.manager.startswith("kubectl")


def undo(deployment: ModelDeployment, kept: Sequence[KeptRevision], to: str | None) -> Undo:
    """Back to the revision `to` (its number, name or hash), else to the one before the wanted one; where the present
    spec has none, as it is refused, to the one in effect. Raises UsageError, saying what there is."""
    target = _named(kept, to) if to is not None else _default(deployment, kept)
    if target.written is None:
        raise UsageError(
            f"revision {target.name} was kept by an earlier version of the operator, without the spec that it was made"
            " of: apply your manifest of that time, and it is found again"
        )
    now = written_parts(deployment.spec)
    then = _keep_size(now, target.written)
    patch = merge_patch(now, then)
    return Undo(target, {"spec": patch} if patch else {}, tuple(changes(now, then)))


def _keep_size(now: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """The size of a cache's claim is no part of a revision, and claims never become smaller: the present one stays."""
    result = copy.deepcopy(dict(then))
    present = (now.get("weights") or {}).get("cache")
    former = (result.get("weights") or {}).get("cache")
    if present and former and present.get("storageClassName") and former.get("storageClassName"):
        former["size"] = present.get("size")
    return result


def _named(kept: Sequence[KeptRevision], to: str) -> KeptRevision:
    found = [one for one in kept if to in (str(one.number), one.name, one.name.rpartition("-")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{len(found)} revisions have the number {to}, as early versions of the operator did not count: name one of"
            f" {', '.join(one.name for one in found)}"
        )
    raise UsageError(f"there is no revision {to}; kept are {_listed(kept)}")


def _default(deployment: ModelDeployment, kept: Sequence[KeptRevision]) -> KeptRevision:
    wanted = wanted_revision(deployment, kept)
    if wanted is None:
        in_effect = next((one for one in kept if one.name == deployment.status.revision), None)
        if in_effect is None:
            raise UsageError(
                f"the present spec has no revision yet, and no other is in effect; {_choose(kept)}"
            )
        return in_effect
    # Revisions of the same spec, of before a policy or a version changed, are no way back.
    earlier = [
        one for one in kept[: kept.index(wanted)] if one.written is None or one.written != wanted.written
    ]
    if not earlier:
        raise UsageError(f"revision {wanted.name} is the oldest that is kept; {_choose(kept)}")
    return earlier[-1]


def _choose(kept: Sequence[KeptRevision]) -> str:
    return f"choose with --to-revision: kept are {_listed(kept)}"


def _listed(kept: Sequence[KeptRevision]) -> str:
    return ", ".join(f"{one.number} ({one.name})" for one in kept) or "none"


def owners(managed: Sequence[Mapping[str, Any]], patch: Mapping[str, Any]) -> list[Owner]:
    """Who owns what the patch changes, by `metadata.managedFields`: they may write it back."""
    found: dict[tuple[str, bool], list[str]] = {}
    for entry in managed:
        manager = str(entry.get("manager") or "")
        if manager in (MANAGER, names.FIELD_MANAGER, names.STATUS_FIELD_MANAGER) or entry.get("subresource"):
            continue
        paths = list(_owned(patch, entry.get("fieldsV1") or {}, ""))
        if paths:
            applied = entry.get("operation") == "Apply" or manager.endswith("client-side-apply")
            found.setdefault((manager, applied), []).extend(paths)
    return [Owner(manager, applied, tuple(paths)) for (manager, applied), paths in sorted(found.items())]


def _owned(patch: Any, fields: Mapping[str, Any], path: str) -> Iterator[str]:
    """Paths of the patch below which the manager owns anything, or above which it owns the whole."""
    for key, value in patch.items():
        at = f"{path}.{key}" if path else key
        inner = fields.get(f"f:{key}")
        if inner is None:
            continue
        if isinstance(value, Mapping) and inner:
            yield from _owned(value, inner, at)
        else:
            yield at
