"""Service account tokens of one pod, by the TokenRequest API, renewed before they end."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from localcluster.kubelet import payload
from localcluster.kubelet.apiclient import ApiClient, Obj
from localcluster.kubelet.records import parse_time

#: A kubelet renews at 80 % of a token's life, and at a day's age at the latest.
_RENEW_AT = 0.8
_LONGEST = 24 * 3600.0
_DEFAULT_SECONDS = 3600


@dataclass
class _Token:
    text: str
    renew_at: float


class PodTokens:
    """``renew`` fetches what is missing or due; ``next_renewal`` says when to call it again (Unix seconds)."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._tokens: dict[tuple[str, str], _Token] = {}

    async def renew(self, pod: Obj) -> bool:
        """Returns whether a token changed. Raises ApiError."""
        changed = False
        for volume, source in payload.token_requests(pod):
            key = (volume, source["path"])
            known = self._tokens.get(key)
            if known is None or known.renew_at <= time.time():
                self._tokens[key] = await self._request(pod, source)
                changed = True
        return changed

    async def _request(self, pod: Obj, source: Obj) -> _Token:
        metadata = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        answer = await self._client.post(
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [source["audience"]] if source.get("audience") else [],
                    "expirationSeconds": int(source.get("expirationSeconds") or _DEFAULT_SECONDS),
                    "boundObjectRef": {
                        "kind": "Pod",
                        "apiVersion": "v1",
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    },
                },
            },
        )
        now = time.time()
        expires = parse_time(answer["status"]["expirationTimestamp"])
        life = expires.timestamp() - now if expires else _DEFAULT_SECONDS
        return _Token(
            answer["status"]["token"], now + min(life * _RENEW_AT, _LONGEST) * random.uniform(0.95, 1)
        )

    @property
    def next_renewal(self) -> float | None:
        """None when the pod has no tokens."""
        return min((token.renew_at for token in self._tokens.values()), default=None)

    def of_volume(self, volume: str) -> dict[str, str]:
        """Tokens by path in one projected volume."""
        return {path: token.text for (name, path), token in self._tokens.items() if name == volume}
