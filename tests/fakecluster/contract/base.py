"""The table, and what its cases share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import (
    CONFIG_MAP,
    KubeClient,
    KubeError,
    Obj,
)

Outcome = Any
Case = Callable[[KubeClient, str], Awaitable[Outcome]]

CASES: dict[str, tuple[Case, Outcome]] = {}
"""By name: the calls, given a client and an empty namespace, and the outcome expected."""

OTHER_UID = "11111111-2222-4333-8444-555555555555"
#: Seconds within which the garbage collector must have acted.
SETTLE = 30.0


def case(expected: Outcome) -> Callable[[Case], Case]:
    """Enter a case into the table."""

    def enter(do: Case) -> Case:
        CASES[do.__name__] = (do, expected)
        return do

    return enter


def config(namespace: str, name: str = "thing", **more: Any) -> Obj:
    """A ConfigMap."""
    meta = {"name": name, "namespace": namespace, **more.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **more}


def deployment(namespace: str, **spec: Any) -> Obj:
    """A ModelDeployment."""
    whole = {"model": {"name": "org/tiny-moe"}, "hardware": {"accelerator": "cpu"}, **spec}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "tiny", "namespace": namespace},
        "spec": whole,
    }


async def refusal(call: Awaitable[Any]) -> Any:
    """HTTP status of a refused call, or what it answered."""
    try:
        return await call
    except KubeError as error:
        return error.status


def version(obj: Obj) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def gone(client: KubeClient, namespace: str, *maps: str) -> bool:
    """Whether all of these ConfigMaps are gone within the time that the garbage collector needs."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE
    while loop.time() < deadline:
        found = [await client.get(CONFIG_MAP, namespace, name) for name in maps]
        if not any(found):
            return True
        await asyncio.sleep(0.2)
    return False
