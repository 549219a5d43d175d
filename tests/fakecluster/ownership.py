"""Server-side apply: which manager owns which field, and what an apply does to an object.

Simplified: list types are known by field name (`LIST_KEYS`), every other list is atomic; conflicts are always forced.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fakecluster.objects import copied
from moe_operator.controller.kube import Obj

Path = tuple[Any, ...]
"""Field names, and for items of keyed lists tuples of their keys' values."""

#: Keys of the lists whose items have identities of their own.
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("port", "protocol"),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
}
_KEY_DEFAULTS = {"protocol": "TCP"}

#: What an apply may name without owning it.
_IDENTITY = {
    ("apiVersion",),
    ("kind",),
    *(
        ("metadata", name)
        for name in (
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
        )
    ),
}


@dataclass(frozen=True)
class Manager:
    """One entry of managedFields."""

    name: str
    operation: str
    """Apply or Update: what a manager created by POST is not removed when its applies leave it out."""
    subresource: str = ""


@dataclass
class Ownership:
    """Who owns which fields of one object."""

    fields: dict[Manager, set[Path]] = field(default_factory=dict)

    def others_own(self, path: Path, but: Manager) -> bool:
        return any(path in owned for manager, owned in self.fields.items() if manager != but)

    def changed(self, manager: Manager, before: Obj, after: Obj) -> None:
        """Take note of a create, patch or update: what it changed is its own now."""
        old = dict(leaves(before, other=after))
        new = dict(leaves(after, other=before))
        touched = {p for p, value in new.items() if p not in old or old[p] != value}
        self._take(touched, manager, gone={p for p in old if p not in new})
        self.fields.setdefault(manager, set()).update(touched)

    def _take(self, paths: set[Path], manager: Manager, gone: set[Path]) -> None:
        for other, owned in self.fields.items():
            owned -= gone
            if other != manager:
                owned -= paths


def item_key(name: str, item: Any) -> Path | None:
    """The identity of an item in the list `name`; None where the list is atomic."""
    keys = LIST_KEYS.get(name)
    if keys is None or not isinstance(item, dict):
        return None
    if name == "ports" and "containerPort" in item:
        keys = ("containerPort", "protocol")
    return tuple(item.get(k, _KEY_DEFAULTS.get(k)) for k in keys)


def _keyed(path: Path, value: list[Any]) -> bool:
    return (
        bool(path)
        and isinstance(path[-1], str)
        and path[-1] in LIST_KEYS
        and all(isinstance(i, dict) for i in value)
    )


_NOTHING = object()


def leaves(value: Any, path: Path = (), other: Any = _NOTHING) -> Iterator[tuple[Path, Any]]:
    """Every field that can be owned with its value; an item of a keyed list is itself one, with value True.

    Branches that are equal in `other` are left out.
    """
    if path in _IDENTITY or (other is not _NOTHING and value == other):
        return
    if isinstance(value, dict) and value:
        others = other if isinstance(other, dict) else {}
        for name, inner in value.items():
            yield from leaves(inner, (*path, name), others.get(name, _NOTHING))
    elif isinstance(value, list) and value and _keyed(path, value):
        for item in value:
            at = (*path, item_key(path[-1], item))
            yield at, True
            for name, inner in item.items():
                yield from leaves(inner, (*at, name))
    elif path:
        yield path, value


def merge(live: Any, wanted: Any, path: Path = ()) -> Any:
    """`live` with everything that `wanted` says."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        out = dict(live)
        for name, inner in wanted.items():
            out[name] = merge(live.get(name), inner, (*path, name))
        return out
    if isinstance(wanted, list) and isinstance(live, list) and _keyed(path, wanted) and _keyed(path, live):
        out_list = list(live)
        places = {item_key(path[-1], item): i for i, item in enumerate(out_list)}
        for item in wanted:
            key = item_key(path[-1], item)
            if key in places:
                out_list[places[key]] = merge(out_list[places[key]], item, (*path, key))
            else:
                out_list.append(copied(item))
        return out_list
    return copied(wanted)


def remove(obj: Obj, path: Path) -> None:
    """Take one field or list item out, and the maps and lists that are empty without it."""
    _remove(obj, path, "")


def _remove(value: Any, path: Path, name: str) -> bool:
    """True if `value` is empty afterwards and should go too."""
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and isinstance(step, str) and step in value:
        if not rest or _remove(value[step], rest, step):
            del value[step]
        return not value
    if isinstance(value, list) and isinstance(step, tuple):
        for index, item in enumerate(value):
            if item_key(name, item) == step:
                if not rest:
                    del value[index]
                else:
                    _remove(item, rest, "")
                break
        return not value
    return False


def apply(live: Obj, wanted: Obj, ownership: Ownership, manager: Manager) -> tuple[Obj, Ownership]:
    """The object and its owners after a forced apply of `wanted`. Changes neither argument."""
    owners = Ownership({m: set(paths) for m, paths in ownership.fields.items()})
    intent = dict(leaves(wanted))
    result: Obj = copied(merge(live, wanted))
    for path in sorted(owners.fields.get(manager, set()) - set(intent), key=len):
        if not owners.others_own(path, manager):
            remove(result, path)
    before = dict(leaves(live))
    for other, owned in owners.fields.items():
        if other != manager:
            owned -= {p for p in owned if p in intent and before.get(p) != intent[p]}
    owners.fields[manager] = set(intent)
    return result, owners
