"""What the operator itself asks of engines. Taken off what telemetry sees, so that a canary is no load: not for the
autoscaler, not for a drain, not in the status, and not for the question whether a group is idle."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

#: Tokens that a canary's prompt may have, until the answer says how many it had. Too many hide a scrape's worth of real
#: ones at most; too few would show as load.
_PROMPT_AT_MOST = 8


@dataclass(frozen=True)
class Own:
    """Of one pod, since the operator began."""

    in_flight: int = 0
    """Requests that are open."""
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def answered(self) -> int:
        """Requests that came to their end: each has one token."""
        return self.output_tokens


@dataclass
class Asked:
    """One round of requests: what came of it, filled in by whoever asked."""

    prompt_tokens: int = 0
    output_tokens: int = 0


class OwnRequests:
    """Counts by pod uid."""

    def __init__(self) -> None:
        self._pods: dict[str, Own] = {}

    def of(self, pod_uid: str) -> Own:
        """What is known of one pod."""
        return self._pods.get(pod_uid, Own())

    @contextmanager
    def asking(self, pod_uid: str, requests: int) -> Iterator[Asked]:
        """Around so many requests of one token each. Tokens count from before the engine can have counted them."""
        asked = Asked()
        before = self.of(pod_uid)
        self._pods[pod_uid] = Own(
            before.in_flight + requests,
            before.prompt_tokens + _PROMPT_AT_MOST * requests,
            before.output_tokens + requests,
        )
        try:
            yield asked
        finally:
            now = self.of(pod_uid)
            self._pods[pod_uid] = replace(
                now,
                in_flight=now.in_flight - requests,
                prompt_tokens=now.prompt_tokens - _PROMPT_AT_MOST * requests + asked.prompt_tokens,
                output_tokens=now.output_tokens - requests + asked.output_tokens,
            )

    def forget(self, alive: Iterable[str]) -> None:
        """Drop pods that are gone, unless something is still open there."""
        known = set(alive)
        self._pods = {u: own for u, own in self._pods.items() if u in known or own.in_flight}
