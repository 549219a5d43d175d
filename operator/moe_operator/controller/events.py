"""How the controller tells people what happened."""

from typing import Literal, Protocol

from moe_operator.api.deployment import ModelDeployment


class EventSink(Protocol):
    """Posts Kubernetes Events. Failures are logged, never raised: an Event is no state."""

    async def emit(
        self,
        regarding: ModelDeployment,
        type_: Literal["Normal", "Warning"],
        reason: str,
        action: str,
        note: str,
    ) -> None:
        """One transition. `reason` is a constant of `api.reasons`, `action` the verb that was done."""


class LossObserver(Protocol):
    """Counts groups that were lost."""

    def group_lost(self, namespace: str, name: str, reason: str) -> None:
        """A group of this deployment was lost; `reason` is one of the causes in `api.reasons`."""

    def forget_losses(self, namespace: str, name: str) -> None:
        """The deployment is gone, and with it its counts."""
