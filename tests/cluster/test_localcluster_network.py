"""Names and Service addresses inside a local cluster: what pods use to find and reach each other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import dnslib  # type: ignore[import-untyped]
import pytest

from localcluster import network as net
from localcluster.namespace import INSIDE

pytestmark = pytest.mark.skipif(
    INSIDE not in os.environ, reason="tests of the local cluster itself; another cluster is in use"
)

#: How soon a change of endpoints must be in effect, controllers and a busy machine included.
SOON_S = 20.0


def kubectl(*arguments: str, body: Any = None) -> str:
    done = subprocess.run(
        ["kubectl", *arguments],
        input=json.dumps(body) if body is not None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace, and a node of the same name that no kubelet looks after: the pods on it are the test's own."""
    name = f"net-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": True}}
    kubectl("create", "-f", "-", body=node)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
    kubectl("delete", "pods", "--all", "-n", name, "--grace-period=0", "--force")
    kubectl("delete", "node", name)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


async def lookup(name: str, kind: str = "A", *, tcp: bool = False) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)
    return dnslib.DNSRecord.parse(await asyncio.to_thread(query.send, net.DNS_IP, 53, tcp=tcp, timeout=5))


async def addresses(name: str) -> set[str]:
    return {str(record.rdata) for record in (await lookup(name)).rr}


async def absent(name: str) -> bool:
    return bool((await lookup(name)).header.rcode == dnslib.RCODE.NXDOMAIN)


def make_service(namespace: str, name: str, **spec: Any) -> None:
    spec = {"selector": {"app": name}, "ports": [{"name": "tcp", "port": 80, "targetPort": 8000}]} | spec
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    kubectl("apply", "-f", "-", body=body)


