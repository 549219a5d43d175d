"""How a deployment goes: its groups finish their requests first, for which a finalizer keeps it.

The finalizer is there only while it has work: from the first group that gets traffic on, until no group is left. The
garbage collector takes everything else. Somebody in a hurry removes it, and groups end at once.
"""

from moe_operator.api import names
from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.times import parse_time
from moe_operator.controller.kube import MODEL_DEPLOYMENT, ConflictError, KubeClient, NotFoundError, Obj
from moe_operator.controller.store import Store

#: Seconds after the drain deadline until groups that cannot be deleted hold the ModelDeployment no longer: a pod on a
#: silent node ends when the node does.
_PATIENCE = 120.0


def overdue(deployment: ModelDeployment, since: str, now: float) -> bool:
    """Whether the groups have had all the time they get. `since`: the deletion's time (RFC 3339)."""
    began = parse_time(since)
    return (
        began is not None and now - began > parse_duration(deployment.spec.rollout.drain_deadline) + _PATIENCE
    )


class FinalizerKeeper:
    """Puts the finalizer on a ModelDeployment, and takes it off."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._client = client
        self._store = store

    async def ensure(self, deployment: ModelDeployment, *, wanted: bool) -> None:
        """Make it be there or not. Raises KubeError; ConflictError when the object has changed meanwhile."""
        obj = self._store.get(MODEL_DEPLOYMENT, *deployment.key)
        if obj is None or obj["metadata"]["uid"] != deployment.uid:
            return
        present = list(obj["metadata"].get("finalizers") or [])
        if (names.FINALIZER in present) == wanted or (wanted and obj["metadata"].get("deletionTimestamp")):
            return
        others = [one for one in present if one != names.FINALIZER]
        # The list is replaced as a whole: the version keeps others' finalizers from being lost.
        patch: Obj = {
            "metadata": {
                "uid": deployment.uid,
                "resourceVersion": obj["metadata"]["resourceVersion"],
                "finalizers": [*others, names.FINALIZER] if wanted else others,
            }
        }
        try:
            fresh = await self._client.patch(MODEL_DEPLOYMENT, deployment.namespace, deployment.name, patch)
        except NotFoundError:
            self._store.remove(MODEL_DEPLOYMENT, obj)
            return
        except ConflictError:
            live = await self._client.get(MODEL_DEPLOYMENT, deployment.namespace, deployment.name)
            if live is not None:
                self._store.upsert(MODEL_DEPLOYMENT, live)
            raise
        if fresh["metadata"].get("deletionTimestamp") and not fresh["metadata"].get("finalizers"):
            self._store.remove(MODEL_DEPLOYMENT, fresh)
        else:
            self._store.upsert(MODEL_DEPLOYMENT, fresh)
