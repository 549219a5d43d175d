"""What an API server answers: one table of calls with the answers expected, run against the in-memory server by a unit
test and against a real one by a cluster test. So the in-memory server cannot be wrong about any of it unnoticed.

Each call's outcome is reduced to what matters: never uids, versions or times themselves, but how they relate.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    MODEL_DEPLOYMENT,
    SERVICE,
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
_SETTLE = 30.0


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
    deadline = loop.time() + _SETTLE
    while loop.time() < deadline:
        found = [await client.get(CONFIG_MAP, namespace, name) for name in maps]
        if not any(found):
            return True
        await asyncio.sleep(0.2)
    return False


# --- create, get, list ---------------------------------------------------------------------------


@case({"uid": True, "version": True, "created": True, "namespace": True, "again": 409, "missing": None})
async def create_gives_identity_and_a_taken_name_is_409(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(CONFIG_MAP, config(ns, data={"a": "1"}))
    meta = made["metadata"]
    return {
        "uid": bool(meta["uid"]),
        "version": version(made) > 0,
        "created": bool(meta["creationTimestamp"]),
        "namespace": meta["namespace"] == ns,
        "again": await refusal(client.create(CONFIG_MAP, config(ns))),
        "missing": await client.get(CONFIG_MAP, ns, "none"),
    }


@case({"red": ["a", "b"], "not blue": ["a", "c"], "both": ["b"], "kind": "ConfigMap"})
async def list_selects_by_labels(client: KubeClient, ns: str) -> Outcome:
    mark = {"suite": "contract"}
    for name, labels in {"a": {"red": "1"}, "b": {"red": "1", "blue": "1"}, "c": {}}.items():
        await client.create(CONFIG_MAP, config(ns, name, metadata={"labels": {**mark, **labels}}))

    async def listed(selector: str) -> list[str]:
        return sorted(o["metadata"]["name"] for o in await client.list(CONFIG_MAP, ns, selector))

    return {
        "red": await listed("suite=contract,red=1"),
        "not blue": await listed("suite=contract,blue!=1"),
        "both": await listed("suite=contract,red=1,blue=1"),
        "kind": (await client.list(CONFIG_MAP, ns, "red=1"))[0]["kind"],
    }


@case({"newer uid": True, "newer version": True})
async def a_name_used_again_is_another_object(client: KubeClient, ns: str) -> Outcome:
    first = await client.create(CONFIG_MAP, config(ns))
    await client.delete(CONFIG_MAP, ns, "thing", uid=first["metadata"]["uid"])
    second = await client.create(CONFIG_MAP, config(ns))
    return {
        "newer uid": first["metadata"]["uid"] != second["metadata"]["uid"],
        "newer version": version(second) > version(first),
    }


# --- server-side apply ---------------------------------------------------------------------------


@case({"created": {"a": "1", "b": "2"}, "removed": {"b": "3"}, "unchanged version": True})
async def apply_removes_what_it_no_longer_names(client: KubeClient, ns: str) -> Outcome:
    made = await client.apply(CONFIG_MAP, config(ns, data={"a": "1", "b": "2"}))
    changed = await client.apply(CONFIG_MAP, config(ns, data={"b": "3"}))
    same = await client.apply(CONFIG_MAP, config(ns, data={"b": "3"}))
    return {
        "created": made["data"],
        "removed": changed["data"],
        "unchanged version": version(same) == version(changed) > version(made),
    }


@case({"kept": {"a": "1", "b": "2"}, "taken": {"a": "9", "b": "2"}})
async def apply_keeps_what_a_create_or_another_wrote(client: KubeClient, ns: str) -> Outcome:
    await client.create(CONFIG_MAP, config(ns, data={"a": "1"}))
    kept = await client.apply(CONFIG_MAP, config(ns, data={"b": "2"}))
    taken = await client.apply(CONFIG_MAP, config(ns, data={"a": "9", "b": "2"}))
    return {"kept": kept["data"], "taken": taken["data"]}


@case({"labels": {"mine": "2", "theirs": "1"}, "later": {"theirs": "1"}})
async def apply_leaves_a_label_that_a_patch_added(client: KubeClient, ns: str) -> Outcome:
    await client.apply(CONFIG_MAP, config(ns, metadata={"labels": {"mine": "1"}}))
    await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"theirs": "1"}}})
    both = await client.apply(CONFIG_MAP, config(ns, metadata={"labels": {"mine": "2"}}))
    later = await client.apply(CONFIG_MAP, config(ns))
    return {"labels": both["metadata"]["labels"], "later": later["metadata"].get("labels")}


@case({"gone with the last": None, "of another": 409, "of nothing": 409, "own": {"a": "2"}})
async def apply_with_a_uid_means_this_object_only(client: KubeClient, ns: str) -> Outcome:
    made = await client.apply(CONFIG_MAP, config(ns, data={"a": "1"}))
    uid = made["metadata"]["uid"]
    own = await client.apply(CONFIG_MAP, config(ns, metadata={"uid": uid}, data={"a": "2"}))
    other = config(ns, metadata={"uid": OTHER_UID}, data={"a": "3"})
    nothing = config(ns, "none", metadata={"uid": OTHER_UID}, data={"a": "3"})
    return {
        "own": own["data"],
        "of another": await refusal(client.apply(CONFIG_MAP, other)),
        "of nothing": await refusal(client.apply(CONFIG_MAP, nothing)),
        "gone with the last": (await client.apply(CONFIG_MAP, config(ns))).get("data"),
    }


@case({"added": [80, 81], "changed": ["http", 81], "removed": [81]})
async def apply_merges_a_services_ports_by_port(client: KubeClient, ns: str) -> Outcome:
    def service(*ports: Obj) -> Obj:
        meta = {"name": "thing", "namespace": ns}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"a": "b"}, "ports": list(ports)},
        }

    first = {"name": "web", "port": 80, "protocol": "TCP"}
    second = {"name": "more", "port": 81, "protocol": "TCP"}
    await client.apply(SERVICE, service(first))
    added = await client.apply(SERVICE, service(first, second))
    changed = await client.apply(SERVICE, service({**first, "name": "http"}, second))
    removed = await client.apply(SERVICE, service(second))
    return {
        "added": [p["port"] for p in added["spec"]["ports"]],
        "changed": [changed["spec"]["ports"][0]["name"], changed["spec"]["ports"][1]["port"]],
        "removed": [p["port"] for p in removed["spec"]["ports"]],
    }


# --- merge patch ---------------------------------------------------------------------------------


@case({"set": {"a": "1", "b": "2"}, "removed": {"b": "2"}, "no label": None, "unchanged": True, "none": 404})
async def patch_sets_and_null_removes(client: KubeClient, ns: str) -> Outcome:
    await client.create(CONFIG_MAP, config(ns, metadata={"labels": {"a": "1"}}))
    both = await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"b": "2"}}})
    one = await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"a": None}}})
    empty = await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"b": None}}})
    again = await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"b": None}}})
    return {
        "set": both["metadata"]["labels"],
        "removed": one["metadata"]["labels"],
        "no label": empty["metadata"].get("labels"),
        "unchanged": version(again) == version(empty),
        "none": await refusal(client.patch(CONFIG_MAP, ns, "none", {"metadata": {"labels": {"a": "1"}}})),
    }


@case({"own": "1", "other": 409, "untouched": {"a": "1"}})
async def patch_with_a_uid_means_this_object_only(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(CONFIG_MAP, config(ns))
    own = {"metadata": {"uid": made["metadata"]["uid"], "labels": {"a": "1"}}}
    other = {"metadata": {"uid": OTHER_UID, "labels": {"a": "2"}}}
    patched = await client.patch(CONFIG_MAP, ns, "thing", own)
    refused = await refusal(client.patch(CONFIG_MAP, ns, "thing", other))
    after = await client.get(CONFIG_MAP, ns, "thing")
    assert after is not None
    return {
        "own": patched["metadata"]["labels"]["a"],
        "other": refused,
        "untouched": after["metadata"]["labels"],
    }


@case({"immutable": 422, "revision": 422, "labels": {"a": "1"}})
async def immutable_data_stays(client: KubeClient, ns: str) -> Outcome:
    await client.create(CONFIG_MAP, config(ns, data={"a": "1"}, immutable=True))
    revision = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": "thing", "namespace": ns},
        "data": {"a": 1},
        "revision": 1,
    }
    await client.create(CONTROLLER_REVISION, revision)
    labelled = await client.patch(CONFIG_MAP, ns, "thing", {"metadata": {"labels": {"a": "1"}}})
    return {
        "immutable": await refusal(client.patch(CONFIG_MAP, ns, "thing", {"data": {"a": "2"}})),
        "revision": await refusal(client.patch(CONTROLLER_REVISION, ns, "thing", {"data": {"a": 2}})),
        "labels": labelled["metadata"]["labels"],
    }


# --- delete --------------------------------------------------------------------------------------


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
    deadline = loop.time() + _SETTLE
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


# --- custom resource -----------------------------------------------------------------------------


@case(
    {
        "generation": [1, 2, 2, 2, 2],
        "status": True,
        "spec": True,
        "status dropped": None,
        "defaults": [1, "Auto", "120s"],
    }
)
async def generation_counts_changes_of_the_spec_alone(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(MODEL_DEPLOYMENT, {**deployment(ns), "status": {"replicas": 3}})
    changed = await client.patch(MODEL_DEPLOYMENT, ns, "tiny", {"spec": {"replicas": 2}})
    labelled = await client.patch(MODEL_DEPLOYMENT, ns, "tiny", {"metadata": {"labels": {"a": "1"}}})
    bare = {k: v for k, v in deployment(ns).items() if k != "spec"}
    status = await client.apply_status(
        MODEL_DEPLOYMENT, {**bare, "status": {"observedGeneration": 2, "replicas": 1}}
    )
    ignored = await client.patch(MODEL_DEPLOYMENT, ns, "tiny", {"status": {"replicas": 7}})
    return {
        "generation": [o["metadata"]["generation"] for o in (made, changed, labelled, status, ignored)],
        "status": status["status"]["replicas"] == ignored["status"]["replicas"] == 1,
        "spec": status["spec"]["replicas"] == 2,
        "status dropped": made.get("status"),
        "defaults": [
            made["spec"]["replicas"],
            made["spec"]["scaling"]["mode"],
            made["spec"]["recovery"]["stallLimit"],
        ],
    }


@case({"first": ["A", "B"], "second": ["B"], "field": None, "same": True})
async def status_apply_removes_conditions_it_no_longer_names(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(MODEL_DEPLOYMENT, deployment(ns))
    bare = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "tiny", "namespace": ns, "uid": made["metadata"]["uid"]},
    }

    def condition(type_: str) -> Obj:
        return {
            "type": type_,
            "status": "True",
            "reason": "Said",
            "message": "",
            "lastTransitionTime": "2027-01-01T00:00:00Z",
        }

    both = {"conditions": [condition("A"), condition("B")], "endpoint": "http://somewhere"}
    first = await client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": both})
    only = {"conditions": [condition("B")]}
    second = await client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": only})
    third = await client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": only})
    return {
        "first": [c["type"] for c in first["status"]["conditions"]],
        "second": [c["type"] for c in second["status"]["conditions"]],
        "field": second["status"].get("endpoint"),
        "same": version(third) == version(second),
    }


@case({"spec": 422, "none": 404, "uid of another": 1})
async def invalid_specs_and_absent_objects_are_refused(client: KubeClient, ns: str) -> Outcome:
    bad = deployment(ns, replicas=-1)
    bare = {k: v for k, v in deployment(ns).items() if k != "spec"}
    refused = await refusal(client.create(MODEL_DEPLOYMENT, bad))
    none = await refusal(client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": {"replicas": 1}}))
    await client.create(MODEL_DEPLOYMENT, deployment(ns))
    other = {**bare, "metadata": {**bare["metadata"], "uid": OTHER_UID}, "status": {"replicas": 1}}
    # A uid in a status write is no precondition.
    written = await client.apply_status(MODEL_DEPLOYMENT, other)
    return {"spec": refused, "none": none, "uid of another": written["status"]["replicas"]}
