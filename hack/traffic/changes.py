"""When groups were made, served, lost their traffic and went: a fold over their pods' events."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from moe_operator.api import names


@dataclass
class PodLife:
    """Times of one pod, seconds of whatever clock the events were seen by; None: not yet."""

    name: str
    group: str
    born: float
    on: float | None = None
    """When it first took traffic."""
    off: float | None = None
    """When it last lost the traffic label."""
    deleting: float | None = None
    gone: float | None = None


@dataclass(frozen=True)
class GroupLife:
    """Times of one group."""

    name: str
    pods: tuple[str, ...]
    born: float
    serving: float | None
    """When all of its pods had traffic."""
    off: float | None
    """When the last of them lost it."""
    deleting: float | None
    """When the first pod was told to stop."""
    gone: float | None

    @property
    def drain(self) -> float | None:
        """Seconds from its traffic's end to the first pod's."""
        return None if self.off is None or self.deleting is None else self.deleting - self.off


@dataclass
class Lives:
    """The pods of one deployment, by uid, as their events tell."""

    pods: dict[str, PodLife] = field(default_factory=dict)

    def see(self, at: float, event: dict[str, Any]) -> None:
        """Take up one event of a watch: {type, object}."""
        pod = event["object"]
        meta = pod.get("metadata") or {}
        labels = meta.get("labels") or {}
        group = labels.get(names.LABEL_GROUP)
        if group is None:
            return
        life = self.pods.setdefault(meta["uid"], PodLife(meta["name"], group, at))
        traffic = labels.get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON
        if traffic and (life.on is None or life.off is not None):
            life.on, life.off = life.on or at, None
        if not traffic and life.on is not None and life.off is None:
            life.off = at
        if meta.get("deletionTimestamp") and life.deleting is None:
            life.deleting = at
        if event["type"] == "DELETED":
            life.gone = at
            life.off = life.off or (at if life.on is not None else None)

    def groups(self) -> list[GroupLife]:
        """Groups by birth. One that came back under the same name has the times of both."""
        by_name: dict[str, list[PodLife]] = {}
        for life in self.pods.values():
            by_name.setdefault(life.group, []).append(life)
        found = [
            GroupLife(
                name=name,
                pods=tuple(sorted({p.name for p in pods})),
                born=min(p.born for p in pods),
                serving=_all(max, [p.on for p in pods]),
                off=_all(max, [p.off for p in pods]),
                deleting=_some(min, [p.deleting for p in pods]),
                gone=_all(max, [p.gone for p in pods]),
            )
            for name, pods in by_name.items()
        ]
        return sorted(found, key=lambda g: g.born)


def _all(fold: Callable[[Iterable[float]], float], times: list[float | None]) -> float | None:
    known = [t for t in times if t is not None]
    return fold(known) if known and len(known) == len(times) else None


def _some(fold: Callable[[Iterable[float]], float], times: list[float | None]) -> float | None:
    known = [t for t in times if t is not None]
    return fold(known) if known else None
