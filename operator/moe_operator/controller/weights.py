"""Weights of a deployment: has them downloaded once into a shared claim, and says where that stands.

A Job belongs to every deployment that wants what it downloads; the last to leave takes it along. The Job is also the
record that the weights are there: while it is, nothing is asked of the storage.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import WeightsStatus
from moe_operator.api.times import format_time
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.children import NameConflictError
from moe_operator.controller.conditions import Said
from moe_operator.controller.kube import (
    JOB,
    LEADER_WORKER_SET,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    ConflictError,
    InvalidError,
    KubeClient,
    KubeError,
    Obj,
)
from moe_operator.controller.store import Key, Store
from moe_operator.controller.weights_state import (
    FAILURES,
    Download,
    Phase,
    Progress,
    WeightsView,
    download,
    download_on_nodes,
    read_progress,
)
from moe_operator.planner.quantities import whole
from moe_operator.resources.model_source import Scheme, model_source
from moe_operator.resources.revision import Revision
from moe_operator.resources.weights import Kept, cache_size
from moe_operator.resources.weights_fetch import build_claim, build_job, job_name, owner

#: Seconds between two looks at a running download's log, and the least between two figures in the status.
_LOOK, _FIGURES = 10.0, 30.0
#: Seconds for which a claim that was looked at counts as there.
_CLAIM_HOLDS = 300.0


@dataclass
class _Memory:
    """What the looks at one deployment remember. Losing it is harmless."""

    about: str
    """The entry that it is about."""
    progress: Progress | None = None
    looked_at: float | None = None
    shown_at: float | None = None
    claim_at: float | None = None


class WeightsKeeper:
    """Looks at downloads, and starts them."""

    def __init__(
        self, client: KubeClient, store: Store, config: OperatorConfig, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._clock = clock
        self._memory: dict[Key, _Memory] = {}

    def forget(self, key: Key) -> None:
        """A deployment is gone."""
        self._memory.pop(key, None)

    # --- look -------------------------------------------------------------------------------------

    async def look(self, deployment: ModelDeployment, revision: Revision) -> WeightsView:
        """Where the weights of this revision stand. Writes nothing."""
        kept = revision.weights
        if kept is None:
            return WeightsView(_unkept(deployment, revision))
        memory = self._of(deployment, kept)
        if kept.claim is None:
            pods = [
                pod
                for pod in self._store.children(deployment.key, POD)
                if pod["metadata"]["labels"].get(names.LABEL_REVISION) == revision.name
            ]
            found = download_on_nodes(pods)
        else:
            job = self._store.get(JOB, deployment.namespace, job_name(kept))
            found = download(job, self._pods(job))
        if found.phase is Phase.RUNNING and found.pod is not None:
            await self._read_log(deployment, found.pod, memory)
        elif found.phase is not Phase.WAITING:
            memory.progress = None
        return self._view(deployment, kept, found, memory)

    def _of(self, deployment: ModelDeployment, kept: Kept) -> _Memory:
        known = self._memory.get(deployment.key)
        if known is None or known.about != kept.entry:
            known = self._memory[deployment.key] = _Memory(kept.entry)
        return known

    def _pods(self, job: Obj | None) -> list[Obj]:
        """Of this very Job: one that it replaced may have left some behind."""
        if job is None:
            return []
        uid = job["metadata"]["uid"]
        return [
            pod
            for pod in self._store.all(POD)
            if any(r.get("uid") == uid for r in pod["metadata"].get("ownerReferences") or [])
        ]

    async def _read_log(self, deployment: ModelDeployment, pod: str, memory: _Memory) -> None:
        now = self._clock()
        if memory.looked_at is not None and now - memory.looked_at < _LOOK / 2:
            return
        memory.looked_at = now
        try:
            log = await self._client.pod_logs(deployment.namespace, pod, names.FETCH_CONTAINER, tail_lines=5)
        except KubeError:
            return  # a figure less
        memory.progress = read_progress(log) or memory.progress

    def _view(self, deployment: ModelDeployment, kept: Kept, found: Download, memory: _Memory) -> WeightsView:
        now = self._clock()
        old = deployment.status.weights
        same = old is not None and (old.entry, old.cache) == (kept.entry, kept.place)
        outcome, progress = found.outcome, self._figures(old if same else None, memory, now)
        status = WeightsStatus(
            source=kept.source,
            revision=kept.revision,
            commit=(outcome.commit if outcome else None)
            or (progress.commit if progress else None)
            or (old.commit if same and old else None),
            cache=kept.place,
            entry=kept.entry,
        )
        on_nodes = kept.claim is None
        if found.phase is Phase.DONE:
            size = (outcome.bytes if outcome else 0) or (old.total_bytes if same and old else 0)
            since = format_time(found.finished_at) if found.finished_at is not None else None
            done = status.model_copy(
                update={"bytes": size, "total_bytes": size, "percent": 100, "ready_since": since}
            )
            at = f" at {done.commit[:12]}" if done.commit else ""
            amount = f"{size / 1e9:.1f} GB of " if size else ""
            said = Said(
                reasons.WEIGHTS_READY,
                True,
                reasons.WEIGHTS_CACHED,
                f"{amount}{kept.source}{at} are in {kept.place}, downloaded once",
            )
            return WeightsView(said, done)
        if progress is not None:
            status = status.model_copy(
                update={
                    "bytes": progress.bytes,
                    "total_bytes": progress.total_bytes,
                    "percent": progress.percent,
                }
            )
        if same and old is not None and (standing := _standing(deployment, found, old, memory)):
            return WeightsView(standing, old, hold=not on_nodes, again=_LOOK)
        if found.phase is Phase.RUNNING:
            message = _downloading(kept, status)
            said = Said(reasons.WEIGHTS_READY, False, reasons.WEIGHTS_DOWNLOADING, message)
            return WeightsView(said, status, hold=not on_nodes, again=_LOOK)
        if found.reason == reasons.NODES_DOWNLOAD:
            message = f"each node downloads {kept.source} once into {kept.host_path}, before its first engine"
            return WeightsView(Said(reasons.WEIGHTS_READY, True, reasons.NODES_DOWNLOAD, message), status)
        if found.phase is Phase.FAILED and outcome is not None and status.total_bytes:
            status = status.model_copy(update={"bytes": max(status.bytes, outcome.bytes)})
        message = f"{kept.source} for {kept.place}: {found.message}"
        again = _LOOK
        if found.phase is Phase.FAILED and found.finished_at is not None:
            again = max(0.5, found.finished_at + found.retry_after - now)
        said = Said(reasons.WEIGHTS_READY, False, found.reason, message)
        return WeightsView(said, status, hold=not on_nodes, again=again)

    def _figures(self, old: WeightsStatus | None, memory: _Memory, now: float) -> Progress | None:
        """The figures to show: those that are shown, until others differ by a percent and half a minute is over."""
        new = memory.progress
        if old is None or old.ready_since is not None or not old.total_bytes:
            memory.shown_at = now if new is not None and new.total_bytes else memory.shown_at
            return new
        shown = Progress(old.bytes, old.total_bytes, old.commit)
        if new is None or new.percent == shown.percent:
            return shown
        if memory.shown_at is not None and now - memory.shown_at < _FIGURES:
            return shown
        memory.shown_at = now
        return new

    # --- act --------------------------------------------------------------------------------------

    async def ensure(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        before_create: Callable[[], Awaitable[None]],
    ) -> None:
        """Have the weights of this revision downloaded, and leave Jobs that it does not want. Raises KubeError."""
        kept = revision.weights
        wanted = job_name(kept) if kept is not None and kept.claim is not None else None
        if kept is not None and wanted is not None:
            await self._ensure_job(deployment, revision, kept, before_create)
        for job in self._store.all(JOB):
            meta = job["metadata"]
            if (
                meta["namespace"] == deployment.namespace
                and meta["name"] != wanted
                and _owned(job, deployment)
            ):
                await self._leave(deployment, job)

    async def _ensure_job(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        kept: Kept,
        before_create: Callable[[], Awaitable[None]],
    ) -> None:
        name = job_name(kept)
        job = self._store.get(JOB, deployment.namespace, name)
        claim_uid = await self._ensure_claim(deployment, kept, job, before_create)
        if job is None:
            await self._create(deployment, revision, kept, claim_uid, before_create)
            return
        meta = job["metadata"]
        if meta.get("deletionTimestamp"):
            return
        if not _ours(job):
            raise NameConflictError(JOB, job, deployment)
        found = download(job, self._pods(job))
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
            await self._client.delete(JOB, deployment.namespace, name, uid=meta["uid"])
            self._store.remove(JOB, job)
            await self._create(deployment, revision, kept, claim_uid, before_create)
            return
        patch: Obj = {}
        if not _owned(job, deployment):
            patch["ownerReferences"] = [*(meta.get("ownerReferences") or []), owner(deployment)]
        ended = found.phase in (Phase.DONE, Phase.FAILED)
        if ended and found.outcome is not None and names.ANNOTATION_OUTCOME not in annotations:
            patch["annotations"] = {names.ANNOTATION_OUTCOME: _written(found)}
        if patch:
            await self._patch(deployment, job, patch)

    async def _ensure_claim(
        self,
        deployment: ModelDeployment,
        kept: Kept,
        job: Obj | None,
        before_create: Callable[[], Awaitable[None]],
    ) -> str | None:
        """The claim's uid; None where it was looked at not long ago, or is not there (its pod then says so)."""
        assert kept.claim is not None
        memory = self._of(deployment, kept)
        now = self._clock()
        if job is not None and memory.claim_at is not None and now - memory.claim_at < _CLAIM_HOLDS:
            return None
        claim = await self._client.get(PERSISTENT_VOLUME_CLAIM, deployment.namespace, kept.claim)
        if kept.storage_class is not None:
            size = cache_size(deployment.spec, self._config.weights, kept.storage_class)
            if claim is None and size is not None:
                await before_create()
                try:
                    claim = await self._client.create(
                        PERSISTENT_VOLUME_CLAIM, build_claim(deployment, kept, size)
                    )
                except ConflictError:
                    claim = await self._client.get(PERSISTENT_VOLUME_CLAIM, deployment.namespace, kept.claim)
            elif claim is not None and size is not None:
                await self._grow(deployment, claim, size)
        memory.claim_at = now
        uid: str | None = claim["metadata"]["uid"] if claim is not None else None
        return uid

    async def _grow(self, deployment: ModelDeployment, claim: Obj, size: str) -> None:
        has = claim["spec"]["resources"]["requests"]["storage"]
        if not _ours(claim) or (whole(has) or 0) >= (whole(size) or 0):
            return
        meta = claim["metadata"]
        patch = {
            "metadata": {"uid": meta["uid"]},
            "spec": {"resources": {"requests": {"storage": size}}},
        }
        try:
            await self._client.patch(PERSISTENT_VOLUME_CLAIM, deployment.namespace, meta["name"], patch)
        except InvalidError:
            return  # its class cannot; a download that finds no room says so

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
            in_use=self._in_use(deployment),
            annotations=annotations,
        )
        await before_create()
        try:
            fresh = await self._client.create(JOB, wanted)
        except ConflictError:
            found = await self._client.get(JOB, deployment.namespace, wanted["metadata"]["name"])
            if found is None:
                raise
            if not _ours(found):
                raise NameConflictError(JOB, found, deployment) from None
            fresh = found  # another deployment's, or one that is on its way out: the next look decides
        self._store.upsert(JOB, fresh)

    async def _leave(self, deployment: ModelDeployment, job: Obj) -> None:
        """Give up a Job; the last owner deletes it."""
        meta = job["metadata"]
        if meta.get("deletionTimestamp"):
            return
        others = [r for r in meta.get("ownerReferences") or [] if r.get("uid") != deployment.uid]
        if others:
            await self._patch(deployment, job, {"ownerReferences": others})
            return
        await self._client.delete(JOB, deployment.namespace, meta["name"], uid=meta["uid"])
        self._store.remove(JOB, job)

    async def _patch(self, deployment: ModelDeployment, job: Obj, metadata: Obj) -> None:
        """Owners are a list that a merge patch replaces: the version keeps another deployment's from being lost."""
        meta = job["metadata"]
        pinned = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], **metadata}
        fresh = await self._client.patch(JOB, deployment.namespace, meta["name"], {"metadata": pinned})
        self._store.upsert(JOB, fresh)

    def _in_use(self, deployment: ModelDeployment) -> set[str]:
        """Folders that deployments of the namespace want or have groups of."""
        return entries_in_use(self._store, deployment.namespace)


