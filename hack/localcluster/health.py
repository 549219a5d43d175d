"""Whether a component does its work, asked the way its users would ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import dnslib  # type: ignore[import-untyped]

from localcluster import network as net

_TIMEOUT = aiohttp.ClientTimeout(total=2)


async def _ok(url: str) -> bool:
    """Certificates are not checked: components that make their own have nobody to vouch for them."""
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(url, ssl=False) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def etcd() -> bool:
    return await _ok(f"http://{net.LOOPBACK}:{net.ETCD_PORT}/health")


def https(port: int) -> Callable[[], Awaitable[bool]]:
    """``/healthz`` of a component on this machine."""
    return lambda: _ok(f"https://{net.LOOPBACK}:{port}/healthz")


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def lws() -> bool:
    """Ready, and its webhooks can be reached."""
    ready = await _ok(f"http://{net.LOOPBACK}:{net.LWS_HEALTH_PORT}/readyz")
    return ready and await _accepts(net.LOOPBACK, net.LWS_WEBHOOK_PORT)


async def network() -> bool:
    """DNS knows the API server's Service, and its ClusterIP leads to the API server."""
    query = dnslib.DNSRecord.question(f"kubernetes.default.svc.{net.DOMAIN}")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if not answer.done():
                answer.set_result(data)

        def error_received(self, exc: Exception) -> None:
            if not answer.done():
                answer.set_exception(exc)

    transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(net.DNS_IP, 53))
    try:
        transport.sendto(query.pack())
        async with asyncio.timeout(1):
            reply = dnslib.DNSRecord.parse(await answer)
    except (OSError, TimeoutError):
        return False
    finally:
        transport.close()
    return [str(each.rdata) for each in reply.rr] == [net.KUBERNETES_IP] and await _accepts(
        net.KUBERNETES_IP, 443
    )
