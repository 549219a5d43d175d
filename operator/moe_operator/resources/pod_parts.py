"""What one concern (fabric, weights, agent ...) adds to the pods of a group, and how several are put together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

_V = TypeVar("_V")

Object = dict[str, Any]


@dataclass(frozen=True)
class PodParts:
    """Additions to a pod and its engine container. Later parts win where two name the same thing."""

    env: tuple[Object, ...] = ()
    """Of the engine. A variable can refer only to those before it."""
    volumes: tuple[Object, ...] = ()
    mounts: tuple[Object, ...] = ()
    """Of the engine."""
    init_containers: tuple[Object, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    """Extended resources of the engine: requests and limits alike."""
    capabilities: tuple[str, ...] = ()
    """Linux capabilities of the engine, beside none at all."""
    privileged: bool = False
    """Whether the engine is a privileged container."""
    claims: tuple[Object, ...] = ()
    """`resourceClaims` of the pod; the engine uses every one of them."""
    tolerations: tuple[Object, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    pod_spec: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the pod's spec."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why something is there, for `kubectl moe render --explain`, by its name: a variable, a mount path, an extended
    resource, a capability, a claim, an init container, an annotation. Not rendered."""


def together(parts: Iterable[PodParts]) -> PodParts:
    """All parts as one. What has the name of something before it takes its place, at the end: a variable may then
    refer to all that came before it."""
    listed = tuple(parts)
    return PodParts(
        env=_named("name", (one.env for one in listed)),
        volumes=_named("name", (one.volumes for one in listed)),
        mounts=_named("mountPath", (one.mounts for one in listed)),
        init_containers=_named("name", (one.init_containers for one in listed)),
        limits=_joined(one.limits for one in listed),
        capabilities=tuple(dict.fromkeys(name for one in listed for name in one.capabilities)),
        privileged=any(one.privileged for one in listed),
        claims=_named("name", (one.claims for one in listed)),
        tolerations=_distinct(t for one in listed for t in one.tolerations),
        labels=_joined(one.labels for one in listed),
        annotations=_joined(one.annotations for one in listed),
        pod_spec=_joined(one.pod_spec for one in listed),
        reasons=_joined(one.reasons for one in listed),
    )


def _named(key: str, groups: Iterable[Iterable[Object]]) -> tuple[Object, ...]:
    found: dict[str, Object] = {}
    for group in groups:
        for item in group:
            name = str(item.get(key, ""))
            found.pop(name, None)
            found[name] = item
    return tuple(found.values())


def _joined(maps: Iterable[Mapping[str, _V]]) -> dict[str, _V]:
    return {key: value for one in maps for key, value in one.items()}


def _distinct(items: Iterable[Object]) -> tuple[Object, ...]:
    found: list[Object] = []
    for item in items:
        if item not in found:
            found.append(item)
    return tuple(found)
