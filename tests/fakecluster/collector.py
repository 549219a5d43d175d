"""The garbage collector: owner references, foreground deletion, and pods of nodes that are gone."""

from collections.abc import Iterable

from fakecluster.api_server import FOREGROUND, ApiServer, Event, Propagation
from fakecluster.controller import Controller, Key, Timers
from fakecluster.objects import is_deleting
from moe_operator.controller.kube import Kind, KubeError, Obj

Place = tuple[Kind, str, str]


class GarbageCollector(Controller):
    """Works on owners' uids: `("", uid)`."""

    latency = 0.05

    def __init__(self, server: ApiServer, timers: Timers) -> None:
        super().__init__(server, timers)
        self._dependents: dict[str, set[Place]] = {}
        self._alive: dict[str, Place] = {}

    def keys(self, event: Event) -> Iterable[Key]:
        meta = event.obj["metadata"]
        place = (event.kind, meta.get("namespace") or "", meta["name"])
        owners = [r["uid"] for r in meta.get("ownerReferences") or []]
        if event.type == "DELETED":
            self._alive.pop(meta["uid"], None)
            for owner in owners:
                self._dependents.get(owner, set()).discard(place)
                yield ("", owner)
            yield ("", meta["uid"])
            return
        self._alive[meta["uid"]] = place
        for owner in owners:
            self._dependents.setdefault(owner, set()).add(place)
            if event.type == "ADDED":
                yield ("", owner)
        if FOREGROUND in (meta.get("finalizers") or []):
            yield ("", meta["uid"])

    def sync(self, key: Key) -> None:
        uid = key[1]
        place = self._alive.get(uid)
        owner = self.server.get(*place) if place else None
        dependents = self._live_dependents(uid)
        if owner is None:
            for kind, obj in dependents:
                if not any(r["uid"] in self._alive for r in obj["metadata"]["ownerReferences"]):
                    self._delete(kind, obj, "Background")
            self._dependents.pop(uid, None)
            return
        if not (is_deleting(owner) and FOREGROUND in (owner["metadata"].get("finalizers") or [])):
            return
        blocking = [o for _, o in dependents if _blocks(o, uid)]
        if not blocking:
            assert place is not None
            self.server.remove_finalizer(place[0], owner, FOREGROUND, self.name)
            return
        for kind, obj in dependents:
            self._delete(
                kind, obj, "Foreground" if self._live_dependents(obj["metadata"]["uid"]) else "Background"
            )

    def _live_dependents(self, uid: str) -> list[tuple[Kind, Obj]]:
        found = []
        for place in sorted(self._dependents.get(uid, ()), key=lambda p: (p[0].plural, p[1], p[2])):
            obj = self.server.get(*place)
            if obj is not None and any(r["uid"] == uid for r in obj["metadata"].get("ownerReferences") or []):
                found.append((place[0], obj))
        return found

    def _delete(self, kind: Kind, obj: Obj, propagation: Propagation) -> None:
        if is_deleting(obj):
            return
        meta = obj["metadata"]
        try:
            self.server.delete(
                kind, meta.get("namespace"), meta["name"], self.name, uid=meta["uid"], propagation=propagation
            )
        except KubeError:
            return


def _blocks(obj: Obj, owner_uid: str) -> bool:
    return any(
        r["uid"] == owner_uid and r.get("blockOwnerDeletion") for r in obj["metadata"]["ownerReferences"]
    )
