"""Engines and kubelets' logs for pods in which nothing runs: `python -m bench.played_engines`, a process of its own.

Every address of a range answers on port 8000 what the operator asks of an engine and its agent, at once: a figure that
is taken with them is the operator's and the control plane's own. One more address serves containers' logs over HTTPS,
as a kubelet does; all nodes without machines name it as theirs.
"""

import asyncio
import ipaddress
import os
import ssl
from pathlib import Path

from aiohttp import web

from localcluster.kubelet.nodespec import KUBELET_PORT
from moe_operator.api import names

#: Of the cluster's pod range, far above what its real nodes use. The first is the kubelet's: its certificate has it.
NODE_ADDRESS = "10.244.200.1"
_RANGE = ipaddress.ip_network("10.244.200.0/23")
POD_ADDRESSES = tuple(str(a) for a in _RANGE.hosts() if str(a) != NODE_ADDRESS)

#: Ranks of a pod of the benchmark.
RANKS = 8
#: Bytes of vLLM's metrics page per rank.
_PAGE_PER_RANK = 50_000
#: Lines of a container's log: as many as the operator asks for.
_LOG_LINES = 1000


def metrics_page(ranks: int = RANKS) -> str:
    """The page of idle ranks, as long as vLLM's."""
    lines: list[str] = []
    for rank in range(ranks):
        labels = f'engine="{rank}",model_name="org/tiny-moe"'
        lines += [
            f"vllm:{name}{{{labels}}} 0.0"
            for name in (
                "num_requests_running",
                "num_requests_waiting",
                "kv_cache_usage_perc",
                "prompt_tokens_total",
                "generation_tokens_total",
                "time_to_first_token_seconds_sum",
                "time_to_first_token_seconds_count",
            )
        ]
        filler = [f'vllm:request_latency_seconds_bucket{{{labels},le="{n}"}} 0.0' for n in range(10, 100)]
        size = sum(len(line) + 1 for line in filler)
        lines += filler * (_PAGE_PER_RANK // size)
    return "\n".join(lines) + "\n"


def log_page() -> str:
    """What an engine says that ran out of memory after a long life."""
    said = [
        f"INFO 11-30 00:00:00 [loggers.py:{n}] Engine 000: Avg prompt throughput" for n in range(_LOG_LINES)
    ]
    said[-3:] = [
        "Traceback (most recent call last):",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: EngineCore encountered an issue. See stack trace for the root cause.",
    ]
    return "\n".join(said) + "\n"


async def _serve() -> None:
    metrics, log = metrics_page(), log_page()

    async def token(_: web.Request) -> web.Response:
        choice = {"text": "1", "finish_reason": "length", "logprobs": {"token_logprobs": [-0.1]}}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": 1}})

    async def state(_: web.Request) -> web.Response:
        return web.json_response({"in_flight": 0, "phases": {}})

    async def drain(_: web.Request) -> web.Response:
        return web.json_response({"draining": {}, "in_flight": 0})

    async def figures(_: web.Request) -> web.Response:
        return web.Response(text=metrics)

    async def logs(_: web.Request) -> web.Response:
        return web.Response(text=log)

    engine, kubelet = web.Application(), web.Application()
    engine.router.add_post("/v1/completions", token)
    engine.router.add_get("/metrics", figures)
    engine.router.add_get("/moe/v1/state", state)
    for method in ("POST", "DELETE"):
        engine.router.add_route(method, "/moe/v1/drain", drain)
    kubelet.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    loop = asyncio.get_running_loop()
    runners = [web.AppRunner(app, access_log=None) for app in (engine, kubelet)]
    for runner in runners:
        await runner.setup()
    assert runners[0].server is not None
    await loop.create_server(runners[0].server, list(POD_ADDRESSES), names.HTTP_PORT)
    pki = Path(os.environ["KUBECONFIG"]).parent / "pki"
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pki / "kubelet.crt", pki / "kubelet.key")
    await web.TCPSite(runners[1], NODE_ADDRESS, KUBELET_PORT, ssl_context=tls).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