def make_pod(namespace: str, name: str, address: str, *, app: str, ready: bool, subdomain: str = "") -> None:
    """A pod on the namespace's own node, so that its address and readiness are the test's to say."""
    container = {"name": "c", "image": "none", "ports": [{"containerPort": 8000}]}
    spec = {"nodeName": namespace, "hostname": name, "subdomain": subdomain, "containers": [container]}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": app}}
    kubectl("apply", "-f", "-", body={"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    set_status(namespace, name, address, ready=ready)


def set_status(namespace: str, name: str, address: str, *, ready: bool) -> None:
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    kubectl(
        *("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge"),
        *("-p", json.dumps({"status": status})),
    )


def cluster_ip(namespace: str, name: str) -> str:
    return kubectl("get", "service", name, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(address: str, handler: Handler) -> AsyncIterator[None]:
    server = await asyncio.start_server(handler, address, 8000)
    try:
        yield
    finally:
        server.close()


def naming(name: str) -> Handler:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode())
        writer.close()
        await writer.wait_closed()

    return answer


async def ask(address: str) -> str:
    """What the pod behind the ClusterIP says; raises ConnectionRefusedError if there is none."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(address, 80)
        answer = await reader.read()
        writer.close()
        return answer.decode()


async def refused(address: str) -> bool:
    """Whether nothing takes a new connection. It is closed again unasked: not every server here speaks first."""
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(address, 80)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    writer.close()
    return False


async def test_in_cluster_clients_reach_the_api_server_by_name() -> None:
    """The operator itself finds the API server this way, and verifies its certificate."""
    ca = Path(os.environ["KUBECONFIG"]).parent / "pki" / "ca.crt"
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            "https://kubernetes.default.svc/version", ssl=ssl.create_default_context(cafile=str(ca))
        ) as answer,
    ):
        assert answer.status == 200
        assert (await answer.json())["gitVersion"].startswith("v1.36.3")
    found = socket.getaddrinfo("kubernetes.default", 443, socket.AF_INET, socket.SOCK_STREAM)
    assert {entry[4][0] for entry in found} == {net.KUBERNETES_IP}


async def test_names_that_do_not_exist_are_said_not_to_exist() -> None:
    """A resolver that is not told so waits for its timeout."""
    for tcp in (False, True):
        reply = await lookup("nothing.default.svc.cluster.local", tcp=tcp)
        assert reply.header.rcode == dnslib.RCODE.NXDOMAIN
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("example.org", 443)


async def test_a_group_finds_its_leader_before_it_is_ready(namespace: str) -> None:
    """Workers join the leader by name before any of them can be ready."""
    make_service(namespace, "group", clusterIP="None", publishNotReadyAddresses=True)
    make_pod(namespace, "group-0", "10.244.201.1", app="group", ready=False, subdomain="group")
    name = f"group-0.group.{namespace}.svc.cluster.local"

    async def found() -> bool:
        return await addresses(name) == {"10.244.201.1"}

    await eventually(found, f"{name} resolves")
    reply = await lookup(name, "AAAA")
    assert (reply.header.rcode, len(reply.rr)) == (dnslib.RCODE.NOERROR, 0)
    assert await addresses(f"group.{namespace}.svc.cluster.local") == {"10.244.201.1"}
    kubectl("delete", "pod", "group-0", "-n", namespace, "--grace-period=0", "--force")

    await eventually(lambda: absent(name), f"{name} is gone with its pod")


async def test_a_headless_service_hides_pods_that_are_not_ready(namespace: str) -> None:
    make_service(namespace, "web", clusterIP="None")
    make_pod(namespace, "web-0", "10.244.202.1", app="web", ready=True)
    make_pod(namespace, "web-1", "10.244.202.2", app="web", ready=False)
    name = f"web.{namespace}.svc.cluster.local"

    async def one() -> bool:
        return await addresses(name) == {"10.244.202.1"}

    async def both() -> bool:
        return await addresses(name) == {"10.244.202.1", "10.244.202.2"}

    await eventually(one, "the ready pod alone is named")
    set_status(namespace, "web-1", "10.244.202.2", ready=True)
    await eventually(both, "the other pod is named once it is ready", SOON_S)


async def test_a_cluster_ip_leads_to_ready_pods_only(namespace: str) -> None:
    """Users' requests arrive here: a pod that was taken out must get none, and one that came back must."""
    make_service(namespace, "web")
    address = cluster_ip(namespace, "web")
    assert await addresses(f"web.{namespace}.svc.cluster.local") == {address}
    assert await refused(address), "a Service without endpoints must refuse connections"
    async with listening("10.244.203.1", naming("a")), listening("10.244.203.2", naming("b")):
        make_pod(namespace, "web-a", "10.244.203.1", app="web", ready=True)
        make_pod(namespace, "web-b", "10.244.203.2", app="web", ready=False)

        async def served() -> bool:
            return not await refused(address)

        await eventually(served, "the Service serves once a pod is ready")
        assert {await ask(address) for _ in range(20)} == {"a"}
        set_status(namespace, "web-b", "10.244.203.2", ready=True)

        async def second() -> bool:
            return await ask(address) == "b"

        await eventually(second, "the second pod gets connections", SOON_S)
        answers = [await ask(address) for _ in range(200)]
        assert 50 < answers.count("a") < 150, answers.count("a")
        set_status(namespace, "web-a", "10.244.203.1", ready=False)

        async def only_second() -> bool:
            return {await ask(address) for _ in range(20)} == {"b"}

        await eventually(only_second, "the first pod gets no more connections", SOON_S)
        set_status(namespace, "web-b", "10.244.203.2", ready=False)
        await eventually(lambda: refused(address), "without ready pods, connections are refused", SOON_S)
    kubectl("delete", "service", "web", "-n", namespace)

    name = f"web.{namespace}.svc.cluster.local"
    await eventually(lambda: absent(name), "a deleted Service has no name", SOON_S)


async def test_changes_of_endpoints_take_effect_at_once(namespace: str) -> None:
    """Half a group must be out of traffic at once: what comes on top of the controllers' time has to be small. A
    hundredth of a second on an idle machine; the limit is for one that is not."""
    make_service(namespace, "manual", selector=None)
    address = cluster_ip(namespace, "manual")
    delays = []
    async with listening("10.244.204.1", naming("x")):
        for ready in (True, False) * 4:
            body = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "manual-1",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": "manual"},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.244.204.1"], "conditions": {"ready": ready}}],
                "ports": [{"name": "tcp", "port": 8000, "protocol": "TCP"}],
            }
            await asyncio.to_thread(kubectl, "apply", "-f", "-", body=body)
            started = time.monotonic()

            async def in_effect(wanted: bool = ready) -> bool:
                return await refused(address) != wanted

            await eventually(in_effect, f"ready={ready} is in effect", SOON_S)
            delays.append(time.monotonic() - started)
    # The median, as other work on the machine may hold up any single one.
    assert sorted(delays)[len(delays) // 2] < 1.0, delays


@contextlib.asynccontextmanager
async def served_by(namespace: str, address: str, handler: Handler) -> AsyncIterator[str]:
    """A Service in front of one ready pod, and its ClusterIP."""
    make_service(namespace, "one")
    async with listening(address, handler):
        make_pod(namespace, "one-0", address, app="one", ready=True)
        ip = cluster_ip(namespace, "one")

        async def open_port() -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(ip, 80)
                writer.close()
                return True
            return False

        await eventually(open_port, "the Service has a listener")
        yield ip


async def test_large_bodies_and_half_closed_connections_pass_whole(namespace: str) -> None:
    """A client may end its request and still wait for the answer; nothing of either may get lost."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(await reader.read())
        writer.write(str(size).encode())
        writer.close()

    async with served_by(namespace, "10.244.205.1", count) as ip:
        reader, writer = await asyncio.open_connection(ip, 80)
        writer.write(b"x" * 20_000_000)
        writer.write_eof()
        async with asyncio.timeout(30):
            assert await reader.read() == b"20000000"
        writer.close()


async def test_a_pod_that_dies_resets_its_clients(namespace: str) -> None:
    """An orderly end instead of a reset would make half an answer look like a whole one."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"half an ans")
        await writer.drain()
        # What the kernel does for a process that is killed with requests unread.
        lingering = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        writer.transport.abort()

    async with served_by(namespace, "10.244.206.1", die) as ip:
        reader, writer = await asyncio.open_connection(ip, 80)
        writer.write(b"?")
        # To the end: an orderly one would be returned instead of raised.
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()


async def test_connections_live_on_when_their_pod_leaves_the_service(namespace: str) -> None:
    """Draining depends on it: traffic goes elsewhere, but answers that are under way get finished."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async with served_by(namespace, "10.244.207.1", echo) as ip:
        reader, writer = await asyncio.open_connection(ip, 80)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        set_status(namespace, "one-0", "10.244.207.1", ready=False)
        await eventually(lambda: refused(ip), "new connections are refused", SOON_S)
        writer.write(b"after")
        async with asyncio.timeout(10):
            assert await reader.readexactly(5) == b"after"
        writer.close()
