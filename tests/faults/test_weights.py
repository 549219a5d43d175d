"""Weights in a shared claim are downloaded once whatever happens, and whoever has mended a cause need do no more."""

from typing import Any

import pytest

from fakecluster.crashes import FATES, Report, Story, explore
from fakecluster.harness import NAME, NAMESPACE, Harness, manifest, play
from fakecluster.objects import is_true
from moe_operator.api import names
from moe_operator.catalog.weights_layout import Reason
from moe_operator.controller.kube import JOB, LEADER_WORKER_SET, PERSISTENT_VOLUME_CLAIM, POD, Obj

CACHE = {"cache": {"storageClassName": "shared", "size": "1Ti"}}
TOTAL = 400_000_000_000

pytestmark = pytest.mark.timeout(900)


def cached(replicas: int = 1, name: str = NAME, **spec: Any) -> Obj:
    return manifest(replicas, name, weights=CACHE, **spec)


def jobs(h: Harness) -> list[Obj]:
    return h.world.server.list(JOB, NAMESPACE)


def weights_ready(h: Harness, name: str = NAME) -> tuple[str, str, str]:
    """Status, reason and message."""
    found = h.condition("WeightsReady", name) or {"status": "", "reason": "", "message": ""}
    return found["status"], found["reason"], found["message"]


def test_one_download_serves_all_groups_pods_and_revisions() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached(2))
        await h.until(lambda: weights_ready(h)[1] == "WeightsDownloading", 30, "it downloads")
        assert h.groups() == []
        await h.until(lambda: "GB of hf://org/tiny-moe" in weights_ready(h)[2], 30, "it says how much")
        await h.serve(2)
        assert weights_ready(h)[:2] == ("True", "WeightsCached")
        said = h.status()["weights"]
        assert (said["bytes"], said["totalBytes"], said["percent"]) == (TOTAL, TOTAL, 100)
        assert said["commit"] == "c" * 40
        assert said["readySince"]
        h.edit(engine={"args": {"max-num-seqs": "64"}})
        await h.until(lambda: h.status()["groups"]["updated"] == 2, 900, "the second revision serves")
        h.apply(cached(1, "other"))
        await h.serve(1, name="other")
        assert h.world.downloads.hub.served_bytes == TOTAL
        assert len(jobs(h)) == 1
        assert len(jobs(h)[0]["metadata"]["ownerReferences"]) == 2

    play(story)


def test_figures_move_at_the_pace_of_the_status() -> None:
    async def story(h: Harness) -> None:
        h.world.downloads.hub.seconds = 1200.0
        h.apply(cached())
        await h.until(lambda: h.status().get("weights", {}).get("bytes"), 60, "it has begun")
        before = h.writes
        await h.rest(600)
        assert 10 <= h.writes - before <= 21, h.written(before)

    play(story)


def test_an_owner_that_goes_leaves_the_job_to_the_others_and_the_claim_to_all() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached())
        h.apply(cached(1, "other"))
        await h.serve()
        await h.serve(name="other")
        h.delete()
        await h.settle()
        assert len(jobs(h)) == 1
        await h.serve(name="other")
        h.delete("other")
        await h.until(lambda: not jobs(h), 60, "the last owner takes the Job along")
        assert len(h.world.server.list(PERSISTENT_VOLUME_CLAIM, NAMESPACE)) == 1
        h.apply(cached())
        await h.serve()
        assert h.world.downloads.hub.served_bytes == TOTAL

    play(story)


def test_wrong_credentials_are_said_and_taken_up_once_they_are_right() -> None:
    async def story(h: Harness) -> None:
        hub = h.world.downloads.hub
        hub.failure = (Reason.UNAUTHORIZED, "org/tiny-moe: 401: set HF_TOKEN")
        h.apply(cached())
        await h.until(lambda: weights_ready(h)[1] == "WeightsUnauthorized", 60, "it says so")
        assert "set HF_TOKEN" in weights_ready(h)[2]
        await h.settle(quiet=1, within=1)
        before = [w for w in h.written() if "apply_status" in w]
        await h.rest(300)
        assert [w for w in h.written() if "apply_status" in w] == before, "the status flickers"
        hub.failure = None
        await h.serve(within=240)
        assert weights_ready(h)[:2] == ("True", "WeightsCached")

    play(story)


