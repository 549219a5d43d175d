"""Claims and ComputeDomains under the operator's care: made in time, shared, gone when nothing asks for them."""

from dataclasses import replace
from typing import Any

import pytest

from factories.dra import device_class
from factories.gpu_nodes import dra_only, resource_slice
from fakecluster.harness import NAME, NAMESPACE, Harness, manifest, play
from fakecluster.objects import with_condition
from moe_operator.api import names, reasons
from moe_operator.controller import revisions
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    DEVICE_CLASS,
    NODE,
    POD,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
    Obj,
)
from moe_operator.planner.plan import Plan, Refusal, Transport
from moe_operator.resources.compute_domain import CHANNEL_TEMPLATE, COMPUTE_DOMAIN_NAME


@pytest.fixture
def nvlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group needs an NVLink channel, whatever the nodes."""
    make = revisions.make_plan

    def planned(*args: Any, **more: Any) -> Plan | Refusal:
        found = make(*args, **more)
        if isinstance(found, Refusal):
            return found
        return replace(found, transport=Transport(fabric="mnnvl", compute_domain=True))

    monkeypatch.setattr(revisions, "make_plan", planned)


def _claimed_nodes(h: Harness, count: int) -> None:
    for index in range(count):
        name = f"dra-{index}"
        node = h.world.server.create(NODE, dra_only(name), "kubelet")
        ready = with_condition(node, "Ready", "True", h.world.clock(), reason="KubeletReady")
        capacity = {"cpu": "224", "memory": "2Ti", "pods": "110"}
        status = {"capacity": capacity, "allocatable": dict(capacity), "conditions": ready}
        h.world.server.set_status(NODE, node, status, "kubelet")
        h.world.server.create(RESOURCE_SLICE, resource_slice(name), "dra-driver")


def _templates(h: Harness) -> list[str]:
    return [o["metadata"]["name"] for o in h.world.server.list(RESOURCE_CLAIM_TEMPLATE, NAMESPACE)]


def _stalled(h: Harness) -> str | None:
    found = h.condition(reasons.STALLED)
    return found["reason"] if found else None


def _owners(h: Harness) -> list[str]:
    domain = h.world.server.get(COMPUTE_DOMAIN, NAMESPACE, COMPUTE_DOMAIN_NAME)
    return sorted(r["name"] for r in domain["metadata"]["ownerReferences"]) if domain else []


def test_a_group_gets_its_gpus_by_claims_once_the_driver_is_there() -> None:
    """Lost: the driver's installation would have to be followed by something that nobody knows of."""

    async def scenario(h: Harness) -> None:
        _claimed_nodes(h, 2)
        h.apply(manifest())
        await h.until(lambda: _stalled(h) == reasons.DEVICE_CLASS_MISSING, 30)
        assert h.groups() == []
        assert _templates(h) == []
        h.world.server.create(DEVICE_CLASS, device_class(), "helm")
        await h.serve()
        assert [name.endswith("-gpus") for name in _templates(h)] == [True]

    play(scenario, nodes=0)


def test_templates_of_a_revision_go_once_nothing_runs_it() -> None:
    """Lost: a template more with every change of the spec, for ever; or the claims of a group that still runs."""

    async def scenario(h: Harness) -> None:
        _claimed_nodes(h, 4)
        h.world.server.create(DEVICE_CLASS, device_class(), "helm")
        h.apply(manifest())
        await h.serve()
        (before,) = _templates(h)
        h.edit(engine={"env": [{"name": "A", "value": "b"}]})
        await h.until(lambda: len(_templates(h)) == 2, 60)
        await h.until(lambda: h.ready() and len(_templates(h)) == 1, 300)
        assert _templates(h) != [before]
        h.edit(engine={"env": []})
        await h.until(lambda: h.ready() and _templates(h) == [before], 300, "a rollback makes its own again")

    play(scenario, nodes=0)


@pytest.mark.usefixtures("nvlink")
def test_a_missing_compute_domain_is_told_and_taken_up_once_it_is_installed() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.until(lambda: _stalled(h) == reasons.COMPUTE_DOMAIN_MISSING, 30)
        message = (h.condition(reasons.STALLED) or {})["message"]
        assert "install NVIDIA's DRA driver for GPUs" in message
        assert h.groups() == []
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        await h.serve(within=120)
        pods = h.world.server.list(POD, NAMESPACE)
        assert {c["resourceClaimTemplateName"] for p in pods for c in p["spec"]["resourceClaims"]} == {
            CHANNEL_TEMPLATE
        }

    play(scenario)


@pytest.mark.usefixtures("nvlink")
def test_deployments_of_a_namespace_share_one_domain_that_goes_with_the_last() -> None:
    """Lost: NVLink for one deployment when another is deleted. Two domains in one rack would disturb each other."""

    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        h.apply(manifest())
        h.apply(manifest(name="other"))
        await h.serve()
        await h.serve(name="other")
        assert _owners(h) == ["other", NAME]
        uid = h.world.server.list(COMPUTE_DOMAIN)[0]["metadata"]["uid"]
        h.delete("other")
        await h.until(lambda: not h.groups("other"), 120)
        assert h.world.server.list(COMPUTE_DOMAIN)[0]["metadata"]["uid"] == uid
        h.delete()
        await h.until(lambda: not h.world.server.list(COMPUTE_DOMAIN), 120)

    play(scenario)


