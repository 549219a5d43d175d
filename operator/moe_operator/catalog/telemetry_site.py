"""Who tells of a site's GPUs and of memory: a section of the operator's configuration.

telemetry:
  dcgmExporter: {namespace: gpu-operator, selector: app=nvidia-dcgm-exporter, port: 9400}
  amdExporter: {namespace: kube-amd-gpu, selector: app=metrics-exporter, port: 5000}
  kubelet: {metrics: Enabled}
  prometheus: {url: "http://prometheus.monitoring:9090"}
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: What NVIDIA's GPU operator and the exporter's own chart give their pods.
_USUAL = ("app=nvidia-dcgm-exporter", "app.kubernetes.io/name=dcgm-exporter")
_TERM = r"[A-Za-z0-9][A-Za-z0-9._/-]*=[A-Za-z0-9._-]*"
#: Equalities, all of which hold.
_SELECTOR = rf"^{_TERM}(,{_TERM})*$"
_KUBELET_PORT = 10250


@dataclass(frozen=True)
class DcgmExporter:
    """Where the pods that tell of NVIDIA GPUs are."""

    namespace: str | None = None
    """None: looked for in all."""
    selectors: tuple[str, ...] = _USUAL
    """Label selectors; a pod needs to match one."""
    port: int = 9400


@dataclass(frozen=True)
class AmdExporter:
    """Where the pods that tell of AMD GPUs are."""

    namespace: str | None
    """None: looked for in all."""
    selectors: tuple[str, ...]
    port: int = 5000
    prefix: str = ""
    """Of the names of its series: the exporter's MetricsFieldPrefix."""


class KubeletCertificate(StrEnum):
    """How the operator knows a kubelet."""

    CLUSTER_CA = "ClusterCA"
    """By a certificate of the cluster's authority."""
    UNVERIFIED = "Unverified"
    """Not at all: whoever answers at the node's address gets the operator's token."""


class KubeletMetrics(StrEnum):
    """Whether kubelets are asked."""

    DISABLED = "Disabled"
    ENABLED = "Enabled"


@dataclass(frozen=True)
class KubeletSite:
    """How kubelets are asked for the memory of containers."""

    certificate: KubeletCertificate = KubeletCertificate.CLUSTER_CA
    port: int = _KUBELET_PORT


@dataclass(frozen=True)
class PrometheusSite:
    """Where a Prometheus is that has the exporters' series."""

    url: str
    """Without a path of the API."""
    token_file: str | None = None
    """File with a bearer token."""


@dataclass(frozen=True)
class TelemetrySite:
    """Who is asked."""

    dcgm: DcgmExporter = DcgmExporter()
    amd: AmdExporter | None = None
    """None: nobody."""
    kubelet: KubeletSite | None = None
    """None: memory on processors is estimated."""
    prometheus: PrometheusSite | None = None
    """Asked in place of the exporters."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


_Namespace = Annotated[str, Field(min_length=1, max_length=63)]
_Selector = Annotated[str, Field(max_length=512, pattern=_SELECTOR)]
_Port = Annotated[int, Field(ge=1, le=65535)]


class DcgmExporterForm(_Form):
    """`telemetry.dcgmExporter` in the file."""

    namespace: _Namespace | None = None
    selector: _Selector | None = None
    port: _Port = 9400


class AmdExporterForm(_Form):
    """`telemetry.amdExporter` in the file. Its pods have no labels that every way to install it gives them."""

    namespace: _Namespace | None = None
    selector: _Selector
    port: _Port = 5000
    prefix: Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""


class KubeletForm(_Form):
    """`telemetry.kubelet` in the file."""

    metrics: Annotated[KubeletMetrics, Field(strict=False)] = KubeletMetrics.DISABLED
    certificate: Annotated[KubeletCertificate, Field(strict=False)] = KubeletCertificate.CLUSTER_CA
    port: _Port = _KUBELET_PORT


class PrometheusForm(_Form):
    """`telemetry.prometheus` in the file."""

    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")]
    token_file: Annotated[str, Field(max_length=4096, pattern=r"^/")] | None = None


class TelemetryForm(_Form):
    """`telemetry` in the file."""

    dcgm_exporter: DcgmExporterForm = DcgmExporterForm()
    amd_exporter: AmdExporterForm | None = None
    kubelet: KubeletForm = KubeletForm()
    prometheus: PrometheusForm | None = None

    def site(self) -> TelemetrySite:
        """What it says."""
        dcgm, amd, kubelet, prometheus = (
            self.dcgm_exporter,
            self.amd_exporter,
            self.kubelet,
            self.prometheus,
        )
        return TelemetrySite(
            dcgm=DcgmExporter(dcgm.namespace, (dcgm.selector,) if dcgm.selector else _USUAL, dcgm.port),
            amd=AmdExporter(amd.namespace, (amd.selector,), amd.port, amd.prefix) if amd else None,
            kubelet=KubeletSite(kubelet.certificate, kubelet.port)
            if kubelet.metrics is KubeletMetrics.ENABLED
            else None,
            prometheus=PrometheusSite(prometheus.url.rstrip("/"), prometheus.token_file)
            if prometheus
            else None,
        )
