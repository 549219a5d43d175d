"""`GET /figures`: what deployments, groups and ranks deliver, as JSON, for people's tools.

Thousands of ranks would make the page of metrics too long for what is looked at now and then. A deployment is written
at a time, and others get their turn in between: a page of thousands of ranks takes the process a second.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from moe_operator.api.hbm import HbmSource
from moe_operator.api.times import format_time
from moe_operator.controller.delivered import DeploymentFigures, GpusUse, GroupFigures, RankFigures
from moe_operator.controller.delivered_keeper import DeliveredKeeper
from moe_operator.telemetry.figures import LONG, RECENT, Figures
from moe_operator.telemetry.percentiles import Percentiles

_JSON = "application/json"
#: Digits of a figure that count.
_DIGITS = 6


class FiguresPage:
    """Answers on every replica; only the leader knows figures."""

    def __init__(
        self,
        delivered: DeliveredKeeper,
        leads: Callable[[], bool],
        leader: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """`leader`: identity of the replica that leads, empty where it is not known; `clock`: seconds since the
        epoch."""
        self._delivered = delivered
        self._leads = leads
        self._leader = leader
        self._clock = clock

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Of all deployments, or of those that `namespace` and `name` pick."""
        if not self._leads():
            leader = self._leader()
            who = (
                f"{leader} leads: ask that one" if leader else "which one leads is not known: ask the others"
            )
            body = {"error": f"this replica of the operator does not lead and knows no figures; {who}"}
            return web.Response(status=503, text=json.dumps(body) + "\n", content_type=_JSON)
        answer = web.StreamResponse(headers={"Content-Type": _JSON})
        await answer.prepare(request)
        begin = {
            "at": format_time(self._clock()),
            "windowSeconds": round(RECENT),
            "latencyWindowSeconds": round(LONG),
        }
        await answer.write(json.dumps(begin)[:-1].encode() + b', "deployments": [')
        separator = b""
        for key in self._delivered.deployments(request.query.get("namespace"), request.query.get("name")):
            found = self._delivered.detail(key)
            if found is None:
                continue
            await answer.write(separator + json.dumps(deployment_data(*found), allow_nan=False).encode())
            separator = b",\n"
            await asyncio.sleep(0)
        await answer.write(b"]}\n")
        await answer.write_eof()
        return answer


def deployment_data(found: DeploymentFigures, ranks: Sequence[Sequence[RankFigures]]) -> dict[str, Any]:
    """One of the page's `deployments`. `ranks`: of each of its groups."""
    namespace, name = found.key
    return {
        "namespace": namespace,
        "name": name,
        "figures": figures_data(found.figures, found.figures.kv_used, GpusUse.of(found.hbm)),
        "groups": [_group(group, of) for group, of in zip(found.groups, ranks, strict=True)],
    }


def _group(group: GroupFigures, ranks: Sequence[RankFigures]) -> dict[str, Any]:
    return {
        "name": group.known.facts.name,
        "state": group.known.state.value.lower(),
        "figures": figures_data(group.figures, group.figures.kv_used_worst, GpusUse.of(group.hbm)),
        "ranks": [
            {
                "rank": one.rank,
                "pod": one.pod,
                "node": one.node,
                "figures": figures_data(one.figures, one.figures.kv_used, one.gpus),
            }
            for one in ranks
        ],
    }


def figures_data(told: Figures, kv_used: float | None, gpus: GpusUse | None) -> dict[str, Any]:
    """Without what is not known."""
    found: dict[str, Any] = {
        "inputTokensPerSecond": told.input_tokens_per_second,
        "outputTokensPerSecond": told.output_tokens_per_second,
        "running": told.running,
        "waiting": told.waiting,
        "kvUsedRatio": kv_used,
        "prefixHitRatio": told.prefix_hits,
        "preemptionsPerMinute": told.preemptions_per_minute,
        "draftAcceptanceRatio": told.draft_acceptance,
        "timeToFirstTokenSeconds": _percentiles(told.first_token),
        "timePerOutputTokenSeconds": _percentiles(told.per_token),
        "imbalanceRatio": told.imbalance,
    }
    if gpus is not None:
        found |= {
            "hbmUsedBytes": gpus.used,
            "hbmCapacityBytes": gpus.capacity,
            "hbmSource": (HbmSource.MEASURED if gpus.measured else HbmSource.ESTIMATED).value,
            "powerWatts": gpus.watts,
        }
    return dict(_known(found))


def _percentiles(of: Percentiles) -> dict[str, float] | None:
    return dict(_known({"p50": of.p50, "p95": of.p95, "p99": of.p99})) or None


def _known(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if value is not None:
            yield name, float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
