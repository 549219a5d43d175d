"""Whether the ModelDeployment of a pass is still the one in the cluster: a watch may have lost its deletion."""

from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.kube import MODEL_DEPLOYMENT, ConflictError, KubeClient, Obj
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.store import Store


class ParentGoneError(Exception):
    """The ModelDeployment in the cache was no longer the one in the cluster; by now the cache is corrected."""


class Parent:
    """Asks for it, and keeps writes off another one of its name."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._client = client
        self._store = store

    async def lives(self, state: PassState) -> None:
        """Look, once a pass, before anything is made: the garbage collector would take what is made for an owner that
        is gone, again and again. Raises ParentGoneError, KubeError."""
        if state.parent_seen:
            return
        deployment = state.deployment
        live = await self._client.get(MODEL_DEPLOYMENT, deployment.namespace, deployment.name)
        if (
            live is None
            or live["metadata"]["uid"] != deployment.uid
            or live["metadata"].get("deletionTimestamp")
        ):
            raise self.gone(state, live)
        state.parent_seen = True

    def gone(self, state: PassState, live: Obj | None = None) -> ParentGoneError:
        """Correct the cache; `live`, which has taken its place if anything has, is looked at next."""
        deployment = state.deployment
        meta = {"namespace": deployment.namespace, "name": deployment.name, "uid": deployment.uid}
        self._store.remove(MODEL_DEPLOYMENT, {"metadata": meta})
        if live is not None:
            self._store.upsert(MODEL_DEPLOYMENT, live)
        return ParentGoneError(f"ModelDeployment {deployment.name} is gone")

    def status_target(self, deployment: ModelDeployment) -> Obj:
        """Metadata of the very object that the status belongs to. The API server ignores the uid in a write of status,
        so the version must keep it off a ModelDeployment that was made again under this name. Raises ConflictError."""
        known = self._store.get(MODEL_DEPLOYMENT, *deployment.key)
        if known is None or known["metadata"]["uid"] != deployment.uid:
            raise ConflictError(
                409, "Conflict", f"ModelDeployment {deployment.name} was made again meanwhile"
            )
        return {
            "namespace": deployment.namespace,
            "name": deployment.name,
            "uid": deployment.uid,
            "resourceVersion": known["metadata"]["resourceVersion"],
        }
