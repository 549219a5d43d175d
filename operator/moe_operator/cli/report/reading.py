"""What the record is made of, read from a cluster: reads alone, and a part that may not be read stands for itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from moe_operator.api import names
from moe_operator.cli.cluster import Reader
from moe_operator.cli.report.data import Unread
from moe_operator.controller.kube import (
    CONTROLLER_REVISION,
    EVENT,
    MODEL_DEPLOYMENT,
    NETWORK_POLICY,
    NODE,
    POD,
    SECRET,
    SERVICE,
    ForbiddenError,
    Kind,
    KubeError,
    NotFoundError,
)

Obj = dict[str, Any]
_T = TypeVar("_T")

_RBAC = "rbac.authorization.k8s.io"
ROLE = Kind(_RBAC, "v1", "roles", "Role")
ROLE_BINDING = Kind(_RBAC, "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLE = Kind(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
INGRESS = Kind("networking.k8s.io", "v1", "ingresses", "Ingress")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)

#: Reads at a time.
_AT_ONCE = 8


class MetadataReader(Reader, Protocol):
    """What reads of a record need."""

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """As `AioKubeClient.get_metadata`."""


@dataclass(frozen=True)
class Missing:
    """Could not be read."""

    needs: str | None
    """The right that is missing."""
    message: str


Listing = list[Obj] | Missing


@dataclass(frozen=True)
class Collected:
    """All that was read."""

    deployments: list[Obj]
    pods: Listing
    revisions: Listing
    events: Listing
    services: Listing
    policies: Listing
    ingresses: Listing
    routes: Listing
    nodes: Listing
    roles: Listing
    role_bindings: Listing
    cluster_roles: Listing
    cluster_role_bindings: Listing
    secrets: Mapping[tuple[str, str], bool | Missing] = field(default_factory=dict)
    """Whether the Secrets that deployments name are there, by namespace and name."""
    cluster_id: str | None = None
    """Uid of kube-system."""

    def unread(self) -> list[Unread]:
        """What could not be read, by section."""
        parts: tuple[tuple[str, Listing], ...] = (
            ("pods (images, nodes)", self.pods),
            ("revisions", self.revisions),
            ("Events", self.events),
            ("Services", self.services),
            ("NetworkPolicies", self.policies),
            ("Ingresses", self.ingresses),
            ("HTTPRoutes", self.routes),
            ("nodes (regions, zones)", self.nodes),
            ("Roles", self.roles),
            ("RoleBindings", self.role_bindings),
            ("ClusterRoles", self.cluster_roles),
            ("ClusterRoleBindings", self.cluster_role_bindings),
        )
        found = [
            Unread(section=section, needs=part.needs, message=part.message)
            for section, part in parts
            if isinstance(part, Missing)
        ]
        found += [
            Unread(section=f"Secret {space}/{name}", needs=part.needs, message=part.message)
            for (space, name), part in sorted(self.secrets.items())
            if isinstance(part, Missing)
        ]
        return found


async def collect(client: MetadataReader, namespace: str | None) -> Collected:
    """Of one namespace, or of all. Raises KubeError where the ModelDeployments themselves cannot be read."""
    deployments = await client.list(MODEL_DEPLOYMENT, namespace)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def listed(kind: Kind, labels: str = "", fields: str = "", *, optional: bool = False) -> Listing:
        space = namespace if kind.namespaced else None

        async def read() -> list[Obj]:
            return await client.list(kind, space, labels, field_selector=fields)

        async with gate:
            found = await _or_missing(kind, "list", space, read)
        # A kind that the cluster does not serve has no objects: that is known, where nothing hangs on it.
        if (
            optional
            and isinstance(found, Missing)
            and found.needs is None
            and found.message == _not_served(kind)
        ):
            return []
        return found

    ours = f"{names.LABEL_DEPLOYMENT}"
    answers = await asyncio.gather(
        listed(POD, ours),
        listed(CONTROLLER_REVISION, ours),
        listed(EVENT, fields=f"regarding.kind={names.KIND}"),
        listed(SERVICE),
        listed(NETWORK_POLICY),
        listed(INGRESS, optional=True),
        listed(HTTP_ROUTE, optional=True),
        listed(NODE),
        listed(ROLE),
        listed(ROLE_BINDING),
        listed(CLUSTER_ROLE),
        listed(CLUSTER_ROLE_BINDING),
    )
    secrets: dict[tuple[str, str], bool | Missing] = {}
    for space, name in sorted({one for obj in deployments if (one := _key_secret(obj)) is not None}):
        secrets[space, name] = await _there(client, space, name)
    (pods, revisions, events, services, policies, ingresses, routes, nodes, *rbac) = answers
    return Collected(
        deployments=deployments,
        pods=pods,
        revisions=revisions,
        events=events,
        services=services,
        policies=policies,
        ingresses=ingresses,
        routes=routes,
        nodes=nodes,
        roles=rbac[0],
        role_bindings=rbac[1],
        cluster_roles=rbac[2],
        cluster_role_bindings=rbac[3],
        secrets=secrets,
        cluster_id=await _cluster_id(client),
    )


def _key_secret(obj: Obj) -> tuple[str, str] | None:
    """Namespace and name of the Secret with the API key; read loosely, as a spec may be invalid."""
    engine = (obj.get("spec") or {}).get("engine")
    named = engine.get("apiKeySecret") if isinstance(engine, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    return (obj["metadata"]["namespace"], name) if isinstance(name, str) and name else None


async def _there(client: MetadataReader, space: str, name: str) -> bool | Missing:
    async def read() -> bool:
        return await client.get_metadata(SECRET, space, name) is not None

    return await _or_missing(SECRET, "get", space, read)


async def _cluster_id(client: MetadataReader) -> str | None:
    try:
        found = await client.get_metadata(NAMESPACE, None, "kube-system")
    except KubeError:
        return None
    return str((found or {}).get("metadata", {}).get("uid") or "") or None


async def _or_missing(
    kind: Kind, verb: str, namespace: str | None, read: Callable[[], Awaitable[_T]]
) -> _T | Missing:
    try:
        return await read()
    except ForbiddenError:
        where = "" if not kind.namespaced else f" in {namespace or 'all namespaces'}"
        resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        needs = f"{verb} {resource}{where}"
        return Missing(needs, f"not readable: needs {needs}")
    except NotFoundError:
        return Missing(None, _not_served(kind))
    except KubeError as error:
        return Missing(None, f"could not be read: {error}")


def _not_served(kind: Kind) -> str:
    return f"the cluster does not serve {kind.plural}.{kind.group or 'v1'}"
