"""A container's environment variables, from everything a pod may name. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from localcluster.kubelet import quantity

Obj = dict[str, Any]
#: Gives a ConfigMap's or Secret's object by (kind, name), or None when there is none.
Lookup = Callable[[str, str], Obj | None]

_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


class ConfigError(Exception):
    """The container cannot be configured (reason CreateContainerConfigError); the text is a kubelet's."""


@dataclass(frozen=True)
class PodFacts:
    """What downward-API fields need beside the pod itself. ``allocatable``: the node's, for missing limits."""

    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by its value; ``$$`` is a literal ``$``; an unknown name stays as written."""
    out: list[str] = []
    position = 0
    while position < len(text):
        here = text[position]
        if here != "$" or position + 1 == len(text):
            out.append(here)
            position += 1
            continue
        follows = text[position + 1]
        if follows == "$":
            out.append("$")
            position += 2
        elif follows == "(" and (close := text.find(")", position)) >= 0:
            name = text[position + 2 : close]
            out.append(variables.get(name, f"$({name})"))
            position = close + 1
        else:
            # A kubelet keeps both characters of an operator it does not know.
            out.append(here + follows)
            position += 2
    return "".join(out)


def field_value(pod: Obj, path: str, facts: PodFacts) -> str:
    """The value of a fieldRef. Raises ConfigError for a path that the downward API does not offer."""
    metadata, spec = pod["metadata"], pod["spec"]
    match = _SUBSCRIPT.fullmatch(path)
    if match:
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    values: dict[str, str] = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path in ("metadata.labels", "metadata.annotations"):
        entries: dict[str, str] = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(entries.items()))
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path]


def _quoted(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'


def resource_value(pod: Obj, container: Obj, reference: Obj, facts: PodFacts) -> str:
    """The value of a resourceFieldRef: a missing limit is the node's allocatable, a missing request the limit or 0."""
    name = reference.get("containerName")
    if name:
        every = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        container = next((entry for entry in every if entry["name"] == name), container)
    side, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    limit = (resources.get("limits") or {}).get(resource)
    if side == "limits":
        amount = limit if limit is not None else facts.allocatable.get(resource, "0")
    elif side == "requests":
        requested = (resources.get("requests") or {}).get(resource)
        amount = requested if requested is not None else (limit if limit is not None else "0")
    else:
        raise ConfigError(f"unsupported container resource: {reference['resource']}")
    value: Fraction = quantity.parse(amount)
    return str(quantity.divided(value, reference.get("divisor") or None))


def _data(kind: str, obj: Obj) -> dict[str, str]:
    if kind == "Secret":
        return {
            key: base64.b64decode(value).decode("utf-8", "surrogateescape")
            for key, value in (obj.get("data") or {}).items()
        }
    return dict(obj.get("data") or {})


def _key(kind: str, namespace: str, reference: Obj, lookup: Lookup) -> str | None:
    obj = lookup(kind, reference["name"])
    word = kind.lower()
    if obj is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{word} "{reference["name"]}" not found')
    data = _data(kind, obj)
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        raise ConfigError(f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}")
    return data[reference["key"]]


def service_links(services: list[Obj]) -> dict[str, str]:
    """The variables that enableServiceLinks adds for a namespace's Services, in Docker's old link format."""
    out: dict[str, str] = {}
    for service in sorted(services, key=lambda entry: str(entry["metadata"]["name"])):
        address, ports = service["spec"].get("clusterIP"), service["spec"].get("ports") or []
        if not address or address == "None" or not ports:
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        out[f"{prefix}_SERVICE_HOST"] = address
        out[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                out[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        for number, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            url = f"{protocol.lower()}://{address}:{port['port']}"
            base = f"{prefix}_PORT_{port['port']}_{protocol}"
            if number == 0:
                out[f"{prefix}_PORT"] = url
            out |= {base: url, f"{base}_PROTO": protocol.lower(), f"{base}_PORT": str(port["port"])}
            out[f"{base}_ADDR"] = address
    return out


def build(
    pod: Obj, container: Obj, facts: PodFacts, lookup: Lookup, services: Mapping[str, str]
) -> dict[str, str]:
    """What the pod itself gives the container: Services' variables, envFrom, env in order; later ones win.

    Raises ConfigError where a kubelet reports CreateContainerConfigError.
    """
    namespace: str = pod["metadata"]["namespace"]
    given: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        kind = "ConfigMap" if source.get("configMapRef") else "Secret"
        reference = source.get("configMapRef") or source["secretRef"]
        obj = lookup(kind, reference["name"])
        if obj is None:
            if reference.get("optional"):
                continue
            raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
        for key, value in _data(kind, obj).items():
            name = source.get("prefix", "") + key
            if _ENV_NAME.fullmatch(name):
                given[name] = value
    for entry in container.get("env") or []:
        text = _value(pod, container, entry, facts, lookup, namespace, {**services, **given})
        if text is not None:
            given[entry["name"]] = text
    return {**services, **given}


def _value(
    pod: Obj,
    container: Obj,
    entry: Obj,
    facts: PodFacts,
    lookup: Lookup,
    namespace: str,
    known: Mapping[str, str],
) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value", ""), known)
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in source:
        return resource_value(pod, container, source["resourceFieldRef"], facts)
    if "configMapKeyRef" in source:
        return _key("ConfigMap", namespace, source["configMapKeyRef"], lookup)
    if "secretKeyRef" in source:
        return _key("Secret", namespace, source["secretKeyRef"], lookup)
    raise ConfigError(f"env {entry['name']}: valueFrom {sorted(source)} is not supported by this kubelet")


def references(pod: Obj) -> set[tuple[str, str]]:
    """Every (kind, name) of ConfigMaps and Secrets that the pod's environment or volumes name."""
    found: set[tuple[str, str]] = set()
    spec = pod["spec"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for source in container.get("envFrom") or []:
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if source.get(key):
                    found.add((kind, source[key]["name"]))
        for entry in container.get("env") or []:
            given = entry.get("valueFrom") or {}
            for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if given.get(key):
                    found.add((kind, given[key]["name"]))
    for volume in spec.get("volumes") or []:
        if volume.get("configMap"):
            found.add(("ConfigMap", volume["configMap"]["name"]))
        if volume.get("secret"):
            found.add(("Secret", volume["secret"]["secretName"]))
        for source in (volume.get("projected") or {}).get("sources") or []:
            for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
                if source.get(key):
                    found.add((kind, source[key]["name"]))
    return found
