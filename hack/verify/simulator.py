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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.install import VLLM_VERSION, environment, vllm_command
from verify import simulated_engine
from verify.engine_figures import Figure, compare
from verify.simulated_engine import Course
from verify.simulator_loads import OUTPUTS, PROMPTS, Load, batches, poisson, with_prefixes
from verify.simulator_page import Outcome, Served, page, picture
from verify.step_times import StepTimes, fit

HACK = Path(__file__).parents[1]
#: The smallest that vLLM's kernels for CPUs know.
BLOCK = 32
SLOTS, BATCH_TOKENS, MOST_TOKENS = 16, 256, 1024
BLOCKS = 1500
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
    """What is served."""

    sizes: tuple[int, ...]
    prompts: tuple[int, ...]
    seconds: float
    loads: tuple[float, ...]
    """Of what the engine sustains."""
    scarce: bool = True
    prefixes: bool = True
    again: bool = True


FULL = Plan((1, 2, 4, 8, 12, 16), (16, 64, 150, 400), 40.0, (0.5, 0.9, 1.3))
SHORT = Plan((1, 4, 16), (16, 200), 10.0, (0.9, 1.3), again=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if a figure is off."""
    parser = argparse.ArgumentParser(prog="verify.simulator", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer and shorter loads, a minute or so")
    parser.add_argument("--output", type=Path, help="folder of the page; without it figures are printed only")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    outcome = measured(SHORT if arguments.short else FULL, arguments.seed)
    for served in outcome.served:
        print(f"{served.load.name}: {served.load.about}")
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


def measured(plan: Plan, seed: int) -> Outcome:
    """Calibrate, serve, simulate, compare."""
    simulated_engine.with_blocks(BLOCK)
    from moe_operator.simulator.engine_model import EngineModel

    def model(limits: dict[str, int], times: StepTimes) -> EngineModel:
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
        )

    say("measuring steps")
    calibration = [
        batches(seed, plan.sizes, plan.prompts, 24),
        poisson("mixed", seed + 100, 30.0, min(6.0, plan.seconds / 2)),
    ]
    answer = run_engine(calibration, BLOCKS)
    if answer["limits"]["block"] != BLOCK:
        raise RuntimeError(f"vLLM has blocks of {answer['limits']['block']} tokens, not {BLOCK}")
    steps = [
        (row[1] - row[0], *row[2:5]) for load in answer["loads"].values() for row in load["steps"] if row[2:4]
    ]
    times = fit(steps, SHARE)
    engine = model(answer["limits"], times)
    most = sustained(engine, seed)
    say(f"{times.steps} steps, mean error {times.error:.1%}, sustains {most:.2f} requests/s: {times}")

    ample = [
        poisson(
            f"load {share:g}", seed + 1 + at, share * most, plan.seconds, f"{share:.0%} of what is sustained"
        )
        for at, share in enumerate(plan.loads)
    ]
    if plan.again:
        ample.append(
            Load(
                "load 0.9 again",
                ample[1].seed,
                ample[1].requests,
                ample[1].duration,
                "the same once more: what chance does",
            )
        )
    if plan.prefixes:
        shared = poisson(
            "shared beginnings",
            seed + 20,
            0.7 * most,
            plan.seconds,
            "twelve beginnings of 320 tokens, 70 % of what is sustained without them",
        )
        ample.append(with_prefixes(shared, families=12, length=320, block=BLOCK))
    say(f"serving {', '.join(load.name for load in ample)}")
    answers = [(load, run) for load, run in pairs(ample, run_engine(ample, BLOCKS))]
    if plan.scarce:
        scarce = poisson(
            "scarce cache", seed + 30, 0.7 * most, plan.seconds, f"a cache of {SCARCE_BLOCKS} blocks"
        )
        say("serving with a scarce cache")
        answers += pairs([scarce], run_engine([scarce], SCARCE_BLOCKS))
    served = []
    for load, (limits, run) in answers:
        real = simulated_engine.real_course(load, run, INTERVAL)
        made = simulated_engine.course(load, model(limits, times), INTERVAL)
        served.append(Served(load, real, made, compare(load, real, made)))
    return Outcome(served, times, most, answer["limits"], facts(plan, seed))


def pairs(loads: list[Load], answer: dict[str, Any]) -> list[tuple[Load, tuple[dict[str, int], Any]]]:
    return [(load, (answer["limits"], answer["loads"][load.name])) for load in loads]


def sustained(engine: Any, seed: int) -> float:
    """Requests per second of the mix that a full engine serves, by the simulator."""
    load = poisson("full", seed + 50, 1000.0, 1.0)
    course: Course = simulated_engine.course(load, engine, 1.0)
    tokens = sum(request.output for request in load.requests)
    mean = tokens / len(load.requests)
    # Not to the last one: towards the end slots are empty.
    half = next(at for at, done in zip(course.at, course.tokens, strict=True) if done >= tokens / 2)
    return float(tokens / 2 / half / mean)


def run_engine(loads: list[Load], blocks: int) -> dict[str, Any]:
    """What vLLM does with the loads, one after another, in a process of the engine's environment."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        model.mkdir()
        (model / "config.json").write_text(json.dumps(MODEL))
        job = {
            "arguments": {
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
                "num_gpu_blocks_override": blocks + 1,
                "enable_prefix_caching": True,
                "disable_log_stats": False,
            },
            "loads": {load.name: load.job() for load in loads},
        }
        Path(folder, "job.json").write_text(json.dumps(job))
        done = subprocess.run(
            [
                str(vllm_command().parent / "python"),
                "-m",
                "verify.engine_run",
                f"{folder}/job.json",
                f"{folder}/answer.json",
            ],
            env={**os.environ, "PYTHONPATH": str(HACK), "VLLM_CPU_KVCACHE_SPACE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"vLLM ended with {done.returncode}:\n{done.stderr[-3000:]}")
        answer: dict[str, Any] = json.loads(Path(folder, "answer.json").read_text())
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
        "Loads": f"{plan.seconds:g} s of Poisson arrivals (seed {seed}); prompts of {PROMPTS.median:g} tokens and outputs "
        f"of {OUTPUTS.median:g} in the median",
    }


def say(text: str) -> None:
    """Progress."""
    print(f"verify.simulator: {text}", file=sys.stderr, flush=True)


__all__ = ["Figure", "main", "measured"]

if __name__ == "__main__":
    sys.exit(main())
