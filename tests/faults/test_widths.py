"""Another width from the engines' metrics to groups, in the whole operator.

Without it a deployment keeps paying for groups that are too wide for what is asked, or is moved to others in a way that
costs requests, twice, or at every restart of the operator.
"""

from typing import Any

import pytest

from fakecluster.harness import NAMESPACE, Harness, Witness, play
from faults.width_stories import (
    by_policy,
    calm,
    keep_busy,
    scaling_of,
    soon,
    wide_is_worth,
    width_of,
    widths_of,
)
from moe_operator.api import names, reasons
from moe_operator.api.times import format_time
from moe_operator.autoscaler import width
from moe_operator.controller.kube import CONTROLLER_REVISION, EVENT, NODE, POD


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)


async def _rests(h: Harness) -> None:
    """For minutes nothing is written but, once, what was learned, and with it what was taken."""

    def status() -> dict[str, Any]:
        scaling = {k: v for k, v in h.status()["scaling"].items() if k not in ("learned", "figures")}
        return {**{k: v for k, v in h.status().items() if k != "cost"}, "scaling": scaling}

    before, said = h.writes, status()
    await h.rest(480)
    assert h.writes - before <= 1, h.written(before)
    assert status() == said


def _told(h: Harness, *wanted: str) -> list[tuple[str, str]]:
    events = h.world.server.list(EVENT, NAMESPACE)
    return [(e["reason"], e["note"]) for e in events if e["reason"] in wanted]


def test_a_recommendation_is_a_status_and_one_event() -> None:
    """Lost: trust, if what only recommends acts; and attention, if it says so again and again."""

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Recommend"))
        await h.serve(2)
        assert widths_of(h) == [4, 4]
        uids = {group["metadata"]["uid"] for group in h.groups()}
        await h.until(lambda: scaling_of(h).get("recommendedWidth"), 1800, "a recommendation")
        said = scaling_of(h)
        assert said["recommendedWidth"] == 1
        assert (
            "groups of 1 GPUs would take 48 GPU-hours a day and groups of 4 take 192" in said["widthMessage"]
        )
        await _rests(h)
        assert {group["metadata"]["uid"] for group in h.groups()} == uids
        events = _told(h, reasons.WIDTH_RECOMMENDED)
        assert len(events) == 1
        assert events[0][1].startswith("groups of 1 GPUs are recommended: for what was asked of late")
        # A successor knows it from the status, and says nothing new.
        h.operator.kill()
        await h.rest(240)
        assert scaling_of(h)["recommendedWidth"] == 1
        assert len(_told(h, reasons.WIDTH_RECOMMENDED)) == 1

    play(scenario, settings=calm())


@pytest.mark.parametrize(
    ("policy", "hardware"), [("Fixed", {}), ("Auto", {"gpusPerGroup": 4}), ("Recommend", {"gpusPerGroup": 4})]
)
def test_nothing_is_said_where_the_width_is_given(policy: str, hardware: dict[str, Any]) -> None:
    """Lost: a user's own word."""

    async def scenario(h: Harness) -> None:
        made = by_policy(policy)
        made["spec"]["hardware"].update(hardware)
        h.apply(made)
        await h.serve(2)
        await h.rest(600)
        assert widths_of(h) == [4, 4]
        assert not {"recommendedWidth", "widthMessage", "chosenWidth"} & scaling_of(h).keys()

    play(scenario, settings=calm())


def test_auto_moves_group_by_group_and_comes_to_rest() -> None:
    """Lost: requests, in a change that nobody asked for at that moment."""

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Auto"))
        await h.serve(2)
        first = h.status()["revision"]
        witness = Witness(h)
        await h.until(lambda: scaling_of(h).get("chosenWidth"), 1800, "a choice")
        await h.until(lambda: widths_of(h) == [1, 1] and h.ready(), 1800, "groups of one GPU")
        await h.settle()
        assert witness.lowest >= 2
        assert not witness.lost_requests
        status = h.status()
        assert status["revision"] != first
        assert status["plan"]["width"] == 1
        chosen = status["scaling"]["chosenWidth"]
        assert (chosen["gpus"], chosen["planned"], chosen["before"]) == (1, 4, 4)
        assert 20 <= chosen["percent"] <= 30
        assert "recommendedWidth" not in status["scaling"]
        assert h.condition(reasons.READY)["status"] == "True"  # type: ignore[index]
        assert [reason for reason, _ in _told(h, reasons.WIDTH_CHOSEN)] == [reasons.WIDTH_CHOSEN]
        await _rests(h)
        # The same manifest again changes nothing: not what was chosen, and not a group.
        uids = {group["metadata"]["uid"] for group in h.groups()}
        h.apply(by_policy("Auto"))
        await h.rest(120)
        assert {group["metadata"]["uid"] for group in h.groups()} == uids
        # Nor does it move anything that it is no longer to choose.
        h.edit(scaling={"width": "Fixed"})
        await h.rest(120)
        assert {group["metadata"]["uid"] for group in h.groups()} == uids
        # Groups come with the load, in that width, and up to the GPUs of four groups of the plan's own.
        keep_busy(h, 95)
        await h.until(lambda: len(widths_of(h)) > 4, 1200, "more groups")
        assert set(widths_of(h)) <= {0, 1}, "0: without pods yet"
        assert scaling_of(h)["chosenWidth"] == chosen
        # A word of the user's does.
        h.edit(hardware={"gpusPerGroup": 4})
        await h.until(lambda: set(widths_of(h)) == {4} and h.ready(), 1800, "groups of four GPUs")
        assert "chosenWidth" not in scaling_of(h)

    play(scenario, settings=calm())


