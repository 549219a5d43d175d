"""How a site's nodes say that something is wrong with them: a section of the operator's configuration.

nodes:
  unhealthyConditions: [GpuUnhealthy]
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class NodesForm(BaseModel):
    """`nodes` in the file."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)

    unhealthy_conditions: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=316)]], Field(max_length=32)
    ] = Field(default_factory=list)