def test_another_secret_in_the_spec_is_tried_at_once() -> None:
    async def story(h: Harness) -> None:
        hub = h.world.downloads.hub
        hub.failure = (Reason.UNAUTHORIZED, "401")
        h.apply(cached())
        await h.until(lambda: weights_ready(h)[1] == "WeightsUnauthorized", 60, "it says so")
        hub.failure = None
        (refused,) = jobs(h)
        h.edit(weights={"credentialsSecret": "hub"})
        await h.until(
            lambda: [j["metadata"]["uid"] != refused["metadata"]["uid"] for j in jobs(h)] == [True],
            2,
            "it is tried",
        )
        await h.until(lambda: weights_ready(h)[1] == "WeightsDownloading", 15, "the next look says so")
        await h.serve()
        assert len(jobs(h)) == 1, "the Job of the wrong Secret stays"

    play(story)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (Reason.NOT_FOUND, "WeightsNotFound"),
        (Reason.CORRUPT, "WeightsCorrupt"),
        (Reason.DISK_FULL, "WeightsDiskFull"),
        (Reason.UNREACHABLE, "WeightsUnreachable"),
    ],
)
def test_every_failure_is_named_and_passes_by_itself(reason: Reason, shown: str) -> None:
    async def story(h: Harness) -> None:
        hub = h.world.downloads.hub
        hub.failure = (reason, "model-00007.safetensors and its numbers")
        h.apply(cached())
        await h.until(lambda: weights_ready(h)[1] == shown, 60, "it says so")
        assert "model-00007.safetensors and its numbers" in weights_ready(h)[2]
        assert "model-00007.safetensors" in h.condition("GroupsReady")["message"]  # type: ignore[index]
        await h.rest(200)
        assert h.groups() == []
        assert weights_ready(h)[1] == shown
        hub.failure = None
        await h.serve(within=400)

    play(story)


def test_groups_that_serve_stay_while_another_model_is_downloaded() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached())
        await h.serve()
        h.world.downloads.hub.failure = (Reason.NOT_FOUND, "no revision v2")
        h.edit(model={"revision": "v2"})
        await h.until(lambda: weights_ready(h)[1] == "WeightsNotFound", 60, "it says so")
        await h.rest(300)
        assert h.serving() == ["tiny-g0"]
        h.edit(model={"revision": None})
        await h.serve()
        assert h.serving() == ["tiny-g0"]

    play(story)


def test_a_group_that_is_lost_is_replaced_while_another_model_is_downloaded() -> None:
    """A mistyped revision must not leave a deployment without groups after the next crash."""

    async def story(h: Harness) -> None:
        h.apply(cached())
        await h.serve()
        served = h.status()["revision"]
        h.world.downloads.hub.failure = (Reason.NOT_FOUND, "no revision v2")
        h.edit(model={"revision": "v2"})
        await h.until(lambda: weights_ready(h)[1] == "WeightsNotFound", 60, "it says so")
        h.world.crash_engine("tiny-g0-0", "CUDA error")
        await h.until(lambda: not h.serving(), 30, "the group is lost")
        await h.until(lambda: len(h.serving()) == 1, 300, "another serves")
        assert h.groups()[0]["metadata"]["labels"][names.LABEL_REVISION] == served
        h.world.downloads.hub.failure = None
        await h.serve(within=900)
        assert h.groups()[0]["metadata"]["labels"][names.LABEL_REVISION] != served

    play(story)


def test_an_evicted_download_goes_on_where_it_stopped() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached())
        await h.until(lambda: "GB of hf" in weights_ready(h)[2], 60, "it downloads")
        for pod in h.world.server.list(POD, NAMESPACE):
            h.world.delete_pod(pod["metadata"]["name"])
        await h.serve()
        assert h.world.downloads.hub.served_bytes == TOTAL

    play(story)


