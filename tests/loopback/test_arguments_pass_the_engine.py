"""Every argument list that the operator can render for a model of its catalogue, read by vLLM itself: a flag that it
refuses is a group that never starts, on GPUs that are paid for."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.install import environment
from factories.platforms import platforms
from loopback.argument_cases import Case, Table, argument_table
from moe_operator.catalog.fabrics import load_fabrics
from moe_operator.catalog.models.architecture import LatentCache
from moe_operator.catalog.models.catalog import load_models
from moe_operator.planner.plan import Plan

pytestmark = pytest.mark.timeout(400)

_HACK = Path(__file__).parents[2] / "hack"

#: What a slip in a template would make of a good list, and what vLLM says to it.
_SLIPS = {
    "misspelt": (["--max-num-seq=8"], "parser ended"),
    "unknown tool parser": (["--enable-auto-tool-choice", "--tool-call-parser=hermez"], "tool call parser"),
    "unknown reasoning parser": (["--reasoning-parser=qwen33"], "Reasoning parser"),
    "unknown precision of the cache": (["--kv-cache-dtype=fp7"], "parser ended"),
    "unknown key of the balancer": (['--eplb-config={"num_redundant_expert":1}'], "parser ended"),
    "unknown kind of input": (['--limit-mm-per-prompt={"image":"many"}'], "limit_mm_per_prompt"),
    "longer than the model": (["--max-model-len=99999999"], "max_model_len"),
    "no such all-to-all": (["--all2all-backend=deepp"], "parser ended"),
    "halves over what cannot be halved": (["--enable-dbo"], "Microbatching currently only supports"),
    "heads that do not divide": (["--tensor-parallel-size=7"], "divisible"),
    "two modes of balancing": (["--data-parallel-rank=0", "--data-parallel-hybrid-lb"], "balancing"),
    "unknown method of drafts": (
        ['--speculative-config={"method":"mpt","num_speculative_tokens":1}'],
        "method",
    ),
    "unknown rank of adapters": (["--enable-lora", "--max-lora-rank=20"], "parser ended"),
    "copies without balancing": (['--eplb-config={"num_redundant_experts":1}'], "EPLB"),
}


@dataclass
class _Read:
    table: Table
    answers: dict[str, dict[str, Any]]
    """By the case's name."""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> _Read:
    """vLLM's reading of all lists: a process per platform, two at a time, as each import takes seconds."""
    begun = time.monotonic()
    table = argument_table(tmp_path_factory.mktemp("models"))
    planned = time.monotonic() - begun
    batches: dict[tuple[str, int], list[Case]] = {}
    for case in table.cases:
        # NVIDIA's are most: two processes, by capability, of which vLLM remembers some answers.
        batches.setdefault((case.platform, case.capability // 100), []).append(case)
    first = next(c for c in table.cases if c.platform == "cuda")
    slips = [replace(first, name=n, arguments=(*first.arguments, *s)) for n, (s, _) in _SLIPS.items()]
    batches[(first.platform, first.capability // 100)] += slips
    with ThreadPoolExecutor(2) as pool:
        caches = [tmp_path_factory.mktemp("vllm") for _ in batches]
        parts = pool.map(_ask, [key[0] for key in batches], batches.values(), caches)
        answers = {name: answer for part in parts for name, answer in part.items()}
    print(
        f"{table.plans} plans ({table.refused} combinations do not fit), {len(table.cases)} distinct argument"
        f" lists; planned in {planned:.1f} s, read in {time.monotonic() - begun - planned:.1f} s"
    )
    return _Read(table, answers)


def _ask(platform: str, cases: list[Case], cache: Path) -> dict[str, dict[str, Any]]:
    """`cache`: where vLLM keeps what it found of models' classes; what another platform left there hides what it would
    find on this one."""
    done = subprocess.run(
        [str(environment() / "bin" / "python"), "-m", "verify.arguments_reader"],
        input=json.dumps({"platform": platform, "cases": [case.told() for case in cases]}),
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(_HACK),
            "OMP_NUM_THREADS": "1",
            "VLLM_CACHE_ROOT": str(cache),
        },
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(cases), f"{platform}: {len(rows)} of {len(cases)}; {done.stderr[-4000:]}"
    return {row.pop("id"): row for row in rows}


def _meant(case: Case) -> dict[str, Any]:
    plan, sizing = case.plan, case.plan.sizing
    assert sizing is not None
    several = plan.pods_per_group > 1
    one_rank_each = several and plan.ranks_per_pod == 1
    return {
        "tensor": plan.tensor,
        "total": plan.data,
        "local": plan.ranks_per_pod,
        "rank": plan.data - plan.ranks_per_pod,
        "external": one_rank_each,
        "hybrid": several and not one_rank_each,
        "experts": plan.expert_parallel,
        "balanced": sizing.balanced,
        "redundant": sizing.redundant_experts if sizing.balanced else 0,
        "context": sizing.context_length,
        "sequences": sizing.max_sequences,
        **({} if _takes_prompts_whole(case) else {"tokens": sizing.max_batched_tokens}),
        "filtered": plan.expert_parallel and sizing.experts_apart and not sizing.balanced,
        "drafted": sizing.speculative_tokens,
        **({"drafts": sizing.speculation} if sizing.speculation else {}),
        **({"balancing": [sizing.balancing_window, sizing.balancing_interval]} if sizing.balanced else {}),
        **({"prefixes": sizing.prefix_caching} if sizing.utilization else {}),
        "adapters": [sizing.adapter_slots, sizing.adapter_rank] if sizing.adapter_slots else None,
        **({"cache": sizing.kv_cache_dtype} if sizing.kv_cache_dtype != "auto" else {}),
        **({"utilization": sizing.utilization / 100} if sizing.utilization else {}),
        **({"dtype": sizing.dtype} if sizing.dtype else {}),
        **_exchange(plan),
        "images": json.loads(sizing.multimodal) if sizing.multimodal else {},
    }


def _exchange(plan: Plan) -> dict[str, Any]:
    """The all-to-all; vLLM knows nothing of it on a CPU."""
    transport = plan.transport
    if transport is None or transport.all2all is None:
        return {}
    microbatches = transport.all2all in ("deepep_low_latency", "deepep_high_throughput", "nixl_ep")
    return {"exchange": transport.all2all, "halves": microbatches and plan.pods_per_group > 1}


def _takes_prompts_whole(case: Case) -> bool:
    """With latent attention on a CPU vLLM does not cut prompts, and raises the tokens of a step to the longest."""
    model = load_models().find(case.plan.sizing.model if case.plan.sizing else "")
    latent = model is not None and any(isinstance(c, LatentCache) for c in model.architecture.caches)
    return latent and case.platform == "cpu"


def test_vllm_takes_every_list(read: _Read) -> None:
    """A refused list is a group whose pods end at once, again and again."""
    refused = {name: answer["error"] for name, answer in read.answers.items() if "error" in answer}
    assert {name: error for name, error in refused.items() if name not in _SLIPS} == {}


def test_vllm_makes_of_every_list_what_the_plan_meant(read: _Read) -> None:
    """A flag that vLLM takes for something else gives groups that lose requests, or run out of memory."""
    differing = {}
    for case in read.table.cases:
        answer = read.answers[case.name]
        wrong = {k: (v, answer.get(k)) for k, v in _meant(case).items() if answer.get(k) != v}
        if wrong and "error" not in answer:
            differing[case.name] = wrong
    assert differing == {}


def test_every_all_to_all_is_among_them(read: _Read) -> None:
    """One that nobody asked vLLM about may be one that it does not know."""
    seen = {case.plan.transport.all2all for case in read.table.cases if case.plan.transport}
    names = {backend.name for backend in load_fabrics().backends()}
    assert names - seen <= {"moonep"}
    assert read.table.fabrics == set(load_fabrics().names())


def test_no_model_of_the_catalogue_is_left_out(read: _Read) -> None:
    """A model that nothing holds is one that nobody can serve."""
    assert set(load_models().names()) - read.table.models == set()


def test_every_example_is_read(read: _Read) -> None:
    """What people copy first, on the nodes that it is shown on: with everything that a fabric adds."""
    assert set(read.table.examples) == {one.name for one in platforms()}
    for name in read.table.examples.values():
        assert "error" not in read.answers[name]


def test_a_stretched_model_rotates_by_yarn(read: _Read) -> None:
    """The flag alone would let requests in that the model answers with nonsense."""
    stretched = [case for case in read.table.cases if case.rope]
    assert stretched
    for case in stretched:
        rotary, sizing = read.answers[case.name]["rotary"], case.plan.sizing
        assert sizing is not None
        assert rotary["class"] in ("YaRNScalingRotaryEmbedding", "MRotaryEmbedding"), case.name
        assert rotary["factor"] == 4.0, case.name
        assert rotary["positions"] >= sizing.context_length, case.name
        told = json.loads(sizing.hf_overrides or "")
        rope = told.get("text_config", told)["rope_parameters"]
        assert rotary["theta"] == rope["rope_theta"], case.name


def test_adapters_are_served_by_their_names(read: _Read) -> None:
    """A list that vLLM reads otherwise gives clients the plain model, or another's adapter."""
    with_adapters = [case for case in read.table.cases if case.plan.sizing and case.plan.sizing.adapter_slots]
    assert with_adapters
    for case in with_adapters:
        answer = read.answers[case.name]
        assert answer["served"] == [["law", "org/law"], ["sql", "/adapters/adapters/sql"]], case.name
        narrow = "--lora-target-modules" in case.arguments
        assert answer["changed"] == (["o_proj", "q_proj"] if narrow else None), case.name


@pytest.mark.parametrize("slip", _SLIPS)
def test_a_slip_would_be_seen(slip: str, read: _Read) -> None:
    """Without it, nobody knows whether the table above could fail."""
    assert _SLIPS[slip][1] in read.answers[slip].get("error", "nothing")
