"""Who may ask what: the operator proves itself by a token, clients by the API key where there is one.

The pod knows only a hash of the operator's token, MOE_AGENT_VERIFIER: who reads the pod learns nothing that opens
it. The API key is VLLM_API_KEY. vLLM asks for it on some prefixes only and answers prompts without it on others
(/invocations); with a key set, everything but the pages below needs it.
"""

from __future__ import annotations

import hashlib
import hmac

from .asgi import Scope

TOKEN_HEADER = b"x-moe-agent-token"
#: What probes, scrapes and load balancers ask without a key.
_OPEN = ("/health", "/metrics", "/ping", "/version", "/load")


class Guard:
    """Judges requests by their headers. Without a verifier anyone passes for the operator, without a key any client."""

    def __init__(self, verifier: str = "", api_key: str = "") -> None:
        self._verifier = verifier
        self._key = api_key

    def is_operator(self, scope: Scope) -> bool:
        """Whether a request comes from the operator."""
        if not self._verifier:
            return True
        sent = hashlib.sha256(_header(scope, TOKEN_HEADER)).hexdigest()
        return hmac.compare_digest(sent, self._verifier)

    def proves_operator(self, scope: Scope) -> bool:
        """The same where a mistake would give away what the key guards: then nobody passes unproven."""
        return self.is_operator(scope) if self._verifier or not self._key else False

    def admits(self, scope: Scope, path: str) -> bool:
        """Whether a request may go on to vLLM, which judges some paths once more."""
        if not self._key or scope.get("method") == "OPTIONS" or path.rstrip("/") in _OPEN:
            return True
        scheme, _, sent = _header(scope, b"authorization").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(
            hashlib.sha256(sent).digest(), hashlib.sha256(self._key.encode()).digest()
        )

    def with_key(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The headers of a request with the key in them, and without the operator's token."""
        kept = [pair for pair in scope["headers"] if pair[0].lower() not in (TOKEN_HEADER, b"authorization")]
        return [*kept, (b"authorization", b"Bearer " + self._key.encode())] if self._key else kept


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key.lower() == name), b"")
