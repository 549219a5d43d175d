"""The client's verbs on a real API server: what the in-memory one of the fault tests must be true to."""

import pytest

from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, config_map, deployment, pod, until
from moe_operator.controller.kube import (
    CONFIG_MAP,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    POD,
    ConflictError,
    InvalidError,
    Kind,
    NotFoundError,
)
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)

OTHER_UID = "00000000-0000-0000-0000-000000000000"


async def test_create_get_and_list_by_label(client: AioKubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAP, config_map(namespace, "a", x="1"))
    await client.create(CONFIG_MAP, config_map(namespace, "foreign", None))
    assert (await client.get(CONFIG_MAP, namespace, "a") or {})["metadata"]["uid"] == made["metadata"]["uid"]
    assert await client.get(CONFIG_MAP, namespace, "absent") is None
    found = await client.list(CONFIG_MAP, namespace, "app.kubernetes.io/managed-by=moe-operator")
    assert [(o["metadata"]["name"], o["kind"]) for o in found] == [("a", "ConfigMap")]
    with pytest.raises(ConflictError):
        await client.create(CONFIG_MAP, config_map(namespace, "a"))
    with pytest.raises(NotFoundError):
        await client.list(Kind("moe-operator.dev", "v1alpha1", "nothings", "Nothing"), namespace)


