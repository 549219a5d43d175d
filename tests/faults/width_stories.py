"""What happens to a deployment whose width is the operator's choice, in steps that are the same whatever goes wrong
beside them; in minutes what else takes hours."""

from dataclasses import replace
from typing import Any

import pytest

from fakecluster.crashes import Story
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, Witness, manifest
from moe_operator.api import names, reasons
from moe_operator.autoscaler import width
from moe_operator.controller import width_keeper
from moe_operator.controller.kube import LEADER_WORKER_SET, POD, Obj
from moe_operator.planner.group_capacity import GroupCapacity, RequestMix
from moe_operator.planner.widths import Width

#: In groups of four on these nodes; it fits on a single GPU too.
MODEL = {"name": "openai/gpt-oss-120b"}
#: Requests at every endpoint: as good as none.
CALM = 2
#: Seconds for which a wide group that is hardly asked is left, at the most, without a word of another width.
BEFORE_BACK = 240
#: Seconds of a step, about what the plan expects of one without load.
STEP = 0.007


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes in place of hours."""
    monkeypatch.setattr(width, "EVIDENCE", 120.0)
    monkeypatch.setattr(width, "FOR", 60.0)
    monkeypatch.setattr(width, "_EVERY", 30.0)
    monkeypatch.setattr(width, "_LINGERS", 60.0)
    for module in (width, width_keeper):
        monkeypatch.setattr(module, "BETWEEN", 300.0)


def wide_is_worth(monkeypatch: pytest.MonkeyPatch, groups: float) -> None:
    """A model whose groups of eight take so many times what those of four do."""
    estimate = Width.capacity

    def capacity(one: Width, mix: RequestMix, seconds: float) -> GroupCapacity:
        found = estimate(one, mix, seconds)
        return replace(found, requests_per_second={4: 10.0, 8: 10.0 * groups}.get(one.gpus, 0.01))

    monkeypatch.setattr(Width, "capacity", capacity)


def calm() -> EngineSettings:
    return EngineSettings(requests=CALM, step_seconds=STEP)


def by_policy(policy: str, **spec: Any) -> Obj:
    """A ModelDeployment with two to four groups of four GPUs, by demand."""
    scaling = {"mode": "Auto", "minGroups": 2, "maxGroups": 4, "width": policy, **spec.pop("scaling", {})}
    return manifest(model=MODEL, hardware={"accelerator": "B200"}, scaling=scaling, **spec)


def scaling_of(h: Harness) -> dict[str, Any]:
    return h.status().get("scaling") or {}


def width_of(h: Harness, group: str) -> int:
    """GPUs of its pods."""
    pods = h.world.server.list(POD, NAMESPACE, f"{names.LABEL_GROUP}={group}")
    return sum(int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) for pod in pods)


def widths_of(h: Harness) -> list[int]:
    """GPUs of each group that is there."""
    return sorted(width_of(h, group["metadata"]["name"]) for group in h.groups())


def keep_busy(h: Harness, requests: int) -> None:
    """From now on every endpoint is kept busy with so many requests."""
    h.world.engines.settings.requests = requests
    for engine in h.world.engines.by_pod.values():
        engine.running = requests


async def _nothing(h: Harness) -> None:
    pass


async def _two(h: Harness) -> None:
    h.apply(by_policy("Auto"))
    await h.serve(2)
    await h.settle()


async def _narrow(h: Harness) -> None:
    await h.until(lambda: widths_of(h) == [1, 1] and h.ready(), 3600, "groups of one GPU")


async def _busy(h: Harness) -> None:
    """As many groups of four as may be, of which wide ones would do with fewer GPUs."""
    h.apply(by_policy("Recommend", scaling={"minGroups": 1, "maxGroups": 4}))
    await h.serve(1)
    keep_busy(h, 80)
    await h.serve(4, within=1800)
    await h.until(lambda: scaling_of(h).get("recommendedWidth") == 8, 3600, "a recommendation")
    # Who learns anew is careful for longer than there is time here.
    await h.until(lambda: scaling_of(h).get("learned"), 1200, "it is remembered what was asked")
    await h.settle()


async def _auto(h: Harness) -> None:
    h.edit(scaling={"width": "Auto"})


async def _wide(h: Harness) -> None:
    """The load goes as soon as a wide group is to come, and with it what it was for: nobody sees any of its kind."""
    await h.until(lambda: scaling_of(h).get("chosenWidth"), 600, "a choice")
    keep_busy(h, CALM)
    await h.until(lambda: widths_of(h) == [8] and h.ready(), 3600, "a group of eight GPUs")
    assert scaling_of(h)["widthMessage"].startswith("for what was asked of late, groups of 8 GPUs would take")


async def _idle(h: Harness) -> None:
    """Shortly before it is known that the wide group is not worth it."""
    await _busy(h)
    await _auto(h)
    await _wide(h)
    await h.rest(BEFORE_BACK)


async def _back(h: Harness) -> None:
    await h.until(lambda: widths_of(h) == [4] and h.ready(), 3600, "a group of four GPUs")


def none_comes_up(groups: int) -> Story:
    """Narrow groups are lost until the budget is spent, one loss for each group that is wanted.

    Two start at a time, and are lost at the same moment: whether the last of them counts hangs on what came first, and
    means nothing any more. What has to hold is in `given_up`.
    """
    seen: list[tuple[Witness, set[str], int]] = []

    def made(h: Harness) -> int:
        writes = h.world.server.writes
        return sum(write.verb == "create" and write.kind is LEADER_WORKER_SET for write in writes)

    async def prepare(h: Harness) -> None:
        h.apply(by_policy("Auto", scaling={"minGroups": groups}, recovery={"restartBudget": 1}))
        await h.serve(groups)
        await h.settle()

    async def act(h: Harness) -> None:
        seen[:] = [(Witness(h), {group["metadata"]["uid"] for group in h.groups()}, made(h))]
        h.world.settings.start_failure = (1, "torch.OutOfMemoryError: CUDA out of memory")

    async def given_up(h: Harness) -> None:
        await h.until(lambda: (scaling_of(h).get("chosenWidth") or {}).get("givenUp"), 3600, "giving up")
        await h.until(lambda: widths_of(h) == [4] * groups and h.ready(), 300, "the groups before, alone")
        ((witness, uids, before),) = seen
        assert {group["metadata"]["uid"] for group in h.groups()} == uids
        assert witness.lowest == groups
        assert 1 + groups <= made(h) - before <= 2 * groups, "as many as are wanted, and one more for each"
        assert len(h.status()["recovery"]["counted"]) > groups
        chosen = scaling_of(h)["chosenWidth"]
        assert (chosen["gpus"], chosen["givenUp"]) == (4, 1)
        assert h.condition(reasons.STALLED) is None

    name = f"a width of which {groups} do not come up"
    return Story(name, prepare, act, given_up, calm, loose=("status.recovery.counted",))


STORY = Story("another width", _two, _nothing, _narrow, calm)
#: What is said of a choice has the numbers of its moment, of which another operator has seen less.
_WORDS = ("status.scaling.widthMessage",)
WIDER = Story("wider groups", _busy, _auto, _wide, calm, loose=_WORDS)
BACK = Story("back to the width before", _idle, _nothing, _back, calm, loose=_WORDS)
