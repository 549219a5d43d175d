"""Figures of the period from a Prometheus' HTTP API: some queries for each deployment, bounded in time and size."""

import asyncio
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp

from moe_operator.cli.errors import UsageError
from moe_operator.cli.report.figures import Labels, Recorded, Samples, step_of
from moe_operator.cli.report.period import Span
from moe_operator.telemetry.page_reader import PageError, Wanted, read_page

Key = tuple[str, str]

_TIMEOUT = 60.0
#: Bytes of one answer: a deployment's series in 1441 points are some 2 MB.
_WANTED = Wanted(None, 32 * 2**20)
#: Deployments that are asked about at a time.
_AT_ONCE = 4
#: Series of one answer: far more than a deployment has.
_MOST_SERIES = 5000

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_READY = "moe_operator_deployment_ready"
_ACCOUNTS = "moe_operator_(tokens|requests|gpu_seconds|unpriced_gpu_seconds|cost)_total"
_HINTS = {
    400: "it refused the query: is it a Prometheus?",
    401: "it wants to know who asks: give --prometheus-token-file",
    403: "it does not allow the query to whoever this is",
    404: "there is no /api/v1 below this address: is a path missing?",
    422: "it could not compute the query: ask for a shorter period",
    503: "it had no time, or is not ready: ask for a shorter period, or later",
}


class PrometheusError(Exception):
    """It gave no figures; the message says why and what to do."""


class Prometheus:
    """One of them."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str | None, matches: Mapping[str, str]
    ) -> None:
        """`matches`: labels that tell this cluster's series from those of others."""
        self._session, self._url, self._token = session, url.rstrip("/"), token
        self._matches = [f"{label}={_quoted(value)}" for label, value in sorted(matches.items())]

    async def read(self, keys: Iterable[Key], namespace: str | None, span: Span) -> dict[Key, Recorded]:
        """Of these deployments, and of further ones that it knows of in the period. Raises PrometheusError."""
        known = await self._known(namespace, span)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(key: Key) -> tuple[Key, Recorded]:
            async with gate:
                return key, await self._recorded(key, span)

        wanted = sorted({*keys, *known})
        return dict(await asyncio.gather(*(one(key) for key in wanted)))

    async def _known(self, namespace: str | None, span: Span) -> set[Key]:
        where = ",".join([*self._matches, *([f"namespace={_quoted(namespace)}"] if namespace else [])])
        query = (
            f"count by (namespace, name) (count_over_time({_READY}{{{where}}}[{_duration(span.seconds)}]))"
        )
        found = await self._instant(query, span.end)
        keys = {(dict(labels).get("namespace", ""), dict(labels).get("name", "")) for labels, _ in found}
        return {(space, name) for space, name in keys if space and name}

    async def _recorded(self, key: Key, span: Span) -> Recorded:
        step = step_of(span)
        which = ",".join([*self._matches, f"namespace={_quoted(key[0])}", f"name={_quoted(key[1])}"])
        window = _duration(step)
        ends = (span.begin + step, span.end, step)
        edges = (span.begin, span.end, step)
        ready = await self._range(f"sum(sum_over_time({_READY}{{{which}}}[{window}]))", *ends)
        count = await self._range(f"sum(count_over_time({_READY}{{{which}}}[{window}]))", *ends)
        # The greatest over replicas and jobs that scrape them: a replica that no longer leads may be behind.
        accounts = await self._range(
            f'max by (__name__, kind, outcome, state, currency) ({{__name__=~"{_ACCOUNTS}",{which}}})', *edges
        )
        losses = await self._range(
            f"max by (reason, instance) (moe_operator_groups_lost_total{{{which}}})", *edges
        )
        changes = f'changes(moe_operator_groups{{{which},state="desired"}}[{_duration(span.seconds)}])'
        scalings = await self._instant(f"sum(max by (instance) ({changes}))", span.end)
        return Recorded(
            step=step,
            ready_sum=_only(ready),
            ready_count=_only(count),
            accounts=accounts,
            losses=losses,
            scalings=scalings[0][1] if scalings else None,
        )

    async def _instant(self, query: str, at: float) -> list[tuple[Labels, float]]:
        answer = await self._ask("query", {"query": query, "time": f"{at:.3f}"}, "vector")
        return [(_labels(item), value) for item in answer if (value := _sample(item["value"])[1]) is not None]

    async def _range(self, query: str, begin: float, end: float, step: float) -> Mapping[Labels, Samples]:
        # Half a step more: the last point is not to be lost to rounding.
        words = {
            "query": query,
            "start": f"{begin:.3f}",
            "end": f"{end + step / 2:.3f}",
            "step": f"{step:.3f}",
        }
        found: dict[Labels, Samples] = {}
        for item in await self._ask("query_range", words, "matrix"):
            pairs = [_sample(one) for one in item["values"]]
            found[_labels(item)] = [(at, value) for at, value in pairs if value is not None]
        return found

    async def _ask(self, path: str, words: Mapping[str, str], kind: str) -> list[Any]:
        url = f"{self._url}/api/v1/{path}?{urlencode({**words, 'timeout': '50s'})}"
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            (text,) = await read_page(self._session, url, _WANTED, _TIMEOUT, headers)
        except PageError as error:
            raise PrometheusError(_explained(str(error))) from error
        try:
            data = json.loads(text)["data"]
            result = data["result"]
            if data["resultType"] != kind or not isinstance(result, list) or len(result) > _MOST_SERIES:
                raise ValueError
            # Looked at once as a whole, so that what is wrong is said here and not where it is used.
            for item in result:
                _labels(item)
                for one in item["values"] if kind == "matrix" else [item["value"]]:
                    _sample(one)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise PrometheusError("its answer is none of a Prometheus: is the address right?") from error
        return result


