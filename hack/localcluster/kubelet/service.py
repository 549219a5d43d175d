"""The whole kubelet: all nodes of one cluster in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from localcluster.kubelet import etcfiles, images, metrics, nodespec, processes, quantity, server
from localcluster.kubelet.apiclient import ApiClient, ApiError
from localcluster.kubelet.authz import Authorizer
from localcluster.kubelet.container import Container
from localcluster.kubelet.control import Control
from localcluster.kubelet.events import EventRecorder
from localcluster.kubelet.images import ImageTable
from localcluster.kubelet.launch import Machine
from localcluster.kubelet.node import NodeAgent
from localcluster.kubelet.nodespec import NodeNetwork, NodeSpec
from localcluster.kubelet.objects import ObjectCache, ServiceTable
from localcluster.kubelet.oom import KernelKills
from localcluster.kubelet.pod import Surroundings
from localcluster.kubelet.podvolumes import remove_tree
from localcluster.kubelet.provisioner import Provisioner
from localcluster.kubelet.spawner import Spawner
from localcluster.layout import cache_root, repository_root

#: Seconds between looks at containers with a memory limit: when all are far from it, and when one is not.
_MEMORY_CALM, _MEMORY_CLOSE = 2.0, 0.5
_UNKNOWN_VERSION = "v0.0.0-local"


class KubeletError(Exception):
    """The kubelet cannot run; the text says what to do."""


@dataclass(frozen=True)
class Options:
    """Where everything is; see ``--help``. ``crash_backoff``: first and longest delay in seconds."""

    kubeconfig: Path
    nodes: Path
    images: Path
    root: Path
    ca_cert: Path
    serving_cert: Path
    serving_key: Path
    dns: str
    pod_cidr: str
    cluster_domain: str = "cluster.local"
    crash_backoff: tuple[float, float] = (10.0, 300.0)
    storage: bool = True


class LiveImages:
    """The image table, read again whenever its file changes; a broken file keeps the last good table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = path.stat().st_mtime_ns
        self._table = images.load(path)

    def __call__(self) -> ImageTable:
        with contextlib.suppress(OSError):
            stamp = self._path.stat().st_mtime_ns
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._table = images.load(self._path)
                except images.ImageTableError as error:
                    print(f"image table not taken over: {error}", flush=True)
        return self._table


