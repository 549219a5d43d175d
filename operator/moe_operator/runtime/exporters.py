"""Where exporters' pods are: those on the nodes of our own pods."""

import logging
from collections.abc import Callable

from moe_operator.catalog.telemetry_site import AmdExporter, DcgmExporter
from moe_operator.controller.kube import POD, KubeClient, KubeError, NotFoundError
from moe_operator.controller.store import Store, owner_key

log = logging.getLogger(__name__)

#: Seconds for which a list holds, and until a list that failed is tried again. Exporters stay where they are.
_HOLDS = 300.0
#: What each is called, and what is lost without it.
_LOST = {
    DcgmExporter: (
        "DCGM exporter",
        "faults of GPUs are not seen before an engine fails, and their memory is estimated",
    ),
    AmdExporter: ("AMD's device-metrics-exporter", "memory of GPUs is estimated"),
}


class Exporters:
    """Addresses by node. Empty where there are none, or where pods of that namespace may not be listed."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        site: DcgmExporter | AmdExporter,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._site = site
        self._clock = clock
        self._known: dict[str, str] = {}
        self._asked_at: float | None = None
        self._asked_for: frozenset[str] = frozenset()
        self._said = False

    async def __call__(self) -> dict[str, str]:
        nodes = self._nodes()
        now = self._clock()
        old = self._asked_at is None or now - self._asked_at > _HOLDS
        if nodes and (old or not nodes <= self._asked_for):
            self._asked_at, self._asked_for = now, nodes
            await self._ask()
        return {node: address for node, address in self._known.items() if node in nodes}

    def _nodes(self) -> frozenset[str]:
        pods = (pod for pod in self._store.all(POD) if owner_key(pod) is not None)
        found = ((pod.get("spec") or {}).get("nodeName") for pod in pods)
        return frozenset(node for node in found if node)

    async def _ask(self) -> None:
        found: dict[str, tuple[str, str]] = {}
        for selector in self._site.selectors:
            try:
                pods = await self._client.list(POD, self._site.namespace, selector)
            except KubeError as error:
                if not self._said and not isinstance(error, NotFoundError):
                    where = f"namespace {self._site.namespace}" if self._site.namespace else "all namespaces"
                    what, lost = _LOST[type(self._site)]
                    log.warning(
                        "pods of %s cannot be listed in %s, so %s: %s", what, where, lost, error.message
                    )
                    self._said = True
                return
            for pod in pods:
                node = (pod.get("spec") or {}).get("nodeName")
                address = (pod.get("status") or {}).get("podIP")
                running = (pod.get("status") or {}).get("phase") == "Running"
                if not (node and address and running):
                    continue
                # Two on one node, in whatever namespaces: the one that was there first.
                age = ((pod.get("metadata") or {}).get("creationTimestamp") or "", address)
                found[node] = min(found.get(node, age), age)
        self._known = {node: address for node, (_, address) in found.items()}