def test_a_job_that_somebody_deletes_is_made_again_and_downloads_nothing() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached())
        await h.serve()
        job = jobs(h)[0]["metadata"]
        h.world.server.delete(JOB, NAMESPACE, job["name"], "somebody", uid=job["uid"])
        await h.until(lambda: jobs(h) and is_true(jobs(h)[0], "Complete"), 60, "it is made again")
        await h.serve()
        assert h.world.downloads.hub.served_bytes == TOTAL

    play(story)


def test_a_claim_that_was_made_anew_is_filled_again() -> None:
    """Otherwise engines start on an empty folder, for ever."""

    async def story(h: Harness) -> None:
        h.apply(cached())
        await h.serve()
        claim = h.world.server.list(PERSISTENT_VOLUME_CLAIM, NAMESPACE)[0]["metadata"]
        h.world.server.delete(PERSISTENT_VOLUME_CLAIM, NAMESPACE, claim["name"], "somebody")
        h.world.downloads.hub.fetched.clear()
        await h.until(lambda: h.world.downloads.hub.served_bytes == 2 * TOTAL, 1200, "it is filled again")

    play(story)


def test_a_larger_size_makes_the_claim_larger_and_moves_no_group() -> None:
    async def story(h: Harness) -> None:
        h.apply(cached())
        await h.serve()
        revision = h.status()["revision"]
        h.edit(weights={"cache": {"storageClassName": "shared", "size": "2Ti"}})

        def size() -> str:
            claim = h.world.server.list(PERSISTENT_VOLUME_CLAIM, NAMESPACE)[0]
            return str(claim["spec"]["resources"]["requests"]["storage"])

        await h.until(lambda: size() == "2Ti", 900, "the claim grows")
        assert h.status()["revision"] == revision

    play(story)


# --- claims that not all pods can mount -----------------------------------------------------------

OWN = {"cache": {"claim": "models"}}
ONE_POD = {"accelerator": "B200", "gpusPerGroup": 8}


def make_claim(h: Harness, *modes: str) -> None:
    """Somebody's claim, in place of one that may be there."""
    if h.world.server.get(PERSISTENT_VOLUME_CLAIM, NAMESPACE, "models"):
        h.world.server.delete(PERSISTENT_VOLUME_CLAIM, NAMESPACE, "models", "somebody")
    spec = {"accessModes": list(modes), "resources": {"requests": {"storage": "1Ti"}}}
    metadata = {"name": "models", "namespace": NAMESPACE}
    obj = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    h.world.server.create(PERSISTENT_VOLUME_CLAIM, obj, "somebody")


@pytest.mark.parametrize(
    "spec",
    [{"weights": OWN}, {"model": {"name": "org/tiny-moe", "source": "pvc://models/tiny"}}],
    ids=["cache", "source"],
)
def test_a_claim_of_one_node_is_said_and_its_correction_taken_up(spec: Obj) -> None:
    """Pods of the second node would stay in ContainerCreating, and the status would say "starting"."""

    async def story(h: Harness) -> None:
        make_claim(h, "ReadWriteOnce")
        h.apply(manifest(**spec))
        await h.until(lambda: weights_ready(h)[1] == "WeightsClaimNotShared", 10, "it says so")
        assert "claim models" in weights_ready(h)[2]
        assert "ReadWriteOnce" in weights_ready(h)[2]
        assert h.condition("Stalled")["reason"] == "WeightsClaimNotShared"  # type: ignore[index]
        assert "ReadWriteOnce" in h.condition("GroupsReady")["message"]  # type: ignore[index]
        assert h.condition("Reconciling") is None
        await h.settle()
        assert (h.groups(), jobs(h)) == ([], [])
        make_claim(h, "ReadWriteMany")
        await h.serve(within=200)
        assert h.condition("Stalled") is None

    play(story)


def test_a_cache_that_nobody_can_write_is_said_before_a_pod_waits_for_it() -> None:
    async def story(h: Harness) -> None:
        make_claim(h, "ReadOnlyMany")
        h.apply(manifest(weights=OWN, hardware=ONE_POD))
        await h.until(lambda: weights_ready(h)[1] == "WeightsBadCache", 10, "it says so")
        await h.settle()
        assert jobs(h) == []
        make_claim(h, "ReadWriteMany")
        await h.serve(within=200)

    play(story)


