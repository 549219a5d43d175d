"""`python runtime_requirements.py LOCK [PACKAGE ...]`: the part of the lock that the operator needs to run, or that the
named packages need.

The lock holds the development group too, and says after each package what it came with (`# via`). A package stays if
that leads to the project without its groups. Standard library only: the image is built with it before anything is
installed.
"""

import re
import sys
from pathlib import Path

_PROJECT = re.compile(r"^\S+ \(pyproject\.toml\)$")


def blocks(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Package -> its lines in the lock, and what asked for it."""
    found: dict[str, tuple[list[str], set[str]]] = {}
    lines, origins = [], set[str]()
    for line in lock.splitlines():
        if pinned := re.match(r"^([A-Za-z0-9._-]+)(\[[^]]*\])?==", line):
            lines, origins = [line], set()
            found[pinned[1]] = (lines, origins)
        elif line.startswith("    #"):
            origins.add(re.sub(r"^\s*#\s*(via\b)?\s*", "", line))
        elif line.startswith("    "):
            lines.append(line)
    return {
        name: ("\n".join(own).rstrip(" \\"), frozenset(origin for origin in origins if origin))
        for name, (own, origins) in found.items()
    }


def runtime(lock: str, *packages: str) -> dict[str, str]:
    """Package -> its lines, for those that the project needs to run, or for `packages` and what they need.

    Raises KeyError for a package that the lock does not have.
    """
    every = blocks(lock)
    project = {
        name for name, (_, origins) in every.items() if any(_PROJECT.match(origin) for origin in origins)
    }
    kept = set(packages) or project
    while more := {name for name, (_, origins) in every.items() if origins & kept} - kept:
        kept |= more
    return {name: every[name][0] for name in sorted(kept)}


if __name__ == "__main__":
    content = Path(sys.argv[1]).read_text(encoding="utf-8")
    print("\n".join(runtime(content, *sys.argv[2:]).values()))
