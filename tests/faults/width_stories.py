"""What happens to a deployment whose width is the operator's choice, in steps that are the same whatever goes wrong
beside them; in minutes what else takes hours."""

from dataclasses import replace
from typing import Any

import pytest

from fakecluster.crashes import Story
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, manifest
from moe_operator.api import names
from moe_operator.autoscaler import width
from moe_operator.controller import width_keeper
from moe_operator.controller.kube import POD, Obj
from moe_operator.planner.group_capacity import GroupCapacity, RequestMix
from moe_operator.planner.widths import Width

#: In groups of four on these nodes; it fits on a single GPU too.
MODEL = {"name": "openai/gpt-oss-120b"}
#: Requests at every endpoint: as good as none.
CALM = 2
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


STORY = Story("another width", _two, _nothing, _narrow, calm)
