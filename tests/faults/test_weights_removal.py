"""`deletion.weights: Delete`: what a deployment had downloaded goes with it, unless others use it, and whatever fails.

A team loses otherwise: terabytes that nobody uses and everybody pays for; or another team's weights; or a
ModelDeployment, and with it its namespace, that cannot be deleted.
"""

from collections.abc import Callable
from typing import Any

import pytest

from fakecluster.api_server import ApiServer
from fakecluster.crashes import Report, Story, explore
from fakecluster.engines import EngineSettings
from fakecluster.faults import WatchFaults
from fakecluster.harness import NAME, NAMESPACE, Harness, Witness, play
from faults.test_weights import TOTAL, cached, jobs, make_claim, weights_ready
from moe_operator.api import names, reasons
from moe_operator.catalog.operator_config import read_config
from moe_operator.catalog.weights_layout import Reason, entry_name
from moe_operator.controller.kube import (
    EVENT,
    JOB,
    MODEL_DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    ForbiddenError,
    KubeError,
    Obj,
)
from moe_operator.resources.weights_remove import removed_entries

pytestmark = pytest.mark.timeout(900)

DELETE = {"weights": "Delete"}
ENTRY = ("moe-weights-shared", entry_name("hf://org/tiny-moe"))


def dropping(replicas: int = 1, name: str = NAME, **spec: Any) -> Obj:
    obj = cached(replicas, name)
    obj["spec"].update({"deletion": DELETE, **spec})
    return obj


def gone(h: Harness, name: str = NAME) -> Callable[[], bool]:
    def look() -> bool:
        try:
            h.deployment(name)
        except KeyError:
            return True
        return False

    return look


def told(h: Harness, reason: str) -> list[str]:
    """Notes of Events, with their type."""
    found = h.world.server.list(EVENT, NAMESPACE)
    return [f"{e['type']}: {e['note']}" for e in found if e["reason"] == reason]


def there(h: Harness) -> set[tuple[str, str]]:
    return set(h.world.downloads.hub.fetched)


def removals(h: Harness) -> list[Obj]:
    return [job for job in jobs(h) if removed_entries(job)]


def says(h: Harness) -> str:
    ready = h.condition(reasons.READY)
    return str(ready["message"]) if ready and ready["reason"] == reasons.DELETING else ""


async def _serving(h: Harness, *manifests: Obj) -> None:
    for one in manifests:
        h.apply(one)
    for one in manifests:
        await h.serve(name=one["metadata"]["name"])
    await h.settle()


def test_what_others_use_stays_and_the_last_one_takes_it_along() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping(), dropping(1, "other"))
        h.delete("other")
        await h.until(gone(h, "other"), 120)
        assert there(h) == {ENTRY}
        assert "Normal: hf://org/tiny-moe stay in claim moe-weights-shared: tiny uses them" in told(
            h, "WeightsLeft"
        )
        assert not removals(h)
        await h.settle()
        assert h.serving() == ["tiny-g0"]
        h.delete()
        await h.until(lambda: "removing" in says(h), 60, "it says so")
        assert says(h).startswith("removing 400.0 GB of hf://org/tiny-moe from claim moe-weights-shared")
        await h.until(gone(h), 60)
        assert there(h) == set()
        assert told(h, "WeightsRemoved") == [
            "Normal: removed 400.0 GB of hf://org/tiny-moe from claim moe-weights-shared"
        ]
        await h.until(lambda: not jobs(h), 60, "no Job is left")
        assert h.world.server.list(PERSISTENT_VOLUME_CLAIM, NAMESPACE), "the claim stays"

    play(story)


def test_two_that_go_at_the_same_time_leave_nothing() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping(), dropping(1, "other"))
        h.delete()
        h.delete("other")
        await h.until(lambda: gone(h)() and gone(h, "other")(), 200)
        assert there(h) == set()

    play(story)


def test_a_revision_that_is_kept_for_rollback_goes_too_and_adapters_go_with_it() -> None:
    async def story(h: Harness) -> None:
        adapters = [{"name": "law", "source": "hf://org/law"}]
        await _serving(h, dropping(model={"name": "org/tiny-moe", "adapters": adapters}))
        h.edit(model={"revision": "v2", "adapters": None})
        await h.until(lambda: h.status()["groups"]["updated"] == 1 and h.ready(), 900)
        assert len(there(h)) == 2
        h.delete()
        await h.until(lambda: bool(removals(h)), 90)
        (job,) = removals(h)
        assert set(removed_entries(job)) == {
            ENTRY[1], entry_name("hf://org/tiny-moe", "v2"), entry_name("hf://org/law"),
        }  # fmt: skip
        await h.until(gone(h), 60)
        assert there(h) == set()

    play(story)


