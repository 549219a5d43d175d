"""Server-side apply."""

from fakecluster.contract.base import OTHER_UID, Outcome, case, config, refusal, version
from moe_operator.controller.kube import CONFIG_MAP, SERVICE, KubeClient, Obj


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
