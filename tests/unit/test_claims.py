"""GPUs by ResourceClaims: when they are planned, what is rendered, what a cluster must have for it."""

from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, rendering, revision_of
from factories.golden import check_golden
from factories.gpu_nodes import Object, claim, dra_only, hgx_b200, mi300x, resource_slice
from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.operator_config import OperatorConfigError, default_config, read_config
from moe_operator.controller.kube import COMPUTE_DOMAIN, ForbiddenError, KubeError, NotFoundError, Obj
from moe_operator.planner.allocation import offered_by_slices
from moe_operator.planner.inventory import Inventory, inventory_from
from moe_operator.planner.nodes import Hardware, hardware_options
from moe_operator.planner.plan import Plan, Refusal, Transport, plan_from_data, plan_to_data
from moe_operator.planner.planning import plan
from moe_operator.resources.children import build_children
from moe_operator.resources.claims import build_claim_template, claim_parts, product_values
from moe_operator.resources.compute_domain import CHANNEL_TEMPLATE, build_compute_domain, needs_compute_domain
from moe_operator.resources.group import build_group
from moe_operator.resources.revision import build_revision, read_revision, spec_hash
from moe_operator.runtime.provisions import ProvisionCheck

NVLINK = Transport(fabric="mnnvl", compute_domain=True)


def claimed(pods: int = 1, accelerator: str = "B200", gpus: int = 8) -> Plan:
    return replace(
        group_plan(pods, gpus, accelerator=accelerator), claims=True, device_products=("NVIDIA B200",)
    )


def b200(**spec: Any) -> ModelDeployment:
    return model_deployment("qwen", hardware={"accelerator": "B200"}, **spec)


def planned(inventory: Inventory, **hardware: Any) -> Plan | Refusal:
    deployment = model_deployment(hardware={"accelerator": "B200", **hardware})
    return plan(deployment, inventory, load_catalog())


def chosen(inventory: Inventory, accelerator: str = "B200", **hardware: Any) -> Hardware:
    spec = model_deployment(hardware={"accelerator": accelerator, **hardware}).spec
    found = hardware_options(spec, inventory, load_catalog())
    assert not isinstance(found, Refusal), found
    return found[0]


def nodes_of(plugged: int, sliced: int) -> Inventory:
    names_ = [f"dra-{i}" for i in range(sliced)]
    nodes = [hgx_b200(f"b200-{i}") for i in range(plugged)] + [dra_only(name) for name in names_]
    return inventory_from(nodes, [], [resource_slice(name) for name in names_])


# --- planned --------------------------------------------------------------------------------------


def test_what_nodes_offer_decides() -> None:
    """Lost: clusters that have moved to claims, where nobody answers for an extended resource."""
    by_plugin, by_driver = planned(nodes_of(2, 0)), planned(nodes_of(0, 2))
    assert isinstance(by_plugin, Plan)
    assert isinstance(by_driver, Plan)
    assert (by_plugin.claims, by_plugin.device_products) == (False, ())
    assert (by_driver.claims, by_driver.device_products) == (True, ("NVIDIA B200",))


@pytest.mark.parametrize(("plugged", "sliced", "claims"), [(1, 3, True), (3, 1, False), (2, 2, False)])
def test_of_nodes_of_both_kinds_the_larger_part_is_used_and_the_rest_named(
    plugged: int, sliced: int, claims: bool
) -> None:
    """Lost: a group of which some pods could never start: they are alike, and their nodes are not."""
    hardware = chosen(nodes_of(plugged, sliced))
    assert hardware.claims is claims
    assert len(hardware.nodes) == (sliced if claims else plugged)
    left = "b200-0" if claims else "dra-0"
    assert left in hardware.notes[0]
    assert "hardware.allocation chooses" in hardware.notes[0]


def test_the_spec_chooses_among_what_nodes_offer() -> None:
    hardware = chosen(nodes_of(3, 1), allocation="ResourceClaims")
    assert (hardware.claims, [node.name for node in hardware.nodes]) == (True, ["dra-0"])


def test_an_extended_resource_of_a_device_class_is_believed_with_what_it_needs() -> None:
    """DRAExtendedResource: the scheduler makes the claims. It cannot be seen from here whether it is on."""
    hardware = chosen(nodes_of(1, 1), allocation="ExtendedResource")
    assert (hardware.claims, len(hardware.nodes)) == (False, 2)
    assert "DRAExtendedResource" in hardware.notes[0]


