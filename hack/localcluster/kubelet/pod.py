"""One pod on one node: a loop that compares what the pod asks for with what runs, and acts on the difference."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from localcluster.kubelet import environment, etcfiles, podstatus, records, steps
from localcluster.kubelet.apiclient import ApiClient, ApiError, Obj
from localcluster.kubelet.backoff import INITIAL
from localcluster.kubelet.container import Container
from localcluster.kubelet.environment import PodFacts
from localcluster.kubelet.events import EventRecorder
from localcluster.kubelet.grace import Grace
from localcluster.kubelet.images import Image, ImageTable
from localcluster.kubelet.launch import Machine
from localcluster.kubelet.objects import Key, ObjectCache, ServiceTable
from localcluster.kubelet.payload import NotReadyError
from localcluster.kubelet.podvolumes import PodVolumes, remove_tree
from localcluster.kubelet.prepare import prepare_launch
from localcluster.kubelet.pull import pull
from localcluster.kubelet.records import Waiting
from localcluster.kubelet.spawner import LaunchError
from localcluster.kubelet.statuswriter import StatusWriter

#: Seconds until a volume or an API call that failed is tried again.
_RETRY = 2.0
_DEFAULT_GRACE = 30.0


@dataclass(frozen=True)
class Surroundings:
    """What a pod finds on its node. ``images`` gives the present table; ``allocatable`` is the node's."""

    client: ApiClient
    machine: Machine
    objects: ObjectCache
    services: ServiceTable
    events: EventRecorder
    images: Callable[[], ImageTable]
    dns: etcfiles.DnsSettings
    host_ip: str
    allocatable: dict[str, str]
    crash_backoff: tuple[float, float]