class Kubelet:
    """``run`` returns on SIGTERM or SIGINT, or raises KubeletError when its launcher is lost."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._nodes: dict[str, NodeAgent] = {}

    async def run(self) -> None:
        """Serve until told to stop."""
        options = self._options
        specs = nodespec.load(options.nodes)
        table = LiveImages(options.images)
        root = options.root.absolute()
        pods = root / "pods"
        for directory in (root, pods, root / "point"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "ready").unlink(missing_ok=True)
        await _forget_processes(pods)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        spawner = Spawner()
        spawner.start_launcher()
        client = ApiClient.from_kubeconfig(options.kubeconfig)
        servers: list[server.NodeServer] = []
        control = Control(self._nodes)
        tasks: list[asyncio.Task[None]] = []
        try:
            probe = await spawner.request("probe", directory=str(_fresh(root / "probe")))
            kernel_kills = KernelKills()
            programs = (str(repository_root()), str(cache_root()), sys.prefix)
            machine = Machine(spawner, kernel_kills, probe["layering"], root / "point", root, programs)
            print(f"containers' file systems: {machine.layering}", flush=True)
            objects, services = ObjectCache(client), ServiceTable(client)
            dns = etcfiles.DnsSettings(options.dns, options.cluster_domain, _machine_resolv_conf())

            def surroundings(
                node_client: ApiClient, recorder: EventRecorder, spec: NodeSpec, network: NodeNetwork
            ) -> Surroundings:
                return Surroundings(
                    client=node_client,
                    machine=machine,
                    objects=objects,
                    services=services,
                    events=recorder,
                    images=table,
                    dns=dns,
                    host_ip=network.host_ip,
                    allocatable=spec.allocatable,
                    crash_backoff=options.crash_backoff,
                )

            version = await _server_version(client)
            tls = server.tls_context(options.serving_cert, options.serving_key, options.ca_cert)
            authorizer = Authorizer(client)
            for index, spec in enumerate(specs):
                network = NodeNetwork.of(options.pod_cidr, index)
                agent = NodeAgent(spec, network, client, version, pods, surroundings)
                self._nodes[spec.name] = agent
                servers.append(server.NodeServer(agent, authorizer, tls))
            for each in servers:
                await each.start()
            tasks.append(asyncio.create_task(services.run()))
            tasks.append(asyncio.create_task(self._watch_memory(kernel_kills)))
            if options.storage:
                tasks.append(asyncio.create_task(Provisioner(client, root / "volumes").run()))
            for agent in self._nodes.values():
                agent.start()
            await control.start(root / "control.sock")
            tasks.append(asyncio.create_task(self._announce(root / "ready", pods)))
            await self._until(stop, spawner)
        finally:
            (root / "ready").unlink(missing_ok=True)
            await control.stop()
            for agent in self._nodes.values():
                await agent.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in servers:
                await each.stop()
            await client.close()
            spawner.close()

    @staticmethod
    async def _until(stop: asyncio.Event, spawner: Spawner) -> None:
        stopped, lost = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(spawner.lost.wait())
        try:
            await asyncio.wait({stopped, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            lost.cancel()
        if spawner.lost.is_set():
            raise KubeletError(
                "the launcher process ended, and all containers with it: start the kubelet again"
            )

    async def _announce(self, ready: Path, pods: Path) -> None:
        for agent in self._nodes.values():
            await agent.registered.wait()
            await agent.listed.wait()
        known = {uid for agent in self._nodes.values() for uid in agent.workers}
        for left in await asyncio.to_thread(lambda: [*pods.iterdir()]):
            if left.name not in known:
                await remove_tree(left)  # of pods that went while no kubelet ran
        await asyncio.to_thread(ready.write_text, "\n".join(self._nodes) + "\n")
        print(f"ready: {len(self._nodes)} nodes registered", flush=True)

    async def _watch_memory(self, kernel_kills: KernelKills) -> None:
        """Ends containers that hold more memory than their limit, as the kernel does on a node."""
        pause = _MEMORY_CALM
        while True:
            await asyncio.sleep(pause)
            kernel_kills.sample()
            limited = self._limited()
            if not limited:
                pause = _MEMORY_CALM
                continue
            snapshot = await asyncio.to_thread(processes.Snapshot)
            shares = [0.0]
            for container, limit in limited:
                if container.process is None:
                    continue
                share = await asyncio.to_thread(metrics.memory_share, container.process.pid, limit, snapshot)
                shares.append(share)
                if share > 1:
                    container.oom_killed = True
                    await container.kill()
            # Most containers never come near their limit: look closely only at those that do.
            pause = _MEMORY_CLOSE if max(shares) > 0.5 else _MEMORY_CALM

    def _limited(self) -> list[tuple[Container, int]]:
        found: list[tuple[Container, int]] = []
        for agent in self._nodes.values():
            for worker in agent.workers.values():
                for container in worker.containers.values():
                    limit = ((container.record.spec.get("resources") or {}).get("limits") or {}).get("memory")
                    if limit and container.process is not None:
                        found.append((container, quantity.whole(limit)))
        return found


def _fresh(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _machine_resolv_conf() -> str:
    try:
        return Path("/etc/resolv.conf").read_text()
    except OSError:
        return ""


async def _server_version(client: ApiClient) -> str:
    """The control plane's version, which a node must not exceed."""
    try:
        version: str = (await client.get("/version"))["gitVersion"]
    except (ApiError, KeyError):
        return _UNKNOWN_VERSION
    return version


async def _forget_processes(pods: Path) -> None:
    """Containers of an earlier kubelet died with it: drop their layers. Volumes and logs are kept for their pods."""
    for left in await asyncio.to_thread(lambda: [*pods.glob("*/containers")]):
        await remove_tree(left)
