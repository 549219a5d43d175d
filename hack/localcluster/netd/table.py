"""Services and their endpoints, as DNS and the forwarder need them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]

_SERVICE_LABEL = "kubernetes.io/service-name"
_HEADLESS = "None"


@dataclass(frozen=True)
class Port:
    """One port of a Service (``number`` is what clients dial) or of an EndpointSlice (what the pod
    listens on).
    """

    name: str
    protocol: str
    number: int


@dataclass(frozen=True)
class Endpoint:
    """One pod address of a slice. The conditions are as Kubernetes defines them; unknown counts as ready."""

    address: str
    hostname: str | None
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True)
class Slice:
    """An EndpointSlice of IPv4 addresses."""

    service: Key
    endpoints: tuple[Endpoint, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Service:
    """``cluster_ips`` is empty for headless and ExternalName Services."""

    namespace: str
    name: str
    cluster_ips: tuple[str, ...]
    external_name: str | None
    ports: tuple[Port, ...]

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def headless(self) -> bool:
        return not self.cluster_ips and self.external_name is None


def _ports(items: Iterable[Object] | None) -> tuple[Port, ...]:
    return tuple(
        Port(name=item.get("name") or "", protocol=item.get("protocol", "TCP"), number=int(item["port"]))
        for item in items or ()
        if item.get("port") is not None
    )


def parse_service(item: Object) -> Service:
    """From the JSON of a v1 Service."""
    spec = item["spec"]
    external = spec.get("externalName") if spec.get("type") == "ExternalName" else None
    listed = spec.get("clusterIPs") or [spec.get("clusterIP")]
    addresses = tuple(ip for ip in listed if ip and ip != _HEADLESS and ":" not in ip)
    return Service(
        namespace=item["metadata"]["namespace"],
        name=item["metadata"]["name"],
        cluster_ips=() if external else addresses,
        external_name=external,
        ports=_ports(spec.get("ports")),
    )


def parse_slice(item: Object) -> Slice | None:
    """From the JSON of a discovery.k8s.io/v1 EndpointSlice; None if it is of no Service or of another
    address family.
    """
    service = (item["metadata"].get("labels") or {}).get(_SERVICE_LABEL)
    if not service or item.get("addressType") != "IPv4":
        return None
    return Slice(
        service=(item["metadata"]["namespace"], service),
        endpoints=tuple(_endpoint(each) for each in item.get("endpoints") or ()),
        ports=_ports(item.get("ports")),
    )


def _endpoint(item: Object) -> Endpoint:
    conditions = item.get("conditions") or {}
    ready = conditions.get("ready") is not False
    return Endpoint(
        # Kubernetes writes exactly one address and has declared the meaning of more undefined.
        address=item["addresses"][0],
        hostname=item.get("hostname"),
        ready=ready,
        serving=ready if conditions.get("serving") is None else bool(conditions["serving"]),
        terminating=bool(conditions.get("terminating")),
    )


def usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints that connections may go to: the ready ones; if there are none, those that still serve
    while they terminate (as kube-proxy does, so that the last pods of a Service drain instead of cutting
    clients off).
    """
    known = list(endpoints)
    return [each for each in known if each.ready] or [
        each for each in known if each.serving and each.terminating
    ]


@dataclass
class ServiceTable:
    """Everything known now. ``set_*`` return the Services that the change touches."""

    services: dict[Key, Service] = field(default_factory=dict)
    _slices: dict[Key, Slice] = field(default_factory=dict)
    _of_service: dict[Key, dict[Key, Slice]] = field(default_factory=dict)

    def set_service(self, key: Key, item: Object | None) -> set[Key]:
        if item is None:
            self.services.pop(key, None)
        else:
            self.services[key] = parse_service(item)
        return {key}

    def set_slice(self, key: Key, item: Object | None) -> set[Key]:
        touched: set[Key] = set()
        old = self._slices.pop(key, None)
        if old is not None:
            remaining = self._of_service[old.service]
            del remaining[key]
            if not remaining:
                del self._of_service[old.service]
            touched.add(old.service)
        new = parse_slice(item) if item is not None else None
        if new is not None:
            self._slices[key] = new
            self._of_service.setdefault(new.service, {})[key] = new
            touched.add(new.service)
        return touched

    def slices(self, service: Key) -> Iterator[Slice]:
        """The Service's slices, in the order of their names."""
        of_service = self._of_service.get(service, {})
        return (of_service[key] for key in sorted(of_service))

    def ready_endpoints(self, service: Key) -> list[Endpoint]:
        """What a headless Service resolves to. Where a Service publishes not-ready addresses, its slices
        say ready.
        """
        unique = {
            each.address: each for part in self.slices(service) for each in part.endpoints if each.ready
        }
        return list(unique.values())

    def backends(self, service: Key, port: Port) -> list[tuple[str, int]]:
        """(address, port) of every endpoint that a connection to this port of the Service may go to."""
        offered = [
            (endpoint, there.number)
            for part in self.slices(service)
            for there in part.ports
            if there.name == port.name and there.protocol == port.protocol
            for endpoint in part.endpoints
        ]
        chosen = {id(endpoint) for endpoint in usable(endpoint for endpoint, _ in offered)}
        return list(dict.fromkeys((each.address, number) for each, number in offered if id(each) in chosen))
