"""What the controller asks of an engine directly, at a pod's own address."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class CanaryResult:
    """Whether every rank of a pod answered one token, and what went wrong."""

    passed: bool
    message: str = ""
    seconds: float = 0.0
    refused: bool = False
    """The engine does not take the request as it is (an HTTP 4xx): it says nothing of whether it can compute."""
    prompt_tokens: int = 0
    """Of all ranks that answered."""
    output_tokens: int = 0


class EngineClient(Protocol):
    """Bounded in time; none of these raises for an engine that misbehaves."""

    async def canary(
        self,
        host: str,
        port: int,
        model: str,
        ranks: int,
        first_rank: int,
        *,
        deadline: float,
        token: str | None = None,
    ) -> CanaryResult:
        """Ask every local rank (`ranks` of them, global numbers from `first_rank`) for one token.

        `token`: proves the operator to the pod's agent, where the engine asks clients for a key.
        """

    async def drain(self, host: str, port: int, token: str | None = None) -> bool:
        """Tell the agent to drain (idempotent). False if it could not be told."""

    async def undrain(self, host: str, port: int, token: str | None = None) -> bool:
        """Tell the agent that the drain is over (idempotent). False if it could not be told."""
