"""The cache of watched objects: what a reconcile reads instead of the API server.

Filled by the watch source and replaced by the resync; never written by a reconcile except to remember
the answer of its own write (read-your-writes), which a newer watch event overrides.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import CHILD_KINDS, MODEL_DEPLOYMENT, NODE, Kind, Obj

Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""


def owner_key(obj: Mapping[str, Any]) -> Key | None:
    """The ModelDeployment that an object belongs to: by label, as pods have LWS's StatefulSets as owners."""
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(names.LABEL_DEPLOYMENT)
    return (meta["namespace"], name) if name else None


def _version(obj: Obj) -> int:
    """Resource versions are comparable integers since Kubernetes 1.35 (KEP-5504)."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0


class Store:
    """Objects by kind and name; children also by the ModelDeployment they belong to."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[tuple[str, str], Obj]] = {k: {} for k in (MODEL_DEPLOYMENT, NODE, *CHILD_KINDS)}
        self._children: dict[Key, dict[Kind, dict[str, Obj]]] = {}
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
        if known is not None:
            same_object = known["metadata"].get("uid") == meta.get("uid")
            if same_object and _version(obj) <= _version(known):
                return False
            self._drop(kind, at)
        meta.pop("managedFields", None)
        self._objects[kind][at] = obj
        key = owner_key(obj)
        if key and kind is not MODEL_DEPLOYMENT:
            self._children.setdefault(key, {}).setdefault(kind, {})[meta["name"]] = obj
        return True

    def remove(self, kind: Kind, obj: Obj) -> bool:
        """Forget an object that was deleted; ignored if another of that name has taken its place."""
        meta = obj["metadata"]
        at = (meta.get("namespace") or "", meta["name"])
        known = self._objects[kind].get(at)
        if known is None or known["metadata"].get("uid") != meta.get("uid"):
            return False
        self._drop(kind, at)
        return True

    def replace(self, kind: Kind, objects: Iterable[Obj], namespaces: Iterable[str] | None = None) -> set[Key]:
        """Take a LIST's answer as the truth: what it lacks is gone. Returns the ModelDeployments affected."""
        touched: set[Key] = set()
        scope = set(namespaces) if namespaces is not None else None
        fresh: dict[tuple[str, str], Obj] = {}
        for obj in objects:
            fresh[(obj["metadata"].get("namespace") or "", obj["metadata"]["name"])] = obj
        for at, known in list(self._objects[kind].items()):
            if at not in fresh and (scope is None or at[0] in scope):
                self._drop(kind, at)
                touched |= self._keys(kind, known)
        for obj in fresh.values():
            if self.upsert(kind, obj):
                touched |= self._keys(kind, obj)
        self.synced.add(kind)
        return touched

    def get(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        return self._objects[kind].get((namespace, name))

    def all(self, kind: Kind) -> list[Obj]:
        return list(self._objects[kind].values())

    def children(self, key: Key, kind: Kind) -> list[Obj]:
        """Objects of a kind that carry the deployment's label, by name."""
        found = self._children.get(key, {}).get(kind, {})
        return [found[name] for name in sorted(found)]

    def keys(self) -> list[Key]:
        """All ModelDeployments known."""
        return sorted(self._objects[MODEL_DEPLOYMENT])

    @staticmethod
    def _keys(kind: Kind, obj: Obj) -> set[Key]:
        if kind is MODEL_DEPLOYMENT:
            return {(obj["metadata"]["namespace"], obj["metadata"]["name"])}
        key = owner_key(obj)
        return {key} if key else set()

    def _drop(self, kind: Kind, at: tuple[str, str]) -> None:
        known = self._objects[kind].pop(at)
        key = owner_key(known)
        if key and kind is not MODEL_DEPLOYMENT:
            by_kind = self._children.get(key, {})
            by_kind.get(kind, {}).pop(at[1], None)
            if not by_kind.get(kind):
                by_kind.pop(kind, None)
            if not by_kind:
                self._children.pop(key, None)