def test_one_pod_serves_from_a_claim_of_one_node_and_a_second_group_is_not_made() -> None:
    async def story(h: Harness) -> None:
        make_claim(h, "ReadWriteOnce")
        h.apply(manifest(weights=OWN, hardware=ONE_POD))
        await h.serve()
        assert weights_ready(h)[:2] == ("True", "WeightsCached")
        assert "only pods on one node at a time" in weights_ready(h)[2]
        h.edit(replicas=2)
        await h.until(lambda: weights_ready(h)[1] == "WeightsClaimNotShared", 10, "it says so")
        await h.rest(200)
        assert h.serving() == ["tiny-g0"]
        assert len(h.groups()) == 1
        h.world.crash_engine("tiny-g0-0", "CUDA error")
        await h.until(lambda: not h.serving(), 30, "the group is lost")
        await h.until(lambda: len(h.serving()) == 1, 300, "it is replaced all the same")
        h.edit(replicas=1)
        await h.serve(within=60)
        assert weights_ready(h)[0] == "True"
        h.edit(replicas=2)
        make_claim(h, "ReadWriteMany")
        await h.serve(2, within=400)

    play(story)


def test_groups_that_run_are_believed_more_than_the_modes_of_their_claim() -> None:
    """ReadWriteOnce claims on NFS serve many nodes: an upgrade must hold up no group, lost ones included."""

    async def story(h: Harness) -> None:
        make_claim(h, "ReadWriteMany")
        h.apply(manifest(weights=OWN))
        await h.serve()
        for made in h.world.server.list(PERSISTENT_VOLUME_CLAIM, NAMESPACE):
            spec = {"accessModes": ["ReadWriteOnce"]}
            h.world.server.patch(
                PERSISTENT_VOLUME_CLAIM, NAMESPACE, made["metadata"]["name"], {"spec": spec}, "somebody"
            )
        h.kill_operators()
        h.world.server.delete(LEADER_WORKER_SET, NAMESPACE, "tiny-g0", "somebody")
        await h.until(lambda: not h.world.server.list(POD, NAMESPACE, names.LABEL_GROUP), 300, "nothing runs")
        h.supervised = True
        h.start_operator()
        await h.serve(within=300)
        assert weights_ready(h)[0] == "True"
        h.edit(replicas=2)
        await h.serve(2)

    play(story)


# --- crashes --------------------------------------------------------------------------------------


async def _nothing(h: Harness) -> None:
    pass


async def _create(h: Harness) -> None:
    h.apply(cached())


async def _serves(h: Harness) -> None:
    await h.serve(within=900)


async def _refused(h: Harness) -> None:
    h.world.downloads.hub.failure = (Reason.UNAUTHORIZED, "401")
    h.apply(cached())
    await h.until(lambda: weights_ready(h)[1] == "WeightsUnauthorized", 60)


async def _mended(h: Harness) -> None:
    h.world.downloads.hub.failure = None


async def _two(h: Harness) -> None:
    h.apply(cached())
    h.apply(cached(1, "other"))
    await h.serve()
    await h.serve(name="other")
    await h.settle()


async def _other_secret(h: Harness) -> None:
    h.edit(weights={"credentialsSecret": "hub"})


async def _both_serve(h: Harness) -> None:
    await h.until(lambda: len(jobs(h)) == 2 and all(is_true(j, "Complete") for j in jobs(h)), 300)
    await h.until(lambda: h.status()["groups"]["updated"] == 1 and h.ready(), 900)
    await h.serve(name="other")


STORIES = [
    Story("download and serve", _nothing, _create, _serves),
    Story("credentials corrected", _refused, _mended, _serves),
    Story("leave a shared Job", _two, _other_secret, _both_serve),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda s: s.name)
def test_a_crash_at_any_write_changes_nothing_about_the_end(story: Story, reports: list[Report]) -> None:
    # Lost and refused answers are explored once: with them every story takes minutes.
    fates = tuple(FATES) if story is STORIES[0] else tuple(f for f in FATES if f.startswith("a crash"))
    report = explore(story, fates)
    reports.append(report)
    print(report.line())
    assert not report.failures, "\n\n".join(report.failures)
    assert report.writes
    assert any("Job" in write for write in report.writes), report.writes
