"""Groups of vLLM ranks, step by step, compiled.

The rules are those of vLLM 0.32's scheduler (`v1/core/sched/scheduler.py`), first come first served, for each rank:

- Running requests come first, in order of admission: a token for each that decodes, then the next chunk of the prompt
  that is not done, within `batch_tokens`. Prompts are chunked: at most one is unfinished, and it is the last admitted.
- Where a running request finds no free block, the last admitted is preempted, as often as needed, maybe the request
  itself: its blocks are freed, it waits before all others, and has its prompt and what it generated to compute again.
- Waiting requests are admitted if nothing was preempted in the step, while there are slots and budget, and the whole of
  what a request has to compute fits in the free blocks (`scheduler_reserve_full_isl`).
- Tokens found in the prefix cache are not computed, but take blocks of their own.
- With a prefix cache (`v1/core/block_pool.py`) the full blocks of a preempted request, those of its output among them,
  are found again as it is admitted, but for what was given out since. Blank blocks are given out first: those that
  never held anything and those that were not full when they were freed. Full ones follow in the order in which they
  were freed, a request's last ones first. What a trace says is found is taken from the oldest.
- The first token comes at the end of the step that finishes the prompt; a request's blocks are free when the step ends
  that brought its last token.

The ranks of a group step together. What happens at one time: a step ends, then requests arrive, then the next step is
put together. A request waits at the gateway only while no group is ready; it goes to the group, and there to the rank,
with the fewest requests in flight, then the fewest prompt tokens in flight.

A decoding request costs nothing between its first and its last token: a group keeps a heap of the steps in which
requests end, and each rank counts its requests by where they are in a block (a request whose tokens fill its blocks as
a step begins needs one more). Steps in which nothing begins or ends are taken in one go, and a group is left behind
while nothing can end there and nothing arrives.

All compiled code is in this one file, because Numba's cache looks only at the file of the function that is called
(and not at `compiled.py`). No array is made in it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moe_operator.simulator.compiled import compiled
from moe_operator.simulator.engine_model import BLOCK, EngineModel
from moe_operator.simulator.trace import Trace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]
Bytes = NDArray[np.int8]

#: Outcomes of requests. Only FINISHED ones were served.
IN_FLIGHT, FINISHED, CUT, REJECTED = 0, 1, 2, 3
#: States of a place for a group.
GONE, READY, DRAINING = 0, 1, 2

#: Counters of a rank, by index: the names that a scrape gives them, in order.
COUNTERS = (
    "prompt_tokens",
    "cached_prompt_tokens",
    "output_tokens",
    "finished",
    "finished_prompt_tokens",
    "finished_output_tokens",
    "preemptions",
    "gaps",
    "gap_microseconds",
)
"""`gaps` between tokens of one request, and their sum: count and sum of vLLM's inter_token_latency_seconds."""
PROMPT, CACHED, OUTPUT, ENDED, ENDED_PROMPT, ENDED_OUTPUT, PREEMPTIONS, GAPS, GAP_TIME = range(len(COUNTERS))

#: vLLM's buckets, upper bounds in seconds (`v1/metrics/buckets.py`, 0.32).
_BELOW_A_SECOND = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75)
TTFT_BUCKETS = np.array([*_BELOW_A_SECOND, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0])
TOKEN_BUCKETS = np.array(
    [
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.15,
        0.2,
        0.3,
        0.4,
        0.5,
        0.75,
        1.0,
        2.5,
        5.0,
        7.5,
        10.0,
        20.0,
        40.0,
        80.0,
    ]
)
HISTOGRAMS = ("ttft", "tpot", "itl")
TTFT, TPOT, ITL = range(len(HISTOGRAMS))
WIDEST = len(TTFT_BUCKETS) + 1

# Places in `Requests.cursor`.
_NEXT, _GATEWAY, _ARRIVED, _ARRIVED_TOKENS = range(4)


