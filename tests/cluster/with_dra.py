"""Run inside a cluster whose GPUs come from ResourceSlices, by test_operator_with_dra.py; by itself not collected.

The tests publish what drivers would (slices, classes, a domain's channel template). All else is real: claims are made
by the controller manager, allocated by the scheduler with the selectors that the operator renders, and ComputeDomains
are checked by NVIDIA's own CRD. The operator runs with the chart's rights.
"""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.chart_rights import start
from cluster.replica import Replica
from cluster.runtime_helpers import CRD, NAMESPACE, until
from factories.deployments import group_plan, model_deployment, rendering
from factories.dra import channel_class, channel_slice, channel_template, device_class
from factories.gpu_nodes import resource_slice
from localcluster import dra
from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment, parse
from moe_operator.catalog.operator_config import read_config
from moe_operator.controller.compute_domain import ensure_compute_domain, leave_compute_domain
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    DEVICE_CLASS,
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
    ConflictError,
    InvalidError,
    Obj,
)
from moe_operator.controller.store import Store
from moe_operator.resources.claims import build_claim_template
from moe_operator.resources.compute_domain import COMPUTE_DOMAIN_NAME, build_compute_domain
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def place(client: AioKubeClient) -> AsyncIterator[str]:
    """A namespace; nothing of the cluster's drivers is there before and after."""
    name = f"dra-{uuid.uuid4().hex[:6]}"
    await client.create(NAMESPACE, {"metadata": {"name": name}})
    yield name
    for obj in await client.list(MODEL_DEPLOYMENT, name):
        await client.delete(MODEL_DEPLOYMENT, name, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
    for kind in (RESOURCE_SLICE, DEVICE_CLASS):
        for obj in await client.list(kind):
            await client.delete(kind, None, obj["metadata"]["name"], uid=obj["metadata"]["uid"])


@pytest.fixture
async def operator(client: AioKubeClient, place: str, tmp_path: Path) -> AsyncIterator[Replica]:
    operator = await start(place, tmp_path)
    await until(lambda: operator.said("leading as"), "it leads", 60)
    yield operator
    await operator.kill()


def manifest(namespace: str, name: str, accelerator: str, **spec: Any) -> Obj:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "model": {"name": "org/model"},
            "scaling": {"mode": "External", "minGroups": 0},
            "replicas": 1,
            **spec,
            "hardware": {"accelerator": accelerator, **spec.get("hardware", {})},
        },
    }


async def condition(client: AioKubeClient, namespace: str, name: str, type_: str) -> dict[str, Any]:
    obj = await client.get(MODEL_DEPLOYMENT, namespace, name)
    found = (obj or {}).get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == type_), {})


async def told(
    client: AioKubeClient, namespace: str, name: str, type_: str, reason: str, words: str = ""
) -> str:
    """The message of a condition, once it has this reason and these words in it: within a minute."""

    async def said() -> str:
        one = await condition(client, namespace, name, type_)
        right = one.get("reason") == reason and words in one["message"]
        return str(one["message"]) if right else ""

    return str(await until(said, f"{name}: {type_}/{reason} {words}", 60))


async def bound(client: AioKubeClient, namespace: str, name: str, count: int) -> list[Obj]:
    """The pods of a deployment, once so many have a node."""

    async def all_bound() -> list[Obj]:
        pods = await client.list(POD, namespace, f"{names.LABEL_DEPLOYMENT}={name}")
        placed = [pod for pod in pods if pod["spec"].get("nodeName")]
        return placed if len(placed) == count else []

    return list(await until(all_bound, f"{count} pods of {name} have nodes", 60))


async def publish(client: AioKubeClient, slice_: Obj) -> None:
    """As a driver does: a new generation of a pool takes the place of the older."""
    await client.create(RESOURCE_SLICE, slice_)
    pool = slice_["spec"]["pool"]
    for old in await client.list(RESOURCE_SLICE):
        spec = old["spec"]
        if spec["pool"]["name"] == pool["name"] and spec["pool"]["generation"] < pool["generation"]:
            await client.delete(RESOURCE_SLICE, None, old["metadata"]["name"], uid=old["metadata"]["uid"])


