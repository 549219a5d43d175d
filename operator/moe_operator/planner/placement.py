"""Where a new group goes: the NVLink clique, rack or zone that takes all of it.

The scheduler places one pod after the other and cannot look ahead: it would begin a group in a rack that has room for
half of it. So the operator, which sees all nodes and knows what its other groups are about to take, names the domain
before there is a pod. First the groups of a deployment are spread over zones; then the fullest domain that takes the
whole group is chosen, so that empty ones stay empty for groups that need much of one. A group of one pod is bound to no
domain; it gets a wish for the node with the least room to spare, so that whole nodes stay free. Before either of these
comes that no other namespace's ComputeDomain is active in the NVLink partition, as two of them disturb each other.

A wrong answer costs time, never GPUs: other tenants may be quicker, and a group that finds no room moves on (see
`controller/placing.py`). Where nothing takes the group the answer is no domain at all: pods without a place are what
makes node autoscalers add nodes.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moe_operator.planner.compute_domains import Neighbours
from moe_operator.planner.facts import Inventory, NodeFacts
from moe_operator.planner.node_selection import admits, selects

#: What fails as one, from wide to narrow: groups of a deployment are spread over these, as far as they are not within a
#: domain.
_FAILURE_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")

Domain = tuple[str, str]
"""Label key and value that the nodes of a domain share."""


@dataclass(frozen=True)
class Need:
    """What one group asks for."""

    pods: int
    """Each on a node of its own."""
    gpus: int
    """Of each pod."""
    resource: str
    """Under which nodes count them."""
    devices: Mapping[str, int]
    """All extended resources of a pod, `resource` among them."""
    domain: str | None
    """Label key of which all nodes of the group should have one value; None: it does not matter where they stand."""


@dataclass(frozen=True)
class Holding:
    """A group of ours, as far as it has or is promised room."""

    own: bool
    """Of the deployment for which a place is looked for."""
    nodes: tuple[str, ...] = ()
    """Of the pods that have one; what they hold is in the inventory."""
    waiting: int = 0
    """Pods without a node, those that do not exist yet included."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """Of each pod."""
    domain: Domain | None = None
    """Where the waiting ones will go."""
    node: str | None = None
    """The same for a single pod."""


@dataclass(frozen=True)
class Placement:
    """The place that a group is given; by default none."""

    domain: Domain | None = None
    """Its pods run nowhere else."""
    node: str | None = None
    """Its pod should run there."""
    shunned: tuple[str, ...] = ()
    """Its pods run on none of these nodes."""
    disliked: tuple[str, ...] = ()
    """Its pods should run on none of these nodes: whether there is room elsewhere is not known."""


@dataclass(frozen=True)
class DomainRoom:
    """One domain."""

    value: str
    nodes: int
    """Nodes that groups like this one may run on at all."""
    closed: int
    """Of them cordoned, not ready or tainted."""
    fits: int
    """Pods of the group that find a node, each its own."""
    free: int
    """GPUs of open nodes that nobody holds."""
    area: tuple[str, ...]
    """Region and zone that most of its nodes are in, as far as they are not narrower than the domain."""
    neighbours: tuple[str, ...] = ()
    """ComputeDomains in its NVLink partitions that the group's pods would disturb, and be disturbed by."""


@dataclass(frozen=True)
class _Stand:
    """A node that groups like this one may run on."""

    node: NodeFacts
    open: bool
    free: Mapping[str, int]
    fits: int
    """Pods that it takes now."""


