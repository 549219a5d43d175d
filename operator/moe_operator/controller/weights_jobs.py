"""The Jobs that download weights into shared claims.

A Job belongs to every deployment that wants what it downloads; the last to leave takes it along. The Job is also the
record that the weights are there: while it is, nothing is asked of the storage.
"""

import json
from collections.abc import Awaitable, Callable

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.children import NameConflictError
from moe_operator.controller.kube import JOB, LEADER_WORKER_SET, POD, ConflictError, KubeClient, Obj
from moe_operator.controller.store import Store
from moe_operator.controller.weights_ownership import is_operators, owned_by
from moe_operator.controller.weights_state import Download, Phase, download
from moe_operator.resources.revision import Revision
from moe_operator.resources.weights import Kept
from moe_operator.resources.weights_fetch import build_job, entries_of, job_name
from moe_operator.resources.weights_job import claim_of, owner
from moe_operator.resources.weights_remove import removed_entries


class WeightsJobs:
    """Looks at Jobs, makes them and gives them up."""

    def __init__(
        self, client: KubeClient, store: Store, config: OperatorConfig, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._clock = clock

    def find(self, deployment: ModelDeployment, kept: Kept) -> Obj | None:
        """The Job that downloads these weights."""
        return self._store.get(JOB, deployment.namespace, job_name(kept))

    def removing(self, deployment: ModelDeployment, kept: Kept) -> str | None:
        """The Job that is removing what is wanted here, for a deployment that goes."""
        for job in self._store.all(JOB):
            meta = job["metadata"]
            if (
                meta["namespace"] == deployment.namespace
                and set(removed_entries(job)) & set(kept.entries)
                and claim_of(job) == kept.claim
                and download(job, []).phase not in (Phase.DONE, Phase.FAILED)
            ):
                return str(meta["name"])
        return None

    def download(self, job: Obj | None) -> Download:
        """Where one stands, by the pods of this very Job: one that it replaced may have left some behind."""
        if job is None:
            return download(None, [])
        uid = job["metadata"]["uid"]
        return download(
            job,
            [
                pod
                for pod in self._store.all(POD)
                if any(r.get("uid") == uid for r in pod["metadata"].get("ownerReferences") or [])
            ],
        )

    async def ensure(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        kept: Kept,
        claim_uid: str | None,
        before_create: Callable[[], Awaitable[None]],
    ) -> None:
        """Have it made, or made again where it failed a while ago or filled another claim. Raises KubeError."""
        job = self.find(deployment, kept)
        if job is None:
            await self._create(deployment, revision, kept, claim_uid, before_create)
            return
        meta = job["metadata"]
        if meta.get("deletionTimestamp"):
            return
        if not is_operators(job):
            raise NameConflictError(JOB, job, deployment)
        found = self.download(job)
        annotations = meta.get("annotations") or {}
        emptied = claim_uid is not None and annotations.get(names.ANNOTATION_CLAIM_UID) not in (
            None,
            claim_uid,
        )
        due = (
            found.phase is Phase.FAILED
            and found.finished_at is not None
            and self._clock() >= found.finished_at + found.retry_after
        )
        if emptied or due:
            await self._delete(deployment, job)
            await self._create(deployment, revision, kept, claim_uid, before_create)
            return
        patch: Obj = {}
        if not owned_by(job, deployment):
            patch["ownerReferences"] = [*(meta.get("ownerReferences") or []), owner(deployment)]
        ended = found.phase in (Phase.DONE, Phase.FAILED)
        if ended and found.outcome is not None and names.ANNOTATION_OUTCOME not in annotations:
            patch["annotations"] = {names.ANNOTATION_OUTCOME: _written(found)}
        if patch:
            await self._patch(deployment, job, patch)

    async def leave_others(self, deployment: ModelDeployment, kept: Kept | None) -> None:
        """Give up downloads that this deployment does not want any more; the last owner deletes the Job. Raises
        KubeError."""
        wanted = job_name(kept) if kept is not None and kept.claim is not None else None
        for job in self._store.all(JOB):
            meta = job["metadata"]
            if (
                meta["namespace"] != deployment.namespace
                or meta["name"] == wanted
                or not owned_by(job, deployment)
                or meta.get("deletionTimestamp")
                or removed_entries(job)
            ):
                continue
            others = [r for r in meta.get("ownerReferences") or [] if r.get("uid") != deployment.uid]
            if others:
                await self._patch(deployment, job, {"ownerReferences": others})
            else:
                await self._delete(deployment, job)

    async def _create(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        kept: Kept,
        claim_uid: str | None,
        before_create: Callable[[], Awaitable[None]],
    ) -> None:
        profile = self._config.catalog.accelerator(revision.plan.accelerator)
        assert profile is not None
        annotations = {}
        if claim_uid is not None:
            annotations[names.ANNOTATION_CLAIM_UID] = claim_uid
        wanted = build_job(
            deployment,
            kept,
            self._config.weights,
            profile,
            in_use=entries_in_use(self._store, deployment.namespace),
            annotations=annotations,
        )
        await before_create()
        try:
            fresh = await self._client.create(JOB, wanted)
        except ConflictError:
            found = await self._client.get(JOB, deployment.namespace, wanted["metadata"]["name"])
            if found is None:
                raise
            if not is_operators(found):
                raise NameConflictError(JOB, found, deployment) from None
            fresh = found  # another deployment's, or one that is on its way out: the next look decides
        self._store.upsert(JOB, fresh)

    async def _delete(self, deployment: ModelDeployment, job: Obj) -> None:
        meta = job["metadata"]
        await self._client.delete(JOB, deployment.namespace, meta["name"], uid=meta["uid"])
        self._store.remove(JOB, job)

    async def _patch(self, deployment: ModelDeployment, job: Obj, metadata: Obj) -> None:
        """Owners are a list that a merge patch replaces: the version keeps another deployment's from being lost."""
        meta = job["metadata"]
        pinned = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], **metadata}
        fresh = await self._client.patch(JOB, deployment.namespace, meta["name"], {"metadata": pinned})
        self._store.upsert(JOB, fresh)


def entries_in_use(store: Store, namespace: str) -> set[str]:
    """Folders of caches that a download must not remove: those of every Job, and of every group's revision."""
    return {
        entry
        for kind in (JOB, LEADER_WORKER_SET)
        for obj in store.all(kind)
        if obj["metadata"].get("namespace") == namespace
        for entry in entries_of(obj)
    }


def _written(found: Download) -> str:
    outcome = found.outcome
    assert outcome is not None
    data = {
        "reason": outcome.reason,
        "message": outcome.message,
        "commit": outcome.commit,
        "bytes": outcome.bytes,
    }
    return json.dumps({k: v for k, v in data.items() if v}, separators=(",", ":"))