async def test_lists_longer_than_a_page_are_whole(
    client: AioKubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(7):
        await client.create(CONFIG_MAP, config_map(namespace, f"c{i}"))
    monkeypatch.setattr("moe_operator.runtime.kube_client.PAGE", 3)
    found = await client.list(CONFIG_MAP, namespace, "app.kubernetes.io/managed-by=moe-operator")
    assert [o["metadata"]["name"] for o in found] == [f"c{i}" for i in range(7)]


async def test_metadata_alone_tells_versions(client: AioKubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAP, config_map(namespace, "a", x="1"))

    async def listed() -> bool:
        found = await client.list_metadata(CONFIG_MAP, namespace, "moe-operator.dev/deployment=qwen")
        assert all("data" not in o for o in found)
        return [o["metadata"]["resourceVersion"] for o in found] == [made["metadata"]["resourceVersion"]]

    await until(listed, "the API server's cache has the object")


async def test_apply_takes_a_field_back_that_another_wrote(client: AioKubeClient, namespace: str) -> None:
    """Without force, an edit by hand would block every later apply."""
    await client.apply(CONFIG_MAP, config_map(namespace, "a", x="ours", y="ours"))
    await client.patch(CONFIG_MAP, namespace, "a", {"data": {"x": "edited", "z": "theirs"}})
    fresh = await client.apply(CONFIG_MAP, config_map(namespace, "a", x="ours"))
    assert fresh["data"]["x"] == "ours"
    assert "y" not in fresh["data"], "what we owned and no longer want goes"


async def test_apply_with_a_uid_never_makes_another_object(client: AioKubeClient, namespace: str) -> None:
    """The object was deleted, or replaced by somebody else's, since the cache saw it."""
    wanted = config_map(namespace, "a", x="1")
    wanted["metadata"]["uid"] = OTHER_UID
    with pytest.raises(ConflictError):
        await client.apply(CONFIG_MAP, wanted)
    assert await client.get(CONFIG_MAP, namespace, "a") is None
    await client.create(CONFIG_MAP, config_map(namespace, "a", x="theirs"))
    with pytest.raises(ConflictError):
        await client.apply(CONFIG_MAP, wanted)
    assert (await client.get(CONFIG_MAP, namespace, "a") or {})["data"] == {"x": "theirs"}


async def test_patch_with_a_uid_means_that_object_alone(client: AioKubeClient, namespace: str) -> None:
    """The traffic label must not land on the pod that took the name of the one that passed its canary."""
    made = await client.create(POD, pod(namespace, "p"))
    uid = made["metadata"]["uid"]
    fresh = await client.patch(POD, namespace, "p", {"metadata": {"uid": uid, "labels": {"traffic": "on"}}})
    assert fresh["metadata"]["labels"]["traffic"] == "on"
    fresh = await client.patch(POD, namespace, "p", {"metadata": {"uid": uid, "labels": {"traffic": None}}})
    assert "traffic" not in fresh["metadata"]["labels"]
    with pytest.raises(ConflictError):
        await client.patch(POD, namespace, "p", {"metadata": {"uid": OTHER_UID, "labels": {"traffic": "on"}}})
    with pytest.raises(NotFoundError):
        await client.patch(POD, namespace, "absent", {"metadata": {"uid": uid}})


async def test_patch_with_a_version_loses_against_a_later_write(
    client: AioKubeClient, namespace: str
) -> None:
    """The lease rests on it: two candidates that saw the same expired lease must not both win."""
    made = await client.create(CONFIG_MAP, config_map(namespace, "a"))
    version = made["metadata"]["resourceVersion"]
    await client.patch(
        CONFIG_MAP, namespace, "a", {"metadata": {"resourceVersion": version}, "data": {"x": "1"}}
    )
    with pytest.raises(ConflictError):
        await client.patch(
            CONFIG_MAP, namespace, "a", {"metadata": {"resourceVersion": version}, "data": {"x": "2"}}
        )


async def test_delete_with_a_uid_means_that_object_alone(client: AioKubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAP, config_map(namespace, "a"))
    await client.delete(CONFIG_MAP, namespace, "a", uid=OTHER_UID)
    assert await client.get(CONFIG_MAP, namespace, "a") is not None
    await client.delete(CONFIG_MAP, namespace, "a", uid=made["metadata"]["uid"])
    assert await client.get(CONFIG_MAP, namespace, "a") is None
    await client.delete(CONFIG_MAP, namespace, "a", uid=made["metadata"]["uid"])


async def test_foreground_deletion_keeps_the_name_until_all_is_gone(
    client: AioKubeClient, namespace: str
) -> None:
    """A slot is free only then: a successor of the same name would meet the old group's pods."""
    owner = await client.create(CONFIG_MAP, config_map(namespace, "owner"))
    child = config_map(namespace, "child")
    child["metadata"]["finalizers"] = ["moe-operator.dev/test"]
    child["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    await client.create(CONFIG_MAP, child)
    await client.delete(
        CONFIG_MAP, namespace, "owner", uid=owner["metadata"]["uid"], propagation="Foreground"
    )
    found = await client.get(CONFIG_MAP, namespace, "owner")
    assert found is not None
    assert found["metadata"]["deletionTimestamp"]
    await client.patch(CONFIG_MAP, namespace, "child", {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        return await client.get(CONFIG_MAP, namespace, "owner") is None

    await until(gone, "the owner goes after its child", 60)


async def test_status_is_written_without_touching_the_spec(client: AioKubeClient, namespace: str) -> None:
    made = await client.create(MODEL_DEPLOYMENT, deployment(namespace, "m"))
    body = {
        "metadata": {"namespace": namespace, "name": "m", "uid": made["metadata"]["uid"]},
        "status": {"observedGeneration": 1, "replicas": 2},
    }
    fresh = await client.apply_status(MODEL_DEPLOYMENT, body)
    assert fresh["status"]["replicas"] == 2
    assert (fresh["spec"], fresh["metadata"]["generation"]) == (made["spec"], made["metadata"]["generation"])
    again = await client.apply_status(MODEL_DEPLOYMENT, body)
    assert again["metadata"]["resourceVersion"] == fresh["metadata"]["resourceVersion"], "no change, no write"
    with pytest.raises(InvalidError):
        await client.apply(MODEL_DEPLOYMENT, {**deployment(namespace, "n"), "spec": {"model": {"name": "x"}}})


async def test_leader_worker_sets_are_refused_with_a_reason(client: AioKubeClient, namespace: str) -> None:
    broken = {"metadata": {"namespace": namespace, "name": "g"}, "spec": {"replicas": 1}}
    with pytest.raises(InvalidError, match="leaderWorkerTemplate"):
        await client.create(
            LEADER_WORKER_SET,
            {**broken, "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"},
        )
