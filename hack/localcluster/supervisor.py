"""Start a cluster's components in order, keep them running, stop them. Runs as the only child of process 1.

``python -m localcluster.supervisor ROOT LOCK_FD PROGRESS_FD LIFELINE_FD``: the lock is only held, never used;
progress goes to whoever waits for the cluster, as lines ``progress TEXT``, ``failed TEXT`` or ``ready``; the
end of the lifeline (-1: none) means that the command the cluster was made for is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from localcluster import flags, health, kubeconfig, lws, pki
from localcluster import network as net
from localcluster.api import Api, ApiError, Object
from localcluster.component import Component, ComponentError, Healthy
from localcluster.config import ClusterConfig, read_name
from localcluster.layout import ClusterDirs, hack_root
from localcluster.namespace import inner_environment

_log = logging.getLogger(__name__)
#: Generous: a first start shares its cores with whatever built or installed a moment ago.
_START_S = 120.0
_KUBELET_STOP_S = 10.0
_STATUS_EVERY_S = 1.0


class Supervisor:
    """One cluster. ``progress`` takes one line at a time."""

    def __init__(self, dirs: ClusterDirs, config: ClusterConfig, progress: Callable[[str], None]) -> None:
        self._dirs = dirs
        self._config = config
        self._progress = progress
        self._components: dict[str, Component] = {}
        self._environment = inner_environment(dirs, os.environ) | {"PYTHONPATH": str(hack_root())}

    async def up(self) -> None:
        """Bring everything up. Raises ComponentError."""
        started = time.monotonic()
        pki.write_all(self._dirs.pki)
        self._write_files()
        async with asyncio.TaskGroup() as group:
            # The API server waits for etcd by itself.
            group.create_task(self._start("etcd", flags.etcd(self._dirs), health.etcd))
            group.create_task(self._start_api_server())
        self._tell("API server", started)
        async with Api(self._dirs.pki) as api, asyncio.TaskGroup() as group:
            group.create_task(self._start_controllers(api))
            group.create_task(self._start_network(api))
            if self._config.lws:
                group.create_task(self._start_lws(api))
            if self._config.nodes:
                group.create_task(self._start_kubelet())
        self._tell("cluster", started)

    def _tell(self, what: str, started: float) -> None:
        self._progress(f"progress {what} ready after {time.monotonic() - started:.1f} s")

    def _write_files(self) -> None:
        for client in ("controller-manager", "scheduler"):
            destination = self._dirs.pki / f"{client}.kubeconfig"
            kubeconfig.write_for(self._dirs.pki, client, destination, name=client)
        kubeconfig.write_for(self._dirs.pki, "admin", self._dirs.kubeconfig, name=self._dirs.name)
        certificates = self._dirs.pki / "lws"
        certificates.mkdir()
        for suffix in ("crt", "key"):
            shutil.copy(self._dirs.pki / f"lws.{suffix}", certificates / f"tls.{suffix}")
        (self._dirs.root / "lws.yaml").write_text(lws.manager_configuration(certificates))

    async def _start(
        self, name: str, arguments: list[str], healthy: Healthy, program: list[str] | None = None
    ) -> None:
        argv = program or [str(self._dirs.bin / name)]
        arguments = flags.merge(arguments, self._config.extra_flags.get(name, []))
        component = Component(name, argv + arguments, self._dirs.logs / f"{name}.log", self._environment)
        self._components[name] = component
        await component.start(healthy, _START_S)

    async def _start_api_server(self) -> None:
        async with Api(self._dirs.pki) as api:
            await self._start("kube-apiserver", flags.kube_apiserver(self._dirs), lambda: api.ok("/readyz"))

    async def _start_controllers(self, api: Api) -> None:
        manager, scheduler = flags.kube_controller_manager(self._dirs), flags.kube_scheduler(self._dirs)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._start("kube-controller-manager", manager, health.https(net.CONTROLLER_MANAGER_PORT))
            )
            group.create_task(self._start("kube-scheduler", scheduler, health.https(net.SCHEDULER_PORT)))
        # Pods of a namespace are refused until the controller manager has made its ServiceAccount.
        await _until(
            lambda: api.ok("/api/v1/namespaces/default/serviceaccounts/default"), "ServiceAccount default"
        )

    async def _start_network(self, api: Api) -> None:
        await api.apply("/api/v1/namespaces/kube-system/services/kube-dns", dns_service())
        program = [sys.executable, "-m", "localcluster.netd"]
        await self._start("netd", flags.netd(self._dirs), health.network, program)

    async def _start_lws(self, api: Api) -> None:
        manifests = Path(self._config.lws_manifests)
        crds = await asyncio.to_thread(lws.crds, manifests)
        for crd in crds:
            # Not applied: for objects of this size that costs the API server seconds.
            await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        for crd in crds:
            name, group = crd["spec"]["names"]["plural"], crd["spec"]["group"]
            version = crd["spec"]["versions"][0]["name"]
            await _until(partial(api.ok, f"/apis/{group}/{version}/{name}"), f"CRD {name}")
        await self._start("lws-manager", flags.lws_manager(self._dirs), health.lws)
        for webhook in lws.webhooks(manifests, (self._dirs.pki / "ca.crt").read_bytes()):
            plural = webhook["kind"].lower() + "s"
            path = f"/apis/admissionregistration.k8s.io/v1/{plural}/{webhook['metadata']['name']}"
            await api.apply(path, webhook)

    async def _start_kubelet(self) -> None:
        self._dirs.kubelet.mkdir(exist_ok=True)
        ready = self._dirs.kubelet / "ready"

        async def healthy() -> bool:
            return ready.exists()

        program = [sys.executable, "-m", "localcluster.kubelet"]
        await self._start("kubelet", flags.kubelet(self._dirs), healthy, program)

    async def write_status(self) -> None:
        """Keep ``components.json`` (name -> pid inside, restarts) current for ``status``. Never returns."""
        destination = self._dirs.root / "components.json"
        while True:
            table = {
                "first process": {"pid": 1, "restarts": 0},
                "supervisor": {"pid": os.getpid(), "restarts": 0},
            }
            table |= {
                name: {"pid": each.process.pid, "restarts": each.restarts}
                for name, each in self._components.items()
                if each.process is not None
            }
            draft = destination.with_suffix(".partial")
            draft.write_text(json.dumps(table))
            draft.rename(destination)
            await asyncio.sleep(_STATUS_EVERY_S)

    async def stop(self) -> None:
        """The kubelet is asked, so that containers get their SIGTERM. The rest is killed: its data goes with
        it, and an API server takes a minute to see its watchers off.
        """
        kubelet = self._components.pop("kubelet", None)
        if kubelet is not None:
            await kubelet.stop(_KUBELET_STOP_S)
        await asyncio.gather(*(each.kill() for each in self._components.values()))


def dns_service() -> Object:
    """The Service that reserves the DNS address; the address itself is served by netd."""
    ports = [{"name": f"dns-{name}", "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": net.DNS_IP, "ports": ports},
    }


async def _until(condition: Healthy, what: str) -> None:
    deadline = time.monotonic() + _START_S
    while not await condition():
        if time.monotonic() >= deadline:
            raise ComponentError(f"{what} did not appear within {_START_S:.0f} s; see the controllers' logs")
        await asyncio.sleep(0.05)


def _first_failure(error: BaseException) -> str:
    """The message of the failure that matters, out of the group that concurrent starts raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, ComponentError | ApiError) else f"{type(error).__name__}: {error}"


