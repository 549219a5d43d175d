"""How a site's nodes and GPUs say that something is wrong with them: two sections of the operator's configuration.

telemetry:
  dcgmExporter: {namespace: gpu-operator, selector: app=nvidia-dcgm-exporter, port: 9400}
nodes:
  unhealthyConditions: [GpuUnhealthy]
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: What NVIDIA's GPU operator and the exporter's own chart give their pods.
_USUAL = ("app=nvidia-dcgm-exporter", "app.kubernetes.io/name=dcgm-exporter")
_TERM = r"[A-Za-z0-9][A-Za-z0-9._/-]*=[A-Za-z0-9._-]*"
#: Equalities, all of which hold.
_SELECTOR = rf"^{_TERM}(,{_TERM})*$"


@dataclass(frozen=True)
class DcgmExporter:
    """Where the pods that tell of NVIDIA GPUs are."""

    namespace: str | None = None
    """None: looked for in all."""
    selectors: tuple[str, ...] = _USUAL
    """Label selectors; a pod needs to match one."""
    port: int = 9400


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class DcgmExporterForm(_Form):
    """`telemetry.dcgmExporter` in the file."""

    namespace: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    selector: Annotated[str, Field(max_length=512, pattern=_SELECTOR)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 9400


class TelemetryForm(_Form):
    """`telemetry` in the file."""

    dcgm_exporter: DcgmExporterForm = DcgmExporterForm()

    def exporter(self) -> DcgmExporter:
        """What it says."""
        given = self.dcgm_exporter
        return DcgmExporter(given.namespace, (given.selector,) if given.selector else _USUAL, given.port)


class NodesForm(_Form):
    """`nodes` in the file."""

    unhealthy_conditions: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=316)]], Field(max_length=32)
    ] = Field(default_factory=list)
