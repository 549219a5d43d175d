"""The last readings of one group, and the load that they show."""

from collections import deque
from dataclasses import dataclass, field

from moe_operator.autoscaler.attainment import within
from moe_operator.autoscaler.capacity import Gauges, Limits, Share, share_of
from moe_operator.autoscaler.reading import Buckets, Reading

#: Seconds that gauges and the step time are averaged over: long prompts make steps uneven.
SMOOTHED = 60.0
#: Seconds that requests may have waited for their tokens, for each second and slot.
_WAITS = 4.0
#: Seconds that the requests which a new group has at first are taken to have come in, at least.
_FIRST = 15.0
#: A reading older than this (s) says nothing of now.
STALE_AFTER = 60.0
#: Seconds between two looks, or two readings, that belong together. What went on in a longer pause was not seen: its
#: mean is no figure of now.
UNSEEN = 300.0


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """A group's load as of its newest reading. Means are over SMOOTHED seconds; counts are since the last look."""

    share: Share
    running: float
    """Requests at work for each rank, mean."""
    at_work: float
    """The same of all ranks together."""
    waiting: float
    step_time: float | None
    arrivals: float
    """Requests per second that came since the last look."""
    late_first: float
    """Of the requests that were judged since the last look, those whose first token came later than the objective."""
    late_tokens: float
    """Those of the others whose further tokens did."""
    judged: float
    """Requests that ended since the last look."""
    worth: float = 1.0
    """What the group counts for, where groups of several widths serve."""


@dataclass
class GroupWindow:
    """Readings of one group, oldest first."""

    slots: int
    """Of a rank; 0: unknown."""
    born: float | None = None
    """When it began to serve, if that was seen: what it has by then came since."""
    _readings: deque[Reading] = field(default_factory=deque)
    _looked: Reading | None = None
    """The newest reading at the last look."""
    ranks: int = 0
    """Most that told at one time."""

    def add(self, reading: Reading) -> None:
        """Take one up. What is no number, not newer or lacks a rank is left out; counters that fell begin anew."""
        if not reading.usable() or reading.ranks < max(1, self.ranks):
            return
        self.ranks = reading.ranks
        if self._readings:
            last = self._readings[-1]
            if reading.at <= last.at:
                return
            if not reading.follows(last) or self._leaps(last, reading):
                self._readings.clear()
                self._looked, self.born = None, None
        self._readings.append(reading)
        # From before a pause one is kept until there are two of now: what they have between them is all there is.
        while len(self._readings) > 2 and (
            self._readings[1].at <= reading.at - SMOOTHED
            or self._readings[1].at > self._readings[0].at + UNSEEN
        ):
            self._readings.popleft()

    def _leaps(self, last: Reading, reading: Reading) -> bool:
        """Whether more went on since than the group has slots for: each request at work waits a second per second for
        its tokens, and some a while longer, as they were preempted."""
        if not self.slots:
            return False
        most = _WAITS * self.ranks * self.slots * (reading.at - last.at)
        return reading.gap_seconds - last.gap_seconds > most + self.ranks * self.slots

    def look(self, now: float, limits: Limits, ttft: float | None, tpot: float | None) -> GroupLoad | None:
        """The load now, against an objective (s; None: none); None without a current reading."""
        if not self._readings or self._readings[-1].at < now - STALE_AFTER:
            return None
        first, last = self._readings[0], self._readings[-1]
        count = len(self._readings)
        running = sum(reading.running for reading in self._readings) / count / self.ranks
        kv = sum(reading.kv for reading in self._readings) / count
        gaps = last.gaps - first.gaps
        step_time = (last.gap_seconds - first.gap_seconds) / gaps if gaps > 0 else None
        arrivals, late_first, late_tokens, judged = self._since_the_last_look(last, ttft, tpot)
        self._looked = last
        return GroupLoad(
            share=share_of(Gauges(running, self.slots, kv, step_time), limits),
            running=running,
            at_work=running * self.ranks,
            waiting=last.waiting,
            step_time=step_time,
            arrivals=arrivals,
            late_first=late_first,
            late_tokens=late_tokens,
            judged=judged,
        )

    def _since_the_last_look(
        self, last: Reading, ttft: float | None, tpot: float | None
    ) -> tuple[float, float, float, float]:
        before = self._looked
        if before is None:
            if self.born is None or last.at <= self.born:
                return 0.0, 0.0, 0.0, 0.0
            # What came in its first second, waited for it to be there: it is no rate.
            since = max(last.at - self.born, _FIRST)
            return (last.running + last.waiting + last.finished) / since, 0.0, 0.0, 0.0
        if last.at <= before.at:
            return 0.0, 0.0, 0.0, 0.0
        ended = last.finished - before.finished
        came = ended + last.running + last.waiting - before.running - before.waiting
        first = min(_late(last.first_token.since(before.first_token), ttft), ended)
        # Which of them are the same is not told: taken as none.
        tokens = min(_late(last.per_token.since(before.per_token), tpot), ended - first)
        return max(0.0, came) / (last.at - before.at), first, tokens, ended


def _late(grown: Buckets, objective: float | None) -> float:
    if objective is None or not grown.counts or grown.counts[-1] <= 0:
        return 0.0
    found = within(grown.bounds, grown.counts, objective)
    return max(0.0, found.total - found.kept)
