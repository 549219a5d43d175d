"""Ports by which pods of a group reach the sources of their weights, as their template has it: a kept one's too.

Containers that fetch (the engine itself, or one before it) name their sources in their arguments and the addresses of
these in arguments and variables. What only a Secret says is not known: the operator reads none.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from moe_operator.api import names
from moe_operator.resources.model_source import Scheme

_HTTPS, _HTTP = 443, 80
#: Variables with the address of a source, the first that is set counts (as huggingface_hub and AWS's SDKs have it).
_ADDRESSES = {
    Scheme.HUB: ("HF_ENDPOINT",),
    Scheme.BUCKET: ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
}
#: ... of what stands before any of them.
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def source_ports(pod: Mapping[str, Any]) -> list[int]:
    """TCP ports, sorted; none for pods that find all they read in their volumes. `pod`: a pod's spec."""
    return sorted({port for container, sources in _readers(pod) for port in _ports(container, sources)})


def unknown_address(pod: Mapping[str, Any]) -> str | None:
    """The Secret that may name the address of a store which the pods read themselves; None without one."""
    for container, sources in _readers(pod):
        if Scheme.BUCKET not in sources or sources[Scheme.BUCKET]:
            continue
        for one in container.get("env", ()):
            if one["name"] in _ADDRESSES[Scheme.BUCKET] and (one.get("valueFrom") or {}).get("secretKeyRef"):
                return str(one["valueFrom"]["secretKeyRef"]["name"])
    return None


def _readers(pod: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], dict[Scheme, str | None]]]:
    """Containers that read sources, and the address of each of these as far as it is known."""
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        if container["name"] == names.FETCH_CONTAINER:
            yield container, _of_program(container)
        elif container["name"] == names.ENGINE_CONTAINER:
            yield container, _of_engine(container)


def _of_program(container: Mapping[str, Any]) -> dict[Scheme, str | None]:
    arguments = container["args"]
    given = dict(pairwise(arguments))
    scheme = Scheme(given["--source"].partition("://")[0])
    found = {scheme: given.get("--endpoint") or _address(container, scheme)}
    if "--adapter" in given:
        found.setdefault(Scheme.HUB, given.get("--adapter-endpoint") or _address(container, Scheme.HUB))
    return found


def _of_engine(container: Mapping[str, Any]) -> dict[Scheme, str | None]:
    found: dict[Scheme, str | None] = {}
    if _values(container).get("HF_HUB_OFFLINE") != "1":
        found[Scheme.HUB] = _address(container, Scheme.HUB)
    if Scheme.BUCKET.names(str(container["args"][0])):
        found[Scheme.BUCKET] = _address(container, Scheme.BUCKET)
    return found


def _address(container: Mapping[str, Any], scheme: Scheme) -> str | None:
    values = _values(container)
    return next((values[name] for name in _ADDRESSES[scheme] if values.get(name)), None)


def _values(container: Mapping[str, Any]) -> dict[str, str]:
    return {
        one["name"]: str(one["value"]) for one in container.get("env", ()) if one.get("value") is not None
    }


def _ports(container: Mapping[str, Any], sources: Mapping[Scheme, str | None]) -> Iterator[int]:
    if not sources:
        return
    for address in sources.values():
        yield _port(address) if address else _HTTPS
    for name, value in _values(container).items():
        if name.upper() in _PROXIES and value:
            yield _port(value if "://" in value else f"http://{value}")


def _port(address: str) -> int:
    try:
        parts = urlsplit(address)
        return parts.port or (_HTTP if parts.scheme == "http" else _HTTPS)
    except ValueError:
        return _HTTPS  # not an address: whoever reads it says so
