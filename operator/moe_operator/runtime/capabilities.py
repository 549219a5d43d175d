"""What the cluster can do: whether LeaderWorkerSet is there and has what groups need.

It is read from the API server's discovery and OpenAPI pages, which every account may read, so no right on CRDs is
needed. Answers are kept for a while; a lack for seconds only, so that the operator goes on by itself once it is made
good.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from moe_operator.api import reasons
from moe_operator.controller.kube import LEADER_WORKER_SET, KubeError, NotFoundError, Obj
from moe_operator.planner.plan import Refusal

log = logging.getLogger(__name__)

#: Seconds that an answer counts: a good one, and one that something lacks.
PRESENT_FOR = 600.0
LACKING_FOR = 10.0
#: The version that is tested; earlier ones may do.
TESTED = "0.9.0"

_GROUP = LEADER_WORKER_SET.group
_VERSION = LEADER_WORKER_SET.version
_NEEDED_POLICY = "None"


class PathReader(Protocol):
    """What the check needs of the API server."""

    async def get_path(self, path: str) -> Obj:
        """GET of any path. Raises KubeError."""


class Remembered:
    """A question to the API server whose answer holds for a while."""

    def __init__(
        self, what: str, ask: Callable[[], Awaitable[Refusal | None]], clock: Callable[[], float]
    ) -> None:
        """`what` names it in the log; `ask` gives why it cannot be used, or None."""
        self._what = what
        self._ask = ask
        self._clock = clock
        self._answer: Refusal | None = None
        self._good_until: float | None = None

    async def __call__(self) -> Refusal | None:
        """The answer, asked for anew when the last one is old. Raises KubeError if there never was one."""
        now = self._clock()
        if self._good_until is not None and now < self._good_until:
            return self._answer
        try:
            self._answer = await self._ask()
        except KubeError as error:
            if self._good_until is None:
                raise
            log.info("could not look for %s, the last answer stands: %s", self._what, error)
            self._good_until = now + LACKING_FOR
            return self._answer
        self._good_until = now + (LACKING_FOR if self._answer else PRESENT_FOR)
        return self._answer


class LeaderWorkerSetCheck(Remembered):
    """Says why LeaderWorkerSet cannot be used, or None."""

    def __init__(self, client: PathReader, clock: Callable[[], float]) -> None:
        super().__init__("LeaderWorkerSet", lambda: _check(client), clock)


async def served_versions(client: PathReader, group: str) -> list[str] | None:
    """Versions of an API group; None where the group is not there."""
    try:
        page = await client.get_path(f"/apis/{group}")
    except NotFoundError:
        return None
    return [v.get("version", "") for v in page.get("versions") or []]


async def _check(client: PathReader) -> Refusal | None:
    served = await served_versions(client, _GROUP)
    if served is None:
        return Refusal(
            reasons.LEADER_WORKER_SET_MISSING,
            f"the cluster has no LeaderWorkerSet ({_GROUP}), of which every group is made: install version "
            f"{TESTED} or later",
            retry=True,
        )
    if _VERSION not in served:
        return Refusal(
            reasons.LEADER_WORKER_SET_TOO_OLD,
            f"the cluster serves LeaderWorkerSet in {', '.join(served) or 'no version'}, {_VERSION} is needed: "
            f"upgrade it to {TESTED} or later",
            retry=True,
        )
    try:
        page = await client.get_path(f"/openapi/v3/apis/{_GROUP}/{_VERSION}")
    except KubeError as error:
        if error.status in (403, 404, 406):
            return None  # not told; a group that is refused says so then
        raise
    policies = list(_restart_policies(page))
    if policies and _NEEDED_POLICY not in policies:
        return Refusal(
            reasons.LEADER_WORKER_SET_TOO_OLD,
            f"the cluster's LeaderWorkerSet knows the restart policies {', '.join(policies)}, {_NEEDED_POLICY} "
            f"is needed, as the operator replaces groups itself: upgrade it to {TESTED} or later",
            retry=True,
        )
    return None


def _restart_policies(page: Mapping[str, Any]) -> Iterator[str]:
    """The values of `restartPolicy` in the kind's schema."""
    for schema in ((page.get("components") or {}).get("schemas") or {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind") or []
        if not any(k.get("group") == _GROUP and k.get("kind") == LEADER_WORKER_SET.kind for k in kinds):
            continue
        node = schema
        for step in ("spec", "leaderWorkerTemplate", "restartPolicy"):
            node = (node.get("properties") or {}).get(step) or {}
        yield from node.get("enum") or []