async def devices_of(client: AioKubeClient, pod: Obj) -> dict[str, list[tuple[str, str]]]:
    """(pool, device) that each claim of a pod was given."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in pod["status"]["resourceClaimStatuses"]:
        claim = await client.get(RESOURCE_CLAIM, pod["metadata"]["namespace"], one["resourceClaimName"])
        assert claim is not None
        results = claim["status"]["allocation"]["devices"]["results"]
        found[one["name"]] = [(r["pool"], r["device"]) for r in results]
    return found


async def test_whole_gpus_of_the_product_are_claimed_and_allocated(
    client: AioKubeClient, place: str, operator: Replica
) -> None:
    """Lost: every cluster without a device plugin; or pods that get a partition, or another product."""
    for node in ("b200-0", "b200-1"):
        await publish(client, resource_slice(node, 8))
    await client.create(MODEL_DEPLOYMENT, manifest(place, "wide", "B200", hardware={"gpusPerGroup": 16}))
    words = await told(client, place, "wide", reasons.STALLED, reasons.DEVICE_CLASS_MISSING)
    assert "no DeviceClass gpu.nvidia.com: install NVIDIA's DRA driver for GPUs" in words
    assert not await client.list(LEADER_WORKER_SET, place), "no pod may wait for what never comes"

    # Whoever installs the driver has to do nothing else.
    await client.create(DEVICE_CLASS, device_class())
    pods = await bound(client, place, "wide", 2)
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["b200-0", "b200-1"]
    for pod in pods:
        node = pod["spec"]["nodeName"]
        assert await devices_of(client, pod) == {"gpus": [(node, f"gpu-{i}") for i in range(8)]}
        for container in pod["spec"]["containers"]:
            amounts = container["resources"]
            assert "nvidia.com/gpu" not in {**amounts.get("limits", {}), **amounts.get("requests", {})}

    # What is claimed is not free for others, and the status says so.
    await client.create(MODEL_DEPLOYMENT, manifest(place, "late", "B200"))
    words = await told(client, place, "late", reasons.CAPACITY_AVAILABLE, reasons.CAPACITY_SHORT)
    assert "a group needs 8 free GPUs on one node; free are 0, on all B200 nodes (2) together" in words
    assert await operator.count("moe_operator_api_requests_total", code="403") == 0, operator.log.read_text()


async def test_a_claim_that_cannot_be_satisfied_is_told_in_words_and_a_correction_is_taken_up(
    client: AioKubeClient, place: str, operator: Replica
) -> None:
    """Lost: days, as Pending pods say `cannot allocate all claims` and nothing of what the nodes offer."""
    await client.create(DEVICE_CLASS, device_class())
    await publish(client, resource_slice("gb200-0", 4, product="NVIDIA GB200", memory="189471Mi"))
    await client.create(MODEL_DEPLOYMENT, manifest(place, "picky", "GB200", replicas=0))
    await told(client, place, "picky", reasons.PLANNED, reasons.PLANNED_REASON)

    # The driver's next release has another name for them; the revision asks for the old one.
    renamed = resource_slice("gb200-0", 4, product="NVIDIA GB200 NVL4", memory="189471Mi", generation=2)
    await publish(client, renamed)
    await client.patch(MODEL_DEPLOYMENT, place, "picky", {"spec": {"replicas": 1}})
    offered = "NVIDIA GB200 NVL4: 4 GPUs on 1 node, 4 of them free"
    words = await told(client, place, "picky", reasons.CAPACITY_AVAILABLE, reasons.UNSCHEDULABLE, offered)
    assert "cannot allocate all claims" in words
    assert "its claim asks for 4 whole GPUs of GB200 (NVIDIA GB200) on one node" in words

    # Any change that makes a new revision plans with the nodes as they are now.
    change = {"spec": {"engine": {"env": [{"name": "NOTE", "value": "replanned"}]}}}
    await client.patch(MODEL_DEPLOYMENT, place, "picky", change)
    (pod,) = await bound(client, place, "picky", 1)
    assert len((await devices_of(client, pod))["gpus"]) == 4

    async def one_template() -> bool:
        found = await client.list(RESOURCE_CLAIM_TEMPLATE, place, f"{names.LABEL_DEPLOYMENT}=picky")
        return [one["metadata"]["name"].endswith("-gpus") for one in found] == [True]

    await until(one_template, "templates that nothing uses any more are gone", 60)
    await told(client, place, "picky", reasons.CAPACITY_AVAILABLE, reasons.CAPACITY_SUFFICIENT)


async def test_a_partition_or_a_device_without_attributes_is_passed_over(
    client: AioKubeClient, place: str
) -> None:
    """Lost: all allocation. An attribute that a device lacks ends it with an error, unless it is asked for first."""
    lax = device_class("everything.example.com")
    lax["spec"]["selectors"] = []
    await client.create(DEVICE_CLASS, lax)
    odd: list[Obj] = [
        {"name": "bare"},
        {"name": "part", "attributes": {"type": {"string": "mig"}, "productName": {"string": "NVIDIA B200"}}},
        {"name": "unnamed", "attributes": {"type": {"string": "gpu"}}},
        {
            "name": "other",
            "attributes": {"type": {"string": "gpu"}, "productName": {"string": "NVIDIA H200"}},
        },
    ]
    slice_ = resource_slice("b200-0", 8)
    slice_["spec"]["devices"] = [*odd, *slice_["spec"]["devices"]]
    await publish(client, slice_)
    config = read_config("deviceClasses: {nvidia.com/gpu: everything.example.com}")
    wanted = model_deployment(namespace=place, hardware={"accelerator": "B200"})
    plan = replace(group_plan(1, 8, accelerator="B200"), claims=True)
    template = build_claim_template(rendering(wanted, plan, config))
    template["metadata"]["namespace"] = place
    await client.create(RESOURCE_CLAIM_TEMPLATE, template)
    await client.create(POD, claiming_pod(place, "rank-0", template["metadata"]["name"]))

    async def allocated() -> Obj | None:
        pod = await client.get(POD, place, "rank-0")
        return pod if pod and pod["spec"].get("nodeName") else None

    pod = await until(allocated, "the pod has a node", 60)
    assert await devices_of(client, pod) == {"claim": [("b200-0", f"gpu-{i}") for i in range(8)]}


def claiming_pod(namespace: str, name: str, template: str, **selector: str) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"of": "test"}},
        "spec": {
            "nodeSelector": selector,
            "resourceClaims": [{"name": "claim", "resourceClaimTemplateName": template}],
            "containers": [
                {
                    "name": "engine",
                    "image": "none.example/engine",
                    "resources": {"claims": [{"name": "claim"}]},
                }
            ],
        },
    }


async def _parsed(client: AioKubeClient, namespace: str, name: str) -> ModelDeployment:
    made = await client.create(MODEL_DEPLOYMENT, manifest(namespace, name, "GB200", replicas=0))
    return parse(made)


async def _no_check() -> None:
    return None


async def _install_compute_domains(client: AioKubeClient) -> None:
    for path in dra.crds():
        crd = yaml.safe_load(path.read_text())
        try:
            await client.create(CRD, crd)
        except ConflictError:
            continue

    async def served() -> bool:
        try:
            await client.list(COMPUTE_DOMAIN)
        except Exception:
            return False
        return True

    await until(served, "ComputeDomains are served", 60)


async def test_one_compute_domain_is_shared_and_goes_with_its_last_owner(
    client: AioKubeClient, place: str
) -> None:
    """Lost: cross-node NVLink of a namespace when one of its deployments goes, or a leftover domain for ever."""
    await _install_compute_domains(client)
    store = Store()
    first, second = await _parsed(client, place, "first"), await _parsed(client, place, "second")
    for one in (first, second, first):
        await ensure_compute_domain(client, store, one, _no_check)
    domain = await client.get(COMPUTE_DOMAIN, place, COMPUTE_DOMAIN_NAME)
    assert domain is not None
    assert domain["spec"] == build_compute_domain(first)["spec"], (
        "NVIDIA's CRD changes or drops nothing of it"
    )
    assert {r["uid"] for r in domain["metadata"]["ownerReferences"]} == {first.uid, second.uid}

    await leave_compute_domain(client, store, first)
    await ensure_compute_domain(client, store, first, _no_check)
    await client.delete(MODEL_DEPLOYMENT, place, "first", uid=first.uid)

    async def one_owner() -> bool:
        live = await client.get(COMPUTE_DOMAIN, place, COMPUTE_DOMAIN_NAME)
        assert live is not None, "the second deployment's domain is gone"
        return [r["uid"] for r in live["metadata"]["ownerReferences"]] == [second.uid]

    await until(one_owner, "the garbage collector takes the first owner off", 60)
    await client.delete(MODEL_DEPLOYMENT, place, "second", uid=second.uid)

    async def gone() -> bool:
        return await client.get(COMPUTE_DOMAIN, place, COMPUTE_DOMAIN_NAME) is None

    await until(gone, "the domain goes with its last owner", 60)


async def test_a_domain_that_changed_meanwhile_is_not_deleted(client: AioKubeClient, place: str) -> None:
    """Lost: the domain of a deployment that joined in the same moment in which the last owner left."""
    await _install_compute_domains(client)
    store, late = Store(), Store()
    first, second = await _parsed(client, place, "first"), await _parsed(client, place, "second")
    await ensure_compute_domain(client, store, first, _no_check)
    await ensure_compute_domain(client, late, second, _no_check)
    await leave_compute_domain(client, store, first)
    live = await client.get(COMPUTE_DOMAIN, place, COMPUTE_DOMAIN_NAME)
    assert live is not None
    assert second.uid in {r["uid"] for r in live["metadata"]["ownerReferences"]}


async def test_a_node_has_one_channel_and_pods_of_the_domain_get_it(
    client: AioKubeClient, place: str
) -> None:
    """Lost: groups that share nodes would wait for a channel without end. Two pods of a node cannot both have it."""
    await _install_compute_domains(client)
    first = await _parsed(client, place, "first")
    await ensure_compute_domain(client, Store(), first, _no_check)
    domain = await client.get(COMPUTE_DOMAIN, place, COMPUTE_DOMAIN_NAME)
    assert domain is not None
    await client.create(DEVICE_CLASS, channel_class())
    for node in ("gb200-0", "gb200-1"):
        await client.create(RESOURCE_SLICE, channel_slice(node))
    await client.create(RESOURCE_CLAIM_TEMPLATE, channel_template(domain))
    template = domain["spec"]["channel"]["resourceClaimTemplate"]["name"]
    for index in range(3):
        selector = {"nvidia.com/gpu.product": "NVIDIA-GB200"}
        await client.create(POD, claiming_pod(place, f"rank-{index}", template, **selector))

    async def two_of_three() -> bool:
        pods = await client.list(POD, place, "of=test")
        placed = [p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")]
        conditions = [c for p in pods for c in p["status"].get("conditions", []) if c["status"] == "False"]
        said = [c["message"] for c in conditions if c["type"] == "PodScheduled"]
        return sorted(placed) == ["gb200-0", "gb200-1"] and any(
            "cannot allocate all claims" in m for m in said
        )

    await until(two_of_three, "one pod on each node, the third waits", 60)
    for pod in await client.list(POD, place, "of=test"):
        await client.delete(POD, place, pod["metadata"]["name"], uid=pod["metadata"]["uid"], grace_seconds=0)


async def test_the_crd_refuses_a_domain_that_is_written_wrongly(client: AioKubeClient, place: str) -> None:
    """Lost: the point of installing the real CRD. It does check what is rendered."""
    await _install_compute_domains(client)
    wrong = build_compute_domain(await _parsed(client, place, "first"))
    wrong["spec"]["channel"]["allocationMode"] = "Some"
    with pytest.raises(InvalidError):
        await client.create(COMPUTE_DOMAIN, wrong)