class PodWorker:
    """Runs until the pod is gone from the API and from the machine. ``run`` is its task."""

    def __init__(self, surroundings: Surroundings, pod: Obj, pod_ip: str, directory: Path) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.pod_ip = pod_ip
        self.directory = directory
        self._around = surroundings
        self.writer = StatusWriter(surroundings.client, pod)
        self._wake = asyncio.Event()
        self._volumes = PodVolumes(surroundings.client, directory / "pod")
        self._sandbox = False
        self._volumes_due = True
        self._initialized = False
        self._over = False
        self._removed = False
        self._frozen = False
        self._failed: tuple[str, str] | None = None
        self._grace: Grace | None = None
        self._ending: asyncio.Task[None] | None = None
        status = pod.get("status") or {}
        self._start_time: str = status.get("startTime") or records.timestamp(datetime.now(UTC))
        known = {
            entry["name"]: entry
            for key in ("initContainerStatuses", "containerStatuses")
            for entry in status.get(key) or []
        }
        seconds = pod["spec"].get("terminationGracePeriodSeconds")
        self._grace_seconds = _DEFAULT_GRACE if seconds is None else float(seconds)
        self.containers: dict[str, Container] = {}
        for record in records.records_of(pod):
            if record.name in known:
                records.adopt(record, known[record.name])
                if record.kind == "init" and not self._settled(status):
                    record.last, record.state = (
                        None,
                        Waiting("PodInitializing"),
                    )  # a new sandbox runs them again
            event = self._event_of(record.name)
            container = Container(record, surroundings.machine, self.uid, directory, self.wake, event)
            container.grace_seconds = self._grace_seconds
            container.backoff.initial, container.backoff.maximum = surroundings.crash_backoff
            self.containers[record.name] = container
        if self._settled(status):
            self._over = True

    @staticmethod
    def _settled(status: Obj) -> bool:
        return status.get("phase") in ("Succeeded", "Failed")

    @property
    def _records(self) -> list[records.Record]:
        return [container.record for container in self.containers.values()]

    def _event_of(self, container: str) -> Callable[[str, str, str], None]:
        kind = (
            "initContainers"
            if any(entry["name"] == container for entry in self.pod["spec"].get("initContainers") or [])
            else "containers"
        )

        def event(severity: str, reason: str, message: str) -> None:
            self._around.events.pod(self.pod, severity, reason, message, f"spec.{kind}{{{container}}}")

        return event

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    def update(self, pod: Obj) -> None:
        """The pod as a watch shows it."""
        old = self.pod["metadata"]
        self.pod = pod
        new = pod["metadata"]
        if (old.get("labels"), old.get("annotations")) != (new.get("labels"), new.get("annotations")):
            self._volumes_due = True
        self.writer.observe(pod)
        self.wake()

    def removed(self, pod: Obj | None) -> None:
        """The pod is gone from the API: end it, within what grace its deletion left (at least a second)."""
        if pod is not None:
            self.pod = pod
        self._removed = True
        self.wake()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Returns when nothing of the pod is left."""
        writer = asyncio.create_task(self.writer.run())
        try:
            self._hold()
            while True:
                self._wake.clear()
                try:
                    done, pause = await self._sync()
                except ApiError as error:
                    done, pause = False, _RETRY
                    self._problem("FailedSync", str(error))
                except Exception as error:  # one pod's trouble must not end the node
                    traceback.print_exc()
                    done, pause = False, _RETRY
                    self._problem("FailedSync", f"{type(error).__name__}: {error}")
                if done:
                    return
                self._publish()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            writer.cancel()
            self._around.objects.drop(self.uid)
            self._around.events.forget(self.uid)

    def _problem(self, reason: str, message: str) -> None:
        self._around.events.pod(self.pod, "Warning", reason, message)

    def _keys(self) -> set[Key]:
        namespace = self.pod["metadata"]["namespace"]
        return {(kind, namespace, name) for kind, name in environment.references(self.pod)}

    def _hold(self) -> None:
        def changed() -> None:
            self._volumes_due = True
            self.wake()

        self._around.objects.hold(self.uid, self._keys(), changed)

    def _lookup(self, kind: str, name: str) -> Obj | None:
        return self._around.objects.get(kind, self.pod["metadata"]["namespace"], name)

    @property
    def facts(self) -> PodFacts:
        return PodFacts(self.pod_ip, self._around.host_ip, self._around.allocatable)

    def _publish(self) -> None:
        sandbox = podstatus.Sandbox(
            ready=self._sandbox,
            pod_ip=self.pod_ip if self._sandbox or self._over else "",
            host_ip=self._around.host_ip,
            start_time=self._start_time,
            failed=self._failed,
        )
        self.writer.want(
            podstatus.status(
                self.pod,
                self._records,
                sandbox,
                self.writer.conditions,
                records.timestamp(datetime.now(UTC)),
                terminal=self._over,
                been_initialized=self._initialized,
            )
        )

    async def _sync(self) -> tuple[bool, float | None]:
        """Returns whether all is done, and after how many seconds to look again without being woken."""
        if self._frozen:
            return False, None
        metadata = self.pod["metadata"]
        if self._removed or metadata.get("deletionTimestamp"):
            seconds = float(metadata.get("deletionGracePeriodSeconds") or 0)
            self._begin_end(max(seconds, 1.0) if self._removed else seconds)
        if self._ending is not None:
            if not self._ending.done():
                return False, None
            await self._ending
            if self._removed or metadata.get("deletionTimestamp"):
                return await self._finish(), _RETRY
            return False, None
        if self._over:
            return False, None
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        pause: float | None = None
        if deadline is not None:
            started = records.parse_time(self._start_time)
            pause = float(deadline) - (time.time() - (started.timestamp() if started else 0.0))
            if pause <= 0:
                message = f"Pod was active on the node longer than the specified deadline of {deadline} s"
                self._failed = ("DeadlineExceeded", message)
                self._begin_end(self._grace_seconds)
                return False, None
        if not await self._ready_to_start():
            return False, _RETRY
        policy = self.pod["spec"].get("restartPolicy") or "Always"
        todo = steps.next_steps(policy, self._records, self._initialized)
        self._initialized = self._initialized or todo.initialized
        if todo.over:
            self._begin_end(self._grace_seconds)
            return False, None
        pauses = [await self._start(self.containers[name]) for name in todo.start]
        renewal = self._volumes.tokens.next_renewal
        if renewal is not None:
            pauses.append(max(0.0, renewal - time.time()))
        pauses.append(pause)
        return False, min((each for each in pauses if each is not None), default=None)

    # -- start ---------------------------------------------------------------------------------------------------

    async def _ready_to_start(self) -> bool:
        """The pod's namespaces, its /etc and its volumes, all as they must be now."""
        await self._around.objects.synced(self._keys())
        await self._around.services.synced.wait()
        if not self._sandbox:
            await self._make_sandbox()
        renewal = self._volumes.tokens.next_renewal
        if self._volumes_due or (renewal is not None and renewal <= time.time()):
            try:
                await self._volumes.fill(self.pod, self.facts, self._lookup)
            except (NotReadyError, ApiError, OSError) as error:
                self._problem("FailedMount", f"MountVolume.SetUp failed: {error}")
                return self._initialized  # what runs keeps its volumes as they were
            self._volumes_due = False
        return True

    async def _make_sandbox(self) -> None:
        memory = self._volumes.prepare(self.pod)
        etc = self.directory / "etc"
        etc.mkdir(parents=True, exist_ok=True)
        name = etcfiles.hostname(self.pod)
        (etc / "hosts").write_text(etcfiles.hosts(self.pod, self.pod_ip))
        (etc / "hostname").write_text(name + "\n")
        (etc / "resolv.conf").write_text(etcfiles.resolv_conf(self.pod, self._around.dns))
        try:
            await self._around.machine.spawner.request(
                "sandbox", sandbox=self.uid, hostname=name[:64], tmpfs=memory
            )
        except LaunchError as error:
            self._problem("FailedCreatePodSandBox", str(error))
            with contextlib.suppress(LaunchError):
                await self._around.machine.spawner.request("release", sandbox=self.uid)
            raise ApiError(0, "Sandbox", str(error)) from error
        self._sandbox = True
        for container in self.containers.values():
            if isinstance(container.record.state, Waiting) and container.record.kind == "main":
                reason = "PodInitializing" if self.pod["spec"].get("initContainers") else "ContainerCreating"
                container.waiting(reason)

    async def _start(self, container: Container) -> float | None:
        """Start one container, or say why not; returns seconds until it is worth another look."""
        record, now = container.record, asyncio.get_running_loop().time()
        if container.ended_at is not None and record.finished is not None:
            left = container.backoff.remaining(container.ended_at, now)
            if left > 0:
                metadata = self.pod["metadata"]
                where = f"{metadata['name']}_{metadata['namespace']}({self.uid})"
                text = f"back-off {container.backoff.delay:g}s restarting failed container={record.name} pod={where}"
                if not isinstance(record.state, Waiting):
                    event = self._event_of(record.name)
                    event("Warning", "BackOff", f"Back-off restarting failed container {record.name}")
                container.waiting("CrashLoopBackOff", text)
                return left
        image = pull(container, self._around.images(), self._event_of(record.name), now)
        if not isinstance(image, Image):
            return image
        try:
            launch = prepare_launch(
                self.pod, record.spec, image, self.facts, self._lookup, self._around.services, self._volumes
            )
        except environment.ConfigError as error:
            container.waiting("CreateContainerConfigError", str(error))
            self._event_of(record.name)("Warning", "Failed", f"Error: {error}")
            return INITIAL
        try:
            record.image_id = f"local://{image.match}"
            await container.start(launch)
        except LaunchError as error:
            container.waiting("CreateContainerError", str(error))
            self._event_of(record.name)("Warning", "Failed", f"Error: {error}")
            return INITIAL
        return None

    # -- end -----------------------------------------------------------------------------------------------------

    def _begin_end(self, seconds: float) -> None:
        if self._grace is None:
            self._grace = Grace(seconds)
            if any(container.process is not None for container in self.containers.values()):
                self._around.events.pod(self.pod, "Normal", "Killing", "Stopping the pod's containers")
        else:
            self._grace.shorten(seconds)
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(self._grace))
            self._ending.add_done_callback(lambda _: self.wake())

    async def _end(self, grace: Grace) -> None:
        """Stop all: main containers together, then sidecars from the last to the first."""
        for container in self.containers.values():
            container.leave_service()
        first = [each for each in self.containers.values() if each.record.kind != "sidecar"]
        await asyncio.gather(*(container.stop(grace) for container in first))
        for container in reversed(
            [each for each in self.containers.values() if each.record.kind == "sidecar"]
        ):
            await container.stop(grace)
        for container in self.containers.values():
            # Nothing waits any more: how it last ended is how it ends, and what never ran never will.
            record = container.record
            if isinstance(record.state, Waiting) and record.last is not None:
                record.state, record.last = record.last, None
                record.ready = record.started = False
        self._over = True
        if self._sandbox:
            with contextlib.suppress(LaunchError):
                await self._around.machine.spawner.request("release", sandbox=self.uid)
            self._sandbox = False
        for name in ("pod", "containers"):
            if (self.directory / name).exists():
                await remove_tree(self.directory / name)

    async def _finish(self) -> bool:
        """The last status, then the end of the object itself. Returns whether the object is gone."""
        self._publish()
        if not self._removed:
            await self.writer.flushed()
            metadata = self.pod["metadata"]
            try:
                await self._around.client.delete(
                    f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}",
                    {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}},
                )
            except ApiError as error:
                if error.status not in (404, 409):
                    return False
        await remove_tree(self.directory)
        return True

    def freeze(self, frozen: bool) -> None:
        """While frozen the pod is left as it is: its node plays dead."""
        self._frozen = frozen
        for container in self.containers.values():
            container.frozen = frozen
        self.wake()

    async def kill_now(self) -> None:
        """Every process of the pod ends at once, as with a power loss; what follows is the restart policy's."""
        for container in self.containers.values():
            await container.kill()
