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