@pytest.mark.usefixtures("nvlink")
def test_a_settled_deployment_with_claims_asks_the_api_server_for_nothing() -> None:
    """Lost: an API server that a thousand deployments would ask a thousand times a minute."""

    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        h.apply(manifest())
        await h.serve()
        await h.settle()
        before, reads = h.writes, h.operator.client.reads
        for _ in range(20):
            h.operator.queue.add((NAMESPACE, NAME))
            await h.rest(0.5)
        assert h.writes == before
        assert h.operator.client.reads - reads <= 2, "no read per reconcile; the lease renews"

    play(scenario)


@pytest.mark.usefixtures("nvlink")
def test_a_domain_deleted_by_hand_is_made_again() -> None:
    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        h.apply(manifest())
        await h.serve()
        await h.rest(90)  # its watch begins once its kind was looked for again
        h.world.server.delete(COMPUTE_DOMAIN, NAMESPACE, COMPUTE_DOMAIN_NAME, "kubectl")
        await h.until(lambda: _owners(h) == [NAME], 30)

    play(scenario)


@pytest.mark.usefixtures("nvlink")
def test_a_stranger_of_the_domains_name_is_left_alone_and_told() -> None:
    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        stranger: Obj = {
            "apiVersion": COMPUTE_DOMAIN.api_version,
            "kind": COMPUTE_DOMAIN.kind,
            "metadata": {"name": COMPUTE_DOMAIN_NAME, "namespace": NAMESPACE},
            "spec": {"channel": {"allocationMode": "Single", "resourceClaimTemplate": {"name": "other"}}},
        }
        made = h.world.server.create(COMPUTE_DOMAIN, stranger, "research")
        h.apply(manifest())
        await h.until(lambda: _stalled(h) == reasons.NAME_CONFLICT, 30)
        assert "was not made by the operator" in (h.condition(reasons.STALLED) or {})["message"]
        assert h.world.server.list(COMPUTE_DOMAIN) == [made]
        h.world.server.delete(COMPUTE_DOMAIN, NAMESPACE, COMPUTE_DOMAIN_NAME, "research")
        await h.serve()

    play(scenario)


@pytest.mark.usefixtures("nvlink")
def test_a_channel_that_nobody_makes_is_told_by_name() -> None:
    """Lost: pods that are Pending without a word, as the scheduler does not look at them before their claims exist."""

    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        h.world.compute_domains.runs = False
        h.apply(manifest())

        def told() -> str:
            found = h.condition(reasons.CAPACITY_AVAILABLE) or {}
            return found["message"] if found.get("reason") == reasons.CLAIM_PENDING else ""

        await h.until(told, 60)
        assert f"waits for its claims of ResourceClaimTemplate {CHANNEL_TEMPLATE}" in told()
        assert "compute-domain controller" in told()

    play(scenario)


def test_a_plan_without_the_domain_leaves_it() -> None:
    """Lost: a domain that stays for as long as the deployment, though its groups no longer span nodes."""

    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        with pytest.MonkeyPatch.context() as patch:
            make = revisions.make_plan

            def planned(*args: Any, **more: Any) -> Plan | Refusal:
                found = make(*args, **more)
                assert isinstance(found, Plan)
                return replace(found, transport=Transport(fabric="mnnvl", compute_domain=True))

            patch.setattr(revisions, "make_plan", planned)
            h.apply(manifest())
            await h.serve()
        assert _owners(h) == [NAME]
        h.edit(hardware={"accelerator": "B200", "gpusPerGroup": 8})
        await h.until(lambda: h.ready() and not h.world.server.list(COMPUTE_DOMAIN), 300)
        assert h.world.server.list(POD, NAMESPACE)[0]["metadata"]["labels"][names.LABEL_DEPLOYMENT] == NAME

    play(scenario)


@pytest.mark.usefixtures("nvlink")
def test_a_partition_that_is_shared_with_somebody_elses_domain_is_told_and_nothing_else_changes() -> None:
    """Lost: days, on errors of CUDA that come now and then; or a group that serves, to a warning."""

    async def scenario(h: Harness) -> None:
        h.world.server.absent.discard(COMPUTE_DOMAIN)
        _label(h, **{"nvidia.com/gpu.clique": "rack-1"})
        h.apply(manifest())
        await h.serve()
        before = [g["metadata"]["uid"] for g in h.groups()]
        _label(h, **{"resource.nvidia.com/computeDomain": "uid-of-a-stranger"})

        def planned() -> str:
            return (h.condition(reasons.PLANNED) or {}).get("message", "")

        await h.until(
            lambda: "rack-1 is also used by ComputeDomain of uid uid-of-a-stranger" in planned(), 60
        )
        await h.settle()
        writes, reads = h.writes, h.operator.client.reads
        for _ in range(5):
            await h.operator.reconciler.reconcile((NAMESPACE, NAME))
        assert (h.writes, h.operator.client.reads) == (writes, reads)
        assert [g["metadata"]["uid"] for g in h.groups()] == before
        _label(h, **{"resource.nvidia.com/computeDomain": None})
        await h.until(lambda: "is also used" not in planned(), 60)

    play(scenario)


def _label(h: Harness, **labels: str | None) -> None:
    """On every node; None removes."""
    for node in h.world.server.list(NODE):
        h.world.server.patch(
            NODE, None, node["metadata"]["name"], {"metadata": {"labels": labels}}, "kubelet-plugin"
        )