def _stop_requests(lifeline: int) -> asyncio.Event:
    """Set on SIGTERM, SIGINT, and when the lifeline ends."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)

    def cut() -> None:
        loop.remove_reader(lifeline)
        stop.set()

    if lifeline >= 0:
        loop.add_reader(lifeline, cut)
    return stop


async def supervise(dirs: ClusterDirs, progress: int, lifeline: int) -> int:
    """Run the cluster until it is told to stop. Returns the exit status."""

    def tell(line: str) -> None:
        _log.info(line)
        try:
            os.write(progress, (line + "\n").encode())
        except BrokenPipeError:
            _log.info("nobody listens for progress any more")

    config = ClusterConfig.read(dirs)
    supervisor = Supervisor(dirs, config, tell)
    stop = _stop_requests(lifeline)
    stopping = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(supervisor.up())
    status = 0
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        starting.cancel()
        tell("failed stopped while starting")
    elif error := starting.exception():
        _log.error("start failed", exc_info=error)
        tell("failed " + _first_failure(error).replace("\n", "\t"))
        status = 1
    else:
        dirs.ready.touch()
        tell("ready")
        os.close(progress)
        reporting = asyncio.create_task(supervisor.write_status())
        await stopping
        reporting.cancel()
    _log.info("stopping")
    await supervisor.stop()
    if config.ephemeral and lifeline >= 0 and status == 0 and _abandoned(lifeline):
        shutil.rmtree(dirs.root, ignore_errors=True)
    return status


def _abandoned(lifeline: int) -> bool:
    """Whether the other end of the lifeline is gone, so that nobody else will tidy up."""
    os.set_blocking(lifeline, False)
    try:
        return os.read(lifeline, 1) == b""
    except BlockingIOError:
        return False


def main() -> None:
    dirs = read_name(Path(sys.argv[1]))
    _lock, progress, lifeline = map(int, sys.argv[2:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(asyncio.run(supervise(dirs, progress, lifeline)))


if __name__ == "__main__":
    main()
