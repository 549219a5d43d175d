"""Who leads: the decisions of leader election by a Lease, as a function of what was observed and when.

Clocks of machines are never compared. A candidate counts the lease's duration from when it saw the record change
last, on its own clock; so a leader that renews in time is safe whatever anybody's clock says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds. duration > renew_deadline > the others: who leads has stopped before another can begin."""

    duration: float = 15.0
    """Without a renewal for so long, the lease may be taken over."""
    renew_deadline: float = 10.0
    """A leader that could not renew for so long stops."""
    renew: float = 2.0
    """Between two renewals."""
    retry: float = 1.0
    """Between two looks of a candidate, and after a renewal that failed."""

    def __post_init__(self) -> None:
        longest, shortest = max(self.renew, self.retry), min(self.renew, self.retry)
        if not (self.duration > self.renew_deadline > longest and shortest > 0):
            raise ValueError(f"a lease needs duration > renew deadline > renew and retry > 0, not {self}")


@dataclass(frozen=True)
class LeaseRecord:
    """The lease as read: its holder ("" for nobody) and what tells one state of it from another."""

    holder: str
    renewed: str
    transitions: int
    duration: float
    version: str
    uid: str


@dataclass(frozen=True)
class Observed:
    """A record and the local time at which it was first seen to be like this."""

    record: LeaseRecord
    since: float


class Step(Enum):
    """What to do next."""

    CREATE = "create"
    ACQUIRE = "acquire"
    RENEW = "renew"
    WAIT = "wait"


def read_record(obj: Mapping[str, Any]) -> LeaseRecord:
    """Read a Lease object; whatever is missing counts as held by nobody."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        duration=float(spec.get("leaseDurationSeconds") or 0),
        version=meta.get("resourceVersion") or "",
        uid=meta.get("uid") or "",
    )


def observe(before: Observed | None, record: LeaseRecord | None, now: float) -> Observed | None:
    """Take up what was read; `since` moves only when holder or renewal differ."""
    if record is None:
        return None
    if (
        before
        and (before.record.holder, before.record.renewed) == (record.holder, record.renewed)
        and before.record.uid == record.uid
    ):
        return Observed(record, before.since)
    return Observed(record, now)


def decide(observed: Observed | None, me: str, now: float, times: LeaseTimes) -> Step:
    """What one who is called `me` does at local time `now`.

    The longer of the holder's duration and ours counts: replicas of two versions may have different ideas of it.
    """
    if observed is None:
        return Step.CREATE
    record = observed.record
    if record.holder == me:
        return Step.RENEW
    if not record.holder:
        return Step.ACQUIRE
    if now - observed.since >= max(times.duration, record.duration):
        return Step.ACQUIRE
    return Step.WAIT


def claim(me: str, wall_time: float, times: LeaseTimes, before: LeaseRecord | None) -> dict[str, Any]:
    """`spec` of a lease held by `me`, newly taken or renewed. `wall_time` (epoch seconds) is for people to read."""
    stamp = _micro_time(wall_time)
    spec: dict[str, Any] = {
        "holderIdentity": me,
        "leaseDurationSeconds": int(times.duration),
        "renewTime": stamp,
    }
    if before is None or before.holder != me:
        spec["acquireTime"] = stamp
        spec["leaseTransitions"] = before.transitions + 1 if before else 0
    return spec


def led_until(record: LeaseRecord) -> float | None:
    """Until when, at the latest, its holder led or had led, by its own wall clock (epoch seconds): it stops before the
    lease has run out. None where that cannot be read."""
    try:
        return datetime.fromisoformat(record.renewed).timestamp() + record.duration
    except ValueError:
        return None


def release(wall_time: float) -> dict[str, Any]:
    """`spec` of a lease that nobody holds: the next candidate that looks takes it."""
    return {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(wall_time)}


def _micro_time(seconds: float) -> str:
    """As `metav1.MicroTime` is written."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
