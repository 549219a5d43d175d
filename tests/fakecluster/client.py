"""The operator's way to the in-memory API server: `KubeClient` with latency, faults and counting."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from fakecluster.api_server import ApiServer, Write
from fakecluster.faults import Call, CrashError, FaultPlan
from fakecluster.objects import copied, fields_match
from moe_operator.api import names
from moe_operator.controller.kube import (
    COMPUTE_DOMAIN,
    DEVICE_CLASS,
    LEADER_WORKER_SET,
    POD,
    ConflictError,
    Kind,
    KubeError,
    NotFoundError,
    Obj,
)

T = TypeVar("T")

#: Seconds that a request takes one way. Short against every period of the operator, long enough to interleave.
LATENCY = 0.004


assert f"{names.FIELD_MANAGER}-status" == names.STATUS_FIELD_MANAGER


class MemoryClient:
    """`KubeClient` on an ApiServer. Once `kill` is called, or a crash was due, no call is carried out any more."""

    def __init__(
        self,
        server: ApiServer,
        faults: FaultPlan | None = None,
        *,
        manager: str = names.FIELD_MANAGER,
        logs: Callable[[str, str, bool], str] = lambda namespace, pod, previous: "",
        on_crash: Callable[[CrashError], None] = lambda crash: None,
        uncounted: frozenset[Kind] = frozenset(),
    ) -> None:
        """`uncounted` kinds (Leases, Events) get no number in the fault plan."""
        self.server = server
        self.faults = faults or FaultPlan()
        self.manager = manager
        self.writes: list[Write] = []
        """Counted writes that were carried out."""
        self.reads = 0
        self.attempts = 0
        """Counted writes that were begun."""
        self.crash: CrashError | None = None
        self._logs = logs
        self._on_crash = on_crash
        self._uncounted = uncounted

    def kill(self, crash: CrashError | None = None) -> None:
        """The process is dead from now on."""
        if self.crash is None:
            self.crash = crash or CrashError("killed")
            self._on_crash(self.crash)

    async def _call(self, verb: str, kind: Kind, name: str, do: Callable[[], T], *, write: bool = False) -> T:
        if self.crash:
            raise self.crash
        await asyncio.sleep(LATENCY)
        if self.crash:
            raise self.crash
        counted = write and kind not in self._uncounted
        self.reads += not write
        if counted:
            self.attempts += 1
        call = Call(verb, kind, name, self.attempts if counted else 0)
        try:
            self.faults.before(call)
            if self.server.unreachable:
                raise KubeError(0, "NoAnswer", "the API server does not answer")
            mark = len(self.server.writes)
            answer = do()
            if counted:
                self.writes += [w for w in self.server.writes[mark:] if w.manager.startswith(self.manager)]
            self.faults.after(call)
        except CrashError as crash:
            self.kill(crash)
            raise
        await asyncio.sleep(LATENCY)
        if self.crash:
            raise self.crash
        return answer

    # --- KubeClient -------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        return await self._call("get", kind, name, lambda: copied(self.server.get(kind, namespace, name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        return await self._call(
            "list",
            kind,
            "",
            lambda: copied(
                [
                    one
                    for one in self.server.list(kind, namespace, label_selector)
                    if fields_match(field_selector, one)
                ]
            ),
        )

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        return await self._write("create", kind, obj, lambda: self.server.create(kind, obj, self.manager))

    async def apply(self, kind: Kind, obj: Obj) -> Obj:
        return await self._write("apply", kind, obj, lambda: self.server.apply(kind, obj, self.manager))

    async def apply_status(self, kind: Kind, obj: Obj) -> Obj:
        manager = f"{self.manager}-status"
        return await self._write(
            "apply_status", kind, obj, lambda: self.server.apply(kind, obj, manager, "status")
        )

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Obj) -> Obj:
        return await self._call(
            "patch",
            kind,
            name,
            lambda: self._copy(self.server.patch(kind, namespace, name, patch, self.manager)),
            write=True,
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        propagation: Literal["Foreground", "Background"] = "Background",
        grace_seconds: int | None = None,
        resource_version: str | None = None,
    ) -> None:
        def do() -> None:
            try:
                self.server.delete(
                    kind,
                    namespace,
                    name,
                    self.manager,
                    uid=uid,
                    resource_version=resource_version,
                    propagation=propagation,
                    grace_seconds=grace_seconds,
                )
            except (NotFoundError, ConflictError):
                return

        await self._call("delete", kind, name, do, write=True)

    async def pod_logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, tail_lines: int = 20
    ) -> str:
        def do() -> str:
            if self.server.get(POD, namespace, pod) is None:
                raise NotFoundError(404, "NotFound", f'pods "{pod}" not found')
            return self._logs(namespace, pod, previous)

        return await self._call("logs", POD, pod, do)

    async def get_path(self, path: str) -> Obj:
        """The pages that the operator's checks ask for; NotFoundError for any other."""
        group, version = LEADER_WORKER_SET.group, LEADER_WORKER_SET.version
        policy = {"enum": ["Default", "RecreateGroupOnPodRestart", "None"]}
        schema: Obj = {"x-kubernetes-group-version-kind": [{"group": group, "kind": LEADER_WORKER_SET.kind}]}
        node = schema
        for step in ("spec", "leaderWorkerTemplate", "restartPolicy"):
            node = node.setdefault("properties", {}).setdefault(step, {})
        node.update(policy)
        pages: dict[str, Obj] = {}
        if LEADER_WORKER_SET not in self.server.absent:
            pages[f"/openapi/v3/apis/{group}/{version}"] = {"components": {"schemas": {"it": schema}}}
        for kind in (LEADER_WORKER_SET, DEVICE_CLASS, COMPUTE_DOMAIN):
            if kind not in self.server.absent:
                pages[f"/apis/{kind.group}"] = {"versions": [{"version": kind.version}]}
        if DEVICE_CLASS not in self.server.absent:
            classes = self.server.list(DEVICE_CLASS)
            pages |= {DEVICE_CLASS.path(name=one["metadata"]["name"]): one for one in classes}

        def do() -> Obj:
            if path not in pages:
                raise NotFoundError(404, "NotFound", f"no {path}")
            return pages[path]

        return await self._call("get", LEADER_WORKER_SET, path, do)

    async def _write(self, verb: str, kind: Kind, obj: Obj, do: Callable[[], Obj]) -> Obj:
        return await self._call(verb, kind, obj["metadata"]["name"], lambda: self._copy(do()), write=True)

    @staticmethod
    def _copy(obj: Any) -> Obj:
        return copied(obj)  # type: ignore[no-any-return]
