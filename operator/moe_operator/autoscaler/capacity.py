"""How much of a group its load takes: the share of what it could take at the objective, by the scarcest resource.

What gauges say is not proportional to the load. Requests stay longer the fuller the batch is, so KV cache and slots
fill faster than the load grows. With a step time that grows in proportion to the tokens in it,

    t = a + n*b + p*c + K*g    n: sequences that decode, p: prompt tokens, K: KV tokens: each is arrivals * t * constant

the step time at s times the present load is t(s) = a / (1 - s*y) with y = 1 - a/t: only the step time without load (a)
and the present one have to be known, not the constants nor the mix of requests. Whatever fills with requests at work,
F, grows as s * t(s), so it reaches its limit at 1/s = (F/limit) * (1 - y) + y, and the step time reaches the objective
at 1/s = y / (1 - a/objective). These are the shares below. They add up over groups, and do not change with how many
there are: half the load of a group is half its share.

The step time is a share's best witness: it is what the objective is about, whatever makes it long. `a` is taken from
the shortest steps, so far below full load shares are too large, never too small (`certainty`).
"""

from dataclasses import dataclass

from moe_operator.catalog.saturation import KV_LIMIT, Resource

#: Of `y` (see above): beyond it one measurement says nothing of how much more would fit.
_MOST_BUSY = 0.98


#: Shares from which on one counts a little, and as it is.
_DOUBTFUL, _SURE = 0.3, 0.6
#: What a doubtful share counts for: something has to begin with.
_LITTLE = 0.1


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a group's worst rank says of itself."""

    running: float
    """Requests at work."""
    slots: int
    """Requests that it can work on at once; 0: unknown."""
    kv: float
    """Share of the KV cache in use, 0 to 1."""
    step_time: float | None = None
    """Mean time between a request's tokens, in seconds; None where none came."""


@dataclass(frozen=True, slots=True)
class Share:
    """A group's load: 1 is as much as it can take at the objective."""

    value: float
    resource: Resource


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a group is full."""

    idle_step_time: float | None = None
    """Step time without load, in seconds: `a` above; None: unknown, then gauges count as proportional to the load."""
    step_time: float | None = None
    """The longest that the objective allows, in seconds; None: no objective."""
    kv: float = KV_LIMIT


def certainty(share: float) -> float:
    """What a share counts for, from _LITTLE to 1.

    The straight line is good near the load that it was learned at. Far below, steps are shorter than it says (few
    tokens do not reach all experts) or longer (one prompt on one of many ranks lengthens the step of all).
    """
    return _LITTLE + (1 - _LITTLE) * min(max((share - _DOUBTFUL) / (_SURE - _DOUBTFUL), 0.0), 1.0)


def share_of(gauges: Gauges, limits: Limits) -> Share:
    """The share of a group that its present load takes."""
    busy = busy_share(gauges, limits)
    found = Share(_filling(gauges.kv / limits.kv, busy), Resource.KV_CACHE)
    if gauges.slots:
        slots = _filling(gauges.running / gauges.slots, busy)
        if slots > found.value:
            found = Share(slots, Resource.REQUEST_SLOTS)
    idle, limit = limits.idle_step_time, limits.step_time
    if idle is not None and limit is not None and limit > idle:
        step = busy / (1 - idle / limit)
        if step > found.value:
            found = Share(step, Resource.STEP_TIME)
    return found


def busy_share(gauges: Gauges, limits: Limits) -> float:
    """`y` above: the part of a step that the load is to blame for, 0 where it is not known."""
    step_time, idle = gauges.step_time, limits.idle_step_time
    if step_time is None or idle is None or step_time <= 0:
        return 0.0
    return min(max(0.0, 1 - idle / step_time), _MOST_BUSY)


def _filling(filled: float, busy: float) -> float:
    return filled * (1 - busy) + busy if filled > 0 else 0.0
