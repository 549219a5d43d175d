"""The agent inside real vLLM processes: readiness by peers, drain of pooled clients, the cause of an engine's death."""

from __future__ import annotations

import http.client
import json
import math
import os
import select
import signal
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.engine_helpers import get, get_json, post_json
from harness.processes import cpu_seconds
from harness.wait import wait_for
from loopback.group import PORT, Group, Layout, Pod, group
from moe_operator.agent.keep_alive import CLOSE_AFTER
from moe_operator.api import reasons as api_reasons
from moe_operator.controller.engine_errors import read
from moe_operator.resources.agent_token import agent_token, verifier_of
from moe_operator.telemetry.engine_counters import EngineCounters
from moe_operator.telemetry.engine_http import TOKEN_HEADER, HttpEngineClient
from moe_operator.telemetry.metrics_page import parse_metrics

KEY = {"Authorization": "Bearer secret"}
TOKEN = agent_token(bytes(32), "uid", "tiny-g0")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def served() -> Iterator[Group]:
    """Two pods of one rank that ask clients for a key."""
    environment = {"VLLM_API_KEY": "secret", "MOE_AGENT_VERIFIER": verifier_of(TOKEN)}
    with group(Layout(2, 1, "127.30.2"), environment=environment) as made:
        made.wait_ready()
        yield made


def completion(pod: Pod, tokens: int) -> None:
    body = {"model": "tiny", "prompt": "count", "max_tokens": tokens, "ignore_eos": True}
    post_json(pod.url, "/v1/completions", body, headers=KEY)


def in_flight(pod: Pod) -> int | None:
    found: int | None = get_json(pod.url, "/moe/v1/state").get("in_flight")
    return found


def reading(pod: Pod) -> EngineCounters:
    found = parse_metrics(get(pod.url, "/metrics")[1].encode())
    assert found is not None
    return found.counters


def idle_connections(pod: Pod) -> int | None:
    found: int | None = get_json(pod.url, "/moe/v1/state").get("idle_connections")
    return found


def test_probes_need_no_key(served: Group) -> None:
    """A kubelet has none: the pods of every deployment with a key would never become ready."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post_json(served.pods[0].url, "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1})
    for pod in served.pods:
        assert get(pod.url, "/moe/v1/ready")[0] == 200
        assert get(pod.url, "/moe/v1/alive")[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1}),
        # vLLM itself asks for no key here, and answers prompts.
        ("/invocations", {"model": "tiny", "prompt": "x", "max_tokens": 1}),
        ("/tokenize", {"model": "tiny", "prompt": "x"}),
    ],
)
def test_no_page_that_works_for_clients_is_open_without_the_key(
    served: Group, path: str, body: dict[str, Any]
) -> None:
    """A key that guards half of the ways in guards nothing."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post_json(served.pods[0].url, path, body)
    assert post_json(served.pods[0].url, path, body, headers=KEY)


async def test_the_operator_admits_a_group_without_knowing_its_key(served: Group) -> None:
    """Else no deployment with a key is ever admitted, or the operator reads every Secret of the cluster."""
    async with aiohttp.ClientSession() as session:
        client = HttpEngineClient(session)
        for pod in served.pods:
            result = await client.canary(pod.address, PORT, "tiny", 1, 0, deadline=60, token=TOKEN)
            assert result.passed, result.message
            stranger = await client.canary(pod.address, PORT, "tiny", 1, 0, deadline=60, token="guess")
            assert "HTTP 401" in stranger.message


async def test_a_canarys_answer_has_a_log_probability_that_is_a_number(served: Group) -> None:
    """Else every group is refused, or one that computes nonsense is not."""
    pod = served.pods[0]
    async with aiohttp.ClientSession(headers=KEY) as session:
        result = await HttpEngineClient(session).canary(pod.address, PORT, "tiny", 1, 0, deadline=60)
        unknown = await HttpEngineClient(session).canary(pod.address, PORT, "another", 1, 0, deadline=60)
    assert result.passed, result.message
    assert (result.output_tokens, result.prompt_tokens >= 1) == (1, True)
    assert (unknown.passed, unknown.refused) == (False, True), (
        "a model that it does not serve is no broken engine"
    )
    by_agent = post_json(pod.url, "/moe/v1/canary", {"model": "tiny"}, headers={TOKEN_HEADER: TOKEN})
    (logprob,) = by_agent["choices"][0]["logprobs"]["token_logprobs"]
    assert isinstance(logprob, float)


