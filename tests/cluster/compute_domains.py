"""NVIDIA's CRDs of ComputeDomains in the cluster, for as long as a test needs them: others are about their absence."""

from collections.abc import Iterator
from contextlib import contextmanager

from factories.dra import channel_class
from harness.crds import established
from harness.kubectl import apply, kubectl
from localcluster import dra

_DOMAINS = "computedomains.resource.nvidia.com"


@contextmanager
def compute_domains() -> Iterator[None]:
    """The CRDs, of the release that hack/dra pins, and the driver's class of channels."""
    files = [arg for path in dra.crds() for arg in ("-f", str(path))]
    kubectl("apply", "--server-side", *files)
    established(_DOMAINS)
    apply(channel_class())
    try:
        yield
    finally:
        kubectl("delete", "deviceclass", channel_class()["metadata"]["name"], "--ignore-not-found")
        kubectl("delete", "--ignore-not-found", *files)
