"""Leader election: at most one replica works. The rules are in `lease_rules`; here they meet the API server.

A Lease cannot fence: a leader that was stopped for long and goes on has a moment before it notices. So the clients
of the leader ask `holds` before every write, and every write is idempotent and conditional anyway.
"""

import asyncio
import logging
from collections.abc import Callable

from moe_operator.controller.kube import LEASE, ConflictError, KubeClient, KubeError, Obj
from moe_operator.runtime.lease_rules import (
    LeaseRecord,
    LeaseTimes,
    Observed,
    Step,
    claim,
    decide,
    led_until,
    observe,
    read_record,
    release,
)

log = logging.getLogger(__name__)

#: Seconds for one request about the lease: a slow API server is no dead one, and two tries fit into the deadline.
_REQUEST = 5.0
#: Seconds that giving it back may take: the process is about to end.
_RELEASE = 1.0


class Lease:
    """One candidate."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        wall_clock: Callable[[], float],
        draw: Callable[[], float],
        times: LeaseTimes | None = None,
    ) -> None:
        """`identity` must be this process's alone; `wall_clock`: epoch seconds; `draw`: numbers in [0, 1)."""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._me = identity
        self._wall_clock = wall_clock
        self._draw = draw
        self._times = times or LeaseTimes()
        self._observed: Observed | None = None
        self._renewed_at: float | None = None
        self._trouble = ""
        self.led_before_until: float | None = None
        """Until when, at the latest, who held it before led, by that one's wall clock; None where nobody did."""

    def holds(self) -> bool:
        """Whether this process may write now."""
        return self._renewed_at is not None and self._now() < self._renewed_at + self._times.renew_deadline

    @property
    def holder(self) -> str:
        """Who held it when it was looked at last; empty where nobody did, or that is not known."""
        return self._observed.record.holder if self._observed else ""

    async def acquire(self) -> None:
        """Return once the lease is ours."""
        said = ""
        while True:
            step = await self._try()
            if self._renewed_at is not None:
                log.info("leading as %s", self._me)
                return
            if step is Step.WAIT and self.holder != said:
                log.info("standing by: %s leads", self.holder)
                said = self.holder
            await asyncio.sleep(self._times.retry * (0.8 + 0.4 * self._draw()))

    async def hold(self) -> str:
        """Keep renewing; returns why the lease was lost."""
        times = self._times
        pause = times.renew
        while True:
            assert self._renewed_at is not None
            deadline = self._renewed_at + times.renew_deadline
            await asyncio.sleep(max(0.0, min(pause * (0.8 + 0.4 * self._draw()), deadline - self._now())))
            if self._now() >= deadline:
                self._renewed_at = None
                return f"it could not be renewed for {times.renew_deadline:.0f} s"
            before = self._renewed_at
            await self._try(deadline)
            if self._observed and self._observed.record.holder != self._me:
                self._renewed_at = None
                return f"{self._observed.record.holder or 'nobody'} holds it"
            pause = times.renew if self._renewed_at != before else times.retry

    async def give_back(self) -> None:
        """Let the next candidate lead at once. Failing that, it leads once the lease has run out."""
        held, self._renewed_at = self._renewed_at is not None, None
        if not held or not self._observed:
            return
        try:
            async with asyncio.timeout(_RELEASE):
                await self._write(self._observed.record, release(self._wall_clock()))
            log.info("gave the lease back")
        except (KubeError, TimeoutError) as error:
            log.warning("could not give the lease back, it runs out by itself: %s", error)

    async def _try(self, deadline: float | None = None) -> Step | None:
        """One look, and one write where it is due. None when the API server could not be asked."""
        limit = min(self._now() + _REQUEST, deadline or float("inf"))
        try:
            async with asyncio.timeout_at(limit):
                step = await self._look_and_write()
                self._trouble = ""
                return step
        except (KubeError, TimeoutError) as error:
            if isinstance(error, ConflictError):
                self._observed = None  # somebody wrote in between: look before the next step
            trouble = str(error) or "no answer in time"
            if trouble != self._trouble:
                log.warning("lease %s/%s: %s", self._namespace, self._name, trouble)
            self._trouble = trouble
            return None

    async def _look_and_write(self) -> Step:
        if self._renewed_at is None or self._observed is None:
            found = await self._client.get(LEASE, self._namespace, self._name)
            record = read_record(found) if found else None
            self._observed = observe(self._observed, record, self._now())
        step = decide(self._observed, self._me, self._now(), self._times)
        if step is Step.WAIT:
            return step
        before = self._observed.record if self._observed else None
        if before is not None and before.holder != self._me:
            self.led_before_until = led_until(before)
        begun = self._now()
        spec = claim(self._me, self._wall_clock(), self._times, before)
        fresh = await (self._write(before, spec) if before else self._create(spec))
        self._observed = Observed(read_record(fresh), self._now())
        self._renewed_at = begun
        return step

    async def _create(self, spec: Obj) -> Obj:
        return await self._client.create(
            LEASE,
            {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {"namespace": self._namespace, "name": self._name},
                "spec": spec,
            },
        )

    async def _write(self, before: LeaseRecord, spec: Obj) -> Obj:
        """Only if nobody wrote since."""
        meta = {"uid": before.uid, "resourceVersion": before.version}
        return await self._client.patch(LEASE, self._namespace, self._name, {"metadata": meta, "spec": spec})

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