async def test_nobody_but_the_operator_drains_a_pod(served: Group) -> None:
    """Any pod of the cluster could take a model out of service."""
    pod = served.pods[1]
    async with aiohttp.ClientSession() as session:
        client = HttpEngineClient(session)
        assert not await client.drain(pod.address, PORT)
        assert not await client.drain(pod.address, PORT, "guess")
    assert get_json(pod.url, "/moe/v1/state")["draining"] is None


def test_probes_are_not_in_the_access_log(served: Group) -> None:
    """A line a second and peer would bury what a user looks for."""
    assert get(served.pods[0].url, "/version")[0] == 200
    wait_for("an ordinary request in the log", lambda: "/version" in served.pods[0].log, seconds=10)
    assert "/moe/v1/" not in served.pods[0].log


def test_all_parts_of_the_agent_are_in_place(served: Group) -> None:
    """A part that vLLM's next version breaks is left out and serving goes on: nobody would notice."""
    for pod in served.pods:
        assert "could not be set up" not in pod.log


def test_the_parts_of_the_start_are_told(served: Group) -> None:
    """vLLM says them in its log only, in other words with each version: a slow start could not be explained."""
    for pod in served.pods:
        spans = get_json(pod.url, "/moe/v1/state")["phases"]
        assert set(spans) == {"weights", "init"}, (
            "nothing is compiled or captured on a CPU with --enforce-eager"
        )
        assert all(0 < seconds < 120 for seconds in spans.values()), spans


def test_the_engines_processes_are_forked(served: Group) -> None:
    """Each would spend as long on imports as the first, and a group would take three times as long to start."""
    for pod in served.pods:
        first = kernel_page(pod.process.pid)
        for name in ("EngineCore", "Worker"):
            (pid,) = pod.processes(name)
            assert kernel_page(pid) == first, f"{name} is a new interpreter"
    others = {kernel_page(pod.process.pid) for pod in served.pods} | {kernel_page(os.getpid())}
    assert len(others) > 1, "addresses are not random here: nothing can be told by them"


def kernel_page(pid: int) -> str:
    """Where the kernel put its page of calls: another place in every program that is started, the same in a fork."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return next(line.partition(" ")[0] for line in lines if line.endswith("[vdso]"))


def test_an_engine_sleeps_while_its_worker_computes(served: Group) -> None:
    """Engines that look for answers without pause take the cores from the workers of a shared machine."""
    pod = served.pods[0]
    (engine,), (worker,) = pod.processes("EngineCore"), pod.processes("Worker")
    before = cpu_seconds(engine), cpu_seconds(worker)
    completion(pod, 300)
    waited, computed = cpu_seconds(engine) - before[0], cpu_seconds(worker) - before[1]
    print(f"engine {waited:.2f} s, worker {computed:.2f} s of a core for 300 tokens")
    assert waited < computed


async def test_what_scaling_goes_by_is_on_the_engines_page_under_the_names_it_is_read_by(
    served: Group,
) -> None:
    """Another name in vLLM's next version, and the figure is 0 for ever: groups too few, or none taken away."""
    pod = served.pods[1]
    before = reading(pod)
    assert (before.ranks, before.ranks_lost) == (1, 0)
    assert [before.first_token.bounds[0], before.per_token.bounds[0]] == [0.001, 0.01], "vLLM's own buckets"
    assert before.first_token.bounds[-1] == before.per_token.bounds[-1] == math.inf
    completion(pod, 20)
    async with aiohttp.ClientSession() as session:
        result = await HttpEngineClient(session).canary(
            pod.address, PORT, "tiny", 1, 0, deadline=60, token=TOKEN
        )
    assert result.passed, result.message
    wait_for("both requests in the figures", lambda: reading(pod).finished == before.finished + 2, seconds=10)
    after = reading(pod)
    assert after.output_tokens - before.output_tokens == 21
    assert after.prompt_tokens - before.prompt_tokens == len("count") + result.prompt_tokens
    assert after.inter_token_count - before.inter_token_count == 19
    assert 0 < after.inter_token_sum - before.inter_token_sum < 60
    assert after.first_token.count - before.first_token.count == 2
    # What one token takes per token is entered as 0: it can be taken off.
    assert after.per_token.count - before.per_token.count == 2
    others = after.per_token.without_zeros(1)
    assert others.count - before.per_token.count == 1
    mean = others.total - before.per_token.total
    assert mean == pytest.approx((after.inter_token_sum - before.inter_token_sum) / 19, rel=0.2)
    assert (after.aborted, after.preemptions, after.cached_prompt_tokens) == (0, 0, 0)
    for _ in range(2):  # a prompt of several blocks is found again
        post_json(
            pod.url, "/v1/completions", {"model": "tiny", "prompt": "x" * 400, "max_tokens": 1}, headers=KEY
        )
    wait_for("the second one from the cache", lambda: reading(pod).cached_prompt_tokens >= 128, seconds=10)


