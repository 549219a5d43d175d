"""Run by the engine's Python: serves loads with vLLM in this process and says what it did, step by step.

Reads a job as JSON from the file that is named, writes an answer to the second one. See `verify.simulator`.

The clock is this process's processor time, with one thread of computation (`Clock`): what else the machine does neither
stretches a step nor lets a queue grow. Waiting for the next arrival takes none of it: the clock is put forward.
"""

# vLLM is in the engine's environment only.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WORDS = 256
"""Token ids are drawn below."""
_BANK, _PIECES = 200, 12
"""Matrices (26 MB), and how many of them are the work beside a step: half a millisecond or so."""
_FIRST, _LATELY = 400, 25
"""Times that it is done at first, to know what is usual; and how many count as lately."""


class Clock:
    """Seconds of this process's work, as long as they would be on a machine that always is as fast.

    What else a machine does slows even processor time, by caches and memory that are shared. So beside each step some
    work is done that is always the same, and steps are told in its terms. Or steps are taken to last as long as given
    times say for what is in them: then nothing is left to chance, and what differs are decisions.
    """

    def __init__(self, usual: float | None, times: dict[str, float] | None) -> None:
        """`usual`: seconds of the same work, where another run has found them already. `times`: what steps last, in
        the words of `verify.step_times`, with the `share` of the experts that a token goes to."""
        import torch

        self._times = times

        self._bank = torch.randn(_BANK, 256, 128)
        self._tokens = torch.randn(16, 256)
        self._at = 0
        found = statistics.median(self._same_work() for _ in range(_FIRST))
        self.usual = usual or found
        self._lately = found
        self.now = 0.0

    def measure(self, work: Callable[[], Any], recorder: Recorder) -> Any:
        """Do some work, a step, and put the clock forward by it."""
        if self._times is not None:
            found = work()
            self.now += self._given(*recorder.row)
            return found
        begin = time.process_time()
        found = work()
        spent = time.process_time() - begin
        self._lately += (self._same_work() - self._lately) / _LATELY
        self.now += spent * self.usual / self._lately
        return found

    def _given(self, decode: int, prefill: int, held: int) -> float:
        assert self._times is not None
        touched = 1 - (1 - self._times["share"]) ** (decode + prefill)
        own = self._times["decode"] * decode + self._times["prefill"] * prefill + self._times["kv"] * held
        return self._times["base"] + self._times["experts"] * touched + own

    def _same_work(self) -> float:
        begin = time.process_time()
        for _ in range(_PIECES):
            # Other weights each time, as a step reads others in each layer.
            self._at = (self._at + 1) % _BANK
            self._tokens @ self._bank[self._at]
        return time.process_time() - begin


class Recorder:
    """What the scheduler puts into each step."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.row = (0, 0, 0)
        self.begun: set[str] = set()
        self._schedule = scheduler.schedule
        scheduler.schedule = self.schedule
        self._preempt = scheduler._preempt_request
        scheduler._preempt_request = self.preempt
        self._make_stats = scheduler.make_stats
        scheduler.make_stats = self.make_stats
        self.reset()

    def reset(self) -> None:
        """Before a load."""
        self.preempted = self.hits = self.queries = 0
        self.gauges = (0, 0, 0.0)

    def schedule(self, *arguments: Any) -> Any:
        """vLLM's, watched: requests that decode, prompt tokens computed, tokens in the cache as the step begins."""
        planned = self._schedule(*arguments)
        decode = prefill = held = 0
        for name, count in planned.num_scheduled_tokens.items():
            request = self.scheduler.requests[name]
            before = request.num_computed_tokens - count
            held += before
            if count == 1 and before == request.num_tokens - 1 and request.num_output_tokens:
                decode += 1
            else:
                prefill += count
            self.begun.add(name)
        self.row = (decode, prefill, held)
        return planned

    def preempt(self, *arguments: Any, **more: Any) -> Any:
        """vLLM's, counted."""
        self.preempted += 1
        return self._preempt(*arguments, **more)

    def make_stats(self, *arguments: Any, **more: Any) -> Any:
        """vLLM's own figures, as its metrics show them."""
        stats = self._make_stats(*arguments, **more)
        self.gauges = (stats.num_running_reqs, stats.num_waiting_reqs, stats.kv_cache_usage)
        self.hits += stats.prefix_cache_stats.hits
        self.queries += stats.prefix_cache_stats.queries
        return stats


