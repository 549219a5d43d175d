"""An API server in memory: the verbs with their real semantics, a history of events, and no latency of its own.

Kept, and compared with a real one by tests/cluster/test_fake_matches_real.py: uids, resource versions, no event for a
write that changes nothing, generations, uid preconditions, 409 on create, server-side apply with field owners, merge
patches, the status subresource, finalizers, foreground deletion, graceful deletion of pods, immutable data, label
selectors, watches that end with 410 once their past is compacted.
Simplified: namespaces exist by themselves, no admission but the ModelDeployment's schema, no field validation of
built-in kinds, selectors are equalities. Owner references are acted upon by `collector`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from fakecluster.clock import Clock
from fakecluster.objects import copied, is_deleting, labels_of, matches
from fakecluster.ownership import Manager, Ownership, apply
from fakecluster.records import Event, GoneError, Write
from moe_operator.api import names
from moe_operator.api.spec import ModelDeploymentSpec
from moe_operator.api.times import format_time
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    JOB,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NETWORK_POLICY,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    STATEFUL_SET,
    ConflictError,
    InvalidError,
    Kind,
    NotFoundError,
    Obj,
)

Propagation = Literal["Foreground", "Background"]

#: Kinds whose status is written through its own subresource alone.
WITH_STATUS = {
    MODEL_DEPLOYMENT,
    LEADER_WORKER_SET,
    STATEFUL_SET,
    POD_DISRUPTION_BUDGET,
    POD,
    SERVICE,
    NODE,
    JOB,
}
#: Kinds whose generation counts changes of the spec.
WITH_GENERATION = {MODEL_DEPLOYMENT, LEADER_WORKER_SET, STATEFUL_SET, POD_DISRUPTION_BUDGET, NETWORK_POLICY}
FOREGROUND = "foregroundDeletion"
_SERVER_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_EMPTY_IS_ABSENT = ("labels", "annotations", "finalizers", "ownerReferences")


@dataclass
class _Stored:
    obj: Obj
    owners: Ownership


class ApiServer:
    """Objects by kind, and everything that happened to them. Returned objects are not to be changed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.version = 0
        self.history: list[Event] = []
        self.writes: list[Write] = []
        self.listeners: list[Callable[[Event], None]] = []
        self.write_listeners: list[Callable[[Write], None]] = []
        self.admission: list[Callable[[Kind, Obj], None]] = []
        """Mutating webhooks: each may change an object that is being created."""
        self.unreachable = False
        """For operators: their requests and watches fail."""
        self.back_listeners: list[Callable[[], None]] = []
        """Called when it can be reached again."""
        self.compacted = 0
        """Events up to this version can no longer be watched from."""
        self.absent: set[Kind] = {COMPUTE_DOMAIN}
        """Kinds that are not served (a CRD is not installed)."""
        self._stored: dict[Kind, dict[tuple[str, str], _Stored]] = {}
        self._uids = 0
        self.validates = True
        """Whether it knows the ModelDeployment's schema, and not that of another version."""

    # --- reads ------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        self._check_kind(kind)
        found = self._stored.get(kind, {}).get((namespace or "", name))
        return found.obj if found else None

    def list(self, kind: Kind, namespace: str | None = None, selector: str = "") -> list[Obj]:
        self._check_kind(kind)
        stored = self._stored.get(kind, {})
        return [
            stored[at].obj
            for at in sorted(stored)
            if (namespace is None or at[0] == namespace) and matches(selector, labels_of(stored[at].obj))
        ]

    def everything(self) -> Iterable[tuple[Kind, Obj]]:
        """All objects of all kinds."""
        for kind, stored in list(self._stored.items()):
            for one in list(stored.values()):
                yield kind, one.obj

    def by_uid(self, uid: str) -> tuple[Kind, Obj] | None:
        """The object with this uid."""
        return next(((k, o) for k, o in self.everything() if o["metadata"]["uid"] == uid), None)

    # --- writes -----------------------------------------------------------------------------------

    def create(self, kind: Kind, obj: Obj, manager: str) -> Obj:
        """POST."""
        self._check_kind(kind)
        fresh = copied(obj)
        at = self._at(kind, fresh)
        if at in self._stored.get(kind, {}):
            raise ConflictError(409, "AlreadyExists", f'{kind.plural} "{at[1]}" already exists')
        for field in _SERVER_METADATA:
            fresh["metadata"].pop(field, None)
        if kind in WITH_STATUS:
            fresh.pop("status", None)
        for webhook in self.admission:
            webhook(kind, fresh)
        owners = Ownership()
        owners.changed(Manager(manager, "Update"), {}, fresh)
        return self._insert(kind, fresh, owners, manager, "create", obj)

    def restore(self, kind: Kind, obj: Obj) -> Obj:
        """An object as another API server gave it, with its uid, times, generation and status: the operator's, as far
        as its own applies count. Nobody's write."""
        fresh, owners = apply({}, _without(obj, "status"), Ownership(), Manager(names.FIELD_MANAGER, "Apply"))
        if "status" in obj:
            manager = Manager(names.STATUS_FIELD_MANAGER, "Apply", "status")
            fresh, owners = apply(fresh, _only(obj, "status"), owners, manager)
        stored = _Stored(fresh, owners)
        self._stored.setdefault(kind, {})[self._at(kind, fresh)] = stored
        self._tell("ADDED", kind, stored, None)
        return stored.obj

    def apply(self, kind: Kind, obj: Obj, manager: str, subresource: str = "") -> Obj:
        """Server-side apply, conflicts forced."""
        self._check_kind(kind)
        at = self._at(kind, obj)
        known = self._stored.get(kind, {}).get(at)
        owner = Manager(manager, "Apply", subresource)
        wanted_uid = obj["metadata"].get("uid")
        if known is None:
            if subresource:
                raise NotFoundError(404, "NotFound", f'{kind.plural} "{at[1]}" not found')
            if wanted_uid:
                raise ConflictError(
                    409, "Conflict", f"uid mismatch: {wanted_uid} was given, and there is no {at[1]}"
                )
            fresh, owners = apply({}, obj, Ownership(), owner)
            return self._insert(kind, fresh, owners, manager, "apply", obj)
        if not subresource:
            # Of a status write nothing but the status counts: a uid in it is no precondition.
            self._check_uid(kind, known.obj, wanted_uid)
        self._check_version(kind, known.obj, obj["metadata"].get("resourceVersion"))
        body = (
            _only(obj, "status") if subresource else (_without(obj, "status") if kind in WITH_STATUS else obj)
        )
        fresh, owners = apply(known.obj, body, known.owners, owner)
        return self._update(kind, fresh, owners, manager, "apply_status" if subresource else "apply", obj)

    def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Obj, manager: str, subresource: str = ""
    ) -> Obj:
        """JSON merge patch; a uid in it is a precondition."""
        self._check_kind(kind)
        known = self._stored.get(kind, {}).get((namespace or "", name))
        if known is None:
            raise NotFoundError(404, "NotFound", f'{kind.plural} "{name}" not found')
        self._check_uid(kind, known.obj, (patch.get("metadata") or {}).get("uid"))
        self._check_version(kind, known.obj, (patch.get("metadata") or {}).get("resourceVersion"))
        body = (
            _only(patch, "status")
            if subresource
            else (_without(patch, "status") if kind in WITH_STATUS else patch)
        )
        fresh = _merge_patch(known.obj, body)
        owners = Ownership({m: set(p) for m, p in known.owners.fields.items()})
        owners.changed(Manager(manager, "Update", subresource), known.obj, fresh)
        return self._update(kind, fresh, owners, manager, "patch_status" if subresource else "patch", patch)

    def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        manager: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """DELETE. NotFoundError if it is gone, ConflictError if the uid is another's."""
        self._check_kind(kind)
        known = self._stored.get(kind, {}).get((namespace or "", name))
        if known is None:
            raise NotFoundError(404, "NotFound", f'{kind.plural} "{name}" not found')
        self._check_uid(kind, known.obj, uid)
        self._check_version(kind, known.obj, resource_version)
        before = known.obj
        fresh = copied(before)
        meta = fresh["metadata"]
        grace = self._grace(kind, before, grace_seconds)
        finalizers = list(meta.get("finalizers") or [])
        if propagation == "Foreground" and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
            meta["finalizers"] = finalizers
        body: Obj = {"propagation": propagation, "graceSeconds": grace_seconds}
        if grace == 0 and not finalizers:
            self._remove(kind, (namespace or "", name), manager, body)
            return
        if not is_deleting(before):
            meta["deletionTimestamp"] = format_time(self.clock() + grace)
            meta["deletionGracePeriodSeconds"] = grace
            if meta.get("generation"):
                meta["generation"] += 1
        elif grace < (meta.get("deletionGracePeriodSeconds") or 0):
            meta["deletionTimestamp"] = format_time(self.clock() + grace)
            meta["deletionGracePeriodSeconds"] = grace
        self._store_changed(kind, known, fresh, known.owners, manager, "delete", body)

    def remove_finalizer(self, kind: Kind, obj: Obj, finalizer: str, manager: str) -> None:
        """Take a finalizer away; the object goes if it was the last that held it."""
        meta = obj["metadata"]
        known = self._stored.get(kind, {}).get((meta.get("namespace") or "", meta["name"]))
        if known is None or known.obj["metadata"]["uid"] != meta["uid"]:
            return
        fresh = copied(known.obj)
        left = [f for f in fresh["metadata"].get("finalizers") or [] if f != finalizer]
        fresh["metadata"]["finalizers"] = left
        if not left:
            del fresh["metadata"]["finalizers"]
        self._update(kind, fresh, known.owners, manager, "finalize", {"finalizer": finalizer})

    def set_status(self, kind: Kind, obj: Obj, status: Obj, manager: str) -> None:
        """Replace fields of the status, as a controller of the cluster does; ignored if the object is gone."""
        meta = obj["metadata"]
        live = self.get(kind, meta.get("namespace"), meta["name"])
        if live is not None and live["metadata"]["uid"] == meta["uid"]:
            self.patch(kind, meta.get("namespace"), meta["name"], {"status": status}, manager, "status")

    def compact(self) -> None:
        """Forget the past: watches from before now get 410."""
        self.compacted = self.version

    # --- inside -----------------------------------------------------------------------------------

    def _check_kind(self, kind: Kind) -> None:
        if kind in self.absent:
            raise NotFoundError(404, "NotFound", "the server could not find the requested resource")

    @staticmethod
    def _check_version(kind: Kind, live: Obj, wanted: str | None) -> None:
        meta = live["metadata"]
        if wanted is not None and wanted != meta["resourceVersion"]:
            raise ConflictError(409, "Conflict", f'{kind.plural} "{meta["name"]}" has been modified')

    @staticmethod
    def _at(kind: Kind, obj: Obj) -> tuple[str, str]:
        meta = obj["metadata"]
        return ((meta.get("namespace") or "default") if kind.namespaced else "", meta["name"])

    @staticmethod
    def _check_uid(kind: Kind, obj: Obj, uid: str | None) -> None:
        if uid and uid != obj["metadata"]["uid"]:
            raise ConflictError(
                409,
                "Conflict",
                f"{kind.plural} {obj['metadata']['name']}: the precondition's uid is {uid}, "
                f"the object's {obj['metadata']['uid']}",
            )

    @staticmethod
    def _grace(kind: Kind, obj: Obj, asked: int | None) -> int:
        """Only pods go gracefully; one that has no node yet goes at once."""
        if kind is not POD or not obj["spec"].get("nodeName"):
            return 0
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        if asked is not None:
            return asked
        return int(obj["spec"].get("terminationGracePeriodSeconds", 30))

    def _validated(self, kind: Kind, obj: Obj) -> Obj:
        if kind != MODEL_DEPLOYMENT or not self.validates:
            return obj
        try:
            spec = ModelDeploymentSpec.model_validate(obj.get("spec") or {}).wire()
        except ValidationError as error:
            raise InvalidError(422, "Invalid", str(error)) from None
        return {**obj, "spec": spec}

    def _insert(self, kind: Kind, fresh: Obj, owners: Ownership, manager: str, verb: str, body: Obj) -> Obj:
        at = self._at(kind, fresh)
        fresh = self._validated(kind, fresh)
        self._uids += 1
        meta = fresh["metadata"]
        if kind.namespaced:
            meta["namespace"] = at[0]
        meta["uid"] = f"00000000-0000-4000-8000-{self._uids:012d}"
        meta["creationTimestamp"] = format_time(self.clock())
        if kind in WITH_GENERATION:
            meta["generation"] = 1
        stored = _Stored(fresh, owners)
        self._stored.setdefault(kind, {})[at] = stored
        self._tell("ADDED", kind, stored, None)
        self._record(manager, verb, kind, at, body, None, True)
        return stored.obj

    def _update(self, kind: Kind, fresh: Obj, owners: Ownership, manager: str, verb: str, body: Obj) -> Obj:
        at = self._at(kind, fresh)
        known = self._stored[kind][at]
        fresh["metadata"] = meta = dict(fresh["metadata"])
        for field in _SERVER_METADATA:
            if field in known.obj["metadata"]:
                meta[field] = known.obj["metadata"][field]
            else:
                meta.pop(field, None)
        for field in _EMPTY_IS_ABSENT:
            if not meta.get(field, True):
                del meta[field]
        if fresh.get("spec") != known.obj.get("spec"):
            fresh = self._validated(kind, fresh)
        self._check_immutable(kind, known.obj, fresh)
        return self._store_changed(kind, known, fresh, owners, manager, verb, body)

    def _store_changed(
        self, kind: Kind, known: _Stored, fresh: Obj, owners: Ownership, manager: str, verb: str, body: Obj
    ) -> Obj:
        at = self._at(kind, fresh)
        before = known.obj
        known.owners = owners
        if fresh == before:
            self._record(manager, verb, kind, at, body, before, False)
            return before
        if kind in WITH_GENERATION and _without(fresh, "metadata", "status") != _without(
            before, "metadata", "status"
        ):
            fresh["metadata"]["generation"] = before["metadata"]["generation"] + 1
        meta = fresh["metadata"]
        if is_deleting(fresh) and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            self._remove(kind, at, manager, body, verb)
            return fresh
        known.obj = fresh
        self._tell("MODIFIED", kind, known, before)
        self._record(manager, verb, kind, at, body, before, True)
        return known.obj

    def _remove(self, kind: Kind, at: tuple[str, str], manager: str, body: Obj, verb: str = "delete") -> None:
        stored = self._stored[kind].pop(at)
        before = stored.obj
        stored.obj = copied(before)
        self._tell("DELETED", kind, stored, before)
        self._record(manager, verb, kind, at, body, before, True)

    def _tell(
        self, type_: Literal["ADDED", "MODIFIED", "DELETED"], kind: Kind, stored: _Stored, before: Obj | None
    ) -> None:
        self.version += 1
        stored.obj["metadata"]["resourceVersion"] = str(self.version)
        event = Event(self.version, type_, kind, stored.obj, before)
        self.history.append(event)
        for listener in list(self.listeners):
            listener(event)

    def _record(
        self,
        manager: str,
        verb: str,
        kind: Kind,
        at: tuple[str, str],
        body: Obj,
        before: Obj | None,
        changed: bool,
    ) -> None:
        write = Write(self.clock.elapsed, manager, verb, kind, at[0], at[1], body, before, changed)
        self.writes.append(write)
        for listener in self.write_listeners:
            listener(write)

    @staticmethod
    def _check_immutable(kind: Kind, before: Obj, fresh: Obj) -> None:
        frozen: tuple[str, ...] = ("data",) if kind == CONTROLLER_REVISION else ()
        if kind == CONFIG_MAP and before.get("immutable"):
            frozen = ("data", "binaryData", "immutable")
        for field in frozen:
            if before.get(field) != fresh.get(field):
                raise InvalidError(422, "Invalid", f"{field}: Forbidden: field is immutable")


def _only(obj: Obj, field: str) -> Obj:
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k in ("name", "namespace")}
    return {"metadata": meta, field: obj.get(field) or {}}


def _without(obj: Obj, *fields: str) -> Obj:
    return {k: v for k, v in obj.items() if k not in fields}


def _merge_patch(live: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copied(patch)
    out = dict(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = _merge_patch(out.get(name), value)
    return out


__all__ = ["FOREGROUND", "ApiServer", "Event", "GoneError", "Propagation", "Write"]
