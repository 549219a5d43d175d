"""Reads a page over HTTP, bounded in time and in memory whatever the other side sends.

Of a page of metrics only the lines are kept that are asked for, while it comes: an engine of eight ranks writes 400 KB,
an exporter 200 KB, of which a few percent matter. They are found by what all of them begin with, after a line's end:
the regular expression's engine looks for that as for a word (a third of the time of splitting and comparing).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ssl import SSLContext

import aiohttp

from moe_operator.telemetry.ignored import Ignored

#: Bytes of a page, of what is kept of it, and of one of its lines.
LONGEST_PAGE = 16 * 2**20
_MOST_KEPT = 4 * 2**20
_LONGEST_LINE = 64 * 2**10
_NOT_ENCODED = ("", "identity")
#: A few KB may become gigabytes: nothing is asked for that needs to be unpacked.
PLAIN = {"Accept-Encoding": "identity"}


class PageError(Exception):
    """There is no page, or none that can be used."""

    def __init__(self, ignored: Ignored | None, message: str) -> None:
        """`ignored`: why it was given up; None where there was no answer."""
        super().__init__(message)
        self.ignored = ignored


@dataclass(frozen=True)
class Wanted:
    """What is kept of a page."""

    beginnings: tuple[bytes, ...] | None
    """Of lines; None: everything."""
    longest_page: int = LONGEST_PAGE


def address(host: str, port: int, path: str, scheme: str = "http") -> str:
    """The URL."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


async def read_page(
    session: aiohttp.ClientSession,
    url: str,
    wanted: Wanted,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    ssl: SSLContext | bool = True,
) -> list[bytes]:
    """Its lines that are wanted; all of it as one where no beginnings are given. `seconds`: for all of it.

    Raises PageError.
    """
    asked = {**PLAIN, **(headers or {})}
    limit = aiohttp.ClientTimeout(total=seconds)
    try:
        async with session.get(url, timeout=limit, headers=asked, ssl=ssl, allow_redirects=False) as answer:
            if answer.status != 200:
                raise PageError(None, f"HTTP {answer.status}")
            return await read_content(answer, wanted)
    except TimeoutError as error:
        raise PageError(Ignored.TOO_SLOW, f"no end within {seconds:.0f} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise PageError(None, f"{type(error).__name__}: {error}"[:200]) from error


async def read_content(answer: aiohttp.ClientResponse, wanted: Wanted) -> list[bytes]:
    """What an answer has, in the bounds of what is wanted, as `read_page` gives it.

    Raises PageError, and what aiohttp raises.
    """
    if answer.headers.get("Content-Encoding", "") not in _NOT_ENCODED:
        raise PageError(Ignored.ENCODED, "the answer is compressed")
    # An answer that is left before its end takes its connection with it.
    return await _lines(answer.content, wanted)


@lru_cache(maxsize=32)
def _beginning_with(beginnings: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Lines that do, each after a line's end."""
    if not beginnings:
        return re.compile(b"(?!)")
    first, last = min(beginnings), max(beginnings)  # what these two share all share
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    rest = b"|".join(re.escape(one[same:]) for one in beginnings)
    return re.compile(b"\n(" + re.escape(first[:same]) + b"(?:" + rest + b")[^\n]*)")


async def _lines(content: aiohttp.StreamReader, wanted: Wanted) -> list[bytes]:
    lines: list[bytes] = []
    read = kept = 0
    rest = b""
    beginnings = wanted.beginnings
    async for chunk in content.iter_any():
        read += len(chunk)
        if read > wanted.longest_page:
            raise PageError(Ignored.PAGE_TOO_LONG, f"more than {wanted.longest_page} bytes")
        if beginnings is None:
            lines.append(chunk)
            continue
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise PageError(Ignored.LINE_TOO_LONG, f"a line of more than {_LONGEST_LINE} bytes")
        parts = _beginning_with(beginnings).findall(b"\n" + whole) if newline else []
        lines += parts
        kept += sum(map(len, parts))
        if kept > _MOST_KEPT:
            raise PageError(Ignored.PAGE_TOO_LONG, f"more than {_MOST_KEPT} bytes that matter")
    if beginnings is None:
        return [b"".join(lines)]
    if rest.startswith(beginnings):
        lines.append(rest)
    return lines
