"""Who may do what in a namespace, by RBAC's objects. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moe_operator.api import names
from moe_operator.cli.report.data import AccessRecord, Grant
from moe_operator.cli.report.reading import Collected, Missing

Obj = Mapping[str, Any]
#: (API group, resource, verbs): what is asked about.
_Ask = tuple[str, str, frozenset[str]]

_CHANGE: tuple[_Ask, ...] = (
    (
        names.GROUP,
        names.PLURAL,
        frozenset({"create", "update", "patch", "delete", "deletecollection"}),
    ),
    (names.GROUP, f"{names.PLURAL}/scale", frozenset({"update", "patch"})),
)
_READ: tuple[_Ask, ...] = ((names.GROUP, names.PLURAL, frozenset({"get", "list", "watch"})),)
_REACH: tuple[_Ask, ...] = tuple(
    ("", resource, frozenset({"get", "create"}))
    for resource in ("pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy")
)
_SECRETS: tuple[_Ask, ...] = (("", "secrets", frozenset({"get", "list", "watch"})),)


def access(collected: Collected, namespace: str) -> AccessRecord:
    """By the bindings that could be read; without all of RoleBindings and ClusterRoleBindings nothing is claimed."""
    bindings = collected.role_bindings, collected.cluster_role_bindings
    if any(isinstance(one, Missing) for one in bindings):
        return AccessRecord(namespace=namespace)
    bound = list(_bound(collected, namespace))
    return AccessRecord(
        namespace=namespace,
        change=_grants(bound, _CHANGE),
        read=_grants(bound, _READ),
        reach=_grants(bound, _REACH),
        secrets=_grants(bound, _SECRETS),
        undetermined=sorted(by for _, by, rules in bound if rules is None),
    )


#: A binding's subjects, its name and its role's, and the role's rules; None where the role could not be read.
_Bound = tuple[list[Obj], str, list[Obj] | None]


def _bound(collected: Collected, namespace: str) -> Iterator[_Bound]:
    roles = _rules(collected.roles, namespace)
    cluster_roles = _rules(collected.cluster_roles, None)
    for kind, bindings in (
        ("RoleBinding", collected.role_bindings),
        ("ClusterRoleBinding", collected.cluster_role_bindings),
    ):
        for binding in () if isinstance(bindings, Missing) else bindings:
            meta = binding["metadata"]
            if kind == "RoleBinding" and meta.get("namespace") != namespace:
                continue
            ref = binding.get("roleRef") or {}
            known = roles if ref.get("kind") == "Role" else cluster_roles
            by = f"{kind} {meta['name']}, {ref.get('kind')} {ref.get('name')}"
            # A role that is not there gives nothing.
            rules = None if known is None else known.get(str(ref.get("name")), [])
            if subjects := binding.get("subjects"):
                yield subjects, by, rules


def _rules(roles: list[dict[str, Any]] | Missing, namespace: str | None) -> dict[str, list[Obj]] | None:
    """By the role's name. Those of an aggregated ClusterRole are filled in by Kubernetes."""
    if isinstance(roles, Missing):
        return None
    return {
        one["metadata"]["name"]: one.get("rules") or []
        for one in roles
        if namespace is None or one["metadata"].get("namespace") == namespace
    }


def _grants(bound: Iterable[_Bound], asked: Iterable[_Ask]) -> list[Grant]:
    found: dict[tuple[str, str, str, tuple[str, ...]], set[str]] = {}
    asks = tuple(asked)
    for subjects, by, rules in bound:
        for rule in rules or ():
            verbs = {word for ask in asks for word in _verbs(rule, ask, qualified=ask is not asks[0])}
            if not verbs:
                continue
            only = tuple(sorted(map(str, rule.get("resourceNames") or ())))
            for subject in subjects:
                kind, name = str(subject.get("kind")), str(subject.get("name"))
                if kind == "ServiceAccount":
                    name = f"{subject.get('namespace')}/{name}"
                found.setdefault((kind, name, by, only), set()).update(verbs)
    return [
        Grant(kind=kind, name=name, verbs=sorted(verbs), only=list(only), by=by)
        for (kind, name, by, only), verbs in sorted(found.items())
    ]


def _verbs(rule: Obj, ask: _Ask, *, qualified: bool) -> Iterator[str]:
    """What of it the rule gives. Resources but the first that is asked about are named."""
    group, resource, verbs = ask
    groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
    below = resource.partition("/")[2]
    wildcards = {"*", f"*/{below}"} if below else {"*"}
    if not {"*", group} & set(groups) or not {resource, *wildcards} & set(resources):
        return
    given = set(rule.get("verbs") or ())
    for verb in verbs if "*" in given else verbs & given:
        yield f"{verb} {resource}" if qualified or below else verb
