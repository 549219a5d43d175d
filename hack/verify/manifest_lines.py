"""`python -m verify.manifest_lines FILE...`: what a manifest costs a person who writes and reviews it.

Counts, per file: lines that are neither blank, a comment nor `---` (those of scripts in it included), entries of
containers' `env` lists, how many of these say what another one in the file says already, and lines in blocks of five or
more that stand in the file before.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: Lines that make a block: shorter ones (`limits:` and two resources) repeat in any manifest.
_BLOCK = 5


@dataclass(frozen=True)
class Cost:
    """Of one file."""

    lines: int
    env: int
    env_repeated: int
    lines_repeated: int


def cost(text: str) -> Cost:
    """Of one file's text, YAML documents all."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line != "---" and not line.startswith("#")]
    env = [entry for document in yaml.safe_load_all(text) for entry in _env(document)]
    return Cost(len(lines), len(env), len(env) - len(set(env)), _repeated(lines))


def _env(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        entries = value.get("env")
        if isinstance(entries, list):
            yield from (yaml.safe_dump(entry) for entry in entries)
        for inner in value.values():
            yield from _env(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _env(inner)


def _repeated(lines: list[str]) -> int:
    first: dict[tuple[str, ...], int] = {}
    again: set[int] = set()
    for start in range(len(lines) - _BLOCK + 1):
        block = tuple(lines[start : start + _BLOCK])
        if first.setdefault(block, start) + _BLOCK <= start:
            again.update(range(start, start + _BLOCK))
    return len(again)


def main() -> None:
    print(f"{'LINES':>6} {'ENV':>5} {'TWICE':>6} {'BLOCKS':>7}  FILE")
    for name in sys.argv[1:]:
        found = cost(Path(name).read_text(encoding="utf-8"))
        print(f"{found.lines:6} {found.env:5} {found.env_repeated:6} {found.lines_repeated:7}  {name}")


if __name__ == "__main__":
    main()
