"""`python -m verify.simulator [--short] [--output FOLDER]`: the simulator's engine against vLLM itself on this CPU.

A model of random weights is served by the real scheduler, KV cache and kernels (`verify.engine_run`). First steps of
many kinds are measured, and the constants of an engine fitted to them; then other loads are served, below and above
what the engine sustains, with too small a cache, with shared beginnings of prompts; and the simulator is given the same
arrivals. Exit status 1: a figure is off by more than 15 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.install import VLLM_VERSION, environment, vllm_command
from verify import simulated_engine
from verify.engine_figures import compare
from verify.simulator_loads import OUTPUTS, PROMPTS, Load, batches, by_chance, in_turn, poisson, with_prefixes
from verify.simulator_page import Outcome, Served, page, picture
from verify.step_times import StepTimes, fit

HACK = Path(__file__).parents[1]
#: The smallest that vLLM's kernels for CPUs know.
BLOCK = 32
SLOTS, BATCH_TOKENS, MOST_TOKENS = 16, 256, 1024
BLOCKS = 1500
LIMITS = {"slots": SLOTS, "batch_tokens": BATCH_TOKENS, "blocks": BLOCKS, "block": BLOCK}
#: A cache that a third of the slots fill.
SCARCE_BLOCKS = 40
#: Large enough for a step to be computing and little else.
MODEL: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "attention_bias": False,
    "bos_token_id": 256,
    "decoder_sparse_step": 1,
    "dtype": "float32",
    "eos_token_id": 258,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "mlp_only_layers": [],
    "moe_intermediate_size": 128,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 512,
}
SHARE = MODEL["num_experts_per_tok"] / MODEL["num_experts"]
#: Seconds between the points that courses are compared at.
INTERVAL = 0.25


@dataclass(frozen=True)
class Plan:
    """What is served: `sizes` of batches and `prompts` to fit to; loads of so many `seconds`, at shares of what the
    engine sustains; `everything`: one of them once more, and prefix caches."""

    sizes: tuple[int, ...]
    prompts: tuple[int, ...]
    seconds: float
    shares: tuple[float, ...]
    everything: bool = True
    times: StepTimes | None = None
    """What steps last, instead of what is measured: nothing is left to chance, and decisions alone are compared."""


FULL = Plan((1, 2, 4, 8, 12, 16), (16, 64, 150, 400), 25.0, (0.5, 0.9, 1.3))
#: As measured on two cores of x86-64.
TIMES = StepTimes(0.0035, 0.002, 2.7e-5, 5.2e-5, 3.4e-7, error=0.0, bias=0.0, steps=0)
DECISIONS = replace(FULL, times=TIMES)
SHORT = Plan((), (), 5.0, (0.9, 1.3), everything=False, times=TIMES)


@dataclass(frozen=True)
class Job:
    """Loads that one engine serves."""

    loads: tuple[Load, ...]
    blocks: int = BLOCKS
    prefixes: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if a figure is off."""
    parser = argparse.ArgumentParser(prog="verify.simulator", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer and shorter loads")
    parser.add_argument(
        "--decisions",
        action="store_true",
        help="steps last what they are told to: decisions alone are compared",
    )
    parser.add_argument("--output", type=Path, help="folder of the page; without it figures are printed only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep",
        type=Path,
        help="file of what vLLM did: written, or read instead of running it if it is there",
    )
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    plan = SHORT if arguments.short else DECISIONS if arguments.decisions else FULL
    outcome = measured(plan, arguments.seed, _Engine(arguments.keep, plan.times))
    for served in outcome.served:
        print(
            f"{served.load.name}: {served.load.about}; steps as they were put together {served.bias:+.1%} off"
        )
        for figure in served.figures:
            print(f"  {figure.text()}")
    off = [figure for served in outcome.served for figure in served.figures if not figure.held]
    print(
        f"{sum(len(s.figures) for s in outcome.served)} figures, {len(off)} off, {time.monotonic() - began:.0f} s"
    )
    if arguments.output:
        folder = arguments.output / "simulator"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "courses.svg").write_text(picture(outcome), encoding="utf-8")
        (arguments.output / "simulator.md").write_text(page(outcome), encoding="utf-8")
    return 1 if off else 0


