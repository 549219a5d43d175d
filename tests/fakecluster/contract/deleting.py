"""Deletion, finalizers and the garbage collector."""

import asyncio
from typing import Any

from fakecluster.contract.base import (
    OTHER_UID,
    SETTLE,
    Outcome,
    case,
    config,
    gone,
    refusal,
)
from moe_operator.controller.kube import (
    CONFIG_MAP,
    KubeClient,
    Obj,
)


@case({"other": True, "own": True})
async def delete_means_this_object_only(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(CONFIG_MAP, config(ns))
    await client.delete(CONFIG_MAP, ns, "thing", uid=OTHER_UID)
    still = await client.get(CONFIG_MAP, ns, "thing")
    await client.delete(CONFIG_MAP, ns, "thing", uid=made["metadata"]["uid"])
    after = await client.get(CONFIG_MAP, ns, "thing")
    await client.delete(CONFIG_MAP, ns, "thing", uid=made["metadata"]["uid"])  # no error
    return {"other": still is not None, "own": after is None}


@case({"waits": True, "create": 409, "patched": "1", "gone": True})
async def a_finalizer_holds_a_deleted_object(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(CONFIG_MAP, config(ns, metadata={"finalizers": ["example.com/wait"]}))
    await client.delete(CONFIG_MAP, ns, "thing", uid=made["metadata"]["uid"])
    held = await client.get(CONFIG_MAP, ns, "thing")
    assert held is not None
    patched = await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"a": "1"}}})
    create = await refusal(client.create(CONFIG_MAP, config(ns)))
    await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"finalizers": None}})
    return {
        "waits": bool(held["metadata"].get("deletionTimestamp")),
        "create": create,
        "patched": patched["metadata"]["labels"]["a"],
        "gone": await client.get(CONFIG_MAP, ns, "thing") is None,
    }


async def _family(client: KubeClient, ns: str) -> tuple[str, str]:
    """ConfigMaps parent <- child <- grandchild; the child has a finalizer. Returns the uids of parent and child."""

    def owned(name: str, owner: Obj, **meta: Any) -> Obj:
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        return config(ns, name, metadata={"ownerReferences": [reference], **meta})

    parent = await client.create(CONFIG_MAP, config(ns, "parent"))
    child = await client.create(CONFIG_MAP, owned("child", parent, finalizers=["example.com/wait"]))
    await client.create(CONFIG_MAP, owned("grandchild", child))
    return parent["metadata"]["uid"], child["metadata"]["uid"]


async def _deleting(client: KubeClient, ns: str, name: str) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE
    while loop.time() < deadline:
        obj = await client.get(CONFIG_MAP, ns, name)
        if obj is not None and obj["metadata"].get("deletionTimestamp"):
            return True
        await asyncio.sleep(0.2)
    return False


@case(
    {
        "parent waits": True,
        "finalizers": ["foregroundDeletion"],
        "child": True,
        "grandchild": True,
        "all": True,
    }
)
async def foreground_deletion_waits_for_dependents(client: KubeClient, ns: str) -> Outcome:
    uid, _ = await _family(client, ns)
    await client.delete(CONFIG_MAP, ns, "parent", uid=uid, propagation="Foreground")
    parent = await client.get(CONFIG_MAP, ns, "parent")
    assert parent is not None
    child = await _deleting(client, ns, "child")
    grandchild = await gone(client, ns, "grandchild")
    await client.patch(CONFIG_MAP, ns, "child", {"metadata": {"finalizers": None}})
    return {
        "parent waits": bool(parent["metadata"].get("deletionTimestamp")),
        "finalizers": parent["metadata"]["finalizers"],
        "child": child,
        "grandchild": grandchild,
        "all": await gone(client, ns, "parent", "child", "grandchild"),
    }


@case({"parent": None, "child": True, "all": True})
async def background_deletion_takes_dependents_later(client: KubeClient, ns: str) -> Outcome:
    uid, _ = await _family(client, ns)
    await client.delete(CONFIG_MAP, ns, "parent", uid=uid)
    parent = await client.get(CONFIG_MAP, ns, "parent")
    child = await _deleting(client, ns, "child")
    await client.patch(CONFIG_MAP, ns, "child", {"metadata": {"finalizers": None}})
    return {"parent": parent, "child": child, "all": await gone(client, ns, "child", "grandchild")}
