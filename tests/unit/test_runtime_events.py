"""Events: where people look first. Too many push out the others' news, and cost the API server more than they tell."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from factories.deployments import model_deployment
from moe_operator.controller.kube import EVENT, ConflictError, Kind, KubeError, NotFoundError, Obj
from moe_operator.runtime.events import BURST, REFILL, EventPoster


class EventServer:
    """Keeps Events as an API server does; may be down."""

    def __init__(self) -> None:
        self.events: dict[str, Obj] = {}
        self.down = False

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        assert kind is EVENT
        if self.down:
            raise KubeError(0, "NoAnswer", "down")
        name = obj["metadata"]["name"]
        if name in self.events:
            raise ConflictError(409, "AlreadyExists", name)
        self.events[name] = copy.deepcopy(obj)
        return obj

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Obj) -> Obj:
        if name not in self.events:
            raise NotFoundError(404, "NotFound", name)
        self.events[name].update(copy.deepcopy(patch))
        return copy.deepcopy(self.events[name])


class Outcomes(list[str]):
    def event(self, outcome: str) -> None:
        self.append(outcome)


@asynccontextmanager
async def poster(server: EventServer, outcomes: Outcomes) -> AsyncIterator[EventPoster]:
    loop = asyncio.get_running_loop()
    made = EventPoster(
        server,  # type: ignore[arg-type]
        instance="replica",
        observer=outcomes,
        clock=loop.time,
        wall_clock=lambda: 1.5,
    )
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()


@pytest.mark.looptime
async def test_news_become_one_object_and_the_same_news_its_series() -> None:
    server, outcomes = EventServer(), Outcomes()
    async with poster(server, outcomes) as events:
        for _ in range(3):
            await events.emit(model_deployment(), "Warning", "EngineExited", "Replace", "group g0 is lost")
        await events.emit(model_deployment(), "Warning", "EngineExited", "Replace", "group g1 is lost")
        await asyncio.sleep(1)
    assert outcomes == ["posted", "counted", "counted", "posted"]
    first, second = server.events.values()
    assert first["series"] == {"count": 3, "lastObservedTime": "1970-01-01T00:00:01.500000Z"}
    assert (first["reason"], first["action"], first["note"]) == (
        "EngineExited",
        "Replace",
        "group g0 is lost",
    )
    assert first["regarding"]["kind"] == "ModelDeployment"
    assert first["regarding"]["uid"] == model_deployment().uid
    assert "series" not in second


@pytest.mark.looptime
async def test_after_a_restart_the_same_news_continues_its_object() -> None:
    """A crash loop of the operator must not fill the namespace with Events."""
    server, outcomes = EventServer(), Outcomes()
    for _ in range(3):
        async with poster(server, outcomes) as events:
            await events.emit(model_deployment(), "Normal", "Serving", "Admit", "group g0 serves")
            await asyncio.sleep(1)
    assert outcomes == ["posted", "counted", "counted"]
    assert len(server.events) == 1


@pytest.mark.looptime
async def test_an_event_that_has_expired_begins_anew() -> None:
    server, outcomes = EventServer(), Outcomes()
    async with poster(server, outcomes) as events:
        for _ in range(2):
            await events.emit(model_deployment(), "Normal", "Serving", "Admit", "group g0 serves")
            await asyncio.sleep(1)
            server.events.clear()
        await events.emit(model_deployment(), "Normal", "Serving", "Admit", "group g0 serves")
        await asyncio.sleep(1)
    assert outcomes == ["posted"] * 3


@pytest.mark.looptime
async def test_one_deployment_cannot_flood_and_others_are_heard_meanwhile() -> None:
    server, outcomes = EventServer(), Outcomes()
    async with poster(server, outcomes) as events:
        for index in range(BURST + 10):
            await events.emit(model_deployment(), "Normal", "Serving", "Admit", f"news {index}")
        await asyncio.sleep(1)
        assert outcomes.count("dropped") == 10
        other = replace(model_deployment(name="other"), uid="another")
        await events.emit(other, "Normal", "Serving", "Admit", "news")
        await asyncio.sleep(2 * REFILL)
        for index in range(3):
            await events.emit(model_deployment(), "Normal", "Serving", "Admit", f"later {index}")
        await asyncio.sleep(1)
    assert outcomes.count("dropped") == 11
    assert outcomes.count("posted") == BURST + 1 + 2


@pytest.mark.looptime
async def test_an_api_server_that_is_away_costs_the_event_and_nothing_else() -> None:
    server, outcomes = EventServer(), Outcomes()
    async with poster(server, outcomes) as events:
        server.down = True
        await events.emit(model_deployment(), "Normal", "Serving", "Admit", "lost")
        await asyncio.sleep(1)
        server.down = False
        await events.emit(model_deployment(), "Normal", "Serving", "Admit", "kept")
        await asyncio.sleep(1)
    assert outcomes == ["error", "posted"]
    assert [e["note"] for e in server.events.values()] == ["kept"]


@pytest.mark.looptime
async def test_a_note_longer_than_the_api_server_takes_is_cut() -> None:
    server, outcomes = EventServer(), Outcomes()
    async with poster(server, outcomes) as events:
        await events.emit(model_deployment(), "Normal", "Serving", "Admit", "ä" * 2000)
        await asyncio.sleep(1)
    (event,) = server.events.values()
    assert len(event["note"].encode()) <= 1024
    assert event["note"].endswith("ä...")