class Requests(NamedTuple):
    """Every request's lengths (tokens), times (s, NaN until known), outcome and place in a queue."""

    arrival: Floats
    prompt: Int32s
    output: Int32s
    cached: Int32s
    routed: Floats
    first: Floats
    last: Floats
    outcome: Bytes
    group: Int32s
    rank: Int32s
    after: Int32s
    before: Int32s
    made: Int32s
    """Tokens generated before the last preemption."""
    held: Int32s
    """Tokens in the cache at the last preemption."""
    mark: Ints
    """What `evicted` of its rank will be when the first of the full blocks of the last preemption is next to go."""
    offset: Ints
    """Of a decoding request: tokens in its cache, less the group's step counter."""
    end: Ints
    """Of a decoding request: the step of its last token."""
    cursor: Ints
    """The next to arrive, the first that waits at the gateway, how many arrived, and with how many prompt tokens."""


class Groups(NamedTuple):
    """Places for groups (first axis), their ranks (second axis)."""

    state: Bytes
    busy: Bytes
    clock: Floats
    """When the last step ended, or the first request came after idling."""
    until: Floats
    """When the step that runs ends."""
    quiet: Floats
    """Before this nothing ends at the group, unless something arrives."""
    step: Ints
    flight: Ints
    heap_size: Ints
    heap_key: Ints
    heap_request: Int32s
    fresh_size: Ints
    fresh: Int32s
    """Requests whose prompt this step finishes."""
    rank_flight: Ints
    rank_tokens: Ints
    """Prompt tokens of a rank's requests in flight."""
    decoding: Ints
    computing: Ints
    """Prompt tokens in this step."""
    tokens: Ints
    """Tokens in the cache as the step begins."""
    used: Ints
    """Blocks."""
    blank: Ints
    """Free blocks that hold nothing to be found."""
    evicted: Ints
    """Full blocks that were given out again or taken by hits of the trace, the oldest first, since the beginning."""
    phase: Ints
    """Decoding requests by offset modulo BLOCK (third axis)."""
    running: Ints
    run_head: Int32s
    run_tail: Int32s
    waiting: Ints
    wait_head: Int32s
    wait_tail: Int32s
    partial: Int32s
    """The request whose prompt is under way, or -1."""
    partial_done: Ints
    counters: Ints
    histograms: Ints
    """By group, histogram and bucket; not cumulative."""


class Constants(NamedTuple):
    """An EngineModel's numbers."""

    ranks: int
    slots: int
    batch: int
    blocks: int
    keeps: bool
    """Whether there is a prefix cache."""
    base: float
    experts: float
    untouched: float
    """log(1 - k/E)."""
    shared: float
    decode: float
    prefill: float
    kv: float


def constants(engine: EngineModel) -> Constants:
    """The numbers that the kernel computes with."""
    share = engine.expert_share
    return Constants(
        engine.ranks,
        engine.slots,
        engine.batch_tokens,
        engine.kv_blocks,
        engine.prefix_cache_share > 0,
        engine.base,
        engine.experts,
        math.log1p(-share) if share < 1 else -math.inf,
        engine.shared,
        engine.decode,
        engine.prefill,
        engine.kv,
    )


def requests(trace: Trace, engine: EngineModel) -> Requests:
    """A trace before its first arrival. The prefix cache holds whole blocks, and never all of a prompt."""
    n = len(trace)
    hit = np.floor(trace.cached * engine.prefix_cache_share).astype(np.int32)
    return Requests(
        trace.arrival,
        trace.prompt,
        trace.output,
        np.minimum(hit, trace.prompt - 1) // BLOCK * BLOCK,
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.full(n, np.nan),
        np.full(n, IN_FLIGHT, dtype=np.int8),
        np.full(n, -1, dtype=np.int32),
        np.full(n, -1, dtype=np.int32),
        np.full(n, -1, dtype=np.int32),
        np.full(n, -1, dtype=np.int32),
        np.zeros(n, dtype=np.int32),
        np.zeros(n, dtype=np.int32),
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(4, dtype=np.int64),
    )


def groups(places: int, engine: EngineModel) -> Groups:
    """Empty places for groups."""
    ranks, most = engine.ranks, engine.group_slots

    def ints(*shape: int) -> Ints:
        return np.zeros((places, *shape), dtype=np.int64)

    def floats() -> Floats:
        return np.zeros(places)

    def links(*shape: int) -> Int32s:
        return np.full((places, *shape), -1, dtype=np.int32)

    return Groups(
        np.zeros(places, dtype=np.int8),
        np.zeros(places, dtype=np.int8),
        floats(),
        floats(),
        floats(),
        ints(),
        ints(),
        ints(),
        ints(most),
        links(most),
        ints(),
        links(most),
        ints(ranks),
        ints(ranks),
        ints(ranks),
        ints(ranks),
        ints(ranks),
        ints(ranks),
        ints(ranks) + engine.kv_blocks,
        ints(ranks),
        ints(ranks, BLOCK),
        ints(ranks),
        links(ranks),
        links(ranks),
        ints(ranks),
        links(ranks),
        links(ranks),
        links(ranks),
        ints(ranks),
        ints(ranks, len(COUNTERS)),
        ints(len(HISTOGRAMS), WIDEST),
    )


