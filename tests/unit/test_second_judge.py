"""What a policy sees of another simulator's fleet, and what that fleet is told: were samples made up wrongly, the
second judge would judge another policy than the first. The other simulator is played: it is not installed for tests.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.second_judge import replayed, timing
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.result import Objective
from moe_operator.simulator.trace import make_trace

ENGINE = EngineModel(
    name="x",
    ranks=2,
    gpus=4,
    slots=8,
    batch_tokens=64,
    kv_tokens=1600,
    base=0.02,
    experts=0.01,
    expert_share=0.25,
    shared=1e-5,
    decode=1e-4,
    prefill=2e-4,
    kv=1e-7,
)
TRACE = make_trace(np.arange(0.0, 120.0, 0.5), np.full(240, 100), np.full(240, 10), duration=120.0)


class Watching:
    """A policy that keeps what it saw."""

    name, interval, undrain = "watching", 15.0, False

    def __init__(self, wanted: dict[float, int]) -> None:
        self.wanted, self.seen = wanted, {}

    def desired(self, view: Any, fleet: Any, now: float) -> int:
        self.seen[now] = {
            "groups": view.groups(),
            "running": dict(view.latest("running")),
            "waiting": dict(view.latest("waiting")),
            "kv": dict(view.latest("kv_usage")),
            "worst": dict(view.latest("kv_usage_worst")),
            "finished": sum(view.increase("finished", 60.0).values()),
            "tokens": sum(view.increase("output_tokens", 60.0).values()),
            "arrivals": view.frontend_increase("arrivals", 60.0),
            "ttft": view.quantile("ttft", 0.5, 60.0),
            "step": view.quantile("itl", 0.5, 60.0),
            "fleet": fleet,
            "reading": view.newest(0),
        }
        return self.wanted.get(now, fleet.desired)


class Played:
    """The other simulator, with one group that is always as busy, and a second one from 45 s on."""

    def __init__(self) -> None:
        self.told: list[tuple[float, int]] = []
        self.config: dict[str, Any] = {}

    def _normalize_mocker_config(self, config: dict[str, Any]) -> dict[str, Any]:
        self.config = config
        return config

    def run_mocker_trace_replay(
        self, files: list[str], *, scaling_policy: Any, telemetry_callback: Any, **more: Any
    ) -> Any:
        with open(files[0]) as lines:
            self.requests = sum(1 for _ in lines)
        now = scaling_policy.initial_tick_ms()
        while now <= 130_000:
            active = [0] if now < 45_000 else [0, 1]
            for half in (0.5, 1.0):
                telemetry_callback(self._telemetry(active, half))
            answer = scaling_policy.on_tick(self._tick(now, active))
            if answer["target_decode"] is not None:
                self.told.append((now, answer["target_decode"]))
            now = answer["next_tick_ms"]
        summary = {
            "goodput_completed_requests": 120,
            "completed_requests": 240,
            "p99_ttft_ms": 900.0,
            "p99_tpot_ms": 50.0,
        }
        return SimpleNamespace(summary=summary)

    def _telemetry(self, active: list[int], half: float) -> dict[str, Any]:
        ranks = [
            {
                "worker_id": group,
                "dp_rank": rank,
                "running_requests": 3 + rank,
                "waiting_requests": rank,
                "active_cache_usage": 0.2 + 0.2 * rank,
            }
            for group in active
            for rank in range(2)
        ]
        ended = {"avg_isl": 100.0, "avg_osl": 10.0, "avg_ttft_ms": 300.0, "avg_itl_ms": 45.0}
        return {
            "decode_scheduler_metrics": ranks,
            "traffic": {"completed_requests": 1 if half == 1.0 else 0, **ended},
        }

    def _tick(self, now: float, active: list[int]) -> dict[str, Any]:
        steps = [
            {"worker_id": group, "dp_rank": rank, "wall_time": 0.05, "num_decode_requests": 3 + rank}
            for group in active
            for rank in range(2)
        ]
        return {
            "now_ms": now,
            "decode_fpm_snapshots": steps,
            "active_decode_ids": active,
            "starting_decode_ids": [] if now >= 45_000 else [1],
            "draining_decode_ids": [],
        }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def _run(wanted: dict[float, int], **more: Any) -> tuple[Watching, Played, replayed.Judged]:
        played, policy = Played(), Watching(wanted)
        monkeypatch.setattr(replayed, "core", lambda: played)
        monkeypatch.setattr(replayed, "_TICK", 1.0)
        arguments = {"start_groups": 1, "floor": 1, "ceiling": 4, "settle": 0.0, **more}
        judged = replayed.serve(
            TRACE, ENGINE, policy, cold_start=30.0, objective=Objective(1.0, 0.06), **arguments
        )
        return policy, played, judged

    return _run


def test_policies_see_samples_a_scrape_late(run):
    policy, played, _ = run({})
    assert list(policy.seen) == [float(at) for at in range(15, 120, 15)]
    # The first sample is 15 s old when it is seen.
    assert policy.seen[15.0]["running"] == {}
    seen = policy.seen[30.0]
    assert (seen["running"], seen["waiting"], seen["kv"], seen["worst"]) == (
        {0: 7.0},
        {0: 1.0},
        {0: pytest.approx(0.3)},
        {0: pytest.approx(0.4)},
    )
    later = policy.seen[75.0]
    assert later["groups"] == (0, 1)
    assert later["running"] == {0: 7.0, 1: 7.0}
    # Four samples, 45 s: one request ended in each second; two arrived.
    assert policy.seen[75.0]["arrivals"] == pytest.approx(90.0)
    assert policy.seen[60.0]["finished"] == pytest.approx(30.0)
    assert 0.25 < later["ttft"] < 0.5
    assert 0.025 < later["step"] <= 0.05
    assert later["reading"]["ranks"] == 2
    assert played.requests == len(TRACE)


def test_a_group_makes_as_many_tokens_as_its_steps_say(run):
    policy, _, _ = run({})
    # 7 requests decode, 20 steps a second, over 30 s; and a first token each second.
    assert policy.seen[60.0]["tokens"] == pytest.approx(30 * (7 * 20 + 1))


def test_what_is_wanted_is_kept_within_limits(run):
    _, played, judged = run({15.0: 9, 30.0: 0})
    assert played.told[:2] == [(15_000.0, 4), (30_000.0, 1)]
    assert judged.actions == 2


def test_a_trace_begins_with_no_fewer_groups_for_a_while(run):
    _, played, _ = run({15.0: 1, 60.0: 1}, start_groups=2, settle=50.0)
    assert [wanted for at, wanted in played.told if at < 50_000] == [2, 2, 2]
    assert (60_000.0, 1) in played.told


def test_gpus_count_from_creation_on_and_the_share_is_of_all_requests(run):
    _, _, judged = run({})
    # Two groups at every second of the trace: one serves, one starts, then both serve.
    assert judged.gpu_hours == pytest.approx(120 * 2 * 4 / 3600)
    assert judged.attainment == 0.5


def test_limits_are_the_engine_models(run):
    _, played, _ = run({})
    engine = played.config["engine"]
    assert (engine["num_gpu_blocks"], engine["max_num_seqs"], engine["max_num_batched_tokens"]) == (
        100,
        8,
        64,
    )
    assert (played.config["dp_size"], played.config["startup_time"]) == (2, 30.0)


def test_prompts_found_in_a_cache_are_refused(run):
    cached = make_trace([0.0], [10], [5], [4])
    with pytest.raises(ValueError, match="without cached tokens"):
        replayed.serve(
            cached,
            ENGINE,
            Watching({}),
            cold_start=1.0,
            start_groups=1,
            floor=1,
            ceiling=1,
            objective=Objective(),
            settle=0.0,
        )


def test_tables_hold_the_step_times_of_evenly_loaded_ranks(tmp_path):
    timing.write(ENGINE, tmp_path / "t.npz", at_once=1.0)
    tables = np.load(tmp_path / "t.npz")
    held, context = tables["decode_active_kv_tokens"], tables["decode_context_length"]
    at, of = len(held) - 1, int(np.searchsorted(context, 400))
    requests = held[at] / context[of]
    wanted = ENGINE.step_seconds(requests, 0, held[at])
    assert tables["decode_itl"][at, of] == pytest.approx(wanted * 1e3)
    assert np.interp(32, tables["prefill_isl"], tables["prefill_ttft_ms"]) == pytest.approx(32 * 0.21)
