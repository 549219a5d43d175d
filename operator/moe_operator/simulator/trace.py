"""Requests over time: reading them from a file, and making other loads of them.

Nothing here draws on a clock or on global randomness: what is random takes a seed.
"""

import csv
import gzip
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
Tokens = NDArray[np.int32]

#: Columns of a trace file, in any order; the last may be missing. Its name ends in `inf` because it says what a cache
#: without bound would have had (an engine's own share of that is in `EngineModel.prefix_cache_share`).
COLUMNS = ("t_seconds", "prompt_tokens", "output_tokens")
CACHED = "cached_prefix_tokens_inf"
#: More than any model's context: what is beyond is a unit mistaken or a column shifted.
MOST_TOKENS = 100_000_000


class TraceError(ValueError):
    """A trace that cannot be used. Its message says where and what to do."""


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival.

    `arrival` in seconds from the beginning, ascending; `prompt`, `output` and `cached` in tokens, `cached` being the
    part of the prompt that an earlier request began with as well; `duration` the seconds that the trace covers, at
    least up to the last arrival. Raises TraceError if these do not hold.
    """

    arrival: Seconds
    prompt: Tokens
    output: Tokens
    cached: Tokens
    duration: float

    def __post_init__(self) -> None:
        sizes = {len(column) for column in (self.arrival, self.prompt, self.output, self.cached)}
        if len(sizes) != 1:
            raise TraceError(f"a trace's columns have to be of one length, found {sorted(sizes)}")
        if len(self) and not (self.arrival[0] >= 0 and np.all(np.diff(self.arrival) >= 0)):
            raise TraceError("arrivals have to ascend from 0: sort the requests by their time")
        last = float(self.arrival[-1]) if len(self) else 0.0
        if not last <= self.duration < math.inf:
            raise TraceError(f"a trace of {self.duration} s cannot hold an arrival at {last} s")
        if len(self) and (min(self.prompt.min(), self.output.min()) < 1 or self.cached.min() < 0):
            raise TraceError("every request has at least one prompt token and one output token")

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def rate(self) -> float:
        """Requests per second, on average."""
        return len(self) / self.duration if self.duration else 0.0


def make_trace(
    arrival: Seconds | list[float],
    prompt: Tokens | list[int],
    output: Tokens | list[int],
    cached: Tokens | list[int] | None = None,
    duration: float | None = None,
) -> Trace:
    """A trace of columns; without `duration` it ends with the last arrival."""
    times = np.asarray(arrival, dtype=np.float64)
    return Trace(
        times,
        np.asarray(prompt, dtype=np.int32),
        np.asarray(output, dtype=np.int32),
        np.zeros(len(times), dtype=np.int32) if cached is None else np.asarray(cached, dtype=np.int32),
        float(duration if duration is not None else (times[-1] if len(times) else 0.0)),
    )


# --- Files ---------------------------------------------------------------------------------------


def read_trace(path: str | Path) -> Trace:
    """A CSV file, or one compressed by gzip, with a header of COLUMNS and maybe CACHED.

    Times count from the first arrival. A length of 0 counts as 1, as an engine computes at least one token.
    Other columns are ignored. Gaps between arrivals are as good as any load. Raises TraceError, which names file, line
    and column, what was found and what to do, and OSError where there is no such file.
    """
    path = Path(path)
    lines = _lines(path)
    columns = _columns(path, lines[0] if lines else "")
    wanted = [*COLUMNS, *([CACHED] if CACHED in columns else [])]
    where = [columns.index(name) for name in wanted]
    rows = [line for line in lines[1:] if line.strip()]
    if not rows:
        raise TraceError(f"{path}: holds no request: a header and at least one line of numbers are needed")
    try:
        table = np.loadtxt(rows, delimiter=",", usecols=where, ndmin=2, comments=None, quotechar='"')
    except ValueError:
        raise _first_fault(path, lines, columns, wanted) from None
    time, lengths = table[:, 0], table[:, 1:]
    good = (
        np.all(np.isfinite(table))
        and np.all(np.diff(time) >= 0)
        and np.all((lengths >= 0) & (lengths <= MOST_TOKENS) & (lengths == np.floor(lengths)))
        and (CACHED not in columns or np.all(lengths[:, 2] <= np.maximum(lengths[:, 0], 1)))
    )
    if not good:
        raise _first_fault(path, lines, columns, wanted)
    whole = lengths.astype(np.int32)
    return make_trace(
        time - time[0],
        np.maximum(whole[:, 0], 1),
        np.maximum(whole[:, 1], 1),
        whole[:, 2].copy() if CACHED in columns else None,
    )


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig").splitlines()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path}: the compressed file is damaged ({error}): fetch it again") from None
    except UnicodeDecodeError as error:
        raise TraceError(
            f"{path}: is not text ({error.reason} at byte {error.start}): give a CSV file"
        ) from None


def _columns(path: Path, header: str) -> list[str]:
    found = [name.strip() for name in next(csv.reader([header]), [])]
    if missing := [name for name in COLUMNS if name not in found]:
        raise TraceError(
            f"{path}, line 1: no column {', '.join(missing)} in the header {header.strip()[:200]!r}: "
            f"begin the file with {','.join(COLUMNS)}[,{CACHED}]"
        )
    if doubled := sorted({name for name in found if found.count(name) > 1}):
        raise TraceError(f"{path}, line 1: column {doubled[0]} is there twice: remove one")
    if misspelt := [name for name in found if name.startswith("cached") and name != CACHED]:
        raise TraceError(f"{path}, line 1: column {misspelt[0]} is not known: call it {CACHED}, or drop it")
    return found


def _first_fault(path: Path, lines: list[str], columns: list[str], wanted: list[str]) -> TraceError:
    """Reads slowly what the fast way refused, to say which line it is."""
    before, at = -math.inf, 1
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        row = next(csv.reader([line]))
        if len(row) < 1 + max(columns.index(name) for name in wanted):
            return TraceError(
                f"{path}, line {number}: {len(row)} values where the header has {len(columns)} columns: "
                "complete or drop the line"
            )
        values: dict[str, float] = {}
        for name in wanted:
            text = row[columns.index(name)].strip()
            if (fault := _fault_of(name, text)) is not None:
                return TraceError(f"{path}, line {number}, column {name}: found {text!r}: {fault}")
            values[name] = float(text)
        if values[COLUMNS[0]] < before:
            return TraceError(
                f"{path}, line {number}, column {COLUMNS[0]}: {values[COLUMNS[0]]:g} s is before the {before:g} s of "
                f"line {at}: sort the file by {COLUMNS[0]}"
            )
        if values.get(CACHED, 0.0) > max(values[COLUMNS[1]], 1):
            return TraceError(
                f"{path}, line {number}, column {CACHED}: {values[CACHED]:g} tokens of a prompt of "
                f"{values[COLUMNS[1]]:g} cannot be cached: at most the whole prompt can"
            )
        before, at = values[COLUMNS[0]], number
    return TraceError(f"{path}: is not a CSV file of numbers: separate values by commas, one request a line")


def _fault_of(name: str, text: str) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return "a number is needed" if text else "nothing is there: fill in a number or drop the line"
    if not math.isfinite(value):
        return "a finite number is needed: drop the line"
    if name == COLUMNS[0]:
        return None
    if value < 0:
        return "a number of tokens cannot be negative: drop the line"
    if value != math.floor(value):
        return "a whole number of tokens is needed"
    if value > MOST_TOKENS:
        return f"more than {MOST_TOKENS} tokens: check the column's unit"
    return None


# --- Other loads of it ---------------------------------------------------------------------------


def cut(trace: Trace, begin: float, end: float) -> Trace:
    """The requests from `begin` to before `end` (seconds), counted from `begin`. The last instant is in it if the trace
    ends there."""
    if not 0 <= begin < end:
        raise TraceError(f"a cut from {begin:g} s to {end:g} s is empty: end after the beginning")
    first = int(np.searchsorted(trace.arrival, begin, side="left"))
    last = int(np.searchsorted(trace.arrival, end, side="left" if end < trace.duration else "right"))
    chosen = slice(first, last)
    return Trace(
        trace.arrival[chosen] - begin,
        trace.prompt[chosen],
        trace.output[chosen],
        trace.cached[chosen],
        max(0.0, min(end, trace.duration) - begin),
    )


def scaled(trace: Trace, factor: float, seed: int, *, jitter: float = 5.0) -> Trace:
    """`factor` times the rate with the same ups and downs: thinned below 1, else copies laid over one another.

    Each request of a copy arrives up to `jitter` seconds off its original (uniform), so that copies do not arrive in
    pairs, while bursts longer than that keep their shape and grow with the rate. The whole part of `factor` are full
    copies, the rest a thinned one.
    """
    if not 0 < factor < math.inf:
        raise TraceError(f"a rate cannot be scaled by {factor}: give a number above 0")
    rng = np.random.default_rng(seed)
    whole = int(factor)
    parts = [np.arange(len(trace))] * whole
    if factor > whole:
        parts.append(np.flatnonzero(rng.random(len(trace)) < factor - whole))
    times = [trace.arrival[part] for part in parts]
    for copy in range(1, len(parts)):
        times[copy] = np.clip(
            times[copy] + rng.uniform(-jitter, jitter, len(parts[copy])), 0.0, trace.duration
        )
    return _ordered(trace, np.concatenate(parts), np.concatenate(times), trace.duration)


def stretched(trace: Trace, factor: float) -> Trace:
    """The same requests over `factor` times as long."""
    if not 0 < factor < math.inf:
        raise TraceError(f"time cannot be stretched by {factor}: give a number above 0")
    return replace(trace, arrival=trace.arrival * factor, duration=trace.duration * factor)


def with_output_shift(trace: Trace, begin: float, factor: float) -> Trace:
    """Outputs `factor` times as long for what arrives from `begin` (seconds) on: another kind of question is asked."""
    output = np.where(
        trace.arrival >= begin, np.maximum(1, np.rint(trace.output * factor)), trace.output
    ).astype(np.int32)
    return replace(trace, output=output)


def step_load(trace: Trace, *, duration: float, base: float, steps: dict[float, float], seed: int) -> Trace:
    """Poisson arrivals at `base` requests per second, times the factor of the latest of `steps` (second -> factor).
    Lengths are drawn from the trace's requests."""
    return _poisson(
        trace, duration, [(0.0, base), *((at, base * f) for at, f in sorted(steps.items()))], seed
    )