def test_the_page_says_what_a_full_parser_reads_in_it(served: Group) -> None:
    """A regular expression that misses a line is silent about it."""
    page = get(served.pods[1].url, "/metrics")[1]
    found = parse_metrics(page.encode())
    assert found is not None
    told: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = sample.name + sample.labels.get("le", "")
            told[name] = told.get(name, 0.0) + sample.value
    seen = found.counters
    assert seen.output_tokens == told["vllm:generation_tokens_total"]
    assert seen.prompt_tokens == told["vllm:prompt_tokens_total"]
    assert seen.cached_prompt_tokens == told["vllm:prompt_tokens_cached_total"]
    assert seen.preemptions == told["vllm:num_preemptions_total"]
    assert seen.finished + seen.aborted == told["vllm:request_success_total"]
    for name, histogram in (
        ("vllm:time_to_first_token_seconds", seen.first_token),
        ("vllm:request_time_per_output_token_seconds", seen.per_token),
    ):
        buckets = {
            float(key.removeprefix(f"{name}_bucket")): v
            for key, v in told.items()
            if key.startswith(f"{name}_bucket")
        }
        assert dict(zip(histogram.bounds, histogram.counts, strict=True)) == buckets
        assert histogram.total == told[f"{name}_sum"]


def test_a_drain_moves_a_pooled_client_without_a_failed_request(served: Group) -> None:
    """Clients with keep-alive connections would stay with a group until its pods are deleted under them."""
    pod = served.pods[0]
    streams = [threading.Thread(target=completion, args=(pod, 300)) for _ in range(2)]
    for stream in streams:
        stream.start()
    wait_for("two requests in flight", lambda: in_flight(pod) == 2, seconds=30)
    client = http.client.HTTPConnection(pod.address, PORT, timeout=60)
    try:
        assert _pooled_request(client) == (200, None)
        kept = client.sock
        assert kept is not None
        answer = post_json(pod.url, "/moe/v1/drain", {"reason": "test"}, headers={TOKEN_HEADER: TOKEN})
        assert answer["in_flight"] == 2
        assert _pooled_request(client) == (200, "close")
        assert client.sock is None
    finally:
        client.close()
    for stream in streams:
        stream.join()
    wait_for("no request in flight", lambda: in_flight(pod) == 0, seconds=30)
    assert get_json(served.pods[1].url, "/moe/v1/state")["draining"] is None


async def test_after_a_drain_that_was_called_off_clients_keep_their_connections_and_the_next_one_works(
    served: Group,
) -> None:
    """A group that comes back would serve on with a new connection for every request, or would never drain again."""
    pod = served.pods[0]
    client = http.client.HTTPConnection(pod.address, PORT, timeout=60)
    async with aiohttp.ClientSession() as session:
        operator = HttpEngineClient(session)
        try:
            assert await operator.drain(pod.address, PORT, TOKEN)
            assert _pooled_request(client) == (200, "close")
            assert not await operator.undrain(pod.address, PORT, "guess")
            assert _pooled_request(client) == (200, "close")
            for _ in range(2):  # told again after a crash of the operator
                assert await operator.undrain(pod.address, PORT, TOKEN)
            state = get_json(pod.url, "/moe/v1/state")
            assert (state["draining"], state["ready"]) == (None, True)
            assert _pooled_request(client) == (200, None)
            kept = client.sock
            # What a drain that goes on would close.
            rested = time.monotonic() + CLOSE_AFTER + 2
            wait_for("a pause", lambda: time.monotonic() > rested, seconds=15)
            assert _pooled_request(client) == (200, None)
            assert client.sock is kept
            assert await operator.drain(pod.address, PORT, TOKEN)
            wait_for("the connection told", lambda: idle_connections(pod) == 1, seconds=5)
            assert _pooled_request(client) == (200, "close")
            wait_for("no connection left", lambda: idle_connections(pod) == 0, seconds=5)
        finally:
            client.close()
            await operator.undrain(pod.address, PORT, TOKEN)


