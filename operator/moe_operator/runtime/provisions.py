"""What a plan's pods need of the cluster beside nodes: DeviceClasses for claims, ComputeDomains for NVLink channels.

Like `capabilities.py`: discovery, answers that hold for a while, and nothing asked for plans that need neither.
"""

from collections.abc import Callable

from moe_operator.api import reasons
from moe_operator.catalog.device_drivers import BY_RESOURCE
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.kube import COMPUTE_DOMAIN, DEVICE_CLASS, ForbiddenError, NotFoundError
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.resources.compute_domain import needs_compute_domain
from moe_operator.runtime.capabilities import PathReader, Remembered, served_versions

#: The first release with ComputeDomain v1beta1 whose daemons find each other by name: nodes may come and go.
COMPUTE_DOMAIN_DRIVER = "25.8"


class ProvisionCheck:
    """Says what the cluster lacks for a plan, or None."""

    def __init__(self, client: PathReader, config: OperatorConfig, clock: Callable[[], float]) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._claims: dict[str, Remembered] = {}
        self._domains = Remembered("ComputeDomains", self._ask_for_domains, clock)

    async def __call__(self, plan: Plan) -> Refusal | None:
        """What is missing first. Raises KubeError while there is no answer yet."""
        if plan.claims:
            profile = self._config.catalog.accelerator(plan.accelerator)
            resource = (profile.resource_name if profile else None) or ""
            if resource in self._config.device_classes and (refusal := await self._for_claims(resource)):
                return refusal
        return await self._domains() if needs_compute_domain(plan) else None

    async def _for_claims(self, resource: str) -> Refusal | None:
        if resource not in self._claims:
            what = f"a DeviceClass for {resource}"
            self._claims[resource] = Remembered(what, lambda: self._ask_for_class(resource), self._clock)
        return await self._claims[resource]()

    async def _ask_for_class(self, resource: str) -> Refusal | None:
        served = await served_versions(self._client, DEVICE_CLASS.group)
        if DEVICE_CLASS.version not in (served or []):
            said = f"in {', '.join(served)}" if served else "not at all"
            return Refusal(
                reasons.RESOURCE_CLAIMS_UNSUPPORTED,
                f"GPUs are asked for by ResourceClaims, and the cluster serves {DEVICE_CLASS.group} {said};"
                f" {DEVICE_CLASS.version} is needed: upgrade to Kubernetes 1.34 or later, or set hardware.allocation to"
                " ExtendedResource where a device plugin runs",
                retry=True,
            )
        name = self._config.device_classes[resource]
        try:
            await self._client.get_path(DEVICE_CLASS.path(name=name))
        except NotFoundError:
            return Refusal(
                reasons.DEVICE_CLASS_MISSING,
                f"GPUs are asked for by ResourceClaims, and there is no DeviceClass {name}: install"
                f" {BY_RESOURCE[resource].needs}; or name the site's own class in the operator's configuration,"
                f" deviceClasses.{resource}",
                retry=True,
            )
        except ForbiddenError:
            return None  # not told; the scheduler says so then
        return None

    async def _ask_for_domains(self) -> Refusal | None:
        served = await served_versions(self._client, COMPUTE_DOMAIN.group)
        if COMPUTE_DOMAIN.version in (served or []):
            return None
        lacks = f"serves {COMPUTE_DOMAIN.group} in {', '.join(served)} only" if served else "has none"
        return Refusal(
            reasons.COMPUTE_DOMAIN_MISSING,
            "ranks of a group reach each other's GPU memory over NVLink's fabric, for which pods need NVIDIA's"
            f" ComputeDomain ({COMPUTE_DOMAIN.api_version}), and the cluster {lacks}: install NVIDIA's DRA driver"
            f" for GPUs, version {COMPUTE_DOMAIN_DRIVER} or later, with resources.computeDomains.enabled=true; or keep"
            " a group within a node with hardware.gpusPerGroup, or choose another fabric with hardware.fabric",
            retry=True,
        )
