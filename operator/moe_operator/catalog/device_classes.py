"""The operator's configuration, section `deviceClasses`: where a site's DeviceClasses have names of their own.

    deviceClasses:
      nvidia.com/gpu: team-gpus.example.com

A class must give whole GPUs of the vendor's driver; further limits (a pool of nodes, say) are the site's own.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from moe_operator.catalog.device_drivers import BY_RESOURCE

_Name = Annotated[
    str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
]
#: The section as it is written: DeviceClass by extended resource.
DeviceClassSection = dict[Annotated[str, Field(max_length=317)], _Name]


def device_classes(section: Mapping[str, str]) -> dict[str, str]:
    """DeviceClass by extended resource, the drivers' own where the site names none.

    Raises:
        ValueError: if a resource is not one whose driver is known; the message names it.
    """
    for resource in section:
        if resource not in BY_RESOURCE:
            raise ValueError(f"deviceClasses.{resource}: is not one of {', '.join(BY_RESOURCE)}")
    return {resource: driver.device_class for resource, driver in BY_RESOURCE.items()} | dict(section)