def main() -> None:
    """Serve every load of a job with one engine."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL="ERROR",
    )
    job = json.loads(Path(sys.argv[1]).read_text())
    from vllm import EngineArgs, LLMEngine

    engine = LLMEngine.from_engine_args(EngineArgs(**job["arguments"]))
    scheduler = engine.engine_core.engine_core.scheduler
    recorder = Recorder(scheduler)
    config = engine.vllm_config
    limits = {
        "slots": config.scheduler_config.max_num_seqs,
        "batch_tokens": config.scheduler_config.max_num_batched_tokens,
        "block": config.cache_config.block_size,
        # One block is the pool's own, for what needs none.
        "blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,
    }
    clock = Clock(job.get("usual"), job.get("times"))
    loads = {name: serve(engine, recorder, clock, load) for name, load in job["loads"].items()}
    Path(sys.argv[2]).write_text(json.dumps({"limits": limits, "usual": clock.usual, "loads": loads}))


def serve(engine: Any, recorder: Recorder, clock: Clock, load: dict[str, Any]) -> dict[str, Any]:
    """One load: rows of (arrival s, prompt tokens, output tokens, family, tokens shared with its family)."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    scheduler = recorder.scheduler
    if not scheduler.reset_prefix_cache():
        raise RuntimeError("the prefix cache was not reset: requests are still running")
    recorder.make_stats()
    recorder.reset()
    rows = load["requests"]
    prompts = [_prompt(number, row, load["seed"]) for number, row in enumerate(rows)]
    admitted: list[float | None] = [None] * len(rows)
    first: list[float | None] = [None] * len(rows)
    last: list[float | None] = [None] * len(rows)
    made = [0] * len(rows)
    steps: list[tuple[float, ...]] = []
    following = 0
    clock.now = 0.0

    def turn() -> Any:
        nonlocal following
        while following < len(rows) and rows[following][0] <= clock.now:
            output = rows[following][2]
            engine.add_request(
                str(following),
                TokensPrompt(prompt_token_ids=prompts[following]),
                SamplingParams(max_tokens=output, min_tokens=output, ignore_eos=True, detokenize=False),
            )
            following += 1
        return engine.step()

    while following < len(rows) or engine.has_unfinished_requests():
        if not engine.has_unfinished_requests():
            clock.now = max(clock.now, rows[following][0])
        recorder.begun.clear()
        begin = clock.now
        answers = clock.measure(turn, recorder)
        end = clock.now
        for name in recorder.begun:
            # An engine's own name of a request begins with what it was called.
            number = int(name.split("-")[0])
            if admitted[number] is None:
                admitted[number] = begin
        new = 0
        for answer in answers:
            number = int(answer.request_id)
            tokens = len(answer.outputs[0].token_ids)
            new += tokens - made[number]
            if tokens and first[number] is None:
                first[number] = end
            made[number] = tokens
            if answer.finished:
                last[number] = end
        steps.append((begin, end, *recorder.row, *recorder.gauges, recorder.preempted, new))
    return {
        "steps": steps,
        "admitted": admitted,
        "first": first,
        "last": last,
        "made": made,
        "prefix_hits": recorder.hits,
        "prefix_queries": recorder.queries,
    }


def _prompt(number: int, row: list[Any], seed: int) -> list[int]:
    _, length, _, family, shared = row
    own = random.Random(f"{seed}/own/{number}")
    common = random.Random(f"{seed}/family/{family}")
    return [common.randrange(_WORDS) for _ in range(shared)] + [
        own.randrange(_WORDS) for _ in range(length - shared)
    ]


if __name__ == "__main__":
    main()