def test_idle_connections_outlive_clients_pools_and_are_closed_by_a_drain(served: Group) -> None:
    """A request on a connection that the server is just closing fails: OpenAI's client gives its own up after 5 s."""
    pod = served.pods[1]
    clients = [http.client.HTTPConnection(pod.address, PORT, timeout=60) for _ in range(2)]
    try:
        used, left = clients
        assert _pooled_request(used) == _pooled_request(left) == (200, None)
        rested = time.monotonic() + 5.5  # above vLLM's own limit
        wait_for("a pause", lambda: time.monotonic() > rested, seconds=10)
        assert _pooled_request(used) == (200, None)
        post_json(pod.url, "/moe/v1/drain", {"reason": "test"}, headers={TOKEN_HEADER: TOKEN})
        wait_for("two connections told", lambda: idle_connections(pod) == 2, seconds=5)
        assert _pooled_request(used) == (200, "close")
        wait_for("one connection left", lambda: idle_connections(pod) == 1, seconds=5)
        assert left.sock is not None
        assert not select.select([left.sock], [], [], 0)[0], "closed before short-lived pools gave it up"
        wait_for("no connection left", lambda: idle_connections(pod) == 0, seconds=15)
        assert left.sock.recv(1) == b""
    finally:
        for client in clients:
            client.close()


def test_a_killed_engine_takes_its_group_out_and_leaves_its_cause(served: Group) -> None:
    """The other half would go on taking requests that it cannot answer, and nobody could say why it died."""
    survivor, victim = served.pods
    (core,) = victim.processes("EngineCore")
    os.kill(core, signal.SIGKILL)
    began = time.monotonic()
    wait_for("the survivor not ready", lambda: get(survivor.url, "/moe/v1/ready")[0] == 503, seconds=10)
    assert time.monotonic() - began < 5
    # A rank that computes when its peer dies ends too; an idle one goes on, with its own /health at 200.
    reasons = get_json(survivor.url, "/moe/v1/ready")["reasons"]
    assert any(reason.startswith((f"peer {victim.address}:{PORT} ", "this pod: ")) for reason in reasons)
    victim.process.wait(timeout=30)
    assert "engine core exited unexpectedly" in victim.termination_message
    found = read(victim.termination_message)
    assert (found.reason, "exited unexpectedly" in found.text) == (api_reasons.ENGINE_EXITED, True), found


def test_a_killed_worker_leaves_its_cause() -> None:
    """vLLM then exits with code 0: without the message, the pod's status says that all went well."""
    with group(Layout(subnet="127.30.3")) as single:
        single.wait_ready()
        (pod,) = single.pods
        (worker,) = pod.processes("Worker")
        os.kill(worker, signal.SIGKILL)
        pod.process.wait(timeout=30)
        assert "died unexpectedly" in pod.termination_message
        assert len(pod.termination_message.encode()) <= 4096
        # vLLM asks for the exit code before it is sure to be there: -9, or None.
        assert "VllmWorker-0 died unexpectedly (exit code: " in read(pod.termination_message).text


def test_an_engine_that_cannot_start_leaves_its_cause() -> None:
    """The commonest failure of all, a model that does not fit, would show as exit code 1 and nothing else."""
    layout = Layout(subnet="127.30.4")
    too_long = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    with group(layout, environment=too_long, arguments=["--max-model-len", "2000000"]) as one:
        (pod,) = one.pods
        assert pod.process.wait(timeout=240) != 0
        assert "ValueError" in pod.termination_message, pod.log[-2000:]
        assert "KV cache" in pod.termination_message
        found = read(pod.termination_message)
        assert found.reason == api_reasons.ACCELERATOR_OUT_OF_MEMORY
        assert "the KV cache of one request of 2000000 tokens needs" in found.text, found


def _pooled_request(client: http.client.HTTPConnection) -> tuple[int, str | None]:
    body = json.dumps({"model": "tiny", "prompt": "x", "max_tokens": 1})
    client.request("POST", "/v1/completions", body, {"Content-Type": "application/json", **KEY})
    answer = client.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")
