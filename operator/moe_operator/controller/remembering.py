"""What a deployment's autoscaler has learned, between its process and the status. Pure.

It is in the status for the reasons of decision 19, and written as seldom as it is worth it: at most every INTERVAL, and
only when what is there would decide otherwise by now, were it brought back.
"""

from moe_operator.api.scaling import LearnedStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.autoscaler.auto import Autoscaler, Profile
from moe_operator.autoscaler.cold_start import ColdStart
from moe_operator.autoscaler.memory import Memory, Unusable, UnusableError, moved, restored, snapshot
from moe_operator.autoscaler.memory_text import read, version, written
from moe_operator.autoscaler.width import Grounds
from moe_operator.autoscaler.width_memory import grounds_of

#: Seconds between two looks at whether what was learned has moved.
INTERVAL = 600.0
#: What is worth a write at a clean hand-over, of what is worth one otherwise: the next one may be long in coming.
HAND_OVER = 0.25


def recalled(
    learned: LearnedStatus, profile: Profile, clock: float, now: float
) -> tuple[Autoscaler, ColdStart, Grounds]:
    """The autoscaler that had learned that, and what a width is decided on. `clock`: theirs from now on; `now`: seconds
    since the epoch. Raises UnusableError."""
    memory, age = read(learned.state, learned.version), _age(learned, now)
    autoscaler, starts = restored(memory, profile, clock, age)
    return autoscaler, starts, grounds_of(memory.asked.aged(max(0.0, age)), clock)


def recalled_starts(learned: LearnedStatus) -> ColdStart:
    """The cold starts of those groups: all that is to be had of it while no group serves. Raises UnusableError."""
    return ColdStart(read(learned.state, learned.version).starts)


def news(
    old: LearnedStatus | None,
    autoscaler: Autoscaler,
    starts: ColdStart,
    grounds: Grounds,
    last_start: str | None,
    clock: float,
    now: float,
    least: float = 1.0,
) -> LearnedStatus | None:
    """What is worth writing by now; None while that is nothing. `last_start`: the newest group among `starts`; `least`:
    how far it must have moved (`memory.moved`)."""
    memory = snapshot(autoscaler, starts, clock, grounds)
    if memory is None or (old is not None and _moved(old, memory, now) < least):
        return None
    work, idle = memory.work, memory.idle_step_time
    return LearnedStatus(
        time=format_time(now),
        idle_step_microseconds=None if idle is None else round(idle * 1e6),
        request_milliseconds=None if work is None else round(work * 1e3),
        cold_start_seconds=round(starts.expected),
        cold_starts=len(starts.seen),
        last_start=last_start,
        late_percent=f"{memory.spent * 100:.2f}",
        version=version(),
        state=written(memory),
    )


def _moved(old: LearnedStatus, memory: Memory, now: float) -> float:
    try:
        before = read(old.state, old.version)
        return moved(before.aged(max(0.0, _age(old, now))), memory)
    except UnusableError:
        return float("inf")


def _age(learned: LearnedStatus, now: float) -> float:
    """Seconds. Raises UnusableError."""
    try:
        at = parse_time(learned.time)
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise UnusableError(Unusable.DAMAGED, f"{str(learned.time)[:32]!r} is no time")
    return now - at
