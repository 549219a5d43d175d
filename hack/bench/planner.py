"""`python -m bench.planner`: plans per second on one core, and how long `kubectl moe plan` takes from start to end.

Models of every family on every accelerator of the catalogue, once by the shape that the planner finds for itself.
"cold" is the first pass of a process (catalogue read, nothing remembered), "computed" a pass with what is remembered of
layouts thrown away before every plan, "remembered" the steady state of an operator that plans the same again.
"""

import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment, parse
from moe_operator.catalog.accelerators import Catalog, load_catalog
from moe_operator.catalog.models.catalog import ModelCatalog, load_models
from moe_operator.planner import sizing
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.plan import Plan
from moe_operator.planner.planning import plan

#: One of each family: siblings plan alike.
MODELS = (
    "Qwen/Qwen3.5-397B-A17B",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3-235B-A22B-Instruct-2507",
    "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-R1",
    "deepseek-ai/DeepSeek-V3.2",
    "deepseek-ai/DeepSeek-V4-Pro",
    "moonshotai/Kimi-K2-Thinking",
    "zai-org/GLM-4.5",
    "zai-org/GLM-5",
    "MiniMaxAI/MiniMax-M2",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "mistralai/Mixtral-8x22B-Instruct-v0.1",
    "meta-llama/Llama-3.3-70B-Instruct",
)
PASSES = 5
STARTS = 5
#: Wanted of one core in the steady state, and of the command.
TARGET_PER_SECOND = 500


def deployments(accelerators: Catalog) -> list[ModelDeployment]:
    """The mix. Without `cpu`, which most models refuse at once."""
    return [
        parse(
            {
                "metadata": {"name": "bench", "namespace": "bench", "uid": "bench", "generation": 1},
                "spec": {"model": {"name": model}, "hardware": {"accelerator": accelerator}},
            }
        )
        for model in MODELS
        for accelerator in accelerators.names()
        if accelerator != "cpu"
    ]


def one_pass(
    wanted: list[ModelDeployment],
    accelerators: Catalog,
    models: ModelCatalog,
    before: Callable[[], None] | None = None,
) -> tuple[list[float], int]:
    """(seconds of each plan in processor time of this process, how many were plans and not refusals)."""
    unread = Inventory(nodes=None)
    seconds: list[float] = []
    plans = 0
    for deployment in wanted:
        if before is not None:
            before()
        begun = time.process_time()
        found = plan(deployment, unread, accelerators, models)
        seconds.append(time.process_time() - begun)
        plans += isinstance(found, Plan)
    return seconds, plans


def line(what: str, seconds: list[float]) -> str:
    """Plans per second, median and slowest."""
    return (
        f"{what:<12} {len(seconds) / sum(seconds):7.0f} plans/s   median {median(seconds) * 1e3:6.2f} ms"
        f"   slowest {max(seconds) * 1e3:6.2f} ms"
    )


def command_seconds() -> list[float]:
    """Processor time of `kubectl moe plan -f FILE`, start-up included, each in a process of its own (s).

    With compiled modules, as pip leaves them.
    """
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "bench"},
        "spec": {"model": {"name": MODELS[0]}, "hardware": {"accelerator": "B200"}},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "deployment.json"
        file.write_text(json.dumps(manifest), encoding="utf-8")
        call = [sys.executable, "-m", "moe_operator.cli.kubectl_moe", "plan", "-f", str(file)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")
        found: list[float] = []
        for _ in range(STARTS + 1):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(call, check=True, capture_output=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return found[1:]  # the first compiled the modules


def main() -> None:
    """Print the figures, and one JSON line to keep."""
    starts = command_seconds()  # while this process is small: a large one starts others more slowly
    accelerators, models = load_catalog(), load_models()
    wanted = deployments(accelerators)
    gc.disable()
    cold, plans = one_pass(wanted, accelerators, models)

    def best(before: Callable[[], None] | None = None) -> list[float]:
        passes = [one_pass(wanted, accelerators, models, before)[0] for _ in range(PASSES)]
        return min(passes, key=sum)

    computed = best(sizing.forget)
    remembered = best()
    gc.enable()

    print(
        f"{len(wanted)} deployments: {len(MODELS)} models, {plans} plans, {len(wanted) - plans} refusals; one core"
    )
    print(line("cold", cold))
    print(line("computed", computed))
    print(line("remembered", remembered))
    print(
        f"kubectl moe plan, processor time of a process: median {median(starts):.2f} s"
        f"   slowest {max(starts):.2f} s"
    )
    if len(remembered) / sum(remembered) < TARGET_PER_SECOND:
        print(f"below the {TARGET_PER_SECOND} plans/s that are wanted")
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "cold_per_s": round(len(cold) / sum(cold)),
        "computed_per_s": round(len(computed) / sum(computed)),
        "remembered_per_s": round(len(remembered) / sum(remembered)),
        "command_s": round(median(starts), 2),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
