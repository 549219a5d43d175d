"""`python hack/bench/fit_engine.py NAME MODEL [options]`: constants of an engine, fitted to aiconfigurator's tables.

Prints the YAML of `operator/moe_operator/simulator/engines/NAME.yaml`, with the tables' version and the residuals.
Needs `pip install aiconfigurator==0.12.0` in an environment of its own (it brings its tables, and needs no network and
no GPU); the project does not depend on it, and this file on nothing of the project.

A step's time is the sum of its operations. What is done for the experts (dispatch, expert kernels, combine) depends on
the tokens of the whole group, the rest on a rank's own requests; the two are fitted apart, each by least squares of
relative errors over steps that only decode and steps that only compute prompts, with no constant below 0.
"""

import argparse
import importlib.metadata
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Requests of a rank in a step that decodes, tokens of each in the cache; prompt tokens of a rank in one that does not.
DECODING = (1, 4, 16, 32, 64, 128, 256)
CONTEXTS = (512, 4000, 12000)
PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192)
#: Parts of names of operations that are for the experts of the whole group.
EXPERTS = ("moe",)
#: vLLM's `--gpu-memory-utilization` by default.
UTILIZATION = 0.92


def positive_least_squares(rows: Sequence[Sequence[float]], times: Sequence[float]) -> list[float]:
    """Coefficients >= 0 that fit `times`, by relative errors: the most negative is left out until none is."""
    weights = 1 / np.array(times)
    matrix = np.array(rows) * weights[:, None]
    used = list(range(matrix.shape[1]))
    while True:
        solved = np.linalg.lstsq(matrix[:, used], np.ones(len(times)), rcond=None)[0]
        if (solved >= 0).all():
            break
        used.pop(int(np.argmin(solved * np.abs(matrix[:, used]).mean(axis=0))))
    found = [0.0] * matrix.shape[1]
    for at, value in zip(used, solved, strict=True):
        found[at] = float(value)
    return found


def split(operations: dict[str, float]) -> tuple[float, float]:
    """Seconds for the experts, and for the rest, of a step's operations (ms)."""
    experts = sum(ms for name, ms in operations.items() if any(part in name for part in EXPERTS))
    return experts / 1e3, (sum(operations.values()) - experts) / 1e3


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name")
    parser.add_argument("model")
    parser.add_argument("--models", nargs="*", default=[], help="catalogue names that the constants hold for")
    parser.add_argument("--accelerator", default="H200", help="its catalogue name")
    parser.add_argument("--precision", default="fp8")
    parser.add_argument("--system", default="h200_sxm")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--experts", type=int, required=True, help="experts of a layer")
    parser.add_argument("--chosen", type=int, required=True, help="experts that a token goes to")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.WARNING)
    from aiconfigurator.cli.api import cli_estimate  # type: ignore[import-not-found]

    def step(mode: str, batch: int, tokens: int) -> Any:
        return cli_estimate(
            arguments.model,
            arguments.system,
            mode=mode,
            backend_name="vllm",
            batch_size=batch,
            isl=tokens,
            osl=2 if mode == "static_gen" else 1,
            tp_size=1,
            attention_dp_size=arguments.ranks,
            moe_tp_size=1,
            moe_ep_size=arguments.ranks,
        )

    share = arguments.chosen / arguments.experts

    def touched(tokens: int) -> float:
        return float(1 - (1 - share) ** (arguments.ranks * tokens))

    steps = []
    for requests in DECODING:
        for context in CONTEXTS:
            summary = step("static_gen", requests, context).summary
            seconds = split(summary.get_generation_latency_dict())
            steps.append((requests, 0, requests * context, *seconds))
    for prompt in PROMPTS:
        answer = step("static_ctx", 1, prompt)
        seconds = split(answer.summary.get_context_latency_dict())
        steps.append((0, prompt, 0, *seconds))

    of_experts = positive_least_squares(
        [[1.0, touched(d + p), arguments.ranks * (d + p)] for d, p, *_ in steps], [step[3] for step in steps]
    )
    of_rank = positive_least_squares([[1.0, d, p, k] for d, p, k, *_ in steps], [step[4] for step in steps])
    errors = []
    for d, p, k, expert_seconds, rank_seconds in steps:
        fitted = np.dot(of_experts, [1.0, touched(d + p), arguments.ranks * (d + p)]) + np.dot(
            of_rank, [1.0, d, p, k]
        )
        errors.append(fitted / (expert_seconds + rank_seconds) - 1)
    decoding, computing = errors[: -len(PROMPTS)], errors[-len(PROMPTS) :]

    memory = answer.summary.get_memory()
    capacity = answer.summary.get_mem_capacity_bytes() / 2**30
    taken = memory["total"] - memory["kvcache"]
    per_sequence, tokens = answer.summary.get_kv_per_seq()
    kv_tokens = int((capacity * UTILIZATION - taken) * 2**30 / (per_sequence / tokens)) // 16 * 16
    version = importlib.metadata.version("aiconfigurator")
    source = (
        f"aiconfigurator {version} (Apache-2.0), tables of {arguments.system} for vLLM {answer.backend_version}, "
        f"{arguments.model}, attention DP {arguments.ranks}, experts EP {arguments.ranks}; fitted by "
        f"hack/bench/{Path(__file__).name}. Relative errors of a step's time: decoding "
        f"({DECODING[0]} to {DECODING[-1]} requests a rank, contexts of {CONTEXTS[0]} to {CONTEXTS[-1]}) mean "
        f"{np.mean(np.abs(decoding)):.1%}, worst {np.max(np.abs(decoding)):.1%}; prompts "
        f"({PROMPTS[0]} to {PROMPTS[-1]} tokens a rank) mean {np.mean(np.abs(computing)):.1%}, worst "
        f"{np.max(np.abs(computing)):.1%}. KV cache: {capacity:.1f} GiB x {UTILIZATION} less {taken:.1f} GiB, "
        f"{per_sequence / tokens:.0f} bytes a token."
    )
    print(
        "# Printed by hack/bench/fit_engine.py; times in seconds, counts for each rank but `gpus` and `ranks`."
    )
    for key, value in {
        "name": arguments.name,
        "source": json.dumps(source),
        "models": json.dumps(arguments.models),
        "accelerator": arguments.accelerator,
        "precision": arguments.precision,
        "ranks": arguments.ranks,
        "gpus": arguments.ranks,
        "slots": arguments.slots,
        "batch_tokens": arguments.batch_tokens,
        "kv_tokens": kv_tokens,
        "base": f"{of_experts[0] + of_rank[0]:.4g}",
        "experts": f"{of_experts[1]:.4g}",
        "expert_share": share,
        "shared": f"{of_experts[2]:.4g}",
        "decode": f"{of_rank[1]:.4g}",
        "prefill": f"{of_rank[2]:.4g}",
        "kv": f"{of_rank[3]:.4g}",
        "prefix_cache_share": 1.0,
    }.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
