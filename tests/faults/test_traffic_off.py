"""How a lost group leaves traffic. Lost if these fail: requests, in each moment between a loss and the last label."""

import pytest

from fakecluster.faults import Call
from fakecluster.harness import Harness, manifest, play
from moe_operator.api import names
from moe_operator.controller.kube import POD, KubeError
from moe_operator.controller.planning import Planning


def _carriers(h: Harness) -> list[str]:
    pods = h.world.server.list(POD, None, f"{names.LABEL_TRAFFIC}={names.TRAFFIC_ON}")
    return [pod["metadata"]["name"] for pod in pods]


async def _serving(h: Harness) -> None:
    h.apply(manifest(1))
    await h.serve()
    await h.settle()


def test_the_pods_of_a_lost_group_leave_traffic_at_once_and_before_anything_else_is_asked() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        calls: list[tuple[float, str, str, str]] = []

        def note(call: Call) -> None:
            calls.append((h.world.clock.elapsed, call.verb, call.kind.kind, call.name))

        pods = _carriers(h)
        assert len(pods) == 2
        h.operator.client.faults.refuse = note
        h.world.crash_engine(pods[1], "", code=1)
        await h.until(lambda: not _carriers(h), 5, "traffic is off")
        first = [c for c in calls if c[2] not in ("Lease", "Event")][:2]
        assert sorted(c[1:] for c in first) == [("patch", "Pod", name) for name in pods]
        assert len({c[0] for c in first}) == 1, f"one after the other: {first}"
        await h.serve()

    play(scenario)


def test_a_pod_that_cannot_be_written_keeps_no_other_in_traffic() -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)
        stuck, other = _carriers(h)

        def refuse(call: Call) -> KubeError | None:
            if (call.verb, call.kind, call.name) == ("patch", POD, stuck):
                return KubeError(500, "InternalError", "a webhook did not answer")
            return None

        h.operator.client.faults.refuse = refuse
        h.world.crash_engine(stuck, "", code=1)
        await h.until(lambda: _carriers(h) == [stuck], 2, f"{other} is out of traffic")
        h.operator.client.faults.refuse = lambda call: None
        await h.until(lambda: not _carriers(h), 30, "both are")
        await h.serve()

    play(scenario)


def test_traffic_goes_off_while_nothing_can_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(h: Harness) -> None:
        await _serving(h)

        async def silent(*_: object) -> None:
            raise KubeError(0, "NoAnswer", "the API server answers no LIST")

        with monkeypatch.context() as patched:
            patched.setattr(Planning, "choose", silent)
            h.world.crash_engine(_carriers(h)[0], "", code=1)
            await h.until(lambda: not _carriers(h), 2, "traffic is off")
        await h.serve()

    play(scenario)
