"""`spec.engine.compileCache`: where compiled kernels are kept, so that they outlive the pod that compiled them."""

from enum import StrEnum

from moe_operator.api.base import ApiModel, NodeFolder, ObjectName


class CompileCaching(StrEnum):
    """Whether compiled kernels are kept."""

    AUTO = "Auto"
    DISABLED = "Disabled"


class CompileCacheSpec(ApiModel):
    """One of two places: `claim` or `hostPath`."""

    claim: ObjectName | None = None
    """An existing PersistentVolumeClaim in the same namespace that many nodes can mount at once (ReadWriteMany) and
    engines may write to. Their folder in it is `moe-compiled`; they see nothing else of it."""
    host_path: NodeFolder | None = None
    """A folder on every node, in which each namespace has one of its own: kernels are shared by the groups that run on
    the same node. Only folders that the operator's configuration allows (`compileCache.hostPaths`)."""
