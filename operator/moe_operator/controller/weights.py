"""Weights of a deployment: has them downloaded once into a shared claim, and says where that stands."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.claim_modes import ModeFault, Use, mode_fault, mode_note
from moe_operator.controller.conditions import Said, was_ready_at
from moe_operator.controller.kube import NODE, POD, KubeClient, KubeError, Obj
from moe_operator.controller.store import Key, Store
from moe_operator.controller.weights_claims import WeightsClaims
from moe_operator.controller.weights_jobs import WeightsJobs
from moe_operator.controller.weights_removal import WeightsRemoval
from moe_operator.controller.weights_state import (
    Download,
    Phase,
    WeightsView,
    download_on_nodes,
    read_progress,
)
from moe_operator.controller.weights_view import LOOK, Shown, unkept, view
from moe_operator.resources.revision import Revision
from moe_operator.resources.weight_claims import MountedClaim, mounted_claims

#: Seconds between two looks at a claim that cannot do: it is corrected by making another of its name.
_CLAIM_LOOK = 20.0


@dataclass
class _Memory:
    """What the looks at one deployment remember. Losing it is harmless."""

    shown: Shown
    looked_at: float | None = None
    """At a running download's log."""


class WeightsKeeper:
    """Looks at downloads and claims, and has both made."""

    def __init__(
        self, client: KubeClient, store: Store, config: OperatorConfig, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._store = store
        self._clock = clock
        self._claims = WeightsClaims(client, config, clock)
        self._jobs = WeightsJobs(client, store, config, clock)
        self.removal = WeightsRemoval(client, store, config, self._jobs, clock)
        self._memory: dict[Key, _Memory] = {}
        self._unfit: set[Key] = set()
        """Deployments whose claims cannot do, as far as the last look showed."""

    def forget(self, key: Key) -> None:
        """A deployment is gone."""
        self._memory.pop(key, None)
        self._unfit.discard(key)
        self.removal.forget(key)

    async def look(
        self, deployment: ModelDeployment, revision: Revision, groups: int, least: int
    ) -> WeightsView:
        """Where the weights of this revision stand, for so many wanted `groups` of which `least` must serve. Writes
        nothing."""
        found = await self._look_at_download(deployment, revision)
        fault, notes = await self._look_at_claims(deployment, revision, groups)
        if fault is None:
            return replace(found, said=_with_notes(found.said, notes))
        self._unfit.add(deployment.key)
        return replace(
            found,
            said=Said(reasons.WEIGHTS_READY, False, fault.reason, fault.message),
            hold=found.hold or fault.most_groups == 0,
            most_groups=fault.most_groups,
            stalled=fault.most_groups < least,
            again=min(found.again or _CLAIM_LOOK, _CLAIM_LOOK),
        )

    async def ensure(
        self,
        deployment: ModelDeployment,
        revision: Revision,
        seen: WeightsView | None,
        before_create: Callable[[], Awaitable[None]],
    ) -> None:
        """Have the weights of this revision downloaded, and leave Jobs that it does not want. Raises KubeError."""
        kept = revision.weights
        useless = seen is not None and seen.most_groups == 0
        if kept is not None and kept.claim is not None and self._jobs.removing(deployment, kept):
            # What a download would find, or has just found, is about to go.
            await self._jobs.leave_others(deployment, None)
            return
        if kept is not None and kept.claim is not None and not useless:
            anew = self._jobs.find(deployment, kept) is None
            uid = await self._claims.ensure(deployment, kept, before_create, anew=anew)
            await self._jobs.ensure(deployment, revision, kept, uid, before_create)
        await self._jobs.leave_others(deployment, kept)

    # --- downloads --------------------------------------------------------------------------------

    async def _look_at_download(self, deployment: ModelDeployment, revision: Revision) -> WeightsView:
        kept = revision.weights
        if kept is None:
            return unkept(deployment, revision)
        memory = self._memory.get(deployment.key)
        if memory is None or memory.shown.about != kept.entry:
            memory = self._memory[deployment.key] = _Memory(Shown(kept.entry))
        if kept.claim is None:
            found = download_on_nodes(self._pods_of(deployment, revision))
        elif removing := self._jobs.removing(deployment, kept):
            message = (
                f"Job {removing} removes it first, for a deployment that goes; then it is downloaded again"
            )
            found = Download(Phase.WAITING, message=message)
        else:
            found = self._jobs.download(self._jobs.find(deployment, kept))
        await self._follow(deployment, found, memory)
        return view(deployment, kept, found, memory.shown, self._clock())

    async def _follow(self, deployment: ModelDeployment, found: Download, memory: _Memory) -> None:
        if found.phase is not Phase.RUNNING or found.pod is None:
            if found.phase is not Phase.WAITING:
                memory.shown.progress = None
            return
        now = self._clock()
        if memory.looked_at is not None and now - memory.looked_at < LOOK / 2:
            return
        memory.looked_at = now
        try:
            log = await self._client.pod_logs(
                deployment.namespace, found.pod, names.FETCH_CONTAINER, tail_lines=5
            )
        except KubeError:
            return  # a figure less
        memory.shown.progress = read_progress(log) or memory.shown.progress

    def _pods_of(self, deployment: ModelDeployment, revision: Revision) -> list[Obj]:
        return [
            pod
            for pod in self._store.children(deployment.key, POD)
            if pod["metadata"]["labels"].get(names.LABEL_REVISION) == revision.name
        ]

    # --- claims -----------------------------------------------------------------------------------

    async def _look_at_claims(
        self, deployment: ModelDeployment, revision: Revision, groups: int
    ) -> tuple[ModeFault | None, list[str]]:
        """The worst fault of the claims that a group mounts, and what else to know of them."""
        faults, notes = [], []
        unfit = deployment.key in self._unfit
        self._unfit.discard(deployment.key)
        for mounted in mounted_claims(revision):
            holds = {"holds": _CLAIM_LOOK / 2} if unfit else {}
            claim = await self._claims.glance(deployment.namespace, mounted.name, **holds)
            if claim is None:
                continue  # the scheduler says so of its pods
            use = Use(
                pods=revision.plan.pods_per_group,
                groups=groups,
                one_node=NODE not in self._store.forbidden and len(self._store.all(NODE)) == 1,
                proven=self._is_shared(deployment, revision, mounted),
            )
            if fault := mode_fault(claim, mounted, use):
                faults.append(fault)
            elif note := mode_note(claim, mounted):
                notes.append(note)
        return min(faults, key=lambda one: one.most_groups, default=None), notes

    def _is_shared(self, deployment: ModelDeployment, revision: Revision, mounted: MountedClaim) -> bool:
        """Whether several pods of this deployment's run with the claim, or did before their group was lost."""
        if revision.plan.pods_per_group > 1 and was_ready_at(deployment):
            return True
        running = [
            pod
            for pod in self._store.children(deployment.key, POD)
            if (pod.get("status") or {}).get("phase") == "Running"
            and any(
                (volume.get("persistentVolumeClaim") or {}).get("claimName") == mounted.name
                for volume in pod["spec"].get("volumes") or ()
            )
        ]
        return len(running) > 1


def _with_notes(said: Said, notes: list[str]) -> Said:
    """A failure keeps its own words: it is what is looked at."""
    told = said.status or said.reason == reasons.WEIGHTS_WAITING
    return replace(said, message="; ".join([said.message, *notes])) if told else said