def more_places(old: Groups, engine: EngineModel) -> Groups:
    """Twice the places, the old ones as they were."""
    new = groups(len(old.state), engine)
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = list(zip(old, new, strict=True))
    return Groups(*(np.concatenate(pair) for pair in pairs))


# --- The heap of a group's ends ------------------------------------------------------------------


@compiled
def _push(c: Groups, g: int, key: int, request: int) -> None:
    keys, held = c.heap_key[g], c.heap_request[g]
    at = c.heap_size[g]
    c.heap_size[g] += 1
    while at > 0:
        parent = (at - 1) >> 1
        if keys[parent] <= key:
            break
        keys[at], held[at] = keys[parent], held[parent]
        at = parent
    keys[at], held[at] = key, request


@compiled
def _remove(c: Groups, g: int, at: int) -> None:
    """Take out what is at a place of the heap: the first is the next to end."""
    keys, held = c.heap_key[g], c.heap_request[g]
    c.heap_size[g] -= 1
    size = c.heap_size[g]
    if at == size:
        return
    key, request = keys[size], held[size]
    while at > 0 and keys[(at - 1) >> 1] > key:
        parent = (at - 1) >> 1
        keys[at], held[at] = keys[parent], held[parent]
        at = parent
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[at], held[at] = keys[child], held[child]
        at = child
    keys[at], held[at] = key, request


# --- Queues of a rank ----------------------------------------------------------------------------


@compiled
def _blocks(tokens: int) -> int:
    return (tokens + BLOCK - 1) // BLOCK


@compiled
def _take(c: Groups, g: int, r: int, blocks: int) -> None:
    """Give out free blocks."""
    blank = min(blocks, c.blank[g, r])
    c.blank[g, r] -= blank
    c.evicted[g, r] += blocks - blank
    c.used[g, r] += blocks


@compiled
def _take_found(c: Groups, k: Constants, g: int, r: int, blocks: int, kept: int) -> None:
    """Free blocks whose tokens are found, of which so many are the request's own."""
    c.used[g, r] += kept
    full = min(blocks - kept, k.blocks - c.used[g, r] - c.blank[g, r])
    c.blank[g, r] -= blocks - kept - full
    c.evicted[g, r] += full
    c.used[g, r] += blocks - kept


@compiled
def _give_back(c: Groups, g: int, r: int, held: int) -> None:
    """Free the blocks of so many tokens."""
    c.tokens[g, r] -= held
    c.used[g, r] -= _blocks(held)
    c.blank[g, r] += _blocks(held) - held // BLOCK


@compiled
def _append_running(q: Requests, c: Groups, g: int, r: int, request: int) -> None:
    tail = c.run_tail[g, r]
    q.before[request], q.after[request] = tail, -1
    if tail >= 0:
        q.after[tail] = request
    else:
        c.run_head[g, r] = request
    c.run_tail[g, r] = request
    c.running[g, r] += 1


@compiled
def _leave_running(q: Requests, c: Groups, g: int, r: int, request: int) -> None:
    before, after = q.before[request], q.after[request]
    if before >= 0:
        q.after[before] = after
    else:
        c.run_head[g, r] = after
    if after >= 0:
        q.before[after] = before
    else:
        c.run_tail[g, r] = before
    c.running[g, r] -= 1


