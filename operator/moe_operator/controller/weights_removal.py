"""What a deployment that goes had downloaded into claims: removed by one Job for each claim, within a limit.

Two keep out of each other's way: a removal leaves out what another deployment uses, and while its Job is there, nobody
begins to download what it removes (`WeightsJobs.removing`). Where both begin at the same moment, the one that downloads
gives way and begins again; in the storage itself the program's lease keeps them apart.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from moe_operator.api import names, reasons
from moe_operator.api.deployment import InvalidSpecError, ModelDeployment, parse, without_spec
from moe_operator.api.spec import WeightsOnDeletion
from moe_operator.api.times import parse_time
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller import revisions
from moe_operator.controller.kube import (
    JOB,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeClient,
    NotFoundError,
    Obj,
)
from moe_operator.controller.store import Key, Store
from moe_operator.controller.weights_jobs import WeightsJobs
from moe_operator.controller.weights_ownership import owned_by
from moe_operator.controller.weights_state import STARTS, Phase
from moe_operator.resources.revision import Revision, revision_name
from moe_operator.resources.weights import Kept, kept_by_status
from moe_operator.resources.weights_fetch import entries_of
from moe_operator.resources.weights_job import claim_of
from moe_operator.resources.weights_remove import DEADLINE, build_removal, removal_name, removed_entries

#: Seconds between two looks: a pod that waits for a node may change no object of ours.
_LOOK = 10.0


def removes(deployment: ModelDeployment, revisions_: Iterable[Revision]) -> bool:
    """Whether the deployment's deletion may have weights to remove: of these revisions, all that are kept."""
    wanted = deployment.spec.deletion.weights is WeightsOnDeletion.DELETE
    return wanted and bool(_shares(deployment, revisions_))


def removal_note(deployment: ModelDeployment, revision: Revision) -> str | None:
    """What to know of a deployment that wants its weights removed while nothing of it is kept in a claim. Not refused:
    whether the site has a default cache, and which, is no fault of the spec, and changes without it."""
    if deployment.spec.deletion.weights is WeightsOnDeletion.KEEP:
        return None
    kept = revision.weights
    if kept is None:
        return "deletion.weights: Delete has nothing to remove: no weights are kept, as this site has no default cache"
    if kept.claim is None:
        return (
            f"deletion.weights: Delete has nothing to remove: weights are kept in {kept.host_path} of the nodes, the"
            " site's default, where they go when room is needed"
        )
    return None


@dataclass
class Removal:
    """Where it stands."""

    pending: list[str] = field(default_factory=list)
    """What is still being done, a phrase for each claim; none: nothing holds the deployment any more."""
    told: list[tuple[Literal["Normal", "Warning"], str, str]] = field(default_factory=list)
    """How the others ended: type, reason and note of an Event."""
    again: float = _LOOK
    """Seconds until it is worth another look."""


@dataclass(frozen=True)
class _Share:
    """What one claim holds of a deployment."""

    claim: str
    kept: tuple[Kept, ...]
    accelerator: str

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry for kept in self.kept for entry in kept.entries))

    def named(self, entries: Iterable[str]) -> str:
        """The sources of these entries."""
        sources = {
            entry: source
            for kept in self.kept
            for entry, source in zip(kept.entries, (kept.source, *kept.adapters), strict=True)
        }
        return ", ".join(dict.fromkeys(sources.get(entry, entry) for entry in entries))