def on_off_load(
    trace: Trace, *, duration: float, high: float, low: float, on: float, off: float, seed: int
) -> Trace:
    """Poisson arrivals, `high` requests per second for `on` seconds, then `low` for `off` seconds, again and again.
    Lengths are drawn from the trace's requests."""
    starts = np.arange(0.0, duration, on + off)
    rates = [(float(begin + shift), rate) for begin in starts for shift, rate in ((0.0, high), (on, low))]
    return _poisson(trace, duration, rates, seed)


def _poisson(trace: Trace, duration: float, rates: list[tuple[float, float]], seed: int) -> Trace:
    rng = np.random.default_rng(seed)
    times = []
    for (begin, rate), (end, _) in zip(rates, [*rates[1:], (duration, 0.0)], strict=True):
        if (span := min(end, duration) - begin) > 0 and rate > 0:
            times.append(begin + span * np.sort(rng.random(rng.poisson(rate * span))))
    arrival = np.concatenate(times) if times else np.empty(0)
    return _ordered(trace, rng.integers(0, len(trace), len(arrival)), arrival, duration)


def _ordered(
    trace: Trace, chosen: NDArray[np.intp] | NDArray[np.int64], times: Seconds, duration: float
) -> Trace:
    order = np.argsort(times, kind="stable")
    chosen = chosen[order]
    return Trace(times[order], trace.prompt[chosen], trace.output[chosen], trace.cached[chosen], duration)
