"""When watches of one client first showed something, in seconds of `time.perf_counter`."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from localcluster.kubelet.apiclient import ApiClient, Obj
from moe_operator.api import names

_SERVICE = "kubernetes.io/service-name"


class Sightings:
    """Pods, LeaderWorkerSets and EndpointSlices of one namespace."""

    def __init__(self, api: ApiClient, namespace: str, on_pod: Callable[[str, Obj], None]) -> None:
        """`on_pod` is told of every event of a pod."""
        self._api = api
        self._namespace = namespace
        self._on_pod = on_pod
        self._changed = asyncio.Event()
        self._slices: dict[str, tuple[str, frozenset[str]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.pods: dict[str, Obj] = {}
        """That exist, by name; LeaderWorkerSets too."""
        self.groups: dict[str, Obj] = {}
        self.seen: dict[str, float] = {}
        """By uid: when a pod or LeaderWorkerSet came."""
        self.deleting: dict[str, float] = {}
        """By uid: when it was first on its way out, or gone."""
        self.labelled: dict[str, float] = {}
        self.unlabelled: dict[str, float] = {}
        """By uid of a pod: when it first carried the traffic label, and when it first did no more."""
        self.unrouted: dict[str, float] = {}
        """By uid of a pod: when it first was a ready endpoint no more."""

    def start(self) -> None:
        core, ns = "/api/v1", f"namespaces/{self._namespace}"
        for path, take in (
            (f"{core}/{ns}/pods", self._pod),
            (f"/apis/leaderworkerset.x-k8s.io/v1/{ns}/leaderworkersets", self._group),
            (f"/apis/discovery.k8s.io/v1/{ns}/endpointslices", self._slice),
        ):
            self._tasks.append(asyncio.create_task(self._follow(path, take)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        """Wait for a condition over what was seen. Raises TimeoutError."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not within {seconds:g} s: {what}") from None

    async def quiet(self, seconds: float = 0.5) -> None:
        """Wait until nothing has happened for a while: what follows a run must not weigh on the next."""
        with suppress(TimeoutError):
            while True:
                self._changed.clear()
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def of_group(self, group: str, label: str = names.LABEL_GROUP) -> list[Obj]:
        """The pods that there are of a group, not on their way out."""
        return [
            pod
            for pod in self.pods.values()
            if (pod["metadata"].get("labels") or {}).get(label) == group
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def of_deployment(self, deployment: str) -> list[Obj]:
        """The groups of a ModelDeployment, not on their way out."""
        return [
            group
            for group in self.groups.values()
            if (group["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == deployment
            and not group["metadata"].get("deletionTimestamp")
        ]

    def routed(self, service: str) -> frozenset[str]:
        """Uids of the ready endpoints of a Service."""
        return frozenset(uid for name, uids in self._slices.values() if name == service for uid in uids)

    async def _follow(self, path: str, take: Callable[[str, Obj], None]) -> None:
        def all_of(objects: list[Obj]) -> None:
            for obj in objects:
                take("LISTED", obj)

        await self._api.follow(path, all_of, take)

    def _told(self) -> float:
        self._changed.set()
        return time.perf_counter()

    def _pod(self, type_: str, pod: Obj) -> None:
        now, meta = self._told(), pod["metadata"]
        uid = meta["uid"]
        self._object(self.pods, type_, pod, now)
        if (meta.get("labels") or {}).get(names.LABEL_TRAFFIC) == names.TRAFFIC_ON:
            self.labelled.setdefault(uid, now)
        elif uid in self.labelled:
            self.unlabelled.setdefault(uid, now)
        self._on_pod(type_, pod)

    def _group(self, type_: str, group: Obj) -> None:
        self._object(self.groups, type_, group, self._told())

    def _object(self, known: dict[str, Obj], type_: str, obj: Obj, now: float) -> None:
        meta = obj["metadata"]
        self.seen.setdefault(meta["uid"], now)
        if type_ == "DELETED":
            known.pop(meta["name"], None)
        else:
            known[meta["name"]] = obj
        if type_ == "DELETED" or meta.get("deletionTimestamp"):
            self.deleting.setdefault(meta["uid"], now)

    def _slice(self, type_: str, piece: Obj) -> None:
        now, meta = self._told(), piece["metadata"]
        before = self._slices.get(meta["name"], ("", frozenset()))[1]
        after = frozenset(
            one["targetRef"]["uid"]
            for one in piece.get("endpoints") or []
            if (one.get("conditions") or {}).get("ready") and one.get("targetRef")
        )
        if type_ == "DELETED":
            self._slices.pop(meta["name"], None)
            after = frozenset()
        else:
            self._slices[meta["name"]] = ((meta.get("labels") or {}).get(_SERVICE, ""), after)
        for uid in before - after:
            self.unrouted.setdefault(uid, now)
