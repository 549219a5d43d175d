"""What runs in a cluster: gathered inside its namespaces, printed as a table."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from localcluster.api import Api, ApiError, Object
from localcluster.config import read_name
from localcluster.layout import ClusterDirs

_MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One component. ``pss``: its proportional share of memory in bytes, children excluded; None if it is
    not running.
    """

    name: str
    pid: int
    restarts: int
    pss: int | None


def proportional_memory(pid: int) -> int | None:
    """PSS in bytes, or None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def components(dirs: ClusterDirs) -> list[Row]:
    """In the order in which they were started."""
    table = json.loads((dirs.root / "components.json").read_text())
    return [
        Row(name, entry["pid"], entry["restarts"], proportional_memory(entry["pid"]))
        for name, entry in table.items()
    ]


def node_state(node: Object) -> str:
    """``Ready``, ``NotReady`` or ``Unknown``, as kubectl would say."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = next((each["status"] for each in conditions if each["type"] == "Ready"), "Unknown")
    return {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")


def render(rows: Sequence[Row], nodes: Sequence[Object]) -> str:
    """Two aligned tables."""
    lines = [f"{'COMPONENT':<26}{'PID INSIDE':>10}{'RESTARTS':>10}{'MEMORY MiB':>12}"]
    for row in rows:
        memory = "gone" if row.pss is None else f"{row.pss / _MIB:.0f}"
        lines.append(f"{row.name:<26}{row.pid:>10}{row.restarts:>10}{memory:>12}")
    lines.append(f"{'total':<26}{'':>20}{sum(row.pss or 0 for row in rows) / _MIB:>12.0f}")
    if nodes:
        lines += ["", f"{'NODE':<26}{'STATE':>10}"]
        lines += [f"{each['metadata']['name']:<26}{node_state(each):>10}" for each in nodes]
    return "\n".join(lines)


async def _nodes(dirs: ClusterDirs) -> list[Object]:
    async with Api(dirs.pki) as api:
        return list((await api.get("/api/v1/nodes")).get("items") or [])


def main() -> int:
    """``python -m localcluster.status ROOT``, inside the cluster."""
    dirs = read_name(Path(sys.argv[1]))
    try:
        nodes = asyncio.run(_nodes(dirs))
    except (aiohttp.ClientError, ApiError, TimeoutError, OSError) as error:
        print(f"the API server does not answer: {error}", file=sys.stderr)
        nodes = []
    print(render(components(dirs), nodes), flush=True)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