@pytest.mark.parametrize("after", [0.1, 20.0, 60.0])
def test_an_operator_that_ends_in_the_middle_is_gone_on_from(after: float) -> None:
    """Lost: the choice, and with it a second change back."""

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Auto"))
        await h.serve(2)
        witness = Witness(h)
        await h.until(lambda: scaling_of(h).get("chosenWidth"), 1800, "a choice")
        await h.rest(after)
        h.operator.kill()
        await h.until(lambda: widths_of(h) == [1, 1] and h.ready(), 1800, "groups of one GPU")
        await h.settle()
        assert witness.lowest >= 2
        assert scaling_of(h)["chosenWidth"]["gpus"] == 1
        assert len(h.world.server.list(CONTROLLER_REVISION, NAMESPACE, f"{names.LABEL_DEPLOYMENT}=tiny")) >= 2

    play(scenario, settings=calm())


def test_narrow_groups_become_fewer_wide_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost: half of what serves, if two wide groups that are wanted were taken for two of those that there are."""
    wide_is_worth(monkeypatch, 6)

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Fixed", scaling={"minGroups": 1, "maxGroups": 6}))
        await h.serve(1)
        keep_busy(h, 80)
        await h.serve(6, within=1800)
        assert set(widths_of(h)) == {4}
        h.edit(scaling={"width": "Auto"})
        least, most = [6.0], [24]

        def look() -> None:
            wide = sum(width_of(h, name) == 8 for name in h.serving())
            least.append(6.0 * wide + len(h.serving()) - wide)
            there = [g["metadata"] for g in h.groups() if not g["metadata"].get("deletionTimestamp")]
            most.append(sum(width_of(h, meta["name"]) for meta in there))

        h.world.timers.every(0.5, look)
        await h.until(lambda: scaling_of(h).get("chosenWidth"), 3600, "a choice")
        assert 1 <= scaling_of(h)["desired"] <= 3
        await h.until(lambda: set(widths_of(h)) == {8} and h.ready(), 3600, "groups of eight GPUs")
        await h.settle()
        assert min(least) >= 6
        assert max(most) <= 24 + 8, "one group at a time"

    play(scenario, settings=calm())


def test_a_schedule_s_groups_are_had_of_no_width_of_which_there_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lost: the evening's groups, which count as groups whatever their width: the GPUs are those of three wide ones."""
    wide_is_worth(monkeypatch, 6)
    evening = {"name": "evening", "from": "20:00", "to": "23:00", "minGroups": 4}

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Auto", scaling={"minGroups": 1, "maxGroups": 6, "schedules": [evening]}))
        keep_busy(h, 80)
        await h.serve(6, within=1800)
        await h.rest(1200)
        assert not {"recommendedWidth", "chosenWidth"} & scaling_of(h).keys()
        assert set(widths_of(h)) == {4}

    play(scenario, settings=calm())


def test_a_chosen_width_outlives_zero() -> None:
    """Lost: the choice, each time that nobody asks for anything; or the way to zero, by groups that are to move."""

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Auto", scaling={"minGroups": 0, "scaleToZeroAfter": "10m"}))
        await h.serve(1)
        await h.until(lambda: widths_of(h) == [1] and h.ready(), 3600, "a group of one GPU")
        chosen = scaling_of(h)["chosenWidth"]
        keep_busy(h, 0)
        await h.until(lambda: not h.groups(), 1200, "none")
        await h.settle()
        assert scaling_of(h)["chosenWidth"] == chosen
        assert [c["after"] for c in scaling_of(h)["history"]][-1] == 0
        h.wake(format_time(h.world.clock() + 1200))
        await h.serve(1)
        assert widths_of(h) == [1]
        assert scaling_of(h)["chosenWidth"] == chosen

    play(scenario, settings=calm())