class WeightsRemoval:
    """Has weights removed, one step at a time."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        config: OperatorConfig,
        jobs: WeightsJobs,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._jobs = jobs
        self._clock = clock
        self._since: dict[Key, float] = {}
        """When the groups of a deployment were first seen gone. Losing it costs a deadline's length at most."""

    def forget(self, key: Key) -> None:
        """A deployment is gone."""
        self._since.pop(key, None)

    async def step(self, deployment: ModelDeployment, kept: Iterable[Revision]) -> Removal:
        """Go on with it, once the groups are gone. `kept`: the revisions. Raises KubeError, until the deadline."""
        found = Removal()
        now = self._clock()
        left = self._since.setdefault(deployment.key, now) + DEADLINE - now
        if left > 0:
            # A download that is under way holds what it is to lose.
            await self._jobs.leave_others(deployment, None)
        for share in _shares(deployment, kept):
            await self._step(deployment, share, left, found)
        found.again = max(0.5, min(_LOOK, left))
        return found

    async def _step(self, deployment: ModelDeployment, share: _Share, left: float, found: Removal) -> None:
        job = self._store.get(JOB, deployment.namespace, removal_name(deployment, share.claim))
        used = self._used_by_others(deployment, share.claim)
        entries = (
            removed_entries(job) if job is not None else tuple(e for e in share.entries if e not in used)
        )
        what = share.named(entries)
        if stays := [e for e in share.entries if e in used and e not in entries]:
            users = ", ".join(sorted({used[entry] for entry in stays}))
            note = f"{share.named(stays)} stay in claim {share.claim}: {users} uses them"
            found.told.append(("Normal", reasons.WEIGHTS_LEFT, note))
        if not entries:
            return
        why = ""
        if job is None and left > 0:
            if await self._claim_is_gone(deployment, share.claim):
                return
            if pods := self._downloading(deployment, share.claim, entries):
                found.pending.append(
                    f"{what} in claim {share.claim}: pod {pods[0]} still downloads and is ending"
                )
                return
            try:
                job = await self._create(deployment, share, entries)
            except (ForbiddenError, InvalidError, NotFoundError) as error:
                found.told.append(_left(share, entries, f"the API server refused the Job: {error.message}"))
                return
        if job is not None:
            state = self._jobs.download(job)
            if state.phase is Phase.DONE:
                size = _size(state.outcome.bytes if state.outcome else 0)
                found.told.append(
                    ("Normal", reasons.WEIGHTS_REMOVED, f"removed {size}{what} from claim {share.claim}")
                )
                return
            why = state.message if state.message != STARTS else ""
            if state.phase is Phase.FAILED:
                found.told.append(_left(share, entries, f"Job {job['metadata']['name']} failed: {why}"))
                return
            left = min(left, self._left_of(job))
        if left <= 0:
            words = f"not done after {DEADLINE // 60} minutes" + (f": {why}" if why else "")
            found.told.append(_left(share, entries, words))
            return
        size = _size(self._known_size(deployment, share, entries))
        found.pending.append(f"{size}{what} from claim {share.claim}" + (f" ({why})" if why else ""))

    async def _create(self, deployment: ModelDeployment, share: _Share, entries: tuple[str, ...]) -> Obj:
        profile = self._config.catalog.accelerator(share.accelerator)
        wanted = build_removal(deployment, share.claim, entries, self._config.weights, profile)
        try:
            fresh = await self._client.create(JOB, wanted)
        except ConflictError:
            found = await self._client.get(JOB, deployment.namespace, wanted["metadata"]["name"])
            if found is None:
                raise
            fresh = found  # from before the cache was warm
        self._store.upsert(JOB, fresh)
        return fresh

    async def _claim_is_gone(self, deployment: ModelDeployment, claim: str) -> bool:
        """Gone, or on its way out: nothing can mount it any more."""
        try:
            found = await self._client.get(PERSISTENT_VOLUME_CLAIM, deployment.namespace, claim)
        except ForbiddenError:
            return False
        return found is None or bool(found["metadata"].get("deletionTimestamp"))

    def _downloading(self, deployment: ModelDeployment, claim: str, entries: Iterable[str]) -> list[str]:
        """Pods of Jobs that still hold one of these entries: told to end, they take seconds."""
        wanted = set(entries)
        return [
            pod["metadata"]["name"]
            for pod in self._store.all(POD)
            if pod["metadata"]["namespace"] == deployment.namespace
            and names.LABEL_JOB in (pod["metadata"].get("labels") or {})
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            and wanted & set(entries_of(pod))
            and claim_of(pod) == claim
        ]

    def _left_of(self, job: Obj) -> float:
        created = parse_time(job["metadata"].get("creationTimestamp"))
        now = self._clock()
        return (created if created is not None else now) + DEADLINE - now

    def _used_by_others(self, deployment: ModelDeployment, claim: str) -> dict[str, str]:
        """The entries of a claim that other deployments of the namespace want or run, and who. One that is on its way
        out counts while it has groups: of several that go together, the last has them removed."""
        used: dict[str, str] = {}
        for obj in self._store.all(MODEL_DEPLOYMENT):
            meta = obj["metadata"]
            if meta["namespace"] != deployment.namespace or meta["uid"] == deployment.uid:
                continue
            try:
                other = parse(obj)
            except InvalidSpecError:
                other = without_spec(obj)
            groups = self._store.children(other.key, LEADER_WORKER_SET)
            if groups or not meta.get("deletionTimestamp"):
                used.update(dict.fromkeys(self._entries_of(other, groups, claim), other.name))
        return used

    def _entries_of(self, other: ModelDeployment, groups: Iterable[Obj], claim: str) -> set[str]:
        found: set[str] = set()
        kept = revisions.kept(self._store, other)
        running = {(g["metadata"].get("labels") or {}).get(names.LABEL_REVISION, ""): g for g in groups}
        for name in {other.status.revision or "", revision_name(other), *running}:
            if name in kept:
                weights = kept[name].weights
                found.update(weights.entries if weights is not None and weights.claim == claim else ())
            elif name in running:
                found.update(entries_of(running[name]))  # its revision cannot be read: whatever its claim is
        for job in self._store.all(JOB):
            if owned_by(job, other) and claim_of(job) == claim:
                found.update(entries_of(job))
        return found

    def _known_size(self, deployment: ModelDeployment, share: _Share, entries: Iterable[str]) -> int:
        """Bytes, as far as the status tells."""
        said = deployment.status.weights
        same = said is not None and said.entry in entries and said.cache == f"claim {share.claim}"
        return said.bytes if same and said is not None else 0


def _shares(deployment: ModelDeployment, kept: Iterable[Revision]) -> list[_Share]:
    """By claim. The accelerator only tells the pod which nodes to keep off."""
    by_claim: dict[str, dict[str, tuple[Kept, str]]] = {}
    for revision in sorted(kept, key=lambda one: one.name):
        weights = revision.weights
        if weights is not None and weights.claim is not None:
            by_claim.setdefault(weights.claim, {})[revision.name] = (weights, revision.plan.accelerator)
    # A deletion in the foreground takes the revisions first.
    said, plan = kept_by_status(deployment), deployment.status.plan
    if said is not None and said.claim is not None and said.claim not in by_claim:
        by_claim[said.claim] = {"": (said, plan.accelerator if plan else "")}
    return [
        _Share(claim, tuple(weights for weights, _ in found.values()), next(iter(found.values()))[1])
        for claim, found in sorted(by_claim.items())
    ]


def _left(share: _Share, entries: Iterable[str], why: str) -> tuple[Literal["Warning"], str, str]:
    options = " ".join(f"--entry {entry}" for entry in entries)
    note = (
        f"{share.named(entries)} stay in claim {share.claim} ({why}). They go when a download there needs room; at once"
        f" by `moe-operator weights remove {options}` in a pod that mounts the claim, or with the claim"
    )
    return ("Warning", reasons.WEIGHTS_LEFT, note)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB of " if count else ""
