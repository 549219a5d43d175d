"""Resync, noticing deaf watches, and keeping the watches running, in virtual time."""

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from moe_operator.api import names
from moe_operator.controller.kube import (
    LEADER_WORKER_SET,
    MODEL_DEPLOYMENT,
    NODE,
    POD,
    ForbiddenError,
    Kind,
    KubeError,
    NotFoundError,
    Obj,
)
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.freshness import Freshness, FreshnessCheck
from moe_operator.runtime.resync import Resync
from moe_operator.runtime.source import WATCHED_KINDS, Deliver
from moe_operator.runtime.watching import Watching


def pod(name: str, version: int, namespace: str = "ns") -> Obj:
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": name,
            "resourceVersion": str(version),
            "labels": {names.LABEL_DEPLOYMENT: "qwen"},
        }
    }


Objects = list[Obj]


class Lists:
    """A server that only lists: objects or an error per kind."""

    def __init__(self) -> None:
        self.answers: dict[Kind, list[Obj] | KubeError] = {}
        self.asked: list[tuple[Kind, str | None, str]] = []

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> Objects:
        self.asked.append((kind, namespace, label_selector))
        answer = self.answers.get(kind, [])
        if isinstance(answer, KubeError):
            raise answer
        return [
            {**o, "metadata": dict(o["metadata"])}
            for o in answer
            if namespace in (None, o["metadata"].get("namespace"))
        ]

    async def list_metadata(
        self, kind: Kind, namespace: str | None = None, label_selector: str = ""
    ) -> Objects:
        return await self.list(kind, namespace, label_selector)


class World:
    def __init__(self, namespaces: Iterable[str] = ()) -> None:
        self.server = Lists()
        self.store = Store()
        self.keys: list[Key] = []
        self.changes = 0
        self.outcomes: list[str] = []
        self.lost: list[tuple[str, int]] = []
        self.freshness = Freshness(asyncio.get_running_loop().time)
        self.resync = Resync(
            self.server,  # type: ignore[arg-type]
            self.store,
            self.freshness,
            self.keys.append,
            namespaces=list(namespaces),
            observer=self,
            draw=lambda: 0.5,
            changed=self.changed,
        )

    def changed(self) -> None:
        self.changes += 1

    def resynced(self, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)

    def lost_deletions(self, kind: str, count: int) -> None:
        self.lost.append((kind, count))


@pytest.mark.looptime
async def test_workers_wait_for_an_answer_about_every_kind() -> None:
    """With half a cache every group would look lost."""
    world = World()
    world.server.answers = {
        LEADER_WORKER_SET: NotFoundError(404, "NotFound", "no such kind"),
        NODE: ForbiddenError(403, "Forbidden", "nodes"),
        POD: KubeError(503, "ServiceUnavailable", "starting"),
    }
    task = asyncio.create_task(world.resync.run())
    await asyncio.sleep(60)
    assert not world.resync.ready.is_set()
    assert world.store.absent == {LEADER_WORKER_SET}
    assert world.store.forbidden == {NODE}
    world.server.answers[POD] = []
    await asyncio.wait_for(world.resync.ready.wait(), 20)
    assert set(world.resync.watchable()) == set(WATCHED_KINDS) - {LEADER_WORKER_SET, NODE}
    task.cancel()


@pytest.mark.looptime
async def test_without_the_right_to_read_pods_nothing_begins_until_it_is_granted() -> None:
    """Without pods every group would look like one that never started, and be replaced again and again."""
    world = World()
    world.server.answers = {POD: ForbiddenError(403, "Forbidden", "pods")}
    task = asyncio.create_task(world.resync.run())
    await asyncio.sleep(120)
    assert not world.resync.ready.is_set()
    assert world.resync.lacking() == [POD]
    world.server.answers = {}
    await asyncio.wait_for(world.resync.ready.wait(), 25)
    assert world.resync.lacking() == []
    task.cancel()


@pytest.mark.looptime
async def test_a_kind_that_is_installed_later_is_taken_up_within_seconds() -> None:
    world = World()
    world.server.answers = {
        LEADER_WORKER_SET: NotFoundError(404, "NotFound", "no such kind"),
        MODEL_DEPLOYMENT: [pod("qwen", 1)],
    }
    task = asyncio.create_task(world.resync.run())
    await world.resync.ready.wait()
    changes = world.changes
    world.keys.clear()
    world.server.answers[LEADER_WORKER_SET] = []
    await asyncio.sleep(20)
    assert world.store.absent == set()
    assert world.changes == changes + 1, "the watches must begin anew with it"
    assert ("ns", "qwen") in world.keys
    task.cancel()


