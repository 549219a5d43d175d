"""A wrong flag is a group that never starts, or worse, one in another mode than the plan's."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, rendering
from moe_operator.resources.engine_args import Balancing, balancing, engine_arguments

_PARALLEL = {
    "--tensor-parallel-size",
    "--data-parallel-size",
    "--data-parallel-size-local",
    "--data-parallel-hybrid-lb",
    "--data-parallel-address",
    "--data-parallel-rpc-port",
    "--data-parallel-start-rank",
    "--nnodes",
    "--node-rank",
    "--master-addr",
    "--enable-expert-parallel",
}


def _by_flag(arguments: tuple[str, ...]) -> dict[str, str]:
    """Flag -> value, "" for a bare one; a repeated flag fails."""
    found: dict[str, str] = {}
    tokens = list(arguments[1:])
    while tokens:
        token = tokens.pop(0)
        assert token.startswith("--"), f"{token!r} is the value of no flag in {arguments}"
        flag, _, value = token.partition("=")
        if "=" not in token and tokens and not tokens[0].startswith("--"):
            value = tokens.pop(0)
        assert flag not in found, f"{flag} is given twice"
        found[flag] = value
    return found


def _flags(plan: Any, accelerator: str = "B200", **spec: Any) -> dict[str, str]:
    return _by_flag(
        engine_arguments(rendering(model_deployment(**spec), replace(plan, accelerator=accelerator)))
    )


@pytest.mark.parametrize(
    ("pods", "ranks", "tensor", "mode", "expected"),
    [
        pytest.param(
            1, 1, 1, Balancing.SINGLE,
            {"--tensor-parallel-size": "1", "--enable-expert-parallel": ""},
            id="one rank: no data parallel flags at all",
        ),
        pytest.param(
            1, 1, 8, Balancing.SINGLE,
            {"--tensor-parallel-size": "8", "--enable-expert-parallel": ""},
            id="one rank of eight GPUs",
        ),
        pytest.param(
            1, 8, 1, Balancing.INTERNAL,
            {"--tensor-parallel-size": "1", "--data-parallel-size": "8", "--enable-expert-parallel": ""},
            id="one pod of eight ranks: no address, and nothing that would make it hybrid",
        ),
        pytest.param(
            2, 1, 1, Balancing.EXTERNAL,
            {
                "--tensor-parallel-size": "1",
                "--data-parallel-size": "2",
                "--data-parallel-size-local": "1",
                "--data-parallel-hybrid-lb": "",
                "--data-parallel-address": "$(LWS_LEADER_ADDRESS)",
                "--data-parallel-rpc-port": "29550",
                "--data-parallel-start-rank": "$(LWS_WORKER_INDEX)",
                "--enable-expert-parallel": "",
            },
            id="two pods of one rank: the worker index is the rank",
        ),
        pytest.param(
            4, 2, 4, Balancing.HYBRID,
            {
                "--tensor-parallel-size": "4",
                "--data-parallel-size": "8",
                "--data-parallel-size-local": "2",
                "--data-parallel-hybrid-lb": "",
                "--data-parallel-address": "$(LWS_LEADER_ADDRESS)",
                "--data-parallel-rpc-port": "29550",
                "--nnodes": "4",
                "--node-rank": "$(LWS_WORKER_INDEX)",
                "--master-addr": "$(LWS_LEADER_ADDRESS)",
                "--enable-expert-parallel": "",
            },
            id="four pods of two ranks: vLLM multiplies, and no start rank contradicts it",
        ),
    ],
)  # fmt: skip
def test_each_layout_renders_exactly_its_mode(
    pods: int, ranks: int, tensor: int, mode: Balancing, expected: dict[str, str]
) -> None:
    plan = group_plan(pods, ranks, tensor, accelerator="B200")
    assert balancing(plan) is mode
    flags = _flags(plan)
    assert {flag: value for flag, value in flags.items() if flag in _PARALLEL} == expected
    assert "--headless" not in flags, "without its own API server a pod could not be asked for its ranks"


def test_expert_parallelism_is_left_out_where_the_plan_has_none() -> None:
    assert "--enable-expert-parallel" not in _flags(group_plan(1, 1, 1, expert_parallel=False))


@pytest.mark.parametrize(
    ("source", "argument"),
    [
        (None, "org/tiny-moe"),
        ("hf://Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B"),
        ("pvc://weights", "/models"),
        ("pvc://weights/", "/models"),
        ("pvc://weights/qwen/30b/", "/models/qwen/30b"),
    ],
)
def test_the_model_argument_follows_the_source(source: str | None, argument: str) -> None:
    """A wrong path loads another model, or none."""
    model = {"name": "org/tiny-moe", **({"source": source} if source else {})}
    arguments = engine_arguments(rendering(model_deployment(model=model), group_plan()))
    assert arguments[0] == argument
    assert _by_flag(arguments)["--served-model-name"] == "org/tiny-moe", (
        "clients ask for the name in the spec"
    )


def test_what_the_spec_says_of_the_model_reaches_the_engine() -> None:
    flags = _flags(
        group_plan(),
        model={
            "name": "org/tiny-moe",
            "revision": "v1.2",
            "servedName": "tiny",
            "precision": "bf16",
            "contextLength": 131072,
        },
    )
    assert flags["--revision"] == "v1.2"
    assert flags["--served-model-name"] == "tiny"
    assert flags["--dtype"] == "bfloat16"
    assert flags["--max-model-len"] == "131072"


def test_what_the_spec_leaves_open_is_left_to_the_engine() -> None:
    flags = _flags(group_plan())
    assert not {"--revision", "--dtype", "--max-model-len", "--api-server-count"} & flags.keys()


def test_requests_in_flight_survive_a_stop() -> None:
    """vLLM aborts them at once unless it is told how long it may take."""
    assert _flags(group_plan())["--shutdown-timeout"] == "20"


def test_the_users_flags_come_last_sorted_and_over_the_profiles() -> None:
    users = {"max-num-seqs": "8", "enforce-eager": "1", "async-scheduling": ""}
    arguments = engine_arguments(rendering(model_deployment(engine={"args": users}), group_plan()))
    assert arguments[-3:] == ("--async-scheduling", "--enforce-eager=1", "--max-num-seqs=8")
    assert "--enforce-eager" not in arguments, "the profile's own value must not stay beside the user's"


def test_a_value_that_begins_with_a_dash_stays_with_its_flag() -> None:
    deployment = model_deployment(engine={"args": {"max-model-len": "-1"}})
    arguments = engine_arguments(rendering(deployment, group_plan(accelerator="B200")))
    assert "--max-model-len=-1" in arguments


def test_the_agent_is_loaded_unless_disabled() -> None:
    plan = group_plan()
    assert _flags(plan)["--middleware"] == "moe_agent.middleware.AgentMiddleware"
    assert "--middleware" not in _flags(plan, engine={"agent": "Disabled"})
