"""The cache of watched objects: what a reconcile reads instead of the API server.

Filled by the watch source and replaced by the resync; never written by a reconcile except to remember
the answer of its own write (read-your-writes), which a newer watch event overrides.

A LIST is the truth about everything that was not touched while it was under way: it also says what is gone,
and, after a restore of the API server's database, where versions go backwards, what is there. `mark` and
`replace(since=...)` tell the two apart without comparing versions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import CHILD_KINDS, COMPUTE_DOMAIN, JOB, MODEL_DEPLOYMENT, NODE, Kind, Obj

Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""


def owner_key(obj: Mapping[str, Any]) -> Key | None:
    """The ModelDeployment that an object belongs to: by label, as pods have LWS's StatefulSets as owners."""
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(names.LABEL_DEPLOYMENT)
    namespace = meta.get("namespace")
    return (namespace, name) if name and namespace else None


def concerned(kind: Kind, obj: Mapping[str, Any]) -> set[Key]:
    """The ModelDeployments to look at when this object changes. A ComputeDomain, and a Job that downloads weights, are
    shared by all of their owners."""
    meta = obj["metadata"]
    if kind == MODEL_DEPLOYMENT:
        return {(meta["namespace"], meta["name"])}
    if kind in (COMPUTE_DOMAIN, JOB):
        references = meta.get("ownerReferences") or []
        return {(meta["namespace"], one["name"]) for one in references if one.get("kind") == names.KIND}
    key = owner_key(obj)
    return {key} if key else set()


def version_of(obj: Mapping[str, Any]) -> int | None:
    """The resource version as a number; None where the server's are opaque.

    Versions of one resource type are comparable integers by contract since Kubernetes 1.35 (KEP-5504).
    """
    text = obj["metadata"].get("resourceVersion") or ""
    return int(text) if text.isdigit() else None


def _newer(obj: Obj, than: int | None) -> bool:
    version = version_of(obj)
    return version is None or than is None or version > than


@dataclass(frozen=True)
class _Tombstone:
    """That an object is gone: an answer to an earlier write may still come in, and must not bring it back."""

    uid: str
    version: int | None
    at: int


class Store:
    """Objects by kind and name; children also by the ModelDeployment they belong to."""

    def __init__(self) -> None:
        kinds = (MODEL_DEPLOYMENT, NODE, *CHILD_KINDS)
        self._objects: dict[Kind, dict[tuple[str, str], Obj]] = {k: {} for k in kinds}
        self._touched: dict[Kind, dict[tuple[str, str], int]] = {k: {} for k in kinds}
        self._gone: dict[Kind, dict[tuple[str, str], _Tombstone]] = {k: {} for k in kinds}
        self._children: dict[Key, dict[Kind, dict[str, Obj]]] = {}
        self._clock = 0
        self.synced: set[Kind] = set()
        """Kinds whose first LIST is in."""
        self.forbidden: set[Kind] = set()
        """Kinds that we may not list; what depends on them says so instead of guessing."""
        self.absent: set[Kind] = set()
        """Kinds that the API server does not serve."""

    def upsert(self, kind: Kind, obj: Obj) -> bool:
        """Take up an object unless a newer version is known. True if anything changed."""
        meta = obj["metadata"]
        at = (meta.get("namespace") or "", meta["name"])
        known = self._objects[kind].get(at)
        if known is not None and not _newer(obj, version_of(known)):
            return False  # also an earlier object of that name: a late answer must not hide its successor
        buried = self._gone[kind].get(at)
        if buried and buried.uid == meta.get("uid"):
            if not _newer(obj, buried.version):
                return False
            del self._gone[kind][at]
        self._take(kind, at, obj)
        return True

    def remove(self, kind: Kind, obj: Obj) -> bool:
        """Forget an object that was deleted; ignored if another of that name has taken its place."""
        meta = obj["metadata"]
        at = (meta.get("namespace") or "", meta["name"])
        known = self._objects[kind].get(at)
        if known is None or known["metadata"].get("uid") != meta.get("uid"):
            return False
        self._drop(kind, at)
        versions = [v for v in (version_of(obj), version_of(known)) if v is not None]
        self._clock += 1
        self._gone[kind][at] = _Tombstone(meta["uid"], max(versions, default=None), self._clock)
        return True

    def mark(self) -> int:
        """A point in the cache's history, to be taken before a LIST is asked for."""
        return self._clock

    def replace(
        self,
        kind: Kind,
        objects: Iterable[Obj],
        namespaces: Iterable[str] | None = None,
        since: int | None = None,
    ) -> set[Key]:
        """Take a LIST's answer as the truth: what it lacks is gone. Returns the ModelDeployments affected.

        `since`: the mark taken before the LIST; what was touched after it is newer than the answer and stays.
        `namespaces`: those that were listed, None for all.
        """
        mark = self._clock if since is None else since
        touched: set[Key] = set()
        scope = set(namespaces) if namespaces is not None else None
        fresh = {(o["metadata"].get("namespace") or "", o["metadata"]["name"]): o for o in objects}
        for at, known in list(self._objects[kind].items()):
            if at in fresh or (scope is not None and at[0] not in scope) or self._touched[kind][at] > mark:
                continue
            self._drop(kind, at)
            touched |= concerned(kind, known)
        for at, obj in fresh.items():
            if self._touched[kind].get(at, 0) > mark:
                if self.upsert(kind, obj):
                    touched |= concerned(kind, obj)
                continue
            buried = self._gone[kind].get(at)
            if buried and buried.at > mark and buried.uid == obj["metadata"].get("uid"):
                continue
            known_before = self._objects[kind].get(at)
            changed = known_before is None or (
                known_before["metadata"].get("uid") != obj["metadata"].get("uid")
                or known_before["metadata"].get("resourceVersion") != obj["metadata"].get("resourceVersion")
            )
            if changed:
                self._take(kind, at, obj)
                touched |= concerned(kind, obj)
        self._gone[kind] = {at: grave for at, grave in self._gone[kind].items() if grave.at > mark}
        self.synced.add(kind)
        return touched

    def get(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        return self._objects[kind].get((namespace, name))

    def all(self, kind: Kind) -> list[Obj]:
        """All objects of a kind, by namespace and name."""
        found = self._objects[kind]
        return [found[at] for at in sorted(found)]

    def children(self, key: Key, kind: Kind) -> list[Obj]:
        """Objects of a kind that carry the deployment's label, by name."""
        found = self._children.get(key, {}).get(kind, {})
        return [found[name] for name in sorted(found)]

    def keys(self) -> list[Key]:
        """All ModelDeployments known."""
        return sorted(self._objects[MODEL_DEPLOYMENT])

    def _take(self, kind: Kind, at: tuple[str, str], obj: Obj) -> None:
        if at in self._objects[kind]:
            self._drop(kind, at)
        meta = obj["metadata"]
        meta.pop("managedFields", None)
        self._clock += 1
        self._objects[kind][at] = obj
        self._touched[kind][at] = self._clock
        key = owner_key(obj)
        if key and kind is not MODEL_DEPLOYMENT:
            self._children.setdefault(key, {}).setdefault(kind, {})[meta["name"]] = obj

    def _drop(self, kind: Kind, at: tuple[str, str]) -> None:
        known = self._objects[kind].pop(at)
        self._touched[kind].pop(at)
        key = owner_key(known)
        if key and kind is not MODEL_DEPLOYMENT:
            by_kind = self._children.get(key, {})
            by_kind.get(kind, {}).pop(at[1], None)
            if not by_kind.get(kind):
                by_kind.pop(kind, None)
            if not by_kind:
                self._children.pop(key, None)
