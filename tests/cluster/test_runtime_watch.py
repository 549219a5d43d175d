"""Watches and resync on a real API server: what the operator believes must become what is, whatever got lost."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from kubernetes.aio.client import Configuration

from cluster.proxied import Proxied
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, config_map, configure, deployment, pod, until
from moe_operator.controller.kube import COMPUTE_DOMAIN, CONFIG_MAP, MODEL_DEPLOYMENT, NODE, POD, Kind, Obj
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.freshness import Freshness, FreshnessCheck
from moe_operator.runtime.intake import Intake
from moe_operator.runtime.kopf_source import KopfSource, SourceEndedError
from moe_operator.runtime.kube_client import AioKubeClient
from moe_operator.runtime.metrics import Metrics
from moe_operator.runtime.resync import Resync
from moe_operator.runtime.source import WATCHED_KINDS, EventType
from moe_operator.runtime.watching import Watching

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


@dataclass
class Cache:
    """Watches, resync and store of an operator for one namespace, without anything that writes."""

    client: AioKubeClient
    namespace: str
    configure: Callable[[], object] = configure
    store: Store = field(default_factory=Store)
    keys: list[Key] = field(default_factory=list)
    restarts: int = 0

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.freshness = Freshness(loop.time)
        self.resync = Resync(
            self.client,
            self.store,
            self.freshness,
            self.keys.append,
            namespaces=[self.namespace],
            observer=self.metrics,
            draw=lambda: 0.5,
            changed=lambda: self.watching.restart(),
        )
        intake = Intake(
            self.store, self.keys.append, self.freshness, self.metrics, lambda: self.resync.request(1)
        )
        self.watching = Watching(
            KopfSource(self.configure, [self.namespace]),  # type: ignore[arg-type]
            intake.deliver,
            self.resync.watchable,
            resync=lambda delay: None,
            observer=self.metrics,
            jitter=lambda: 0.0,
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.resync.once()
        self.begin()
        await self.hears()

    def begin(self) -> None:
        self._task = asyncio.create_task(self.watching.run())

    async def hears(self) -> None:
        """Wait until the watch of pods delivers; each call makes a pod of its own."""
        self.restarts += 1
        name = f"heard-{self.restarts}"
        await self.client.create(POD, pod(self.namespace, name))
        await until(lambda: self.store.get(POD, self.namespace, name), "the watch delivers", 30)

    async def end(self) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.wait([self._task])

    def has(self, name: str, kind: Kind = CONFIG_MAP) -> bool:
        return self.store.get(kind, self.namespace, name) is not None


@pytest.fixture
async def cache(client: AioKubeClient, namespace: str) -> AsyncIterator[Cache]:
    cache = Cache(client, namespace)
    await cache.start()
    yield cache
    await cache.end()


async def test_changes_arrive_and_name_the_deployment_they_concern(cache: Cache, namespace: str) -> None:
    assert set(cache.resync.watchable()) == set(WATCHED_KINDS) - {COMPUTE_DOMAIN}
    cache.keys.clear()
    made = await cache.client.create(MODEL_DEPLOYMENT, deployment(namespace, "qwen"))
    await until(lambda: cache.has("qwen", MODEL_DEPLOYMENT), "the deployment is seen")
    assert "finalizers" not in made["metadata"]
    await cache.client.create(CONFIG_MAP, config_map(namespace, "a", "other"))
    await until(lambda: (namespace, "other") in cache.keys, "its key is due")
    found = await cache.client.get(MODEL_DEPLOYMENT, namespace, "qwen")
    assert found is not None
    assert found["metadata"].get("annotations") is None, "nobody writes into the user's object"
    assert found["metadata"].get("finalizers") is None
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_what_others_own_is_not_even_sent(cache: Cache, namespace: str) -> None:
    """A cluster has thousands of pods and ConfigMaps that are no concern of ours."""
    await cache.client.create(CONFIG_MAP, config_map(namespace, "foreign", None))
    await cache.client.create(CONFIG_MAP, config_map(namespace, "ours"))
    await until(lambda: cache.has("ours"), "ours is seen")
    assert not cache.has("foreign")
    value = cache.metrics.registry.get_sample_value(
        "moe_operator_watch_events_total", {"kind": "ConfigMap", "type": "ADDED"}
    )
    assert value == 1


async def test_modification_and_deletion_arrive(cache: Cache, namespace: str) -> None:
    made = await cache.client.create(CONFIG_MAP, config_map(namespace, "a", x="1"))
    await cache.client.patch(CONFIG_MAP, namespace, "a", {"data": {"x": "2"}})

    def seen() -> bool:
        found = cache.store.get(CONFIG_MAP, namespace, "a")
        return found is not None and found["data"] == {"x": "2"}

    await until(seen, "the change is seen")
    await cache.client.delete(CONFIG_MAP, namespace, "a", uid=made["metadata"]["uid"])
    await until(lambda: not cache.has("a"), "the deletion is seen")


async def test_a_deletion_lost_in_a_gap_is_found_by_the_resync(cache: Cache, namespace: str) -> None:
    """A group deleted while nobody watched would otherwise count as serving for ever."""
    made = await cache.client.create(CONFIG_MAP, config_map(namespace, "a"))
    await until(lambda: cache.has("a"), "it is seen")
    await cache.end()
    await cache.client.delete(CONFIG_MAP, namespace, "a", uid=made["metadata"]["uid"])
    cache.begin()
    await cache.hears()
    assert cache.has("a"), "a watch that begins anew does not tell what is gone"
    cache.keys.clear()
    await cache.resync.once()
    assert not cache.has("a")
    assert (namespace, "qwen") in cache.keys
    lost = cache.metrics.registry.get_sample_value("moe_operator_lost_deletions_total", {"kind": "ConfigMap"})
    assert lost == 1


async def test_a_connection_that_breaks_is_made_again(client: AioKubeClient, namespace: str) -> None:
    proxied = await Proxied.start()
    cache = Cache(client, namespace, proxied.configure)
    await cache.start()
    proxied.proxy.cut()
    await cache.hears()
    await cache.end()
    await proxied.proxy.stop()


async def test_a_watch_that_has_gone_deaf_is_noticed_and_hears_again_once_restarted(
    client: AioKubeClient, namespace: str
) -> None:
    """An operator that looks alive and sees nothing is the worst kind of dead."""
    proxied = await Proxied.start()
    cache = Cache(client, namespace, proxied.configure)
    check = FreshnessCheck(
        client,
        cache.store,
        cache.freshness,
        kinds=cache.resync.watchable,
        namespaces=[namespace],
        jitter=lambda: 0.5,
    )
    await cache.start()
    await client.create(CONFIG_MAP, config_map(namespace, "before"))
    await until(lambda: cache.has("before"), "the watch hears")
    await check.once()
    assert not any(cache.freshness.overdue(k) for k in WATCHED_KINDS), "a quiet cluster gives no alarm"
    proxied.proxy.deafen()
    await client.create(CONFIG_MAP, config_map(namespace, "unheard"))
    await check_all(check, cache)
    await until(lambda: cache.freshness.overdue(CONFIG_MAP) > 1, "the debt is noticed")
    assert not cache.has("unheard")
    cache.watching.restart()
    await until(lambda: cache.has("unheard"), "the new watch delivers", 30)
    assert cache.freshness.overdue(CONFIG_MAP) == 0
    await cache.end()
    await proxied.proxy.stop()


async def check_all(check: FreshnessCheck, cache: Cache) -> None:
    """As after a minute of silence."""
    cache.freshness._heard.clear()
    await check.once()


async def test_a_kind_that_does_not_exist_ends_nothing(client: AioKubeClient, namespace: str) -> None:
    """LeaderWorkerSet may be installed after the operator."""
    thing = Kind("runtime-test.moe-operator.dev", "v1", "absentthings", "AbsentThing")
    got: list[str] = []
    source = KopfSource(configure, [namespace])
    task = asyncio.create_task(
        source.run([thing, CONFIG_MAP], lambda kind, type_, obj: got.append(obj["metadata"]["name"]))
    )
    await client.create(CONFIG_MAP, config_map(namespace, "a"))
    await until(lambda: "a" in got, "the others are watched", 30)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_nodes_are_watched_whole_while_pods_are_of_one_namespace(
    cache: Cache, client: AioKubeClient
) -> None:
    name = f"node-of-{cache.namespace}"
    made = await client.create(NODE, {"metadata": {"name": name}, "apiVersion": "v1", "kind": "Node"})
    await until(lambda: cache.store.get(NODE, "", name), "the node is seen")
    await client.delete(NODE, None, name, uid=made["metadata"]["uid"])
    await until(lambda: not cache.store.get(NODE, "", name), "it is gone")


async def test_a_source_that_cannot_sign_in_says_so() -> None:
    async def broken() -> Configuration:
        raise OSError("no token here")

    source = KopfSource(broken, ["default"])
    with pytest.raises(SourceEndedError, match="no token here"):
        await asyncio.wait_for(source.run([CONFIG_MAP], lambda *_: None), 10)


async def test_stopping_leaves_neither_thread_nor_task(client: AioKubeClient, namespace: str) -> None:
    """kopf cancels whatever was started after it: our tasks must be out of its reach."""
    bystander = asyncio.create_task(asyncio.Event().wait())
    got: list[EventType] = []

    def deliver(kind: Kind, type_: EventType, obj: Obj) -> None:
        got.append(type_)

    await client.create(CONFIG_MAP, config_map(namespace, "a"))
    for _ in range(2):
        got.clear()
        task = asyncio.create_task(KopfSource(configure, [namespace]).run([CONFIG_MAP], deliver))
        await until(lambda: EventType.LISTED in got, "the first list is delivered", 30)
        started = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.get_running_loop().time() - started < 5
    await until(lambda: not [t for t in threading.enumerate() if t.name == "kopf"], "the threads end", 10)
    assert not bystander.done()
    bystander.cancel()
