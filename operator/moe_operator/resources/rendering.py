"""What a group's objects are made from."""

from dataclasses import dataclass

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.planner.plan import Plan
from moe_operator.resources.weights import Weights, weights_of


@dataclass(frozen=True)
class Rendering:
    """One spec with its plan, at a site. Every concern of the pods reads it and gives `PodParts`."""

    deployment: ModelDeployment
    plan: Plan
    config: OperatorConfig
    role: str = names.ROLE_SERVE

    @property
    def profile(self) -> AcceleratorProfile:
        """The plan's accelerator. KeyError if the catalogue that it was planned with is not this one."""
        found = self.config.catalog.accelerator(self.plan.accelerator)
        if found is None:
            raise KeyError(f"the catalogue has no accelerator {self.plan.accelerator}")
        return found

    @property
    def weights(self) -> Weights:
        """Where the engine reads the weights."""
        return weights_of(self.deployment.spec, self.plan, self.config.weights)

    @property
    def device_class(self) -> str:
        """DeviceClass from which claims get whole GPUs. KeyError where no driver for claims is known (`cpu`)."""
        return self.config.device_classes[self.profile.resource_name or ""]

    @property
    def image(self) -> str:
        """The user's image, else the profile's."""
        return self.deployment.spec.engine.image or self.profile.default_image
