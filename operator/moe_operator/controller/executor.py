"""Carries out what the group planner decided: one small function per action, each safe to repeat."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.times import format_time
from moe_operator.controller.agent_tokens import AgentTokens
from moe_operator.controller.canary import CanaryRunner
from moe_operator.controller.children import NameConflictError, is_ours
from moe_operator.controller.group_planner import (
    REAP_GRACE,
    Action,
    CreateGroup,
    DeleteGroup,
    ReapPods,
    RunCanary,
    StartDrain,
    TrafficOff,
    TrafficOn,
    Undrain,
)
from moe_operator.controller.incarnation import incarnation
from moe_operator.controller.kube import (
    LEADER_WORKER_SET,
    POD,
    STATEFUL_SET,
    ConflictError,
    KubeClient,
    NotFoundError,
)
from moe_operator.controller.observed import GroupFacts, PodFacts
from moe_operator.controller.placing import Placing
from moe_operator.controller.store import Store
from moe_operator.resources.group import build_group, group_name
from moe_operator.resources.revision import Revision
from moe_operator.telemetry.engine import EngineClient


class Executor:
    """Writes of one reconcile. Every delete and patch names the uid it means."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        engine: EngineClient,
        canaries: CanaryRunner,
        tokens: AgentTokens,
        placing: Placing,
    ) -> None:
        self._placing = placing
        self._client = client
        self._store = store
        self._engine = engine
        self._canaries = canaries
        self._tokens = tokens

    async def run(
        self, deployment: ModelDeployment, revision: Revision | None, action: Action, now: float
    ) -> None:
        """Do one action. Raises KubeError; NameConflictError when a slot's name is another's."""
        match action:
            case CreateGroup(slot=slot):
                assert revision is not None
                await self._create(deployment, revision, slot, now)
            case RunCanary(group=group):
                token = self._tokens.token(deployment.uid, group.name)
                self._canaries.start(deployment.key, group, group.served_name, token)
            case TrafficOn(group=group):
                await self._traffic_on(deployment, group)
            case TrafficOff(pods=pods):
                await self._patch_pods(deployment, pods, {"labels": {names.LABEL_TRAFFIC: None}})
            case StartDrain(group=group):
                await self._start_drain(deployment, group, now)
            case Undrain(group=group):
                await self._undrain(deployment, group)
            case DeleteGroup(group=group):
                await self._delete(deployment, group)
            case ReapPods(group=group):
                await self._reap(deployment, group)

    async def _create(self, deployment: ModelDeployment, revision: Revision, slot: int, now: float) -> None:
        placement = await self._placing.choose(deployment, revision, deployment.status.recovery, now)
        # From here to the promise nothing is awaited.
        name = group_name(deployment.name, slot)
        verifier = self._tokens.verifier(deployment.uid, name)
        wanted = build_group(deployment, revision, slot, placement=placement, verifier=verifier)
        with self._placing.promise(deployment, revision, name, placement):
            try:
                fresh = await self._client.create(LEADER_WORKER_SET, wanted)
            except ConflictError:
                found = await self._client.get(LEADER_WORKER_SET, deployment.namespace, name)
                if found is not None and not is_ours(found, deployment):
                    raise NameConflictError(LEADER_WORKER_SET, found, deployment) from None
                if found is None:
                    raise  # its name is free by now, and perhaps no event will tell: try again
                # Ours, from before the cache was warm or on its way out: take it up, the next reconcile decides.
                fresh = found
            self._store.upsert(LEADER_WORKER_SET, fresh)

    async def _traffic_on(self, deployment: ModelDeployment, group: GroupFacts) -> None:
        now = incarnation(group.pods)
        patch: dict[str, dict[str, str | None]] = {
            "labels": {names.LABEL_TRAFFIC: names.TRAFFIC_ON},
            "annotations": {names.ANNOTATION_INCARNATION: now},
        }
        pods = [pod for pod in group.pods if not (pod.traffic and pod.incarnation == now)]
        await self._patch_pods(deployment, pods, patch)

    async def _patch_pods(
        self,
        deployment: ModelDeployment,
        pods: Sequence[PodFacts],
        metadata: dict[str, dict[str, str | None]],
    ) -> None:
        """All at once: requests go to half a group in between. One that cannot be written keeps no other from it."""
        done = await asyncio.gather(
            *(self._patch_pod(deployment, pod, metadata) for pod in pods), return_exceptions=True
        )
        for error in done:
            if error is not None:
                raise error

    async def _patch_pod(
        self, deployment: ModelDeployment, pod: PodFacts, metadata: dict[str, dict[str, str | None]]
    ) -> None:
        try:
            fresh = await self._client.patch(
                POD, deployment.namespace, pod.name, {"metadata": {"uid": pod.uid, **metadata}}
            )
        except (NotFoundError, ConflictError):
            return  # gone, or another pod of that name: the watch tells
        self._store.upsert(POD, fresh)

    async def _start_drain(self, deployment: ModelDeployment, group: GroupFacts, now: float) -> None:
        # The agents first: nobody tells them once the group is marked. Told of a drain that then does not come, they
        # only make clients connect anew.
        await self._tell_agents(deployment, group, self._engine.drain)
        await self._mark(deployment, group, format_time(now))

    async def _undrain(self, deployment: ModelDeployment, group: GroupFacts) -> None:
        # The mark first: a group that has it is deleted once it is idle, and must close connections until then. Agents
        # that are not reached say so in their next figures, and are told again.
        if group.draining_since is not None and not await self._mark(deployment, group, None):
            return
        await self._tell_agents(deployment, group, self._engine.undrain)

    async def _mark(self, deployment: ModelDeployment, group: GroupFacts, since: str | None) -> bool:
        """Note on the group since when it drains. False if it is gone."""
        patch = {"metadata": {"uid": group.uid, "annotations": {names.ANNOTATION_DRAINING: since}}}
        try:
            fresh = await self._client.patch(LEADER_WORKER_SET, deployment.namespace, group.name, patch)
        except (NotFoundError, ConflictError):
            return False  # or another group of that name: the watch tells
        self._store.upsert(LEADER_WORKER_SET, fresh)
        return True

    async def _tell_agents(
        self,
        deployment: ModelDeployment,
        group: GroupFacts,
        tell: Callable[[str, int, str | None], Awaitable[bool]],
    ) -> None:
        token = self._tokens.token(deployment.uid, group.name)
        await asyncio.gather(*(tell(pod.ip, names.HTTP_PORT, token) for pod in group.pods if pod.ip))

    async def _delete(self, deployment: ModelDeployment, group: GroupFacts) -> None:
        await self._client.delete(
            LEADER_WORKER_SET, deployment.namespace, group.name, uid=group.uid, propagation="Foreground"
        )
        found = await self._client.get(LEADER_WORKER_SET, deployment.namespace, group.name)
        if found is not None:
            self._store.upsert(LEADER_WORKER_SET, found)
        else:
            self._store.remove(
                LEADER_WORKER_SET,
                {"metadata": {"namespace": deployment.namespace, "name": group.name, "uid": group.uid}},
            )

    async def _reap(self, deployment: ModelDeployment, group: GroupFacts) -> None:
        """Shorten the end of a terminating group's pods, once their StatefulSets no longer replace them."""
        for name in (group.name, f"{group.name}-0"):
            owner = await self._client.get(STATEFUL_SET, deployment.namespace, name)
            if owner is not None and not owner["metadata"].get("deletionTimestamp"):
                return
        for pod in group.pods:
            if pod.grace is not None and pod.grace <= REAP_GRACE:
                continue
            await self._client.delete(
                POD, deployment.namespace, pod.name, uid=pod.uid, grace_seconds=REAP_GRACE
            )