def test_a_download_under_way_ends_and_leaves_nothing() -> None:
    """The finalizer is there before the first byte: no group has ever served."""

    async def story(h: Harness) -> None:
        h.world.downloads.hub.seconds = 3600.0
        h.apply(dropping())
        await h.until(lambda: jobs(h), 30)
        assert h.deployment()["metadata"]["finalizers"] == [names.FINALIZER]
        await h.rest(60)
        h.delete()
        await h.until(gone(h), 90)
        assert h.world.downloads.hub.served_bytes > 0
        assert there(h) == set()
        assert not told(h, "WeightsLeft")

    play(story)


def test_policy_decides_about_the_finalizer_and_can_change_at_any_time() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached(0, scaling={"mode": "External", "minGroups": 0, "maxGroups": 2}))
        await h.settle()
        assert "finalizers" not in h.deployment()["metadata"]
        h.edit(deletion=DELETE)
        await h.settle()
        assert h.deployment()["metadata"]["finalizers"] == [names.FINALIZER]
        h.edit(deletion={"weights": "Keep"})
        await h.settle()
        assert "finalizers" not in h.deployment()["metadata"]
        h.edit(deletion=DELETE)
        await h.settle()
        h.world.downloads.hub.removal_seconds = 3600.0
        h.delete()
        await h.rest(30)
        assert not gone(h)()
        h.edit(deletion={"weights": "Keep"})
        await h.until(gone(h), 20, "somebody in a hurry changes the policy")

    play(story)


def test_requests_are_finished_first() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        witness = Witness(h)
        h.delete()
        await h.until(lambda: bool(removals(h)), 120)
        assert not h.groups()
        await h.until(gone(h), 60)
        assert not witness.lost_requests

    play(story, settings=EngineSettings(requests=4))


def test_groups_that_end_at_once_do_so_and_their_weights_after_them() -> None:
    async def story(h: Harness) -> None:
        spec = {"deletion": {"groups": "Immediate", "weights": "Delete"}, "rollout": {"drainDeadline": "1h"}}
        await _serving(h, dropping(**spec))
        h.delete()
        await h.until(lambda: not h.groups(), 60, "nobody waits for the requests")
        await h.until(gone(h), 60)
        assert there(h) == set()

    play(story, settings=EngineSettings(requests=4))


def test_a_deletion_in_the_foreground_takes_the_revisions_first() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        h.world.server.delete(MODEL_DEPLOYMENT, NAMESPACE, NAME, "kubectl", propagation="Foreground")
        await h.until(gone(h), 200)
        assert there(h) == set()

    play(story)


# --- others that come meanwhile -------------------------------------------------------------------


def test_another_that_wants_it_meanwhile_waits_and_downloads_it_again() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        h.world.downloads.hub.removal_seconds = 60.0
        h.delete()
        await h.until(lambda: bool(removals(h)), 60)
        h.apply(cached(1, "other"))
        await h.until(lambda: "removes it first" in weights_ready(h, "other")[2], 20, "it says why it waits")
        assert weights_ready(h, "other")[1] == "WeightsWaiting"
        assert len(jobs(h)) == 1
        assert not h.groups("other")
        await h.serve(name="other", within=400)
        assert h.world.downloads.hub.served_bytes == 2 * TOTAL
        assert there(h) == {ENTRY}

    play(story)