@pytest.mark.looptime
async def test_a_right_that_is_granted_later_is_taken_up_and_one_that_is_taken_keeps_what_is_known() -> None:
    world = World()
    world.server.answers = {POD: [pod("p", 1)]}
    await world.resync.once()
    world.server.answers = {POD: ForbiddenError(403, "Forbidden", "pods")}
    await world.resync.once()
    assert POD in world.store.forbidden
    assert world.store.get(POD, "ns", "p"), "forgetting all pods would look as if all groups were lost"
    world.server.answers = {POD: []}
    await world.resync.once()
    assert world.store.forbidden == set()
    assert world.store.get(POD, "ns", "p") is None


@pytest.mark.looptime
async def test_a_server_that_denies_a_kind_once_does_not_empty_the_cache() -> None:
    """An API server that has just started may not serve custom resources for a moment."""
    world = World()
    world.server.answers = {LEADER_WORKER_SET: [pod("g", 1)]}
    await world.resync.once()
    world.server.answers = {LEADER_WORKER_SET: NotFoundError(404, "NotFound", "no such kind")}
    await world.resync.once()
    assert world.store.get(LEADER_WORKER_SET, "ns", "g")
    await world.resync.once()
    assert world.store.get(LEADER_WORKER_SET, "ns", "g") is None, "said twice, it is true"


@pytest.mark.looptime
async def test_everything_is_looked_at_again_every_few_minutes_and_lost_deletions_are_counted() -> None:
    world = World()
    world.server.answers = {MODEL_DEPLOYMENT: [pod("qwen", 1)], POD: [pod("p", 2)]}
    task = asyncio.create_task(world.resync.run())
    await asyncio.sleep(1)
    world.keys.clear()
    world.server.answers[POD] = []
    await asyncio.sleep(450)
    assert world.outcomes == ["success"] * 2, "the interval is 450 s with this draw"
    assert world.keys == [("ns", "qwen")] * 2, "for its lost pod and because its turn has come"
    assert world.lost == [("Pod", 1)]
    task.cancel()


@pytest.mark.looptime
async def test_a_resync_that_is_asked_for_comes_in_time_and_failures_are_repeated_soon() -> None:
    world = World()
    world.server.answers = {POD: KubeError(0, "NoAnswer", "reset")}
    task = asyncio.create_task(world.resync.run())
    await asyncio.sleep(4)
    assert world.outcomes == ["error"] * 2
    world.server.answers = {}
    await asyncio.sleep(10)
    assert world.outcomes[-1] == "success"
    count = len(world.outcomes)
    world.resync.request(20)
    world.resync.request(5)
    await asyncio.sleep(4.9)
    assert len(world.outcomes) == count
    await asyncio.sleep(0.2)
    assert len(world.outcomes) == count + 1
    task.cancel()


@pytest.mark.looptime
async def test_a_namespaced_installation_asks_for_its_namespaces_only() -> None:
    world = World(["a", "b"])
    world.server.answers = {POD: [pod("p", 1, "a"), pod("q", 2, "b"), pod("r", 3, "c")]}
    await world.resync.once()
    assert [p["metadata"]["name"] for p in world.store.all(POD)] == ["p", "q"]
    selector = "app.kubernetes.io/managed-by=moe-operator"
    assert (POD, "a", selector) in world.server.asked
    assert (NODE, None, "") in world.server.asked
    assert {n for k, n, _ in world.server.asked if k is not NODE} == {"a", "b"}


# --- deaf watches ---------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_change_that_a_list_shows_and_the_watch_does_not_deliver_is_owed() -> None:
    world = World()
    world.server.answers = {POD: [pod("p", 1)]}
    await world.resync.once()
    check = FreshnessCheck(
        world.server, world.store, world.freshness, kinds=lambda: [POD], namespaces=[], jitter=lambda: 0.5
    )
    task = asyncio.create_task(check.run())
    await asyncio.sleep(600)
    assert world.freshness.overdue(POD) == 0, "a quiet cluster gives no alarm"
    world.server.answers = {POD: [pod("p", 2)]}
    await asyncio.sleep(200)
    assert 120 < world.freshness.overdue(POD) < 201
    await world.resync.once()
    assert world.freshness.overdue(POD) > 120, "the resync heals the cache, not the watch"
    world.freshness.heard(POD, pod("p", 1))
    assert world.freshness.overdue(POD) > 0, "an older event is not what is owed"
    world.freshness.heard(POD, pod("p", 3))
    assert world.freshness.overdue(POD) == 0
    task.cancel()


