"""Writes what a pass found out into the status, if that changed."""

from collections.abc import Callable
from dataclasses import replace

from moe_operator.api import names, reasons
from moe_operator.api.status import Condition
from moe_operator.controller.events import EventSink
from moe_operator.controller.kube import MODEL_DEPLOYMENT, KubeClient
from moe_operator.controller.learned import Learned
from moe_operator.controller.parent import Parent
from moe_operator.controller.pass_state import Decision, PassState
from moe_operator.controller.status import FIGURE_INTERVAL, fold
from moe_operator.controller.store import Key, Store
from moe_operator.controller.width_news import width_news
from moe_operator.telemetry.observation import Snapshot


class StatusWriter:
    """Remembers, per deployment, when figures were written last. Losing it is harmless."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        events: EventSink,
        parent: Parent,
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._client = client
        self._store = store
        self._events = events
        self._parent = parent
        self._snapshot = snapshot
        self._figures_written_at: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._figures_written_at.pop(key, None)

    async def write(self, state: PassState, seen: Decision) -> None:
        """One write at most. Raises KubeError; NotFoundError when the deployment is gone."""
        deployment = state.deployment
        status = fold(self._learned(state, seen))
        if status == deployment.status:
            return
        if status.throughput != deployment.status.throughput:
            self._figures_written_at[deployment.key] = state.now
        obj = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": self._parent.status_target(state),
            "status": status.wire(),
        }
        fresh = await self._client.apply_status(MODEL_DEPLOYMENT, obj)
        self._store.upsert(MODEL_DEPLOYMENT, fresh)
        # The version that was written to was this very object's: it is there.
        state.parent_seen = state.parent_seen or not fresh["metadata"].get("deletionTimestamp")
        for condition in status.conditions:
            if condition.type == reasons.STALLED and not _said(condition, deployment.status.conditions):
                await self._events.emit(deployment, "Warning", condition.reason, "Plan", condition.message)
        for type_, reason, note in width_news(deployment.status.scaling, status.scaling):
            await self._events.emit(deployment, type_, reason, "Scale", note)
        state.deployment = replace(deployment, status=status)

    def figures_due(self, state: PassState, seen: Decision) -> float | None:
        """Figures that may not be written yet are looked at again when they may: in so many seconds."""
        if seen.load.throughput == state.deployment.status.throughput:
            return None
        written = self._figures_written_at.get(state.deployment.key)
        return FIGURE_INTERVAL if written is None else max(1.0, written + FIGURE_INTERVAL - state.now)

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
            leaving=state.leaving,
            removing=state.removing,
        )


def _said(condition: Condition, before: list[Condition]) -> bool:
    """Whether it was true before, for the same reason."""
    return any(
        c.type == condition.type and c.status == "True" and c.reason == condition.reason for c in before
    )
