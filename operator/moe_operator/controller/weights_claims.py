"""The claims that weights lie on: looked at now and then, the operator's own made and grown."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.kube import (
    PERSISTENT_VOLUME_CLAIM,
    ConflictError,
    InvalidError,
    KubeClient,
    KubeError,
    Obj,
)
from moe_operator.controller.weights_ownership import is_operators
from moe_operator.planner.quantities import whole
from moe_operator.resources.weights import Kept, cache_size
from moe_operator.resources.weights_fetch import build_claim

#: Seconds for which a claim that was looked at counts as it was then. Claims are not watched: the operator asks for no
#: right to list them.
_HOLDS = 300.0


@dataclass
class _Seen:
    claim: Obj | None
    at: float
    may_grow: bool = True
    """Whether it was not yet tried to make it larger."""


class WeightsClaims:
    """Claims by namespace and name."""

    def __init__(self, client: KubeClient, config: OperatorConfig, clock: Callable[[], float]) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._seen: dict[tuple[str, str], _Seen] = {}

    async def look(self, namespace: str, name: str, *, holds: float = _HOLDS) -> Obj | None:
        """The claim as it was at most `holds` seconds ago; None where there is none. Raises KubeError."""
        now = self._clock()
        known = self._seen.get((namespace, name))
        if known is None or known.claim is None or now - known.at >= holds:
            claim = await self._client.get(PERSISTENT_VOLUME_CLAIM, namespace, name)
            self._seen = {at: seen for at, seen in self._seen.items() if now - seen.at < _HOLDS}
            known = self._seen[namespace, name] = _Seen(claim, now)
        return known.claim

    async def glance(self, namespace: str, name: str, *, holds: float = _HOLDS) -> Obj | None:
        """The same; None where it cannot be looked at: what is only said must not keep a group from being made."""
        try:
            return await self.look(namespace, name, holds=holds)
        except KubeError:
            return None

    async def ensure(
        self,
        deployment: ModelDeployment,
        kept: Kept,
        before_create: Callable[[], Awaitable[None]],
        *,
        anew: bool,
    ) -> str | None:
        """The uid of the cache's claim, made or made larger where it is the operator's; None where it is not there: its
        pod then says so. `anew`: ask the cluster. Raises KubeError."""
        assert kept.claim is not None
        at = (deployment.namespace, kept.claim)
        claim = await self.look(*at, holds=0.0 if anew else _HOLDS)
        if kept.storage_class is not None:
            size = cache_size(deployment.spec, self._config.weights, kept.storage_class)
            if claim is None and size is not None:
                await before_create()
                try:
                    claim = await self._client.create(
                        PERSISTENT_VOLUME_CLAIM, build_claim(deployment, kept, size)
                    )
                except ConflictError:
                    claim = await self._client.get(PERSISTENT_VOLUME_CLAIM, *at)
                self._seen[at] = _Seen(claim, self._clock())
            elif claim is not None and size is not None:
                await self._grow(self._seen[at], claim, size)
        uid: str | None = claim["metadata"]["uid"] if claim is not None else None
        return uid

    async def _grow(self, seen: _Seen, claim: Obj, size: str) -> None:
        has = claim["spec"]["resources"]["requests"]["storage"]
        if not seen.may_grow or not is_operators(claim) or (whole(has) or 0) >= (whole(size) or 0):
            return
        seen.may_grow = False
        meta = claim["metadata"]
        patch = {
            "metadata": {"uid": meta["uid"]},
            "spec": {"resources": {"requests": {"storage": size}}},
        }
        try:
            await self._client.patch(PERSISTENT_VOLUME_CLAIM, meta["namespace"], meta["name"], patch)
        except InvalidError:
            return  # its class cannot; a download that finds no room says so
