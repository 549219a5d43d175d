"""Plain Kubernetes objects: copying, reading and small changes."""

from collections.abc import Mapping
from typing import Any

from moe_operator.api.times import format_time
from moe_operator.controller.kube import Obj


def copied(value: Any) -> Any:
    """A deep copy of JSON-like data; several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copied(v) for v in value]
    return value


def labels_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """Labels, empty if there are none."""
    return obj["metadata"].get("labels") or {}


def is_deleting(obj: Mapping[str, Any]) -> bool:
    """Whether the object is on its way out."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """An equality label selector: `a=b,c!=d,e`. Other forms raise ValueError."""
    for term in filter(None, (t.strip() for t in selector.split(","))):
        if " " in term or "(" in term:
            raise ValueError(f"label selector {term!r} is not supported here")
        if "!=" in term:
            key, value = term.split("!=", 1)
            if labels.get(key) == value:
                return False
        elif "=" in term:
            key, value = term.replace("==", "=").split("=", 1)
            if labels.get(key) != value:
                return False
        elif term not in labels:
            return False
    return True


def fields_match(selector: str, obj: Mapping[str, Any]) -> bool:
    """A field selector: `a.b=c,d=e`."""
    for term in filter(None, selector.split(",")):
        path, _, wanted = term.partition("=")
        value: Any = obj
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value != wanted:
            return False
    return True


def condition(obj: Mapping[str, Any], type_: str) -> dict[str, Any] | None:
    """A condition of the status, or None."""
    for one in (obj.get("status") or {}).get("conditions") or []:
        if one["type"] == type_:
            return one  # type: ignore[no-any-return]
    return None


def is_true(obj: Mapping[str, Any], type_: str) -> bool:
    """Whether a condition is there and True."""
    found = condition(obj, type_)
    return found is not None and found["status"] == "True"


def with_condition(
    obj: Obj, type_: str, status: str, now: float, *, reason: str = "", message: str = ""
) -> list[dict[str, Any]]:
    """The list of conditions with one of them set; its transition time moves only when its status does."""
    rest = [c for c in (obj.get("status") or {}).get("conditions") or [] if c["type"] != type_]
    known = condition(obj, type_)
    since = known["lastTransitionTime"] if known and known["status"] == status else format_time(now)
    fresh = {"type": type_, "status": status, "lastTransitionTime": since}
    if reason:
        fresh["reason"] = reason
    if message:
        fresh["message"] = message
    return sorted([*rest, fresh], key=lambda c: str(c["type"]))


def controller_reference(owner: Obj) -> dict[str, Any]:
    """The reference that a controller puts on what it makes."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controlled_by(obj: Mapping[str, Any], uid: str) -> bool:
    """Whether the object's controller is the one with this uid."""
    return any(r.get("controller") and r["uid"] == uid for r in obj["metadata"].get("ownerReferences") or [])