def _explained(message: str) -> str:
    code = message.removeprefix("HTTP ")
    hint = _HINTS.get(int(code)) if code.isdecimal() else None
    return f"{message}: {hint}" if hint else message


def _labels(item: Any) -> Labels:
    return tuple(sorted((str(key), str(text)) for key, text in item["metric"].items()))


def _sample(pair: Any) -> tuple[float, float | None]:
    """Time and value; None for one that is no number (a stale one, or too large)."""
    at, value = float(pair[0]), float(pair[1])
    return at, value if math.isfinite(value) and math.isfinite(at) else None


def _only(found: Mapping[Labels, Samples]) -> Samples:
    return next(iter(found.values()), ())


def _quoted(text: str) -> str:
    return json.dumps(text)


def _duration(seconds: float) -> str:
    """As PromQL writes it, in milliseconds."""
    return f"{round(seconds * 1000)}ms"


def shown(url: str) -> str:
    """The address without credentials and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def checked(url: str) -> str:
    """The address as it was given. Raises UsageError."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise UsageError("--prometheus: give an address such as http://localhost:9090, or https://HOST/PATH")
    return url


def token_of(path: str | None, url: str | None) -> str | None:
    """The bearer token in a file, for this address. Raises UsageError."""
    if path is None:
        return None
    if "@" in urlsplit(url or "").netloc:
        raise UsageError("--prometheus-token-file: the address has a user and a password already")
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prometheus-token-file {path}: {error}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError(f"--prometheus-token-file {path} holds no token: one line of ASCII is expected")
    return token


def matches_of(words: Sequence[str]) -> dict[str, str]:
    """`LABEL=VALUE`, as often as it was given. Raises UsageError."""
    found = {}
    for word in words:
        label, equals, value = word.partition("=")
        if not equals or not _LABEL.fullmatch(label) or label in ("namespace", "name", "__name__"):
            raise UsageError(f"--prometheus-match {word[:64]!r}: write LABEL=VALUE, such as cluster=prod-eu")
        found[label] = value
    return found


async def read_prometheus(
    url: str,
    token: str | None,
    keys: Sequence[Key],
    namespace: str | None,
    span: Span,
    matches: Mapping[str, str],
) -> dict[Key, Recorded] | PrometheusError:
    """What it has, or why it has nothing."""
    async with aiohttp.ClientSession() as session:
        try:
            return await Prometheus(session, url, token, matches).read(keys, namespace, span)
        except PrometheusError as error:
            return error