def measured(plan: Plan, seed: int, vllm: _Engine) -> Outcome:
    """Calibrate, serve, simulate, compare."""
    simulated_engine.with_blocks(BLOCK)
    from moe_operator.simulator.engine_model import EngineModel

    def model(limits: dict[str, int], times: StepTimes, prefixes: bool = True) -> EngineModel:
        return EngineModel(
            name="cpu",
            ranks=1,
            gpus=1,
            slots=limits["slots"],
            batch_tokens=limits["batch_tokens"],
            kv_tokens=limits["blocks"] * limits["block"],
            base=times.base,
            experts=times.experts,
            expert_share=SHARE,
            decode=times.decode,
            prefill=times.prefill,
            kv=times.kv,
            prefix_cache_share=1.0 if prefixes else 0.0,
        )

    times, limits = plan.times, dict(LIMITS)
    if times is None:
        times, limits = calibrated(plan, seed, vllm)
    most = sustained(model(limits, times), seed)
    say(f"{times.steps} steps, mean error {times.error:.1%}; {most:.2f} requests/s sustained")
    served = []
    for job in jobs(plan, seed, most):
        say(f"serving {', '.join(load.name for load in job.loads)}")
        answer = vllm.run(job)
        for load in job.loads:
            run = answer["loads"][load.name]
            real = simulated_engine.real_course(load, run, INTERVAL)
            made = simulated_engine.course(load, model(answer["limits"], times, job.prefixes), INTERVAL)
            served.append(
                Served(load, real, made, compare(load, real, made), times.bias_on(_rows(run), SHARE))
            )
    return Outcome(served, times, most, limits, facts(plan, seed))


def calibrated(plan: Plan, seed: int, vllm: _Engine) -> tuple[StepTimes, dict[str, int]]:
    """Step times of loads of their own, and the engine's limits."""
    say("measuring steps")
    mixed = poisson("mixed", seed + 100, 24.0, plan.seconds / 4)
    answer = vllm.run(Job((batches(seed, plan.sizes, plan.prompts, 24), mixed)))
    if answer["limits"]["block"] != BLOCK:
        raise RuntimeError(f"vLLM has blocks of {answer['limits']['block']} tokens, not {BLOCK}")
    return fit([row for load in answer["loads"].values() for row in _rows(load)], SHARE), answer["limits"]


def _rows(run: dict[str, Any]) -> list[tuple[float, float, float, float]]:
    return [(row[1] - row[0], row[2], row[3], row[4]) for row in run["steps"]]


def jobs(plan: Plan, seed: int, most: float) -> list[Job]:
    """The loads, by engine that serves them, of one that sustains `most` requests per second."""

    def load(name: str, number: int, share: float, about: str) -> Load:
        return poisson(name, seed + number, share * most, plan.seconds, about)

    ample = [
        load(f"load {share:g}", 1 + at, share, f"{share:.0%} of what the engine sustains")
        for at, share in enumerate(plan.shares)
    ]
    scarce = load("scarce cache", 30, 0.7, f"a cache of {SCARCE_BLOCKS} blocks, without prefix caching")
    if not plan.everything:
        return [Job(tuple(ample)), Job((scarce,), SCARCE_BLOCKS, prefixes=False)]
    again = replace(ample[1], name=f"{ample[1].name} again", about="the same once more: what chance does")
    turns = load("conversations", 20, 0.7, "40 beginnings of 320 tokens in turn, found in the cache")
    turns = with_prefixes(turns, in_turn(turns, 40), length=320, block=BLOCK)
    common = load(
        "instructions", 21, 0.7, "12 beginnings of 320 tokens by chance: requests that run share blocks"
    )
    common = with_prefixes(common, by_chance(common, 12), length=320, block=BLOCK)
    common = replace(common, unmodelled=("KV cache in use, every 5 s",))
    found = replace(
        scarce,
        name="scarce cache, prefixes",
        about="the same with prefix caching: what was preempted is found again",
    )
    return [
        Job((*ample, again, turns, common)),
        Job((scarce,), SCARCE_BLOCKS, prefixes=False),
        Job((found,), SCARCE_BLOCKS),
    ]