@compiled
def _preempt_last(q: Requests, c: Groups, k: Constants, g: int, r: int, now: float) -> int:
    """The last admitted waits before all others. Returns it."""
    request: int = c.run_tail[g, r]
    _leave_running(q, c, g, r, request)
    if request == c.partial[g, r]:
        held = c.partial_done[g, r]
        c.partial[g, r] = -1
    else:
        held = q.offset[request] + c.step[g]
        q.made[request] = q.output[request] - (q.end[request] - c.step[g] + 1)
        q.last[request] = now
        c.decoding[g, r] -= 1
        c.phase[g, r, q.offset[request] % BLOCK] -= 1
        at = 0
        while c.heap_request[g, at] != request:
            at += 1
        _remove(c, g, at)
    q.held[request] = held
    q.mark[request] = c.evicted[g, r] + k.blocks - c.used[g, r] - c.blank[g, r]
    _give_back(c, g, r, held)
    c.counters[g, r, PREEMPTIONS] += 1
    head = c.wait_head[g, r]
    q.after[request] = head
    c.wait_head[g, r] = request
    if head < 0:
        c.wait_tail[g, r] = request
    c.waiting[g, r] += 1
    return request


@compiled
def _kept(q: Requests, c: Groups, k: Constants, g: int, r: int, request: int) -> int:
    """Blocks of a request's last preemption that were not given out since."""
    if not k.keeps:
        return 0
    lost = max(0, c.evicted[g, r] - q.mark[request])
    kept: int = max(0, q.held[request] // BLOCK - lost)
    return kept


# --- Steps ---------------------------------------------------------------------------------------


@compiled
def _make_room(q: Requests, c: Groups, k: Constants, g: int, r: int, now: float) -> bool:
    """Blocks for the running requests one by one, preempting from the end. Returns whether any was preempted."""
    preempted = False
    request = c.run_head[g, r]
    while request >= 0:
        if request == c.partial[g, r]:
            done = c.partial_done[g, r]
            chunk = min(q.prompt[request] + q.made[request] - done, k.batch - c.decoding[g, r])
            needed = _blocks(done + chunk) - _blocks(done)
        else:
            needed = 1 if (q.offset[request] + c.step[g]) % BLOCK == 0 else 0
        itself = False
        while c.used[g, r] + needed > k.blocks and not itself:
            itself = _preempt_last(q, c, k, g, r, now) == request
            preempted = True
        if itself:
            break
        _take(c, g, r, needed)
        request = q.after[request]
    return preempted


@compiled
def _begin(q: Requests, c: Groups, k: Constants, g: int) -> None:
    """Put the group's next step together and start it."""
    now = c.clock[g]
    step = c.step[g]
    due = -step % BLOCK
    total = 0
    slowest = 0.0
    c.fresh_size[g] = 0
    for r in range(k.ranks):
        if c.rank_flight[g, r] == 0:
            continue
        preempted = False
        chunk = 0
        blocks = c.phase[g, r, due]
        partial = c.partial[g, r]
        if partial >= 0:
            done = c.partial_done[g, r]
            chunk = min(q.prompt[partial] + q.made[partial] - done, k.batch - c.decoding[g, r])
            blocks += _blocks(done + chunk) - _blocks(done)
        if c.used[g, r] + blocks > k.blocks:
            preempted = _make_room(q, c, k, g, r, now)
            partial = c.partial[g, r]
            chunk = chunk if partial >= 0 else 0
        else:
            _take(c, g, r, blocks)
        if partial >= 0:
            c.partial_done[g, r] += chunk
            if c.partial_done[g, r] == q.prompt[partial] + q.made[partial]:
                c.partial[g, r] = -1
                c.fresh[g, c.fresh_size[g]] = partial
                c.fresh_size[g] += 1
        budget = k.batch - c.decoding[g, r] - chunk
        computing = chunk
        while not preempted and budget > 0 and c.waiting[g, r] > 0 and c.running[g, r] < k.slots:
            request = c.wait_head[g, r]
            target = q.prompt[request] + q.made[request]
            if c.used[g, r] + _blocks(target) > k.blocks:
                break
            c.wait_head[g, r] = q.after[request]
            if q.after[request] < 0:
                c.wait_tail[g, r] = -1
            c.waiting[g, r] -= 1
            _append_running(q, c, g, r, request)
            kept = _kept(q, c, k, g, r, request)
            found = max(kept * BLOCK, q.cached[request])
            chunk = min(target - found, budget)
            _take_found(c, k, g, r, found // BLOCK, kept)
            _take(c, g, r, _blocks(found + chunk) - found // BLOCK)
            c.tokens[g, r] += found
            computing += chunk
            budget -= chunk
            if found + chunk == target:
                c.fresh[g, c.fresh_size[g]] = request
                c.fresh_size[g] += 1
            else:
                c.partial[g, r] = request
                c.partial_done[g, r] = found + chunk
        c.computing[g, r] = computing
        total += c.decoding[g, r] + computing
        own = k.decode * c.decoding[g, r] + k.prefill * computing + k.kv * c.tokens[g, r]
        slowest = max(slowest, own)
    c.busy[g] = 1
    common = k.base + k.experts * (1.0 - math.exp(total * k.untouched)) + k.shared * total
    c.until[g] = now + (common + slowest)


@compiled
def _observe(c: Groups, g: int, which: int, bounds: Floats, value: float, count: int) -> None:
    at = 0
    while at < len(bounds) and value > bounds[at]:
        at += 1
    c.histograms[g, which, at] += count


@compiled
def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6 + 0.5)


@compiled
def _finish(q: Requests, c: Groups, g: int, r: int, request: int, held: int, now: float) -> None:
    _leave_running(q, c, g, r, request)
    q.last[request] = now
    q.outcome[request] = FINISHED
    _give_back(c, g, r, held)
    c.flight[g] -= 1
    c.rank_flight[g, r] -= 1
    c.rank_tokens[g, r] -= q.prompt[request]
    c.counters[g, r, ENDED] += 1
    c.counters[g, r, ENDED_PROMPT] += q.prompt[request]
    c.counters[g, r, ENDED_OUTPUT] += q.output[request]
    gaps = q.output[request] - 1
    # vLLM observes 0 where there is one token only.
    each = (now - q.first[request]) / gaps if gaps > 0 else 0.0
    _observe(c, g, TPOT, TOKEN_BUCKETS, each, 1)


@compiled
def _complete(q: Requests, c: Groups, k: Constants, g: int) -> None:
    """End the step that runs: tokens come out, requests end, finished prompts begin to decode."""
    now = c.until[g]
    step = c.step[g]
    decoded = 0
    for r in range(k.ranks):
        if c.rank_flight[g, r] == 0:
            continue
        decoding = c.decoding[g, r]
        decoded += decoding
        c.counters[g, r, OUTPUT] += decoding
        c.counters[g, r, GAPS] += decoding
        c.counters[g, r, GAP_TIME] += decoding * _microseconds(now - c.clock[g])
        c.tokens[g, r] += decoding + c.computing[g, r]
        c.computing[g, r] = 0
    if decoded > 0:
        _observe(c, g, ITL, TOKEN_BUCKETS, now - c.clock[g], decoded)
    while c.heap_size[g] > 0 and c.heap_key[g, 0] == step:
        request = c.heap_request[g, 0]
        _remove(c, g, 0)
        r = q.rank[request]
        c.decoding[g, r] -= 1
        c.phase[g, r, q.offset[request] % BLOCK] -= 1
        _finish(q, c, g, r, request, q.prompt[request] + q.output[request] - 1, now)
    for at in range(c.fresh_size[g]):
        request = c.fresh[g, at]
        r = q.rank[request]
        held = q.prompt[request] + q.made[request]
        c.counters[g, r, OUTPUT] += 1
        if q.made[request] == 0:
            q.first[request] = now
            c.counters[g, r, PROMPT] += q.prompt[request]
            c.counters[g, r, CACHED] += q.cached[request]
            _observe(c, g, TTFT, TTFT_BUCKETS, now - q.routed[request], 1)
        else:
            _observe(c, g, ITL, TOKEN_BUCKETS, now - q.last[request], 1)
            c.counters[g, r, GAPS] += 1
            c.counters[g, r, GAP_TIME] += _microseconds(now - q.last[request])
        left = q.output[request] - q.made[request] - 1
        if left == 0:
            _finish(q, c, g, r, request, held, now)
        else:
            q.offset[request] = held - (step + 1)
            q.end[request] = step + left
            c.decoding[g, r] += 1
            c.phase[g, r, q.offset[request] % BLOCK] += 1
            _push(c, g, step + left, request)
    c.fresh_size[g] = 0
    c.step[g] = step + 1
    c.clock[g] = now
    c.busy[g] = 0


@compiled
def _undisturbed(c: Groups, k: Constants, g: int) -> int:
    """How many steps the group is sure to take, from the next one on, in which it only decodes, none ends, and blocks
    suffice."""
    steps = c.heap_key[g, 0] - c.step[g] if c.heap_size[g] > 0 else 0
    for r in range(k.ranks):
        if c.waiting[g, r] > 0 or c.partial[g, r] >= 0:
            return 0
        if c.decoding[g, r] > 0:
            # In BLOCK steps each request takes one block.
            sure = ((k.blocks - c.used[g, r]) // c.decoding[g, r] - 1) * BLOCK
            steps = min(steps, sure)
    return max(steps, 0)


@compiled
def _coast(c: Groups, k: Constants, g: int, time: float) -> None:
    """The undisturbed steps that end at `time` or before: what _begin and _complete do, by the same arithmetic."""
    steps = _undisturbed(c, k, g)
    if steps == 0:
        return
    total = 0
    for r in range(k.ranks):
        total += c.decoding[g, r]
    common = k.base + k.experts * (1.0 - math.exp(total * k.untouched)) + k.shared * total
    clock = c.clock[g]
    at, low, high, seen = -1, 0.0, -1.0, 0
    done = spent = 0
    while done < steps and clock < time:
        slowest = 0.0
        for r in range(k.ranks):
            own = (
                k.decode * c.decoding[g, r]
                + k.prefill * 0
                + k.kv * (c.tokens[g, r] + done * c.decoding[g, r])
            )
            slowest = max(slowest, own)
        until = clock + (common + slowest)
        if until > time:
            break
        if not low < until - clock <= high:
            if seen > 0:
                c.histograms[g, ITL, at] += seen
            at, seen = 0, 0
            while at < len(TOKEN_BUCKETS) and until - clock > TOKEN_BUCKETS[at]:
                at += 1
            low = TOKEN_BUCKETS[at - 1] if at > 0 else -1.0
            high = TOKEN_BUCKETS[at] if at < len(TOKEN_BUCKETS) else math.inf
        seen += total
        spent += _microseconds(until - clock)
        clock = until
        done += 1
    if done == 0:
        return
    c.histograms[g, ITL, at] += seen
    for r in range(k.ranks):
        decoding = c.decoding[g, r]
        if decoding == 0:
            continue
        taken = done // BLOCK * decoding
        for step in range(c.step[g], c.step[g] + done % BLOCK):
            taken += c.phase[g, r, -step % BLOCK]
        _take(c, g, r, taken)
        c.tokens[g, r] += done * decoding
        c.counters[g, r, OUTPUT] += done * decoding
        c.counters[g, r, GAPS] += done * decoding
        c.counters[g, r, GAP_TIME] += decoding * spent
    c.step[g] += done
    c.clock[g] = clock


@compiled
def _advance(q: Requests, c: Groups, k: Constants, g: int, time: float) -> None:
    """A group's steps that end at `time` or before, and the start of one that begins before it."""
    while True:
        if c.busy[g] == 1:
            if c.until[g] > time:
                break
            _complete(q, c, k, g)
        if c.flight[g] == 0 or c.clock[g] >= time:
            c.quiet[g] = c.clock[g]
            return
        _coast(c, k, g, time)
        if c.clock[g] >= time:
            c.quiet[g] = c.clock[g]
            return
        _begin(q, c, k, g)
    c.quiet[g] = c.until[g]
    if c.fresh_size[g] == 0:
        # Steps get no shorter while the same requests decode over more and more tokens.
        c.quiet[g] += max(0, _undisturbed(c, k, g) - 1) * (c.until[g] - c.clock[g]) * (1.0 - 1e-9)


# --- The router ----------------------------------------------------------------------------------


@compiled
def _route(q: Requests, c: Groups, k: Constants, request: int, time: float) -> bool:
    """Bring a request to a ready group's rank. Returns whether there was one."""
    g, fewest, least = -1, 0, 0
    for candidate in range(len(c.state)):
        if c.state[candidate] != READY or (g >= 0 and c.flight[candidate] > fewest):
            continue
        tokens = 0
        for r in range(k.ranks):
            tokens += c.rank_tokens[candidate, r]
        if g < 0 or c.flight[candidate] < fewest or tokens < least:
            g, fewest, least = candidate, c.flight[candidate], tokens
    if g < 0:
        return False
    if c.flight[g] > 0:
        _advance(q, c, k, g, time)
    c.quiet[g] = 0.0
    rank = 0
    for r in range(1, k.ranks):
        if c.rank_flight[g, r] < c.rank_flight[g, rank] or (
            c.rank_flight[g, r] == c.rank_flight[g, rank] and c.rank_tokens[g, r] < c.rank_tokens[g, rank]
        ):
            rank = r
    if c.flight[g] == 0:
        c.clock[g] = max(c.clock[g], time)
    q.routed[request] = time
    q.group[request], q.rank[request] = g, rank
    q.after[request] = -1
    tail = c.wait_tail[g, rank]
    if tail >= 0:
        q.after[tail] = request
    else:
        c.wait_head[g, rank] = request
    c.wait_tail[g, rank] = request
    c.waiting[g, rank] += 1
    c.flight[g] += 1
    c.rank_flight[g, rank] += 1
    c.rank_tokens[g, rank] += q.prompt[request]
    return True


@compiled
def open_gateway(q: Requests, c: Groups, k: Constants, time: float) -> None:
    """Send on what waits at the gateway, if a group is ready."""
    while q.cursor[_GATEWAY] < q.cursor[_NEXT]:
        request = q.cursor[_GATEWAY]
        if q.outcome[request] == IN_FLIGHT and not _route(q, c, k, request, time):
            return
        q.cursor[_GATEWAY] += 1


@compiled
def run_until(q: Requests, c: Groups, k: Constants, time: float) -> None:
    """Everything up to `time` (s): arrivals before it, ends of steps up to it, beginnings of steps before it."""
    while q.cursor[_NEXT] < len(q.arrival) and q.arrival[q.cursor[_NEXT]] < time:
        request = q.cursor[_NEXT]
        now = q.arrival[request]
        for g in range(len(c.state)):
            if c.flight[g] > 0 and c.quiet[g] <= now:
                _advance(q, c, k, g, now)
        q.cursor[_NEXT] += 1
        q.cursor[_ARRIVED] += 1
        q.cursor[_ARRIVED_TOKENS] += q.prompt[request]
        if _blocks(q.prompt[request] + q.output[request] - 1) > k.blocks:
            # No rank could ever hold it.
            q.outcome[request] = REJECTED
        first = q.cursor[_GATEWAY] == request
        if first and (q.outcome[request] == REJECTED or _route(q, c, k, request, now)):
            q.cursor[_GATEWAY] += 1
    for g in range(len(c.state)):
        if c.flight[g] > 0:
            _advance(q, c, k, g, time)


@compiled
def _cut_queue(q: Requests, head: int) -> None:
    while head >= 0:
        q.outcome[head] = CUT
        head = q.after[head]


@compiled
def clear_place(q: Requests, c: Groups, k: Constants, g: int) -> None:
    """End a group at once: what it has in flight is cut, its place is as new."""
    for r in range(k.ranks):
        _cut_queue(q, c.run_head[g, r])
        _cut_queue(q, c.wait_head[g, r])
        c.run_head[g, r] = c.run_tail[g, r] = -1
        c.wait_head[g, r] = c.wait_tail[g, r] = -1
        c.partial[g, r] = -1
        c.rank_flight[g, r] = c.rank_tokens[g, r] = 0
        c.decoding[g, r] = c.computing[g, r] = c.tokens[g, r] = c.used[g, r] = c.evicted[g, r] = 0
        c.blank[g, r] = k.blocks
        c.running[g, r] = c.waiting[g, r] = c.partial_done[g, r] = 0
        c.phase[g, r, :] = 0
        c.counters[g, r, :] = 0
    c.histograms[g, :, :] = 0
    c.state[g] = GONE
    c.busy[g] = 0
    c.flight[g] = c.heap_size[g] = c.fresh_size[g] = c.step[g] = 0
    c.clock[g] = c.until[g] = c.quiet[g] = 0.0


def arrived(q: Requests) -> tuple[int, int]:
    """Requests that came to the gateway, and their prompt tokens."""
    return int(q.cursor[_ARRIVED]), int(q.cursor[_ARRIVED_TOKENS])


def at_gateway(q: Requests) -> int:
    """Requests that wait at the gateway (rejected ones among them not counted)."""
    held = slice(int(q.cursor[_GATEWAY]), int(q.cursor[_NEXT]))
    return int(np.count_nonzero(q.outcome[held] == IN_FLIGHT))
