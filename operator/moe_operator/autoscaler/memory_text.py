"""The text in which `memory.Memory` outlives its process. Pure.

`name=values` parts, joined by `;`, always all of them and in this order:

    of=RANKS,SLOTS,TTFT,TPOT,PLANNED,GPUS   the profile, s; `-` for None
    lead=S                             that growth's prior was made for
    idle=WEIGHT,X,XX,T,XT,LEAST        sums of `IdleStepTime`; empty while nothing was seen. `-` for the shortest step
                                       while no batch was large enough for one
    work=CALM,LEVELS,RATES             sums of `DemandMeter`
    budget=LATE,JUDGED,LATE,JUDGED     requests, over hours and lately
    after=S                            for which requests end that were at work while groups were full
    errors=...                         of each forecaster
    starts=...                         cold starts, s, oldest first
    first=H  tokens=H  judged=H        bins of `Lateness`
    Level=H,H  Slow=H,H ...            bins of each forecaster's growth: at the lead's end, the highest within it
    usual=DEMAND,SECONDS               sums of `Usual`
    downs=S,N,S,N ...                  the window before groups go: seconds ago, groups
    fell=S,N                           seconds since some went, `-` for long ago; groups that there are
    asked=SECONDS,WEIGHT,REQUESTS,PROMPT,CACHED,OUTPUT  of what a width is decided on; empty while nothing was seen
    demand=...                         bins of its quantiles, two characters each
    leaning=GPUS,S                     what will be recommended, and for how long it has been so; `-` for none
    sum=HEX                            CRC-32 of all before

H is a histogram: the first bin that has a weight and the weights from there on, two characters each (base 64), a weight
w as 1 + 100 log2(w / 0.05), rounded: within 0.4 % of it. So it is a kilobyte or two, and a weight that is no number
cannot be written.
"""

import math
import zlib
from collections.abc import Iterator, Sequence

from moe_operator.autoscaler import growth, lateness, usual, width
from moe_operator.autoscaler.auto import Profile
from moe_operator.autoscaler.cold_start import KEPT
from moe_operator.autoscaler.forecast import Forecaster
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.autoscaler.memory import MOST_AFTER, MOST_DOWNS, Bins, Memory, Unusable, UnusableError
from moe_operator.autoscaler.width import Leaning
from moe_operator.autoscaler.width_memory import CHUNKS, NOTHING, Asked

#: Of the form above. What the bins mean is part of the version: see `version`.
_FORMAT = 4
#: The longest text: every bin of every histogram in use.
LONGEST = 4096

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_BASE = len(_ALPHABET)
_PLACE = {char: at for at, char in enumerate(_ALPHABET)}
#: The least weight that is written, and steps to its double. Of growth a weight is seconds of thousands, of lateness
#: one is twenty requests.
_LEAST, _STEPS = 0.05, 100
_MOST_CODE = _BASE * _BASE - 1

#: What no deployment comes to. Growth's seconds: each counts once, so 1.44 half-lives of them, and some for gaps.
_MOST_SECONDS = 3 * growth.HALF_LIFE
_MOST_WEIGHT = 1e9
_MOST_STEP = 100.0
_MOST_START = 7 * 86400.0
_MOST_WORK = 1e6


def version() -> str:
    """Of what `written` writes now: of its form, and of what the bins and sums mean."""
    meaning = (
        growth._LOW,
        growth._HIGH,
        growth._BINS,
        usual._POWER,
        usual._LEAST,
        usual._MOST,
        lateness._WIDTH,
        lateness._BINS,
        lateness._OWN,
        width._LEAST,
        width._RATIO,
        width._BINS,
        CHUNKS,
        *Forecaster,
    )
    return f"{_FORMAT}-{zlib.crc32(repr(meaning).encode()):08x}"


def written(memory: Memory) -> str:
    """The text, of at most LONGEST characters."""
    text = ";".join(f"{name}={value}" for name, value in _parts(memory))
    return f"{text};sum={zlib.crc32(text.encode()):08x}"


def _parts(memory: Memory) -> Iterator[tuple[str, str]]:
    profile, idle = memory.profile, memory.idle
    counted = profile.ttft, profile.tpot, profile.idle_step_time, profile.gpus
    yield "of", _list((profile.ranks, profile.slots, *counted), 9)
    yield "lead", _list((memory.lead,), 6)
    least = idle.least if math.isfinite(idle.least) else None
    seen = (idle.weight, idle.x, idle.xx, idle.t, idle.xt, least) if idle.weight > 0 else ()
    # A slope is a small difference of large sums.
    yield "idle", _list(seen, 12)
    yield "work", _list((memory.calm, memory.levels, memory.rates), 6)
    requests = memory.late_requests, memory.judged_requests, memory.late_lately, memory.judged_lately
    yield "budget", _list(requests, 6)
    yield "after", _list((memory.after,), 6)
    yield "errors", _list(memory.errors, 6)
    yield "starts", _list(memory.starts, 6)
    yield "first", _bins(memory.late_first)
    yield "tokens", _bins(memory.late_tokens)
    yield "judged", _bins(memory.judged)
    for name, (end, most) in zip(Forecaster, memory.growth, strict=True):
        yield name.value, f"{_bins(end)},{_bins(most)}"
    yield "usual", _list(memory.usual, 6)
    yield "downs", _list([figure for down in memory.downs for figure in down], 6)
    yield "fell", _list((memory.fell, memory.groups), 6)
    asked, leaning = memory.asked, memory.asked.leaning
    yield "asked", _list((asked.seconds, asked.weight, *asked.mix) if asked.demand else (), 6)
    yield "demand", "".join(_pair(at) for at in asked.demand)
    yield "leaning", _list((leaning.gpus, leaning.held) if leaning is not None else (), 6)