def sustained(engine: Any, seed: int) -> float:
    """Requests per second of the mix that a full engine serves, by the simulator."""
    load = poisson("full", seed + 50, 1000.0, 1.0)
    course = simulated_engine.course(load, engine, 1.0)
    tokens = sum(request.output for request in load.requests)
    # Not to the last one: towards the end slots are empty.
    half = next(at for at, made in zip(course.at, course.tokens, strict=True) if made >= tokens / 2)
    return float(tokens / 2 / half * len(load.requests) / tokens)


class _Engine:
    """vLLM in a process of its environment, one for each job; or what it did then."""

    def __init__(self, keep: Path | None, times: StepTimes | None) -> None:
        self._keep = keep
        self._times = None if times is None else {**asdict(times), "share": SHARE}
        self._kept: dict[str, Any] = {}
        if keep is not None and keep.exists():
            self._kept = json.loads(keep.read_text())
        self._usual: float | None = None

    def run(self, job: Job) -> dict[str, Any]:
        """What it does with the loads, one after another."""
        name = " ".join(load.name for load in job.loads)
        if name not in self._kept:
            self._kept[name] = self._run(job)
            if self._keep is not None:
                self._keep.write_text(json.dumps(self._kept))
        answer: dict[str, Any] = self._kept[name]
        # All count in the seconds of the first.
        self._usual = self._usual or answer["usual"]
        return answer

    def _run(self, job: Job) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            model, told, heard = (Path(folder, name) for name in ("model", "job.json", "answer.json"))
            model.mkdir()
            (model / "config.json").write_text(json.dumps(MODEL))
            arguments = {
                "model": str(model),
                "skip_tokenizer_init": True,
                "load_format": "dummy",
                "dtype": "float32",
                "seed": 0,
                "enforce_eager": True,
                "max_model_len": MOST_TOKENS,
                "max_num_seqs": SLOTS,
                "max_num_batched_tokens": BATCH_TOKENS,
                "block_size": BLOCK,
                "num_gpu_blocks_override": job.blocks + 1,
                "enable_prefix_caching": job.prefixes,
                "disable_log_stats": False,
            }
            loads = {load.name: load.job() for load in job.loads}
            told.write_text(
                json.dumps(
                    {"arguments": arguments, "usual": self._usual, "times": self._times, "loads": loads}
                )
            )
            python = vllm_command().parent / "python"
            done = subprocess.run(
                [str(python), "-m", "verify.engine_run", str(told), str(heard)],
                env={**os.environ, "PYTHONPATH": str(HACK), "VLLM_CPU_KVCACHE_SPACE": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"vLLM ended with {done.returncode}:\n{done.stderr[-3000:]}")
            answer: dict[str, Any] = json.loads(heard.read_text())
            return answer


def facts(plan: Plan, seed: int) -> dict[str, str]:
    """Where and when."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=HACK, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "--", ".", "../operator") else ""
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{changed}",
        "Machine": f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}",
        "Engine": f"vLLM {VLLM_VERSION} for CPUs, one thread, {environment().name}",
        "Model": f"Qwen3-MoE of random weights: {MODEL['num_hidden_layers']} layers of {MODEL['hidden_size']}, "
        f"{MODEL['num_experts']} experts of which {MODEL['num_experts_per_tok']} a token, float32",
        "Loads": f"{plan.seconds:g} s of Poisson arrivals (seed {seed}); prompts of {PROMPTS.median:g} tokens and "
        f"outputs of {OUTPUTS.median:g} in the median",
    }


def say(text: str) -> None:
    """Progress."""
    print(f"verify.simulator: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