def test_claims_that_no_node_can_serve_are_refused_with_the_nodes_that_have_a_plugin() -> None:
    found = planned(nodes_of(2, 0), allocation="ResourceClaims")
    assert isinstance(found, Refusal)
    assert (found.reason, found.retry) == (reasons.NO_NODES, True)
    assert "b200-0, b200-1 offer theirs by a device plugin" in found.message
    assert "hardware.allocation asks for ResourceClaims" in found.message


def test_where_nodes_are_not_seen_the_spec_alone_decides() -> None:
    unseen = Inventory(nodes=None)
    assert not chosen(unseen).claims
    assert chosen(unseen, allocation="ResourceClaims").claims
    assert chosen(Inventory(()), gpusPerNode=8, allocation="ResourceClaims").claims
    cpu = model_deployment(hardware={"accelerator": "cpu", "allocation": "ResourceClaims"})
    found = hardware_options(cpu.spec, unseen, load_catalog())
    assert not isinstance(found, Refusal)
    assert not found[0].claims, "there is nothing to claim"


def test_gpus_that_our_own_claims_hold_are_not_free() -> None:
    """Lost: a second group that is planned onto the GPUs of the first."""
    pods: list[Object] = []
    slices = [resource_slice("dra-0")]
    held = claim("dra-0", *(f"gpu-{i}" for i in range(6)))
    inventory = inventory_from([dra_only()], pods, slices, [held])
    assert inventory.nodes is not None
    assert inventory.free(inventory.nodes[0]) == {"nvidia.com/gpu": 2}
    assert offered_by_slices(inventory) == (
        "ResourceSlices offer NVIDIA B200: 8 GPUs on 1 node, 2 of them free"
    )
    assert offered_by_slices(nodes_of(1, 0)) == "no node offers GPUs by ResourceSlices alone"


def test_the_field_changes_no_hash_of_specs_without_it_and_does_of_those_with() -> None:
    """A new field must not restart what runs; set, it reaches the pods."""
    assert spec_hash(b200()) == spec_hash(model_deployment("qwen", hardware={"accelerator": "B200"}))
    other = model_deployment("qwen", hardware={"accelerator": "B200", "allocation": "ResourceClaims"})
    assert spec_hash(other) != spec_hash(b200())


def test_plans_of_revisions_from_before_are_read() -> None:
    data = plan_to_data(claimed())
    assert plan_from_data(data) == claimed()
    del data["device_products"], data["claims"]
    assert plan_from_data(data).device_products == ()


# --- AMD's driver ---------------------------------------------------------------------------------


def amd_slice(node: str = "mi300x-0", gpus: int = 8, part: bool = False) -> Object:
    def device(index: int) -> Object:
        attributes = {
            "type": {"string": "amdgpu-partition" if part else "amdgpu"},
            "productName": {"string": "AMD_Instinct_MI300X_OAM"},
            "resource.kubernetes.io/pciBusID": {"string": f"0000:{index:02x}:00.0"},
        }
        capacity = {"memory": {"value": "196592Mi"}}
        return {"name": f"gpu-{index}-{128 + index}", "attributes": attributes, "capacity": capacity}

    return {
        "metadata": {"name": f"{node}-gpu.amd.com"},
        "spec": {
            "driver": "gpu.amd.com",
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [device(i) for i in range(gpus)],
        },
    }


def amd_node() -> Object:
    node = mi300x()
    node["status"]["capacity"].pop("amd.com/gpu")
    node["status"]["allocatable"].pop("amd.com/gpu")
    return node


def test_gpus_of_amds_driver_are_planned_claimed_and_counted() -> None:
    held = claim("mi300x-0", "gpu-0-128", "gpu-1-129")
    for result in held["status"]["allocation"]["devices"]["results"]:
        result["driver"] = "gpu.amd.com"
    inventory = inventory_from([amd_node()], [], [amd_slice()], [held])
    hardware = chosen(inventory, "MI300X")
    assert (hardware.claims, hardware.gpus_per_node) == (True, 8)
    assert inventory.free(hardware.nodes[0]) == {"amd.com/gpu": 6}
    deployment = model_deployment(hardware={"accelerator": "MI300X"})
    template = build_claim_template(rendering(deployment, claimed(accelerator="MI300X")))
    request = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert request["deviceClassName"] == "gpu.amd.com"
    assert 'device.attributes["gpu.amd.com"].type == "amdgpu"' in request["selectors"][0]["cel"]["expression"]
    assert '"AMD-Instinct-MI300X-OAM"' in request["selectors"][1]["cel"]["expression"]


def test_partitions_of_amds_driver_are_no_whole_gpus() -> None:
    inventory = inventory_from([amd_node()], [], [amd_slice(part=True)])
    assert inventory.nodes is not None
    assert inventory.nodes[0].gpus == {}