def test_a_successor_goes_on_with_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost: every recommendation, where operators are upgraded more often than hours of demand are seen."""
    monkeypatch.setattr(width, "EVIDENCE", 1500.0)

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Recommend"))
        await h.serve(2)
        await h.rest(1300)
        assert "recommendedWidth" not in scaling_of(h)
        await h.operator.stop()
        took = await h.until(lambda: scaling_of(h).get("recommendedWidth"), 3600, "a recommendation")
        assert took < 600, "it was seen for most of the time by the one before"
        assert h.operator.counting.learned_anew == []

    play(scenario, settings=calm())


def test_a_successor_makes_no_more_groups_than_were_ever_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost: a start of each group that is there for the floor only, and goes again soon after."""
    monkeypatch.setattr(width, "_LINGERS", 600.0)

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Recommend"))
        await h.serve(2)
        await h.until(lambda: scaling_of(h).get("recommendedWidth"), 1800, "a recommendation")
        await h.operator.stop()
        h.edit(scaling={"width": "Auto"})
        narrow = [0]
        h.world.timers.every(0.5, lambda: narrow.append(widths_of(h).count(1)))
        took = await h.until(lambda: scaling_of(h).get("chosenWidth"), 1800, "a choice")
        assert took < 600
        assert scaling_of(h)["chosenWidth"]["groups"] == 2, (
            "by estimate, six or more serve what two of four GPUs do"
        )
        await h.until(lambda: widths_of(h) == [1, 1] and h.ready(), 1800, "groups of one GPU")
        assert max(narrow) == 2

    play(scenario, settings=calm())


def test_a_width_whose_groups_do_not_come_up_is_given_up() -> None:
    """Lost: a rollout that stands for ever, for a width that nobody asked for."""

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Auto", recovery={"restartBudget": 1}))
        await h.serve(2)
        first = h.status()["revision"]
        uids = {group["metadata"]["uid"] for group in h.groups()}
        witness = Witness(h)
        h.world.settings.start_failure = (1, "torch.OutOfMemoryError: CUDA out of memory")
        await h.until(lambda: (scaling_of(h).get("chosenWidth") or {}).get("givenUp"), 3600, "giving up")
        await h.until(lambda: h.ready() and h.status()["revision"] == first, 120, "the revision before")
        await h.settle()
        assert {group["metadata"]["uid"] for group in h.groups()} == uids
        assert witness.lowest == 2
        assert h.condition(reasons.STALLED) is None
        assert len(_told(h, reasons.WIDTH_GIVEN_UP)) == 1
        h.world.settings.start_failure = None
        # Not again: not within a day. Another may be.
        await h.rest(600)
        assert 1 not in widths_of(h)

    play(scenario, settings=calm())


def test_a_recommendation_waits_for_room() -> None:
    """Lost: groups of others, or a rollout that waits for GPUs that are not there."""

    async def scenario(h: Harness) -> None:
        h.apply(by_policy("Auto"))
        await h.serve(2)
        _fill(h)
        await h.until(lambda: scaling_of(h).get("recommendedWidth"), 2400, "a recommendation")
        await h.rest(180)
        assert "chosenWidth" not in scaling_of(h)
        assert widths_of(h) == [4, 4]
        for pod in h.world.server.list(POD, "research"):
            h.world.server.delete(POD, "research", pod["metadata"]["name"], "research")
        await h.until(lambda: widths_of(h) == [1, 1] and h.ready(), 2400, "groups of one GPU")

    play(scenario, settings=calm(), nodes=2)


def _fill(h: Harness) -> None:
    """Somebody else holds every GPU that is free."""
    held: dict[str, int] = {}
    for pod in h.world.server.list(POD, NAMESPACE):
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        node = pod["spec"].get("nodeName")
        held[node] = held.get(node, 0) + int(limits["nvidia.com/gpu"])
    for node in h.world.server.list(NODE):
        name = node["metadata"]["name"]
        free = 8 - held.get(name, 0)
        if free:
            limits = {"nvidia.com/gpu": str(free)}
            container = {"name": names.ENGINE_CONTAINER, "image": "train", "resources": {"limits": limits}}
            spec = {"nodeName": name, "containers": [container]}
            meta = {"name": f"training-{name}", "namespace": "research"}
            h.world.server.create(
                POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, "research"
            )
