"""What NetworkPolicies, Services, Ingresses and HTTPRoutes of a namespace say of a deployment's engines. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.cli.report.data import EgressState
from moe_operator.cli.report.reading import Missing
from moe_operator.planner.node_selection import label_selector_matches

Obj = Mapping[str, Any]


def engine_labels(name: str) -> dict[str, str]:
    """Labels that every pod of a deployment's groups has, where no pod can be looked at."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_DEPLOYMENT: name,
        names.LABEL_GROUP: f"{name}-g0",
        names.LABEL_ROLE: names.ROLE_SERVE,
        names.LABEL_TRAFFIC: names.TRAFFIC_ON,
    }


def selecting(
    policies: list[dict[str, Any]] | Missing, namespace: str, pods: Iterable[Mapping[str, str]]
) -> list[Obj] | None:
    """The NetworkPolicies that select any of these labels; None where they could not be read."""
    if isinstance(policies, Missing):
        return None
    labels = list(pods)
    return [
        one
        for one in policies
        if one["metadata"].get("namespace") == namespace
        and any(
            label_selector_matches((one.get("spec") or {}).get("podSelector") or {}, each) for each in labels
        )
    ]


def _limiting(policies: Iterable[Obj], direction: str) -> list[Obj]:
    """Those that isolate in a direction (`Ingress`, `Egress`). Without types a policy is of ingress, and of egress
    where it has rules of it."""
    found = []
    for one in policies:
        spec = one.get("spec") or {}
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        if direction in types:
            found.append(one)
    return found


def egress(policies: list[Obj] | None) -> tuple[EgressState, list[str], list[str]]:
    """Whether connections to elsewhere are limited, where to, and by which policies."""
    if policies is None:
        return EgressState.UNKNOWN, [], []
    limiting = _limiting(policies, "Egress")
    if not limiting:
        return EgressState.OPEN, [], []
    to = sorted(
        {
            text
            for one in limiting
            for rule in (one.get("spec") or {}).get("egress") or ()
            for text in _peers(rule, "to", "any address", one["metadata"].get("namespace", ""))
        }
    )
    return EgressState.LIMITED, to, sorted(one["metadata"]["name"] for one in limiting)


def ingress(policies: list[Obj] | None) -> tuple[bool | None, list[str]]:
    """Whether connections to the HTTP port are limited, and who may make them."""
    if policies is None:
        return None, []
    limiting = _limiting(policies, "Ingress")
    if not limiting:
        return False, []
    found = {
        text
        for one in limiting
        for rule in (one.get("spec") or {}).get("ingress") or ()
        if _has_http(rule)
        for text in _peers({**rule, "ports": None}, "from", "anyone", one["metadata"].get("namespace", ""))
    }
    if "anyone" in found:
        return False, []
    return True, sorted(found)


def _has_http(rule: Obj) -> bool:
    """Whether a rule is about the engines' HTTP port."""
    ports = rule.get("ports")
    if not ports:
        return True
    for one in ports:
        port, last = one.get("port"), one.get("endPort")
        if (one.get("protocol") or "TCP") != "TCP":
            continue
        if port is None or port in (names.HTTP_PORT, names.HTTP_PORT_NAME):
            return True
        if isinstance(port, int) and isinstance(last, int) and port <= names.HTTP_PORT <= last:
            return True
    return False


def _peers(rule: Obj, key: str, all_: str, namespace: str) -> Iterator[str]:
    """A rule in words, one for each peer."""
    ports = ", ".join(_port(one) for one in rule.get("ports") or ())
    suffix = f", {ports}" if ports else ""
    peers = rule.get(key) or ()
    if not peers:
        yield f"{all_}{suffix}"
    for peer in peers:
        yield f"{_peer(peer, namespace)}{suffix}"


def _port(port: Obj) -> str:
    protocol, number, last = port.get("protocol") or "TCP", port.get("port"), port.get("endPort")
    if number is None:
        return f"any port of {protocol}"
    return f"{protocol} {number}-{last}" if last else f"{protocol} {number}"


def _peer(peer: Obj, namespace: str) -> str:
    block = peer.get("ipBlock")
    if isinstance(block, Mapping):
        but = ", ".join(map(str, block.get("except") or ()))
        return f"addresses {block.get('cidr')}" + (f" but {but}" if but else "")
    spaces, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    who = "all pods" if not pods else f"pods with {_selector(pods)}"
    if spaces is None:
        return f"{who} of namespace {namespace}"
    return f"{who} of all namespaces" if not spaces else f"{who} of namespaces with {_selector(spaces)}"


def _selector(selector: Obj) -> str:
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or ():
        values = "|".join(map(str, one.get("values") or ()))
        parts.append(
            " ".join(word for word in (str(one.get("key")), str(one.get("operator")), values) if word)
        )
    return ", ".join(parts)


def services_of(
    services: list[dict[str, Any]] | Missing, namespace: str, pods: Iterable[Mapping[str, str]]
) -> dict[str, str] | None:
    """The Services that select any of these labels, by name, with their type; None where they could not be read."""
    if isinstance(services, Missing):
        return None
    labels, found = list(pods), {}
    for one in services:
        spec = one.get("spec") or {}
        selector = {"matchLabels": spec.get("selector") or {}}
        if one["metadata"].get("namespace") != namespace or not selector["matchLabels"]:
            continue
        if any(label_selector_matches(selector, each) for each in labels):
            type_ = str(spec.get("type") or "ClusterIP")
            found[one["metadata"]["name"]] = "headless" if spec.get("clusterIP") == "None" else type_
    return dict(sorted(found.items()))


def published(
    ingresses: list[dict[str, Any]] | Missing,
    routes: list[dict[str, Any]] | Missing,
    namespace: str,
    services: Iterable[str],
) -> list[str] | None:
    """Ingresses and HTTPRoutes of the namespace that lead to one of the Services, with their hosts."""
    if isinstance(ingresses, Missing) and isinstance(routes, Missing):
        return None
    found = []
    for kind, objects in (("Ingress", ingresses), ("HTTPRoute", routes)):
        for one in () if isinstance(objects, Missing) else objects:
            if one["metadata"].get("namespace") != namespace:
                continue
            spec = one.get("spec") or {}
            leads = _ingress_services(spec) if kind == "Ingress" else _route_services(spec, namespace)
            if leads & set(services):
                hosts = spec.get("hostnames") or [rule.get("host") for rule in spec.get("rules") or ()]
                named = ", ".join(sorted({str(host) for host in hosts if host})) or "any host"
                found.append(f"{kind} {one['metadata']['name']} ({named})")
    return sorted(found)


def _ingress_services(spec: Obj) -> set[str]:
    backends = [spec.get("defaultBackend")]
    for rule in spec.get("rules") or ():
        backends += [path.get("backend") for path in (rule.get("http") or {}).get("paths") or ()]
    return {str(((one or {}).get("service") or {}).get("name")) for one in backends}


def _route_services(spec: Obj, namespace: str) -> set[str]:
    return {
        str(ref.get("name"))
        for rule in spec.get("rules") or ()
        for ref in rule.get("backendRefs") or ()
        if (ref.get("kind") or "Service") == "Service" and (ref.get("namespace") or namespace) == namespace
    }
