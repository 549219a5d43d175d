"""vLLM's own reading of the arguments that the operator renders: the mode it infers must be the mode that was meant."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from engine.install import environment
from engine.tiny_model import tiny_model
from factories.deployments import group_plan, model_deployment, rendering
from moe_operator.planner.plan import Plan
from moe_operator.resources.engine_args import engine_arguments

pytestmark = pytest.mark.timeout(300)

# Runs in the engine's environment: reads the arguments as `vllm serve` does, up to the engine's configuration.
_READER = """
import json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext

answers = []
for arguments in json.load(sys.stdin):
    args = make_arg_parser(FlexibleArgumentParser(prog="vllm serve")).parse_args(arguments)
    args.model, args.subparser = args.model_tag, "serve"
    validate_parsed_serve_args(args)
    config = AsyncEngineArgs.from_cli_args(args).create_engine_config(UsageContext.OPENAI_API_SERVER)
    parallel = config.parallel_config
    answers.append({
        "rank": parallel.data_parallel_rank,
        "local": parallel.data_parallel_size_local,
        "total": parallel.data_parallel_size,
        "tensor": parallel.tensor_parallel_size,
        "experts": parallel.enable_expert_parallel,
        "external": parallel.data_parallel_external_lb,
        "hybrid": parallel.data_parallel_hybrid_lb,
        "address": parallel.data_parallel_master_ip,
        "rpc_port": parallel.data_parallel_rpc_port,
        "served": args.served_model_name,
        "middleware": args.middleware,
        "shutdown_timeout": config.shutdown_timeout,
        "context": config.model_config.max_model_len,
        "sequences": config.scheduler_config.max_num_seqs,
    })
print("ANSWERS" + json.dumps(answers))
"""


@dataclass(frozen=True)
class _Case:
    """A layout, and what vLLM must make of it in the pod with worker index 1, or 0 where there is one pod."""

    plan: Plan
    expected: dict[str, Any]


_CASES = {
    "one rank": _Case(
        group_plan(1, 1, expert_parallel=False),
        {"rank": 0, "local": 1, "total": 1, "external": False, "hybrid": False, "experts": False},
    ),
    "one pod of four ranks": _Case(
        group_plan(1, 4),
        {"rank": 0, "local": 4, "total": 4, "external": False, "hybrid": False, "experts": True},
    ),
    "two pods of one rank": _Case(
        group_plan(2, 1),
        {
            "rank": 1,
            "local": 1,
            "total": 2,
            "external": True,
            "hybrid": False,
            "address": "127.10.1.1",
            "rpc_port": 29550,
        },
    ),
    "three pods of two ranks": _Case(
        group_plan(3, 2),
        {
            "rank": 2,
            "local": 2,
            "total": 6,
            "external": False,
            "hybrid": True,
            "address": "127.10.1.1",
            "rpc_port": 29550,
        },
    ),
}


def _expanded(arguments: tuple[str, ...], index: int) -> list[str]:
    """As the kubelet expands them."""
    values = {
        "POD_IP": f"127.10.1.{index + 1}",
        "LWS_LEADER_ADDRESS": "127.10.1.1",
        "LWS_WORKER_INDEX": str(index),
    }
    expanded = list(arguments)
    for name, value in values.items():
        expanded = [argument.replace(f"$({name})", value) for argument in expanded]
    return expanded


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    """vLLM's reading of every case: one start, as its import takes seconds."""
    model = str(tiny_model())
    deployment = model_deployment(
        model={"name": "tiny", "contextLength": 512},
        engine={"args": {"max-num-seqs": "8", "seed": "0", "compilation-config.mode": "0"}},
    )
    lines = []
    for case in _CASES.values():
        arguments = engine_arguments(rendering(deployment, case.plan))
        lines.append([model, *_expanded(arguments, min(1, case.plan.pods_per_group - 1))[1:]])
    done = subprocess.run(
        [str(environment() / "bin" / "python"), "-c", _READER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HF_HUB_OFFLINE": "1",
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = next(line for line in done.stdout.splitlines() if line.startswith("ANSWERS"))
    return dict(zip(_CASES, json.loads(found.removeprefix("ANSWERS")), strict=True))


@pytest.mark.parametrize("name", _CASES)
def test_vllm_infers_the_mode_that_was_meant(name: str, answers: dict[str, dict[str, Any]]) -> None:
    """Another mode than meant starts as well, and then loses requests or leaves ranks idle."""
    answer = answers[name]
    expected = _CASES[name].expected
    assert {key: answer[key] for key in expected} == expected


@pytest.mark.parametrize("name", _CASES)
def test_what_the_spec_says_arrives(name: str, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[name]
    assert answer["served"] == ["tiny"]
    assert answer["context"] == 512
    assert answer["sequences"] == 8
    assert answer["shutdown_timeout"] == 20
    assert answer["middleware"] == ["moe_agent.middleware.AgentMiddleware"]
