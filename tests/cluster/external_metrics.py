"""An API server behind an APIService, as metrics adapters are: it serves external.metrics.k8s.io from the operator's
own metrics page, so that what a HorizontalPodAutoscaler acts on has come the whole way."""

import asyncio
import base64
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from prometheus_client.parser import text_string_to_metric_families

from bench.played_engines import POD_ADDRESSES
from harness.kubectl import apply, kubectl
from localcluster.kubelet.apiclient import Obj
from localcluster.pki import FRONT_PROXY, issue, new_authority

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
API_SERVICE = f"{VERSION}.{GROUP}"
#: Where the pods of an adapter would be.
_ADDRESS, _PORT = POD_ADDRESSES[-1], 6443
_SERVICE = "metrics-adapter"


class ExternalMetrics:
    """Gauges of the page as external metrics of the namespace that their label names, picked by their other labels."""

    def __init__(self, namespace: str, pki: Path, folder: Path, page: Callable[[], Awaitable[str]]) -> None:
        """`namespace`: of its Service; `pki`: where the cluster's authorities are; `page`: gives the metrics page, or
        raises OSError where there is none."""
        self._namespace, self._pki, self._folder, self._page = namespace, pki, folder, page
        self.asked: list[Obj] = []
        """Every answer's items."""
        self.users: set[str] = set()
        """Who asked, as the front proxy says."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ExternalMetrics"]:
        app = web.Application()
        app.router.add_get(f"/apis/{GROUP}/{VERSION}", self._resources)
        app.router.add_get(f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{{metric}}", self._values)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        tls, authority = self._tls()
        await web.TCPSite(runner, _ADDRESS, _PORT, ssl_context=tls).start()
        try:
            # Not in this thread, which answers while kubectl asks what APIs there are.
            await asyncio.to_thread(apply, *self._objects(authority))
            yield self
        finally:
            await asyncio.to_thread(kubectl, "delete", "apiservice", API_SERVICE, "--ignore-not-found")
            await runner.cleanup()

    def _tls(self) -> tuple[ssl.SSLContext, bytes]:
        """Serves with a certificate of its own authority, and talks to nobody but the front proxy."""
        now = datetime.datetime.now(datetime.UTC)
        authority = new_authority(now, "metrics-adapter-ca")
        certificate, key = issue(authority, now, _SERVICE, names=(f"{_SERVICE}.{self._namespace}.svc",))
        chain = self._folder / "adapter.pem"
        chain.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        tls = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self._pki / "front-proxy-ca.crt")
        )
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_cert_chain(chain)
        return tls, authority.certificate.public_bytes(serialization.Encoding.PEM)

    def _objects(self, authority: bytes) -> list[Obj]:
        place = {"name": _SERVICE, "namespace": self._namespace}
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": place,
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": _PORT}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**place, "labels": {"kubernetes.io/service-name": _SERVICE}},
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": _PORT}],
                "endpoints": [{"addresses": [_ADDRESS], "conditions": {"ready": True}}],
            },
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": API_SERVICE},
                "spec": {
                    "group": GROUP,
                    "version": VERSION,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "service": {**place, "port": 443},
                    "caBundle": base64.b64encode(authority).decode(),
                },
            },
        ]

    @staticmethod
    async def _resources(_: web.Request) -> web.Response:
        return web.json_response(
            {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": [
                    {
                        "name": "moe_operator_scaling_recommended_groups",
                        "singularName": "",
                        "namespaced": True,
                        "kind": "ExternalMetricValueList",
                        "verbs": ["get"],
                    }
                ],
            }
        )

    async def _values(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        subject = dict(pair[0] for pair in request.transport.get_extra_info("peercert")["subject"])
        assert subject["commonName"] == FRONT_PROXY
        self.users.add(request.headers["X-Remote-User"])
        metric, selector = request.match_info["metric"], request.query.get("labelSelector", "")
        wanted = {"namespace": request.match_info["namespace"]}
        wanted |= dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        try:
            text = await self._page()
        except OSError:
            text = ""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = [
            {
                "metricName": metric,
                "metricLabels": wanted,
                "timestamp": now,
                "value": str(round(sample.value)),
            }
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric and wanted.items() <= sample.labels.items()
        ]
        self.asked.append({"items": found})
        return web.json_response(
            {
                "kind": "ExternalMetricValueList",
                "apiVersion": f"{GROUP}/{VERSION}",
                "metadata": {},
                "items": found,
            }
        )
