"""Free GPUs of the nodes of a pool, kept so that the tightest place for a group is found at once."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from moe_operator.autoscaler.claims import Pool, Shape


class FreeRoom:
    """Of one pool. `free` is the caller's, who tells of each change."""

    def __init__(self, pool: Pool, free: Mapping[str, int]) -> None:
        self._free = free
        self._pool = pool
        self._most = max((free.get(node, 0) for node in pool.nodes), default=0)
        self._all = self._levels(pool.nodes)
        self._domains: dict[str, dict[int, list[str]]] | None = None
        self._counts: dict[int, dict[str, int]] = {}
        """GPUs -> nodes of each domain that have as many free."""

    def changed(self, node: str, before: int) -> None:
        """A node's free GPUs are others than before."""
        after = self._free[node]
        self._most = max(self._most, after)
        heapq.heappush(self._all.setdefault(after, []), node)
        domain = self._pool.nodes[node]
        if self._domains is not None:
            heapq.heappush(self._domains[domain].setdefault(after, []), node)
        for gpus, counts in self._counts.items():
            counts[domain] += (after >= gpus) - (before >= gpus)

    def place(self, shape: Shape) -> list[str] | None:
        """The tightest place for a group: a node, or those of one domain."""
        if shape.pods == 1:
            return list(islice(self._fitting(self._all, shape.gpus), 1)) or None
        if self._domains is None:
            members: dict[str, list[str]] = {}
            for node, domain in self._pool.nodes.items():
                members.setdefault(domain, []).append(node)
            self._domains = {domain: self._levels(nodes) for domain, nodes in members.items()}
        counts = self._fits(shape.gpus)
        best = min(((n, domain) for domain, n in counts.items() if n >= shape.pods), default=None)
        if best is None:
            return None
        return list(islice(self._fitting(self._domains[best[1]], shape.gpus), shape.pods))

    def takes_a_pod(self, shape: Shape) -> bool:
        """Whether any node has room for one pod of a group."""
        return any(self._fits(shape.gpus).values())

    def _fits(self, gpus: int) -> Mapping[str, int]:
        """Nodes of each domain that have so many GPUs free."""
        if gpus not in self._counts:
            counts = self._counts[gpus] = dict.fromkeys(self._pool.nodes.values(), 0)
            for node, domain in self._pool.nodes.items():
                counts[domain] += self._free.get(node, 0) >= gpus
        return self._counts[gpus]

    def _levels(self, nodes: Iterable[str]) -> dict[int, list[str]]:
        levels: dict[int, list[str]] = {}
        for node in sorted(nodes):
            levels.setdefault(self._free.get(node, 0), []).append(node)
        return levels

    def _fitting(self, levels: Mapping[int, list[str]], gpus: int) -> Iterator[str]:
        """Nodes with so many free GPUs, the tightest first. Each stands at the level that it has now."""
        for level in range(gpus, self._most + 1):
            heap = levels.get(level)
            seen: list[str] = []
            while heap:
                node = heapq.heappop(heap)
                if self._free.get(node, 0) != level or node in seen:
                    continue  # of an earlier moment
                seen.append(node)
                heapq.heappush(heap, node)
                yield node
                # Those that were given out stand first again: on to the next.
                heapq.heappop(heap)
            if heap is not None:
                for node in seen:
                    heapq.heappush(heap, node)