class Fleet:
    """The nodes for one kind of group, with the room that is left on them."""

    def __init__(
        self,
        need: Need,
        pod: Mapping[str, Any],
        inventory: Inventory,
        holdings: Iterable[Holding],
        neighbours: Neighbours | None = None,
        shunned: Iterable[str] = (),
    ) -> None:
        """`pod`: the spec of the group's pods, as rendered. `neighbours`: other ComputeDomains by the partition that
        they are active in; None for pods that are in none themselves. `shunned`: nodes that count as closed."""
        self._neighbours = neighbours or {}
        self._need = need
        self._shunned = frozenset(shunned)
        self._holdings = tuple(holdings)
        self._by_name = {node.name: node for node in inventory.nodes or ()}
        self._stands = [
            self._stand(node, pod, inventory)
            for node in self._by_name.values()
            if not node.divided and need.resource in node.gpus and selects(pod, node)
        ]
        self._known = inventory.nodes is not None and inventory.held is not None

    def place(self, avoid: Sequence[str] = ()) -> Placement:
        """The best place for one more group. `avoid`: values of the domain in which groups were not taken lately, the
        newest last; they come after all others."""
        if not self._known:
            return Placement()
        if self._need.pods == 1:
            return self._node()
        roomy = [room for room in self.domains() if room.fits >= self._need.pods]
        if self._need.domain is None or not roomy:
            return Placement()
        late = {value: index + 1 for index, value in enumerate(avoid)}
        areas = self._own_areas()
        best = min(
            roomy,
            key=lambda r: (
                late.get(r.value, 0),
                len(r.neighbours),
                _crowd(r.area, areas),
                r.fits,
                r.free,
                r.value,
            ),
        )
        return Placement(domain=(self._need.domain, best.value))

    def domains(self) -> list[DomainRoom]:
        """Every domain that has nodes for such groups; empty where it does not matter or no node says where it is."""
        key = self._need.domain
        if key is None:
            return []
        members: dict[str, list[_Stand]] = {}
        for stand in self._stands:
            if value := stand.node.labels.get(key):
                members.setdefault(value, []).append(stand)
        return [self._room(value, stands) for value, stands in sorted(members.items())]

    def groups(self) -> int | None:
        """Whole groups that find room within domains now; None where that is not known."""
        if not self._known or self._need.domain is None:
            return None
        return sum(room.fits // self._need.pods for room in self.domains())

    def across_domains(self) -> bool:
        """Whether a group finds room if its nodes need not be of one domain."""
        return self._known and sum(stand.fits for stand in self._stands) >= self._need.pods

    def shortage(self) -> str | None:
        """What keeps a group from finding a domain, in numbers; None where one has room or it cannot be told."""
        key, need = self._need.domain, self._need
        if key is None or need.pods == 1 or not self._known:
            return None
        what = _word(key)
        wish = f"a group needs {need.gpus} free GPUs on each of {need.pods} nodes of one {key}"
        rooms = self.domains()
        if not rooms:
            return f"{wish}, but of the {len(self._stands)} nodes that it may run on none carries that label"
        best = max(rooms, key=lambda r: (r.fits, -r.closed, r.value))
        if best.fits >= need.pods:
            return None
        has = "no such node" if best.fits == 0 else f"{best.fits} such node{'s' if best.fits > 1 else ''}"
        text = f"{wish}; the {what} with most room, {best.value}, has {has} among its {best.nodes}"
        if best.closed:
            text += f", of which {best.closed} {'is' if best.closed == 1 else 'are'} cordoned, tainted or not ready"
        if len(rooms) > 1:
            text += f" ({len(rooms)} of them were looked at)"
        return f"{text}: free or add nodes there"

    # --- room -------------------------------------------------------------------------------------

    def _stand(self, node: NodeFacts, pod: Mapping[str, Any], inventory: Inventory) -> _Stand:
        held = (inventory.held or {}).get(node.name, {})
        offered = {**node.allocatable, **node.rdma}
        free = {name: offered.get(name, 0) - held.get(name, 0) for name in self._need.devices}
        for holding in self._holdings:
            if holding.node == node.name:
                for name in free:
                    free[name] -= holding.waiting * holding.devices.get(name, 0)
        open_ = node.name not in self._shunned and admits(node, pod)
        fits = min((max(0, free[name]) // count for name, count in self._need.devices.items()), default=0)
        if self._need.pods > 1:
            fits = min(fits, 1)
        return _Stand(node, open_, free, fits if open_ else 0)

    def _room(self, value: str, stands: Sequence[_Stand]) -> DomainRoom:
        fits = sum(stand.fits for stand in stands)
        for holding in self._holdings:
            # Each pod that is still to come may take the room of one of ours, wherever in its own domain it goes.
            if holding.waiting and holding.domain is not None and holding.node is None:
                key, theirs = holding.domain
                shared = sum(stand.fits for stand in stands if stand.node.labels.get(key) == theirs)
                fits -= min(holding.waiting, shared)
        return DomainRoom(
            value=value,
            nodes=len(stands),
            closed=sum(not stand.open for stand in stands),
            fits=max(0, fits),
            free=sum(max(0, s.free[self._need.resource]) for s in stands if s.open),
            area=_most_common(self._area(stand.node) for stand in stands),
            neighbours=tuple(sorted({name for stand in stands for name in self._beside(stand.node)})),
        )

    def _node(self) -> Placement:
        """For a group of one pod: of the nodes that take it, the one on which least stays free."""
        roomy = [stand for stand in self._stands if stand.fits]
        if not roomy:
            return Placement()
        areas = self._own_areas()
        whole = Counter(stand.node.clique for stand in roomy)

        def order(stand: _Stand) -> tuple[bool, int, tuple[int, ...], int, int, str]:
            crowd, free = _crowd(self._area(stand.node), areas), stand.free[self._need.resource]
            beside = len(self._beside(stand.node))
            return (self._promised(stand), beside, crowd, free, whole[stand.node.clique], stand.node.name)

        return Placement(node=min(roomy, key=order).node.name)

    def _beside(self, node: NodeFacts) -> Collection[str]:
        """Other ComputeDomains in the node's NVLink partition."""
        return self._neighbours.get(node.clique or "", ())

    def _promised(self, stand: _Stand) -> bool:
        """Whether a group that is being placed counts on this node."""
        return any(
            holding.waiting
            and holding.domain is not None
            and stand.node.labels.get(holding.domain[0]) == holding.domain[1]
            and all(stand.free.get(name, 0) >= count for name, count in holding.devices.items())
            for holding in self._holdings
        )

    # --- spreading --------------------------------------------------------------------------------

    def _area(self, node: NodeFacts) -> tuple[str, ...]:
        key = self._need.domain if self._need.pods > 1 else None
        levels = _FAILURE_LABELS.index(key) + 1 if key in _FAILURE_LABELS else len(_FAILURE_LABELS)
        return tuple(node.labels.get(label, "") for label in _FAILURE_LABELS[:levels])

    def _own_areas(self) -> list[tuple[str, ...]]:
        """Where the deployment's groups are, or will be."""
        found = []
        for holding in self._holdings:
            if not holding.own:
                continue
            named = [
                self._by_name[name] for name in (*holding.nodes, holding.node or "") if name in self._by_name
            ]
            if not named and holding.domain is not None:
                key, value = holding.domain
                named = [node for node in self._by_name.values() if node.labels.get(key) == value]
            if named:
                found.append(_most_common(self._area(node) for node in named))
        return found


def _crowd(area: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    """How many of the others are in the same region, in the same zone ..."""
    return tuple(sum(other[:level] == area[:level] for other in others) for level in range(1, len(area) + 1))


def _most_common(areas: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    counts = Counter(areas)
    return min(counts, key=lambda area: (-counts[area], area))


def _word(key: str) -> str:
    """What people call a domain: `nvidia.com/gpu.clique` is a clique."""
    return key.rpartition("/")[2].rpartition(".")[2]
