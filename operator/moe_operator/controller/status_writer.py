"""Writes what a pass found out into the status, if that changed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moe_operator.api import names, reasons
from moe_operator.api.cost import CostStatus
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.hbm import HbmStatus
from moe_operator.api.reasons import ScalingReason
from moe_operator.api.scaling import LearnedStatus, ScalingFigures, ScalingStatus
from moe_operator.api.status import Condition, LatencyStatus, ModelDeploymentStatus, ThroughputStatus
from moe_operator.controller.cost_news import budget_news
from moe_operator.controller.delivered_keeper import DeliveredKeeper
from moe_operator.controller.events import EventSink
from moe_operator.controller.hbm_keeper import HbmKeeper
from moe_operator.controller.hbm_status import hbm_news
from moe_operator.controller.kube import MODEL_DEPLOYMENT, KubeClient, Obj
from moe_operator.controller.learned import Learned
from moe_operator.controller.parent import Parent
from moe_operator.controller.pass_state import Decision, PassState
from moe_operator.controller.status import fold
from moe_operator.controller.status_figures import INTERVAL, figures
from moe_operator.controller.store import Key, Store
from moe_operator.controller.width_news import width_news
from moe_operator.telemetry.observation import Snapshot

#: Decisions of which an Event tells: the others show in the Events of groups.
_TOLD = (ScalingReason.IDLE.value, ScalingReason.SCHEDULED.value, ScalingReason.WOKEN.value)


class StatusWriter:
    """Remembers, per deployment, when figures were written last. Losing it is harmless."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        events: EventSink,
        parent: Parent,
        snapshot: Callable[[], Snapshot],
        hbm: HbmKeeper,
        delivered: DeliveredKeeper,
    ) -> None:
        self._client = client
        self._store = store
        self._events = events
        self._parent = parent
        self._snapshot = snapshot
        self._hbm = hbm
        self._delivered = delivered
        self._figures_written_at: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._figures_written_at.pop(key, None)

    async def write(self, state: PassState, seen: Decision) -> None:
        """One write at most. Raises KubeError; NotFoundError when the deployment is gone."""
        deployment = state.deployment
        state.hbm = self._hbm.look(state, seen.views)
        state.delivered = self._delivered.look(state, seen.views)
        status = fold(self._learned(state, seen))
        if status == deployment.status:
            return
        if _figures(status) != _figures(deployment.status) or _only_cost(status, deployment.status):
            self._figures_written_at[deployment.key] = state.now
        fresh = await self._apply(deployment, status)
        # The version that was written to was this very object's: it is there.
        state.parent_seen = state.parent_seen or not fresh["metadata"].get("deletionTimestamp")
        before, after = deployment.status.scaling, status.scaling
        if before and after and (text := _changed(before, after)) is not None:
            note = f"{before.desired} → {after.desired} groups: {text}"
            await self._events.emit(deployment, "Normal", after.reason, "Scale", note)
        for condition in status.conditions:
            if condition.type == reasons.STALLED and not _said(condition, deployment.status.conditions):
                await self._events.emit(deployment, "Warning", condition.reason, "Plan", condition.message)
        await self._tell_of_scaling(deployment, status.scaling)
        for type_, reason, note in width_news(before, after):
            await self._events.emit(deployment, type_, reason, "Scale", note)
        for type_, reason, note in hbm_news(deployment.status.hbm, status.hbm, state.hbm):
            await self._events.emit(deployment, type_, reason, "Measure", note)
        for type_, reason, note in budget_news(deployment.status.cost, status.cost):
            await self._events.emit(deployment, type_, reason, "Account", note)
        state.deployment = replace(deployment, status=status)

    async def _tell_of_scaling(self, deployment: ModelDeployment, scaling: ScalingStatus | None) -> None:
        """To zero and back, and what is asked for in vain: once each, as it stands in the status."""
        old = deployment.status.scaling
        if scaling is None:
            return
        before = (old.desired, old.reason) if old is not None else None
        if scaling.reason in _TOLD and before != (scaling.desired, scaling.reason):
            note = f"{scaling.desired} groups are wanted: {scaling.message}"
            await self._events.emit(deployment, "Normal", scaling.reason, "Scale", note)
        if scaling.ignored is not None and (old is None or old.ignored != scaling.ignored):
            await self._events.emit(deployment, "Warning", reasons.WAKE_UNREADABLE, "Scale", scaling.ignored)

    async def remember(
        self, deployment: ModelDeployment, learned: LearnedStatus | None, cost: CostStatus | None = None
    ) -> None:
        """Keep what was learned and counted, besides what the status says. Raises KubeError."""
        status = deployment.status
        kept: dict[str, Any] = {}
        if status.scaling is not None and learned is not None:
            kept["scaling"] = status.scaling.model_copy(update={"learned": learned})
        if cost is not None:
            kept["cost"] = cost
        if kept:
            await self._apply(deployment, status.model_copy(update=kept))

    async def _apply(self, deployment: ModelDeployment, status: ModelDeploymentStatus) -> Obj:
        obj = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": self._parent.status_target(deployment),
            "status": status.wire(),
        }
        fresh = await self._client.apply_status(MODEL_DEPLOYMENT, obj)
        self._store.upsert(MODEL_DEPLOYMENT, fresh)
        return fresh

    def figures_due(self, state: PassState, seen: Decision) -> float | None:
        """Figures that may not be written yet are looked at again when they may: in so many seconds."""
        told = state.deployment.status
        load, scaling = seen.load.throughput, seen.scale.status
        new = figures(told, load, scaling, state.hbm, state.cost, state.now, state.delivered)
        if not new.differ(told):
            return None
        written = self._figures_written_at.get(state.deployment.key)
        return INTERVAL if written is None else max(1.0, written + INTERVAL - state.now)

    def _learned(self, state: PassState, seen: Decision) -> Learned:
        return Learned(
            deployment=state.deployment,
            now=state.now,
            trouble=state.trouble,
            revision=state.effective,
            plan_notes=state.notes,
            groups=seen.views,
            desired=seen.scale.desired,
            minimum=seen.scale.minimum,
            standing=seen.scale.standing,
            scaling=seen.scale.status,
            throughput=seen.load.throughput,
            ledger=state.ledger,
            figures_written_at=self._figures_written_at.get(state.deployment.key),
            room=state.room,
            observations=self._snapshot().pods,
            weights=state.weights,
            provenance=state.provenance,
            rollout=state.rollout,
            hindrance=state.hindrance,
            hbm=state.hbm,
            delivered=state.delivered,
            cost=state.cost,
            leaving=state.leaving,
            removing=state.removing,
        )


def _figures(
    status: ModelDeploymentStatus,
) -> tuple[ThroughputStatus, ScalingFigures | None, HbmStatus | None, LatencyStatus | None]:
    scaling = status.scaling.figures if status.scaling else None
    return status.throughput, scaling, status.hbm, status.latency


def _only_cost(status: ModelDeploymentStatus, before: ModelDeploymentStatus) -> bool:
    return status.cost != before.cost and status.model_copy(update={"cost": before.cost}) == before


def _changed(before: ScalingStatus, after: ScalingStatus) -> str | None:
    """Why the number changed; None where it did not. A choice of width has an Event of its own."""
    if before.desired == after.desired:
        return None
    if before.chosen_width == after.chosen_width:
        return after.message
    gone = after.chosen_width is None and after.history
    return after.history[-1].message if gone else None


def _said(condition: Condition, before: list[Condition]) -> bool:
    """Whether it was true before, for the same reason."""
    return any(
        c.type == condition.type and c.status == "True" and c.reason == condition.reason for c in before
    )