@pytest.mark.looptime
async def test_what_the_resync_sees_before_the_watch_is_owed_too() -> None:
    world = World()
    await world.resync.once()
    world.server.answers = {POD: [pod("p", 5)]}
    await world.resync.once()
    await asyncio.sleep(90)
    assert world.freshness.overdue(POD) == pytest.approx(90)


@pytest.mark.looptime
async def test_a_debt_ends_when_the_object_is_gone_or_versions_are_turned_back() -> None:
    """Nobody will ever deliver that version: an alarm for it would restart the operator for ever."""
    for after in ([], [pod("p", 2)]):
        world = World()
        await world.resync.once()
        world.server.answers = {POD: [pod("p", 5)]}
        await world.resync.once()
        world.server.answers = {POD: after}
        await world.resync.once()
        await asyncio.sleep(90)
        assert world.freshness.overdue(POD) == 0


@pytest.mark.looptime
async def test_a_watch_that_was_heard_lately_is_not_checked_and_an_unreachable_server_is_no_finding() -> None:
    world = World()
    await world.resync.once()
    check = FreshnessCheck(
        world.server, world.store, world.freshness, kinds=lambda: [POD], namespaces=[], jitter=lambda: 0.5
    )
    world.freshness.heard(POD, pod("p", 1))
    world.server.asked.clear()
    await check.once()
    assert world.server.asked == []
    await asyncio.sleep(60)
    world.server.answers = {POD: KubeError(0, "NoAnswer", "reset")}
    await check.once()
    assert len(world.server.asked) == 1
    assert world.freshness.overdue(POD) == 0


# --- the watches' supervisor ----------------------------------------------------------------------


class FakeSource:
    """Runs for as long as told, then fails."""

    def __init__(self, *lifetimes: float) -> None:
        self.lifetimes = list(lifetimes)
        self.runs: list[tuple[float, list[Kind]]] = []

    async def run(self, kinds: Iterable[Kind], deliver: Deliver) -> None:
        self.runs.append((asyncio.get_running_loop().time(), list(kinds)))
        await asyncio.sleep(self.lifetimes.pop(0) if self.lifetimes else 1e9)
        raise RuntimeError("the stream broke")


class Starts:
    def __init__(self) -> None:
        self.count = 0

    def watch_started(self) -> None:
        self.count += 1


def supervisor(source: FakeSource, kinds: list[Kind], asked: list[Any]) -> Watching:
    return Watching(
        source, lambda *_: None, lambda: kinds, resync=asked.append, observer=Starts(), jitter=lambda: 0.0
    )


@pytest.mark.looptime
async def test_a_source_that_ends_is_started_again_with_back_off_and_a_resync() -> None:
    """kopf gives up at an error that an API server's upgrade may well cause; the operator must not."""
    source, asked = FakeSource(1, 1, 1, 1), list[Any]()
    watching = supervisor(source, [POD], asked)
    task = asyncio.create_task(watching.run())
    await asyncio.sleep(100)
    starts = [t for t, _ in source.runs]
    assert [b - a for a, b in pairwise(starts)] == pytest.approx([2, 3, 5, 9], abs=0.01)
    assert asked.count(0.0) == 4
    assert asked.count(15.0) == 5, "what was deleted before a watch begins is found soon after"
    assert watching.down_for() == pytest.approx(99, abs=0.1), "one sound run must last, to count as recovered"
    await asyncio.sleep(60)
    assert watching.down_for() == 0
    task.cancel()


@pytest.mark.looptime
async def test_a_source_that_fails_again_and_again_is_down_however_long_each_try_takes() -> None:
    source, asked = FakeSource(*[54.0] * 20), list[Any]()
    watching = supervisor(source, [POD], asked)
    task = asyncio.create_task(watching.run())
    await asyncio.sleep(500)
    assert watching.down_for() > 400
    task.cancel()


@pytest.mark.looptime
async def test_the_watches_begin_anew_when_other_kinds_can_be_watched() -> None:
    source, asked, kinds = FakeSource(), list[Any](), list[Kind]()
    watching = supervisor(source, kinds, asked)
    task = asyncio.create_task(watching.run())
    await asyncio.sleep(10)
    assert source.runs == [], "nothing to watch yet"
    kinds[:] = [POD]
    watching.restart()
    await asyncio.sleep(1)
    kinds[:] = [POD, NODE]
    watching.restart()
    await asyncio.sleep(1)
    assert [k for _, k in source.runs] == [[POD], [POD, NODE]]
    assert watching.down_for() == 0, "a restart that was asked for is no failure"
    task.cancel()