@pytest.mark.parametrize("ahead", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
def test_one_that_begins_at_the_same_moment_ends_with_its_weights(ahead: float) -> None:
    """Whoever is first, nobody serves from a folder that is gone."""

    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        h.delete()
        await h.until(lambda: not h.groups(), 60)
        await h.rest(ahead)
        h.apply(cached(1, "other"))
        await h.serve(name="other", within=400)
        await h.settle()
        assert there(h) == {ENTRY}
        assert gone(h)()

    play(story)


# --- what fails -----------------------------------------------------------------------------------


def test_a_removal_that_never_ends_holds_the_deletion_for_five_minutes_and_is_told() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        h.world.downloads.hub.removal_seconds = 1e6
        h.delete()
        await h.until(lambda: not h.groups(), 60)
        took = await h.until(gone(h), 400)
        assert 290 <= took <= 310, took
        (note,) = told(h, "WeightsLeft")
        assert note.startswith(
            "Warning: hf://org/tiny-moe stay in claim moe-weights-shared (not done after 5 min"
        )
        assert f"moe-operator weights remove --entry {ENTRY[1]}" in note
        await h.until(lambda: not jobs(h), 60)

    play(story)


def test_a_removal_that_fails_is_told_at_once() -> None:
    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        h.world.downloads.hub.removal_failure = (Reason.BAD_CACHE, "user 65532 may not write")
        h.delete()
        await h.until(gone(h), 60)
        (note,) = told(h, "WeightsLeft")
        assert "user 65532 may not write" in note

    play(story)


def test_a_claim_that_is_gone_needs_no_removal() -> None:
    async def story(h: Harness) -> None:
        make_claim(h, "ReadWriteMany")
        await _serving(h, dropping(weights={"cache": {"claim": "models"}}))
        h.world.server.delete(PERSISTENT_VOLUME_CLAIM, NAMESPACE, "models", "somebody")
        h.delete()
        await h.until(gone(h), 60)
        assert not told(h, "WeightsLeft")
        assert not [w for w in h.written() if "create Job" in w and "remove" in w]

    play(story)


@pytest.mark.parametrize(("status", "within"), [(403, 60.0), (500, 400.0)])
def test_a_job_that_cannot_be_made_holds_nothing(
    status: int, within: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace that ends takes no more Jobs; a webhook may fail for as long as it likes."""
    create = ApiServer.create

    def refuse(self: ApiServer, kind: Any, obj: Obj, *more: Any, **named: Any) -> Any:
        if kind == JOB and removed_entries(obj):
            error = ForbiddenError if status == 403 else KubeError
            raise error(status, "Refused", "namespace serving is being terminated")
        return create(self, kind, obj, *more, **named)

    monkeypatch.setattr(ApiServer, "create", refuse)

    async def story(h: Harness) -> None:
        await _serving(h, dropping())
        h.delete()
        await h.until(gone(h), within)
        (note,) = told(h, "WeightsLeft")
        assert note.startswith("Warning: hf://org/tiny-moe stay in claim")

    play(story)


# --- the site's default ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("{}", "no default cache"),
        ("{cache: {hostPath: /var/weights}}", "/var/weights of the nodes"),
        ("{cache: {storageClassName: shared, size: 1Ti}}", ""),
    ],
)
def test_a_site_that_keeps_nothing_in_claims_is_noted_and_keeps_nobody_from_serving(
    site: str, said: str
) -> None:
    async def story(h: Harness) -> None:
        h.config = read_config(f"weights: {site}")
        h.start_operator()
        obj = dropping()
        del obj["spec"]["weights"]
        h.apply(obj)
        await h.serve()
        message = h.condition(reasons.PLANNED)["message"]  # type: ignore[index]
        assert ("deletion.weights: Delete has nothing to remove" in message) == bool(said)
        assert said in message
        h.delete()
        await h.until(gone(h), 120)
        assert there(h) == set()

    play(story, operator=False)


# --- crashes --------------------------------------------------------------------------------------


async def _two(h: Harness) -> None:
    await _serving(h, dropping(), dropping(1, "other"))


async def _delete_both_one_by_one(h: Harness) -> None:
    h.delete("other")


async def _entry_stays_then_goes(h: Harness) -> None:
    await h.until(gone(h, "other"), 300)
    assert there(h) == {ENTRY}, "what another uses was removed"
    h.delete()
    await h.until(lambda: gone(h)() and not jobs(h), 500)
    assert there(h) == set(), "nobody uses it, and it is there"


#: Jobs, pods and deployments are known late: what another wants, and what is removed, may be news.
DISORDER = WatchFaults(delay={POD: 1.0, JOB: 2.0, MODEL_DEPLOYMENT: 1.5}, jitter=1.5, double=0.3, seed=7)
STORY = Story("delete two that share weights", _two, _delete_both_one_by_one, _entry_stays_then_goes)


@pytest.mark.parametrize("disorder", [None, DISORDER], ids=["in order", "events in disorder"])
def test_a_crash_at_any_write_changes_nothing_about_the_end(
    disorder: WatchFaults | None, reports: list[Report]
) -> None:
    report = explore(STORY, ("a crash before each write", "a crash after each write"), disorder=disorder)
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
    assert any("create Job" in write for write in report.writes), report.writes
