"""Creating, reading, listing and patching."""

from fakecluster.contract.base import OTHER_UID, Outcome, case, config, refusal, version
from moe_operator.controller.kube import CONFIG_MAP, CONTROLLER_REVISION, KubeClient


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
