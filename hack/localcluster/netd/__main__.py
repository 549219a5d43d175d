"""``python -m localcluster.netd --pki DIR``: serve DNS and ClusterIPs until killed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import resource
from collections.abc import Callable
from pathlib import Path

from localcluster import network as net
from localcluster.api import Api, Object
from localcluster.netd.dns import DnsServer
from localcluster.netd.forwarder import Forwarder, wanted_listeners
from localcluster.netd.reflector import Reflector
from localcluster.netd.table import Key, ServiceTable

_KUBERNETES = ("default", "kubernetes")
#: The API server listens on loopback, which no EndpointSlice may name: its Service is served from here.
_API_BACKENDS = {(net.KUBERNETES_IP, 443): [(net.LOOPBACK, net.API_PORT)]}


async def serve(pki: Path) -> None:
    """Runs for ever; raises what ends one of the parts, so that the supervisor starts all of them afresh."""
    table = ServiceTable()
    forwarder = Forwarder(random.Random(), reserved=frozenset({net.DNS_IP}))
    forwarder.update(_KUBERNETES, _API_BACKENDS)

    def apply(change: Callable[[Key, Object | None], set[Key]]) -> Callable[[Key, Object | None], None]:
        def changed(key: Key, item: Object | None) -> None:
            for service in change(key, item) - {_KUBERNETES}:
                forwarder.update(service, wanted_listeners(table, service))

        return changed

    async with Api(pki) as api, asyncio.TaskGroup() as tasks:
        services = Reflector(api, "/api/v1/services", apply(table.set_service))
        slices = Reflector(api, "/apis/discovery.k8s.io/v1/endpointslices", apply(table.set_slice))
        for reflector in (services, slices):
            tasks.create_task(reflector.run())
        # Answer only once the table is whole: "no such name" from an empty one would be believed.
        await services.synced.wait()
        await slices.synced.wait()
        dns = DnsServer(table)
        await dns.start(net.DNS_IP)
        logging.info("serving %d Services", len(table.services))


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcluster.netd")
    parser.add_argument("--pki", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(options.pki))


if __name__ == "__main__":
    main()
