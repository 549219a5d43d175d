"""Answer a DNS question from the table of Services, after Kubernetes' DNS specification. Pure.

Answered: ``<service>.<ns>.svc`` (ClusterIP, or every ready endpoint of a headless Service, or a CNAME),
``<hostname>.<service>.<ns>.svc`` and ``<a-b-c-d>.<service>.<ns>.svc`` (one endpoint),
``_<port>._<protocol>.<service>…`` (SRV), ``<a-b-c-d>.<ns>.pod``, and PTR of cluster addresses. Everything
else does not exist: a cluster in its own network namespace has no other DNS to ask.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from localcluster.netd.table import Endpoint, Key, Port, Service, ServiceTable
from localcluster.network import DOMAIN

#: Seconds. Short, as CoreDNS has it: names move with pods.
TTL = 5
_REVERSE = ".in-addr.arpa"


class Rcode(IntEnum):
    """The response codes in use (RFC 1035)."""

    NOERROR = 0
    NXDOMAIN = 3


@dataclass(frozen=True)
class Record:
    """One resource record. ``value``: an address, or a name without trailing dot; for SRV ``port`` as
    well.
    """

    name: str
    kind: Literal["A", "CNAME", "SRV", "PTR"]
    value: str
    port: int = 0


@dataclass(frozen=True)
class Answer:
    """NOERROR without records means: the name exists, but has nothing of the type that was asked for."""

    rcode: Rcode
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = field(default=())


_ABSENT = Answer(Rcode.NXDOMAIN)
_EMPTY = Answer(Rcode.NOERROR)


def resolve(name: str, kind: str, table: ServiceTable) -> Answer:
    """``name``: as asked, any case, with or without trailing dot; ``kind``: the query's type, such as
    ``"A"``.
    """
    plain = name.lower().rstrip(".")
    if plain.endswith(_REVERSE):
        return _reverse(plain, kind, table)
    if plain == DOMAIN:
        return _EMPTY
    if not plain.endswith("." + DOMAIN):
        return _ABSENT
    labels = plain.removesuffix("." + DOMAIN).split(".")
    match labels:
        case ["svc"] | ["pod"]:
            return _EMPTY
        case [namespace, "svc"] if any(key[0] == namespace for key in table.services):
            return _EMPTY
        case [dashed, _, "pod"]:
            return _addresses(plain, kind, [address] if (address := _undash(dashed)) else [])
        case [service, namespace, "svc"]:
            return _service(plain, kind, table, (namespace, service))
        case [endpoint, service, namespace, "svc"]:
            return _endpoint(plain, kind, table, (namespace, service), endpoint)
        case [port, protocol, service, namespace, "svc"] if port[:1] == protocol[:1] == "_":
            return _port(plain, kind, table, (namespace, service), (port[1:], protocol[1:].upper()))
    return _ABSENT


def _addresses(name: str, kind: str, addresses: list[str]) -> Answer:
    """The name exists if it has an address; other types of it are then empty, not absent."""
    if not addresses:
        return _ABSENT
    if kind not in ("A", "ANY"):
        return _EMPTY
    return Answer(Rcode.NOERROR, tuple(Record(name, "A", address) for address in addresses))


def _service(name: str, kind: str, table: ServiceTable, key: Key) -> Answer:
    service = table.services.get(key)
    if service is None:
        return _ABSENT
    if service.external_name is not None:
        return Answer(Rcode.NOERROR, (Record(name, "CNAME", service.external_name.rstrip(".")),))
    if service.cluster_ips:
        return _addresses(name, kind, list(service.cluster_ips))
    addresses = [endpoint.address for endpoint in table.ready_endpoints(key)]
    return _addresses(name, kind, addresses) if addresses else _EMPTY


def _endpoint(name: str, kind: str, table: ServiceTable, key: Key, label: str) -> Answer:
    service = table.services.get(key)
    if service is None or not service.headless:
        return _ABSENT
    found = [each.address for each in table.ready_endpoints(key) if endpoint_label(each) == label]
    return _addresses(name, kind, found)


def endpoint_label(endpoint: Endpoint) -> str:
    """The first label of an endpoint's own name: its hostname, else its address with dashes."""
    return (endpoint.hostname or endpoint.address.replace(".", "-")).lower()


def _port(name: str, kind: str, table: ServiceTable, key: Key, wanted: tuple[str, str]) -> Answer:
    service = table.services.get(key)
    if service is None:
        return _ABSENT
    port = next((each for each in service.ports if (each.name, each.protocol) == wanted), None)
    if port is None:
        return _ABSENT
    if kind not in ("SRV", "ANY"):
        return _EMPTY
    targets = _targets(service, table, port)
    return Answer(
        Rcode.NOERROR,
        tuple(Record(name, "SRV", target, number) for target, _, number in targets),
        tuple(Record(target, "A", address) for target, address, _ in targets),
    )


def _targets(service: Service, table: ServiceTable, port: Port) -> list[tuple[str, str, int]]:
    """(name, address, port) of everything that answers on this port of the Service."""
    base = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
    if not service.headless:
        return [(base, address, port.number) for address in service.cluster_ips]
    ready = {each.address: each for each in table.ready_endpoints(service.key)}
    return [
        (f"{endpoint_label(ready[address])}.{base}", address, number)
        for address, number in table.backends(service.key, port)
        if address in ready
    ]


def _undash(label: str) -> str | None:
    try:
        return str(ipaddress.IPv4Address(label.replace("-", ".")))
    except ValueError:
        return None


def _reverse(name: str, kind: str, table: ServiceTable) -> Answer:
    address = ".".join(reversed(name.removesuffix(_REVERSE).split(".")))
    names = []
    for key, service in table.services.items():
        base = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
        if address in service.cluster_ips:
            names.append(base)
        elif service.headless:
            names += [
                f"{each.hostname.lower()}.{base}"
                for each in table.ready_endpoints(key)
                if each.address == address and each.hostname
            ]
    if not names:
        return _ABSENT
    if kind not in ("PTR", "ANY"):
        return _EMPTY
    return Answer(Rcode.NOERROR, tuple(Record(name, "PTR", target) for target in names))
