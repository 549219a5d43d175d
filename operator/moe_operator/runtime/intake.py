"""Takes events into the cache and says which ModelDeployments they concern. Nothing else happens on an event."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from moe_operator.api import reasons
from moe_operator.controller.kube import JOB, MODEL_DEPLOYMENT, NODE, POD, Kind, Obj
from moe_operator.controller.store import Key, Store, concerned, owner_key, version_of
from moe_operator.planner.compute_domains import CLIQUE, NODE_LABEL
from moe_operator.runtime.freshness import Freshness
from moe_operator.runtime.node_facts import significant
from moe_operator.runtime.source import EventType

log = logging.getLogger(__name__)


class WatchObserver(Protocol):
    """Told of every event."""

    def watch_event(self, kind: str, type_: str) -> None:
        """One event of a watch."""


class Intake:
    """From events to keys."""

    def __init__(
        self,
        store: Store,
        enqueue: Callable[[Key], None],
        freshness: Freshness,
        observer: WatchObserver,
        turned_back: Callable[[], None],
    ) -> None:
        """`turned_back` is called when the API server shows an older state than known: its database was restored."""
        self._store = store
        self._enqueue = enqueue
        self._freshness = freshness
        self._observer = observer
        self._turned_back = turned_back

    def deliver(self, kind: Kind, type_: EventType, obj: Obj) -> None:
        """Take up one event of a watch."""
        self._observer.watch_event(kind.kind, type_.value)
        self._freshness.heard(kind, obj)
        meta = obj["metadata"]
        before = self._store.get(kind, meta.get("namespace") or "", meta["name"])
        if type_ is EventType.DELETED:
            changed = self._store.remove(kind, obj)
            after = None
        else:
            changed = self._store.upsert(kind, obj)
            after = obj
            if not changed and type_ is EventType.LISTED and before and _older(obj, before):
                self._turned_back()
        if not changed:
            return
        for key in self._concerned(kind, before, after):
            self._enqueue(key)

    def _concerned(self, kind: Kind, before: Obj | None, after: Obj | None) -> Iterable[Key]:
        if kind is NODE:
            return self._of_node(before, after)
        known = [o for o in (before, after) if o is not None]
        keys = {key for o in known for key in concerned(kind, o)}
        if kind is POD:
            keys |= {key for o in known for key in self._of_job(o)}
        return sorted(keys)

    def _of_job(self, pod: Obj) -> Iterable[Key]:
        """Those of the Job that a pod belongs to."""
        meta = pod["metadata"]
        for reference in meta.get("ownerReferences") or []:
            job = reference.get("kind") == JOB.kind and self._store.get(
                JOB, meta["namespace"], reference["name"]
            )
            if job:
                yield from concerned(JOB, job)

    def _of_node(self, before: Obj | None, after: Obj | None) -> Iterable[Key]:
        """Deployments with a pod on the node, and those that wait for nodes that fit."""
        if before and after and significant(before) == significant(after):
            return []
        nodes = {(after or before or {})["metadata"]["name"], *self._in_partition(before, after)}
        keys: set[Key] = set()
        for pod in self._store.all(POD):
            if (pod.get("spec") or {}).get("nodeName") in nodes and (key := owner_key(pod)):
                keys.add(key)
        for deployment in self._store.all(MODEL_DEPLOYMENT):
            if not _planned(deployment):
                keys.add((deployment["metadata"]["namespace"], deployment["metadata"]["name"]))
        return sorted(keys)

    def _in_partition(self, before: Obj | None, after: Obj | None) -> Iterable[str]:
        """Nodes of the same NVLink partition, where a node has joined or left a ComputeDomain: those of others disturb
        groups on any of them."""
        if _label(before, NODE_LABEL) == _label(after, NODE_LABEL):
            return []
        partitions = {_label(before, CLIQUE), _label(after, CLIQUE)} - {None}
        return [n["metadata"]["name"] for n in self._store.all(NODE) if _label(n, CLIQUE) in partitions]


def _label(node: Obj | None, key: str) -> str | None:
    return ((node or {}).get("metadata", {}).get("labels") or {}).get(key)


def _planned(deployment: dict[str, Any]) -> bool:
    conditions = (deployment.get("status") or {}).get("conditions") or []
    return any(c.get("type") == reasons.PLANNED and c.get("status") == "True" for c in conditions)


def _older(obj: Obj, known: Obj) -> bool:
    version, known_version = version_of(obj), version_of(known)
    same = obj["metadata"].get("uid") == known["metadata"].get("uid")
    return same and version is not None and known_version is not None and version < known_version
