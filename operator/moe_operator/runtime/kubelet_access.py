"""How the operator asks kubelets: at nodes' own addresses, with its own credentials for the API server.

A kubelet has the API server judge who asks: `get` on `nodes/metrics` is all that this takes. By way of the API server
it would take `nodes/proxy`, with which one may run commands in every pod of the node.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from kubernetes.aio.client import Configuration

from moe_operator.catalog.telemetry_site import KubeletCertificate
from moe_operator.telemetry.memory_sources import KubeletAccess

log = logging.getLogger(__name__)


def kubelet_access(
    load: Callable[[], Awaitable[Configuration]], certificate: KubeletCertificate
) -> Callable[[], Awaitable[KubeletAccess]]:
    """Reads the credentials when it is called first, and the token each time. Never raises: without credentials a
    kubelet refuses."""
    known: list[tuple[Configuration, ssl.SSLContext]] = []

    async def access() -> KubeletAccess:
        try:
            if not known:
                configuration = await load()
                known.append((configuration, _context(configuration, certificate)))
            configuration, context = known[0]
            hook: Any = configuration.refresh_api_key_hook
            if hook is not None and (again := hook(configuration)) is not None:
                await again
            token = (configuration.api_key or {}).get("BearerToken")
            return KubeletAccess(context, {"Authorization": token} if token else {})
        except Exception as error:
            # A round of telemetry goes on; the kubelet then refuses, which is said where it is asked.
            log.debug("no credentials for kubelets: %s", error)
            return KubeletAccess()

    return access


def _context(configuration: Configuration, certificate: KubeletCertificate) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if certificate is KubeletCertificate.UNVERIFIED:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