def entries_in_use(store: Store, namespace: str) -> set[str]:
    """Folders of caches that a download must not remove: those of every Job, and of every group's revision."""
    return {
        entry
        for kind in (JOB, LEADER_WORKER_SET)
        for obj in store.all(kind)
        if obj["metadata"].get("namespace") == namespace
        and (entry := (obj["metadata"].get("labels") or {}).get(names.LABEL_WEIGHTS))
    }


def _standing(
    deployment: ModelDeployment, found: Download, old: WeightsStatus, memory: _Memory
) -> Said | None:
    """The failure that the status shows, while the next try has got no further."""
    if found.reason not in (reasons.WEIGHTS_WAITING, reasons.WEIGHTS_DOWNLOADING):
        return None
    if memory.progress is not None and memory.progress.bytes > old.bytes:
        return None
    for said in deployment.status.conditions:
        if said.type == reasons.WEIGHTS_READY and said.reason in FAILURES:
            return Said(said.type, False, said.reason, said.message)
    return None


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


def _ours(obj: Obj) -> bool:
    return (obj["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.MANAGED_BY


def _owned(job: Obj, deployment: ModelDeployment) -> bool:
    return any(r.get("uid") == deployment.uid for r in job["metadata"].get("ownerReferences") or [])


def _downloading(kept: Kept, status: WeightsStatus) -> str:
    if not status.total_bytes:
        return f"{kept.source} is looked up, to be downloaded into {kept.place}"
    return (
        f"{status.bytes / 1e9:.1f} of {status.total_bytes / 1e9:.1f} GB of {kept.source} are in {kept.place}"
        f" ({status.percent} %)"
    )


def _unkept(deployment: ModelDeployment, revision: Revision) -> Said:
    """Without a cache."""
    plan = revision.plan
    sizing = plan.sizing
    source = model_source(deployment.spec.model, sizing.repository if sizing else None)
    if not source.remote:
        what = "claim" if source.scheme is Scheme.CLAIM else "image"
        message = f"engines read {what} {source.place}, which is mounted"
        return Said(reasons.WEIGHTS_READY, True, reasons.WEIGHTS_MOUNTED, message)
    size = sizing.checkpoint_bytes if sizing else 0
    amount = f"{size / 1e9:.0f} GB of " if size else ""
    verb = "streams" if source.scheme is Scheme.BUCKET else "downloads"
    pods = f"each of the {plan.pods_per_group} pods of a group" if plan.pods_per_group > 1 else "each pod"
    message = f"{pods} {verb} {amount}{source.url} whenever it starts: set weights.cache to do it once"
    return Said(reasons.WEIGHTS_READY, True, reasons.ENGINE_DOWNLOADS, message)
