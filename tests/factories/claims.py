"""Claims on scarce GPUs, and a cluster that follows grants."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from moe_operator.autoscaler.allocation import allocate
from moe_operator.autoscaler.claims import Allocation, Claim, Held, Key, Phase, Pool, Shape

NODE = Shape(1, 8)
"""A group of one node of eight GPUs."""


def key(name: str) -> Key:
    return ("team", name)


def pool(*nodes: str, name: str = "B200", grows: bool = False, **domains: str) -> Pool:
    """Nodes without domains, and nodes in the domains given."""
    return Pool(name, {**dict.fromkeys(nodes, ""), **domains}, grows)


def serving(name: str, *nodes: str, gpus: int = 8) -> Held:
    return Held(name, Phase.SERVING, nodes, gpus)


def starting(name: str, *nodes: str, gpus: int = 8, hint: str | None = None, pods: int = 0) -> Held:
    """`pods`: of a group of which not all have nodes."""
    return Held(name, Phase.STARTING, nodes, gpus, hint=hint, pods=pods)


def draining(name: str, *nodes: str, gpus: int = 8) -> Held:
    return Held(name, Phase.DRAINING, nodes, gpus)


def claim(name: str, of: Pool, *groups: Held, wanted: int | None = None, **changes: object) -> Claim:
    """By default it wants what it has, has waited for long where it wants more, and has a floor of one group."""
    live = sum(group.phase in (Phase.SERVING, Phase.STARTING) for group in groups)
    made = Claim(
        key=key(name),
        pool=of,
        shape=NODE,
        floor=1,
        wanted=live if wanted is None else wanted,
        granted=live,
        groups=groups,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Cluster:
    """Claims on nodes; follows grants in the smallest steps, and checks each: groups are made where there is room."""

    claims: dict[Key, Claim]
    size: Mapping[str, int]
    """GPUs by node."""
    now: float = 10_000.0
    made: int = 0
    drained: list[tuple[Key, str]] = field(default_factory=list)

    @classmethod
    def of(cls, claims: Iterable[Claim], size: Mapping[str, int]) -> "Cluster":
        return cls({one.key: one for one in claims}, size)

    def free(self) -> dict[str, int]:
        left = dict(self.size)
        for one in self.claims.values():
            for group in one.groups:
                for node in group.nodes:
                    left[node] -= group.gpus
        return left

    def allocation(self) -> Allocation:
        return allocate(self.claims.values(), self.free(), self.now)

    def step(self) -> bool:
        """One pass, and what the operator does of it: drain, make, and end what drained before. Whether anything
        changed."""
        found, changed = self.allocation(), False
        for at, share in found.shares.items():
            one = self.claims[at]
            groups = [g for g in one.groups if g.phase is not Phase.DRAINING]
            changed |= len(groups) < len(one.groups)
            for index, group in enumerate(groups):
                if group.name in share.given_up:
                    changed = True
                    groups[index] = replace(group, phase=Phase.DRAINING)
                    if group.nodes:
                        self.drained.append((at, group.name))
            groups = [g for g in groups if g.nodes or g.phase is not Phase.DRAINING]
            changed |= _scale_in(groups, share.granted)
            since = self.now if share.waiting is None else one.since
            self.claims[at] = replace(one, groups=tuple(groups), granted=share.granted, since=since)
        done: set[Key] = set()
        for at in sorted(found.shares):
            coming = [nodes for key, nodes in found.moving_in.items() if key != at and key not in done]
            others = [*coming, *(nodes for key, nodes in found.reserved.items() if key != at)]
            done.add(at)
            kept = sum((Counter(nodes) for nodes in others), Counter[str]())
            changed |= self._make(self.claims[at], found.shares[at].granted, kept)
        self._bind()
        return changed

    def _make(self, one: Claim, granted: int, reserved: Mapping[str, int]) -> bool:
        live = sum(g.phase is not Phase.DRAINING for g in one.groups)
        for _ in range(granted - live):
            place = self._place(one, reserved)
            self.made += 1
            group = Held(f"{one.key[1]}-{self.made}", Phase.STARTING, tuple(place), one.shape.gpus)
            one = replace(one, groups=(*one.groups, group))
            self.claims[one.key] = one
        return granted > live

    def _place(self, one: Claim, reserved: Mapping[str, int]) -> list[str]:
        free = self.free()
        domains: dict[str, list[str]] = {}
        for node, domain in sorted(one.pool.nodes.items()):
            if free.get(node, 0) - reserved.get(node, 0) >= one.shape.gpus:
                domains.setdefault(domain if one.shape.pods > 1 else "", []).append(node)
        fits = [nodes for nodes in domains.values() if len(nodes) >= one.shape.pods]
        return min(fits, key=len)[: one.shape.pods] if fits else []

    def _bind(self) -> None:
        """Groups without nodes get some where there is room: they serve from then on."""
        for at in sorted(self.claims):
            one = self.claims[at]
            for index, group in enumerate(one.groups):
                if group.phase is Phase.STARTING:
                    nodes = group.nodes or tuple(self._place(one, {}))
                    bound = replace(group, nodes=nodes, phase=Phase.SERVING if nodes else group.phase)
                    groups = list(self.claims[at].groups)
                    groups[index] = bound
                    self.claims[at] = replace(self.claims[at], groups=tuple(groups))

    def settle(self, steps: int = 200) -> None:
        """Follow the grants until nothing changes."""
        for _ in range(steps):
            due = self.allocation().recheck_after
            if not self.step() and due is None:
                return
            assert min(self.free().values(), default=0) >= 0, "more GPUs are used than there are"
            self.now += 5.0
        raise AssertionError(f"no end after {steps} passes")


def _scale_in(groups: list[Held], granted: int) -> bool:
    """Drain what is above the grant; whether anything was."""
    live = [index for index, group in enumerate(groups) if group.phase is not Phase.DRAINING]
    for index in live[granted:]:
        groups[index] = replace(groups[index], phase=Phase.DRAINING)
    return len(live) > granted
