"""What the controller needs of a Kubernetes API: eight verbs over plain dicts, and typed failures.

The runtime implements `KubeClient` on the official asyncio client; tests implement it in memory.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from moe_operator.api import names

Obj = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A resource type as URLs name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path of the collection or of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


MODEL_DEPLOYMENT = Kind(names.GROUP, names.VERSION, names.PLURAL, names.KIND)
LEADER_WORKER_SET = Kind("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet")
CONTROLLER_REVISION = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
STATEFUL_SET = Kind("apps", "v1", "statefulsets", "StatefulSet")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
RESOURCE_SLICE = Kind("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)
DEVICE_CLASS = Kind("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False)
RESOURCE_CLAIM_TEMPLATE = Kind("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate")
RESOURCE_CLAIM = Kind("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
SECRET = Kind("", "v1", "secrets", "Secret")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
COMPUTE_DOMAIN = Kind("resource.nvidia.com", "v1beta1", "computedomains", "ComputeDomain")
JOB = Kind("batch", "v1", "jobs", "Job")
PERSISTENT_VOLUME_CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT = Kind("events.k8s.io", "v1", "events", "Event")
#: The same objects in the older API, whose fields are those that selectors are known by: `involvedObject.name`.
CORE_EVENT = Kind("", "v1", "events", "Event")

#: Children applied as a whole whenever they differ from what is wanted.
APPLIED_KINDS = (
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    SERVICE,
    POD_DISRUPTION_BUDGET,
    NETWORK_POLICY,
    RESOURCE_CLAIM_TEMPLATE,
)
#: The same by the name of the kind.
APPLIED = {one.kind: one for one in APPLIED_KINDS}
#: Everything that is watched and cached, beside the ModelDeployments themselves.
CHILD_KINDS = (LEADER_WORKER_SET, CONTROLLER_REVISION, POD, JOB, *APPLIED_KINDS, COMPUTE_DOMAIN)
#: Kinds that many clusters do not serve. Only deployments whose plan asks for them are held up by that.
OPTIONAL_KINDS = frozenset({RESOURCE_CLAIM_TEMPLATE, COMPUTE_DOMAIN})


class KubeError(Exception):
    """The API server refused or could not be reached. `status` is the HTTP code, 0 for no answer:
    a write may then have been done or not."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to wait before the next try, where it says so."""


class NotFoundError(KubeError):
    """404: no such object, or no such kind."""


class ConflictError(KubeError):
    """409: it exists already, or it changed, or the uid is another's."""


class ForbiddenError(KubeError):
    """403: a right is missing, or admission or a quota refused."""


class InvalidError(KubeError):
    """400 or 422: the object is refused as it is."""


class KubeClient(Protocol):
    """The verbs. All raise KubeError or a subclass; none retries a refusal."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """The object as it is now (a live read), or None."""

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        """All objects of a kind, in all namespaces where `namespace` is None; NotFoundError if the kind is unknown.
        What a field selector may name depends on the kind."""

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        """POST. ConflictError if the name is taken."""

    async def apply(self, kind: Kind, obj: Obj) -> Obj:
        """Server-side apply with our field manager and force. With `metadata.uid` set it is refused
        (ConflictError) unless the object there has this uid."""

    async def apply_status(self, kind: Kind, obj: Obj) -> Obj:
        """Server-side apply of the status subresource with the status field manager and force."""

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Obj) -> Obj:
        """JSON merge patch; `metadata.uid` in it is a precondition."""

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        propagation: Literal["Foreground", "Background"] = "Background",
        grace_seconds: int | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete this very object (uid precondition), where a version is given only as it is in that. An object that is
        gone, another of that name, or one that has changed since, is no error."""

    async def pod_logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, tail_lines: int = 20
    ) -> str:
        """The last lines of a container's log."""