def _list(values: Sequence[float | None], digits: int) -> str:
    return ",".join("-" if value is None else f"{value:.{digits}g}" for value in values)


def _bins(weights: Bins) -> str:
    codes = [_code(weight) for weight in weights]
    used = [at for at, code in enumerate(codes) if code]
    if not used:
        return ""
    return "".join(_pair(code) for code in (used[0], *codes[used[0] : used[-1] + 1]))


def _code(weight: float) -> int:
    if weight < _LEAST:
        return 0
    return min(1 + round(_STEPS * math.log2(weight / _LEAST)), _MOST_CODE)


def _pair(code: int) -> str:
    return _ALPHABET[code // _BASE] + _ALPHABET[code % _BASE]


def read(text: str, of_version: str) -> Memory:
    """What `written` wrote, of this version. Raises UnusableError."""
    if of_version != version():
        raise UnusableError(
            Unusable.OTHER_VERSION, f"it is of version {of_version[:32]!r}, this is {version()}"
        )
    body, mark, told = text.rpartition(";sum=")
    if not mark or len(text) > LONGEST or told != f"{zlib.crc32(body.encode()):08x}":
        raise UnusableError(Unusable.DAMAGED, "its text is not as it was written")
    try:
        memory = _memory(dict(part.split("=", 1) for part in body.split(";")))
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise UnusableError(Unusable.DAMAGED, f"its text cannot be read: {error!r}") from error
    if wrong := next(_impossible(memory), None):
        raise UnusableError(Unusable.OUT_OF_BOUNDS, f"{wrong} is none that groups can have")
    return memory


def _memory(parts: dict[str, str]) -> Memory:
    """Raises KeyError, ValueError, IndexError, OverflowError."""
    ranks, slots, ttft, tpot, planned, gpus = _numbers(parts["of"], 6)
    profile = Profile(int(_known(ranks)), int(_known(slots)), ttft, tpot, planned, int(_known(gpus)))
    idle = _idle(parts["idle"], planned)
    (lead,), (after,) = _floats(parts["lead"], 1), _floats(parts["after"], 1)
    calm, levels, rates = _floats(parts["work"], 3)
    demand, seconds = _floats(parts["usual"], 2)
    late, judged, late_lately, judged_lately = _floats(parts["budget"], 4)
    starts, (fell, groups) = parts["starts"], _numbers(parts["fell"], 2)
    ratios = []
    for name in Forecaster:
        end, most = parts[name].split(",")
        ratios.append((_weights(end, growth._BINS), _weights(most, growth._BINS)))
    return Memory(
        profile=profile,
        lead=lead,
        idle=idle,
        calm=calm,
        levels=levels,
        rates=rates,
        late_requests=late,
        judged_requests=judged,
        late_lately=late_lately,
        judged_lately=judged_lately,
        after=after,
        errors=_floats(parts["errors"], len(Forecaster)),
        starts=_floats(starts, starts.count(",") + 1) if starts else (),
        late_first=_weights(parts["first"], lateness._BINS),
        late_tokens=_weights(parts["tokens"], lateness._BINS),
        judged=_weights(parts["judged"], lateness._BINS),
        growth=tuple(ratios),
        usual=(demand, seconds),
        downs=tuple(_downs(parts["downs"])),
        fell=fell,
        groups=int(_known(groups)),
        asked=_asked(parts["asked"], parts["demand"], parts["leaning"]),
    )


def _idle(text: str, planned: float | None) -> IdleStepTime:
    if not text:
        return IdleStepTime(planned)
    *sums, least = _numbers(text, 6)
    weight, x, xx, t, xt = map(_known, sums)
    return IdleStepTime(planned, None, weight, x, xx, t, xt, math.inf if least is None else least)


def _downs(text: str) -> Iterator[tuple[float, int]]:
    figures = _floats(text, text.count(",") + 1) if text else ()
    if len(figures) % 2:
        raise ValueError(f"{len(figures)} figures, not pairs")
    for ago, groups in zip(figures[::2], figures[1::2], strict=True):
        yield ago, int(groups)


def _asked(text: str, demand: str, leaning: str) -> Asked:
    if not text:
        return NOTHING
    seconds, weight, *mix = _floats(text, 6)
    places = tuple(_codes(demand))
    if len(places) != len(CHUNKS) or max(places) > width._BINS:
        raise ValueError(f"{len(places)} places of demand, up to {max(places, default=0)}")
    leans = None
    if leaning:
        gpus, held = _numbers(leaning, 2)
        leans = Leaning(None if gpus is None else int(gpus), _known(held))
    return Asked(seconds, weight, places, tuple(mix), leans)


def _numbers(text: str, count: int) -> list[float | None]:
    values = [None if each == "-" else float(each) for each in text.split(",")]
    if len(values) != count:
        raise ValueError(f"{len(values)} values, not {count}")
    return values


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("a value is missing")
    return value


def _floats(text: str, count: int) -> Bins:
    return tuple(_known(value) for value in _numbers(text, count))


def _codes(text: str) -> list[int]:
    return [_PLACE[text[at]] * _BASE + _PLACE[text[at + 1]] for at in range(0, len(text), 2)]


def _weights(text: str, bins: int) -> Bins:
    found = [0.0] * bins
    codes = _codes(text)
    if codes and codes[0] + len(codes) - 1 > bins:
        raise ValueError(f"{len(codes) - 1} weights from bin {codes[0]} on, of {bins}")
    for at, code in enumerate(codes[1:], codes[0] if codes else 0):
        found[at] = _LEAST * 2 ** ((code - 1) / _STEPS) if code else 0.0
    return tuple(found)


def _impossible(memory: Memory) -> Iterator[str]:
    """What no deployment comes to. Every comparison fails for what is no number."""
    idle, profile = memory.idle, memory.profile

    def within(value: float, most: float, least: float = 0.0) -> bool:
        return least <= value <= most

    known = [each for each in (profile.ttft, profile.tpot, profile.idle_step_time) if each is not None]
    if not all(within(each, _MOST_WEIGHT) for each in (profile.ranks, profile.slots, profile.gpus, *known)):
        yield "the profile"
    if not within(memory.lead, _MOST_START):
        yield "the lead"
    if idle.weight != 0 and not (
        within(idle.weight, _MOST_WEIGHT)
        and all(within(each, 1e18) for each in (idle.x, idle.xx, idle.t, idle.xt))
        and idle.weight * idle.xx >= idle.x * idle.x * (1 - 1e-6)
        and within(idle.t / idle.weight, _MOST_STEP, 1e-6)
        # Longer than the mean where most steps are those of a few requests: these count for the mean only.
        and (within(idle.least, _MOST_STEP, 1e-6) or idle.least == math.inf)
    ):
        yield "the step time without load"
    if not (
        within(memory.calm, _MOST_WEIGHT)
        and within(memory.levels, _MOST_WEIGHT)
        and within(memory.rates, _MOST_WEIGHT)
        and (memory.rates == 0 or within(memory.levels / memory.rates, _MOST_WORK))
    ):
        yield "the work of a request"
    spent = (
        (memory.late_requests, memory.judged_requests),
        (memory.late_lately, memory.judged_lately),
    )
    if not all(within(judged, 1e15) and within(late, judged * 1.01) for late, judged in spent):
        yield "the budget of late requests"
    if not within(memory.after, MOST_AFTER):
        yield "the time that full groups are felt"
    if not all(within(error, _MOST_WEIGHT) for error in memory.errors):
        yield "a forecaster's error"
    if len(memory.starts) > KEPT or not all(within(start, _MOST_START, 1e-3) for start in memory.starts):
        yield "a cold start"
    bins = zip(memory.late_first, memory.late_tokens, memory.judged, strict=True)
    if any(first + tokens > judged * 1.01 + 2 * _LEAST for first, tokens, judged in bins):
        yield "the lateness by load"
    if any(sum(bins) > _MOST_SECONDS for both in memory.growth for bins in both):
        yield "the growth of demand"
    demand, seconds = memory.usual
    if not (within(seconds, _MOST_SECONDS) and within(demand, seconds * _MOST_WEIGHT)):
        yield "the usual demand"
    agos = [ago for ago, _ in memory.downs]
    told = all(within(ago, _MOST_WEIGHT) and within(groups, _MOST_WEIGHT) for ago, groups in memory.downs)
    if len(agos) > MOST_DOWNS or not told or agos != sorted(agos):
        yield "the window before groups go"
    if not (within(memory.fell or 0.0, _MOST_WEIGHT) and within(memory.groups, _MOST_WEIGHT)):
        yield "when groups went last"
    asked, leaning = memory.asked, memory.asked.leaning
    if asked.demand and not (
        within(asked.seconds, _MOST_SECONDS) and within(asked.weight, 3 * width.HALF_LIFE, 1e-6)
    ):
        yield "the time for which demand was seen"
    if list(asked.demand) != sorted(asked.demand):
        yield "the demand that was seen"
    if not all(within(each, 1e18) for each in asked.mix):
        yield "the length of requests"
    if leaning is not None and not (
        within(leaning.held, _MOST_START) and within(leaning.gpus or 1, _MOST_WEIGHT, 1)
    ):
        yield "the width that will be recommended"