# --- rendered -------------------------------------------------------------------------------------


def test_a_group_with_claims_and_a_channel_is_rendered_as_reviewed() -> None:
    plan_ = replace(claimed(2, "GB200", 4), transport=NVLINK, device_products=("NVIDIA GB200",))
    deployment = model_deployment(
        "qwen35-397b", hardware={"accelerator": "GB200", "gpusPerGroup": 8}, engine={"agent": "Disabled"}
    )
    revision = revision_of(deployment, plan_)
    objects = [
        *(
            child
            for child in build_children(deployment, revision, default_config())
            if child["kind"] == "ResourceClaimTemplate"
        ),
        build_compute_domain(deployment),
        build_group(deployment, revision, 0),
    ]
    check_golden("group-gb200-claims", objects)


def test_pods_ask_for_their_gpus_once() -> None:
    """With a limit as well a pod would get sixteen, or wait for ever."""
    deployment = b200(engine={"resources": {"limits": {"nvidia.com/gpu": "8", "memory": "1Ti"}}})
    lws = build_group(deployment, revision_of(deployment, claimed()), 0)
    pod = lws["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    engine = next(c for c in pod["containers"] if c["name"] == names.ENGINE_CONTAINER)
    assert engine["resources"]["limits"] == {"memory": "1Ti"}
    assert "nvidia.com/gpu" not in engine["resources"]["requests"]
    assert engine["resources"]["claims"] == [{"name": "gpus"}]
    (one,) = pod["resourceClaims"]
    (template,) = revision_of(deployment, claimed()).companions
    assert one == {"name": "gpus", "resourceClaimTemplateName": template["metadata"]["name"]}
    assert len(template["metadata"]["name"]) <= 63


def test_every_spec_has_a_template_of_its_own_that_its_revision_keeps() -> None:
    """ResourceClaimTemplates cannot be changed: two revisions side by side need two."""
    one, other = b200(), b200(engine={"env": [{"name": "A", "value": "b"}]})
    first, second = revision_of(one, claimed()), revision_of(other, claimed())
    assert first.companions[0]["metadata"]["name"] != second.companions[0]["metadata"]["name"]
    again = read_revision(build_revision(one, first))
    assert again == first


def test_an_extended_resource_needs_no_template() -> None:
    revision = revision_of(b200(), group_plan(1, 8, accelerator="B200"))
    assert revision.companions == ()


@pytest.mark.parametrize(
    ("transport", "needed"), [(NVLINK, True), (Transport(fabric="infiniband"), False), (None, False)]
)
def test_only_groups_whose_transport_needs_it_take_the_nodes_channel(
    transport: Transport | None, needed: bool
) -> None:
    """A node has one channel: groups that need none would keep others from it for nothing."""
    plan_ = replace(group_plan(2, 4, accelerator="GB200"), transport=transport)
    assert needs_compute_domain(plan_) is needed
    deployment = model_deployment(hardware={"accelerator": "GB200"})
    asked = [c["resourceClaimTemplateName"] for c in claim_parts(rendering(deployment, plan_)).claims]
    assert asked == ([CHANNEL_TEMPLATE] if needed else [])


def test_product_names_are_compared_as_labels_write_them() -> None:
    """NVML says `NVIDIA H100 80GB HBM3`, the label NVIDIA-H100-80GB-HBM3."""
    profile = load_catalog().accelerator("H100")
    assert profile is not None
    assert "NVIDIA-H100-80GB-HBM3" in product_values(profile, ["NVIDIA H100 80GB HBM3"])
    assert "NVIDIA-H100-NVL-Sample" in product_values(profile, ["NVIDIA H100 NVL Sample"])


def test_gpus_without_a_known_product_name_are_asked_for_by_memory() -> None:
    """A site's own accelerator is recognised by a label of the site's, which no driver says."""
    config = read_config(
        """
        accelerators:
          Special: {vendor: nvidia, gpusPerNode: 8, memoryMib: 100000, memoryBandwidth: 4000, tflops: {bf16: 900},
                    interconnectBandwidth: 450, computeCapability: "10.0", nodeLabels: {example.com/gpu: [special]}}
        """
    )
    deployment = model_deployment(hardware={"accelerator": "Special"})
    plan_ = replace(claimed(accelerator="Special"), device_products=())
    template = build_claim_template(rendering(deployment, plan_, config))
    selectors = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["selectors"]
    assert 'compareTo(quantity("85000Mi")) >= 0' in selectors[1]["cel"]["expression"]


# --- the site's configuration ---------------------------------------------------------------------


def test_a_site_names_its_own_device_class() -> None:
    config = read_config("deviceClasses: {nvidia.com/gpu: team-gpus.example.com}")
    template = build_claim_template(rendering(b200(), claimed(), config))
    request = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert request["deviceClassName"] == "team-gpus.example.com"
    assert config.device_classes["amd.com/gpu"] == "gpu.amd.com", "what is not named keeps the driver's"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "deviceClasses: {nvidia.com/gpus: a}",
            "deviceClasses.nvidia.com/gpus: is not one of nvidia.com/gpu",
        ),
        ("deviceClasses: {nvidia.com/gpu: Team GPUs}", "deviceClasses.nvidia.com/gpu"),
        ("deviceClasses: [a]", "deviceClasses"),
    ],
)
def test_a_section_that_cannot_be_right_is_refused_by_its_path(text: str, says: str) -> None:
    with pytest.raises(OperatorConfigError, match=says.replace(".", r"\.")):
        read_config(text)


