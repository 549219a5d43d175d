"""vLLM groups once more, request by request and step by step, as plainly as can be: the kernel is compared with it.

Written from vLLM's scheduler, not from the kernel: lists of requests, each looked at in each step. Groups are ready
from the beginning to the end.
"""

import math
from dataclasses import dataclass, field

from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.trace import Trace


def cdiv(tokens: int) -> int:
    return -(-tokens // 16)


Content = tuple[int, int] | None
"""What a free block has: of which request, and its how manyeth; or nothing to be found."""


@dataclass
class Request:
    arrival: float
    prompt: int
    output: int
    hit: int
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    new: int = 0
    first: float = math.nan
    last: float = math.nan
    done: bool = False
    rejected: bool = False
    gaps: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.prompt + self.generated


class Rank:
    def __init__(self, engine: EngineModel) -> None:
        self.engine = engine
        self.free: list[Content] = [None] * (engine.kv_tokens // 16)
        """In the order in which they are given out."""
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self.preemptions = 0
        self.context = 0

    @property
    def flight(self) -> list[Request]:
        return self.running + self.waiting

    def _allocate(self, request: Request, new: int) -> bool:
        needed = cdiv(request.computed + new) - request.blocks
        if needed > len(self.free):
            return False
        del self.free[: max(0, needed)]
        request.blocks += needed
        return True

    def give_back(self, request: Request) -> None:
        full = request.computed // 16
        self.free[:0] = [None] * (request.blocks - full)
        self.free += [(id(request), at) for at in reversed(range(full))]
        request.blocks = 0

    def _preempt(self, request: Request) -> None:
        self.give_back(request)
        request.computed = request.new = 0
        self.waiting.insert(0, request)
        self.preemptions += 1

    def _find(self, request: Request) -> None:
        """Take what the cache has of a request: its own blocks, else the oldest, as if they had what the trace says."""
        if self.engine.prefix_cache_share:
            while request.computed + 16 < request.tokens:
                block = (id(request), request.computed // 16)
                if block not in self.free:
                    break
                self.free.remove(block)
                request.computed += 16
        while request.computed < request.hit:
            full = (at for at, content in enumerate(self.free) if content is not None)
            self.free.pop(next(full, 0))
            request.computed += 16
        request.blocks = request.computed // 16

    def schedule(self) -> None:
        budget = self.engine.batch_tokens
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = min(request.tokens - request.computed, budget)
            gone = False
            while not self._allocate(request, new):
                victim = self.running.pop()
                self._preempt(victim)
                preempted = True
                if victim is request:
                    gone = True
                    break
            if gone:
                break
            request.new = new
            budget -= new
            index += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < self.engine.slots:
            request = self.waiting[0]
            if cdiv(request.tokens) > len(self.free):
                break
            self.waiting.pop(0)
            self._find(request)
            new = min(request.tokens - request.computed, budget)
            assert self._allocate(request, new)
            request.new = new
            budget -= new
            self.running.append(request)
        self.context = sum(request.computed for request in self.running)


class Group:
    def __init__(self, engine: EngineModel) -> None:
        self.engine = engine
        self.ranks = [Rank(engine) for _ in range(engine.ranks)]
        self.clock = 0.0
        self.until: float | None = None
        self.decoders: set[int] = set()

    def flight(self) -> list[Request]:
        return [request for rank in self.ranks for request in rank.flight]

    def advance(self, time: float) -> None:
        while True:
            if self.until is not None:
                if self.until > time:
                    return
                self._complete(self.until)
            if not self.flight() or self.clock >= time:
                return
            self._begin()

    def _begin(self) -> None:
        e = self.engine
        total, own = 0, [0.0]
        for rank in self.ranks:
            rank.schedule()
            decoding = sum(1 for request in rank.running if id(request) in self.decoders)
            computing = sum(request.new for request in rank.running) - decoding
            total += decoding + computing
            own.append(e.decode * decoding + e.prefill * computing + e.kv * rank.context)
            # A preempted request computes its prompt again before it decodes.
            self.decoders -= {id(request) for request in rank.waiting}
        rest = math.log1p(-e.expert_share) if e.expert_share < 1 else -math.inf
        self.until = self.clock + (
            e.base + e.experts * (1.0 - math.exp(total * rest)) + e.shared * total + max(own)
        )

    def _complete(self, now: float) -> None:
        for rank in self.ranks:
            for request in list(rank.running):
                request.computed += request.new
                request.new = 0
                if request.computed < request.tokens:
                    continue
                self.decoders.add(id(request))
                request.generated += 1
                if request.generated == 1:
                    request.first = now
                else:
                    request.gaps.append(now - request.last)
                request.last = now
                if request.generated == request.output:
                    request.done = True
                    rank.give_back(request)
                    rank.running.remove(request)
                    self.decoders.discard(id(request))
        self.clock, self.until = now, None


@dataclass
class Outcome:
    requests: list[Request]
    preemptions: int
    groups: list[Group]


def serve(trace: Trace, engine: EngineModel, groups: int, until: float) -> Outcome:
    """Serve a trace with so many groups, up to a time (s)."""
    fleet = [Group(engine) for _ in range(groups)]
    requests = []
    for arrival, prompt, output, cached in zip(
        trace.arrival, trace.prompt, trace.output, trace.cached, strict=True
    ):
        hit = min(int(cached * engine.prefix_cache_share), int(prompt) - 1) // 16 * 16
        requests.append(Request(float(arrival), int(prompt), int(output), hit))
    for request in requests:
        for group in fleet:
            group.advance(request.arrival)
        if cdiv(request.prompt + request.output - 1) > engine.kv_tokens // 16:
            request.rejected = True
            continue
        group = min(fleet, key=lambda g: (len(g.flight()), sum(r.prompt for r in g.flight())))
        if not group.flight():
            group.clock = max(group.clock, request.arrival)
        rank = min(group.ranks, key=lambda r: (len(r.flight), sum(q.prompt for q in r.flight)))
        rank.waiting.append(request)
    for group in fleet:
        group.advance(until)
    return Outcome(requests, sum(rank.preemptions for g in fleet for rank in g.ranks), fleet)