# --- what the cluster must have -------------------------------------------------------------------

RESOURCE, NVIDIA = "/apis/resource.k8s.io", f"/apis/{COMPUTE_DOMAIN.group}"
CLASS = f"{RESOURCE}/v1/deviceclasses/gpu.nvidia.com"


class Pages:
    def __init__(self, **more: Any) -> None:
        self.pages: dict[str, Obj | KubeError] = {}
        self.asked: list[str] = []
        self.now = 0.0

    async def get_path(self, path: str) -> Obj:
        self.asked.append(path)
        page = self.pages.get(path, NotFoundError(404, "NotFound", path))
        if isinstance(page, KubeError):
            raise page
        return page

    def check(self) -> ProvisionCheck:
        return ProvisionCheck(self, default_config(), lambda: self.now)


def served(*versions: str) -> Obj:
    return {"versions": [{"version": v} for v in versions]}


@pytest.mark.parametrize(
    ("pages", "plan_", "reason", "says"),
    [
        ({}, claimed(), reasons.RESOURCE_CLAIMS_UNSUPPORTED, "serves resource.k8s.io not at all"),
        (
            {RESOURCE: served("v1beta1")},
            claimed(),
            reasons.RESOURCE_CLAIMS_UNSUPPORTED,
            "in v1beta1; v1 is needed",
        ),
        (
            {RESOURCE: served("v1")},
            claimed(),
            reasons.DEVICE_CLASS_MISSING,
            "no DeviceClass gpu.nvidia.com: install",
        ),
        (
            {},
            replace(group_plan(2, 4, accelerator="GB200"), transport=NVLINK),
            reasons.COMPUTE_DOMAIN_MISSING,
            "keep a group within a node with hardware.gpusPerGroup, or choose another fabric with hardware.fabric",
        ),
        (
            {NVIDIA: served("v1alpha1")},
            replace(group_plan(2, 4, accelerator="GB200"), transport=NVLINK),
            reasons.COMPUTE_DOMAIN_MISSING,
            "serves resource.nvidia.com in v1alpha1 only",
        ),
    ],
)
async def test_what_is_missing_is_said_with_what_to_install(
    pages: dict[str, Obj], plan_: Plan, reason: str, says: str
) -> None:
    cluster = Pages()
    cluster.pages = dict(pages)
    refusal = await cluster.check()(plan_)
    assert refusal is not None
    assert (refusal.reason, refusal.retry) == (reason, True)
    assert says in refusal.message


async def test_a_plan_that_needs_neither_asks_for_nothing() -> None:
    cluster = Pages()
    assert await cluster.check()(group_plan(2, 8, accelerator="B200")) is None
    assert cluster.asked == []


async def test_what_is_there_is_looked_for_rarely_and_taken_up_within_seconds() -> None:
    cluster = Pages()
    check = cluster.check()
    assert await check(claimed()) is not None
    cluster.pages = {RESOURCE: served("v1"), CLASS: {}}
    assert await check(claimed()) is not None, "a thousand deployments do not ask a thousand times"
    cluster.now = 10.0
    assert await check(claimed()) is None
    asked = len(cluster.asked)
    for _ in range(10):
        assert await check(claimed()) is None
    assert len(cluster.asked) == asked


async def test_a_class_that_may_not_be_read_is_no_reason_to_refuse() -> None:
    cluster = Pages()
    cluster.pages = {RESOURCE: served("v1"), CLASS: ForbiddenError(403, "Forbidden", "no")}
    assert await cluster.check()(claimed()) is None
