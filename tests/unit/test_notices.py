"""Pods that never come, told from Events. Lost: the quota's or the policy's own words, which no status has."""

import asyncio
import logging
from typing import Any, cast

import pytest

from factories.groups import NOW, admitted, group, pod, starting_pod
from fakecluster.objects import fields_match
from moe_operator.api import reasons
from moe_operator.api.times import format_time
from moe_operator.controller.causes import waiting_for
from moe_operator.controller.kube import STATEFUL_SET, ForbiddenError, Kind, KubeClient, KubeError, Obj
from moe_operator.controller.notices import INTERVAL, Notice, Notices
from moe_operator.controller.observed import EngineFacts, GroupFacts
from moe_operator.controller.webhooks import unavailable

QUOTA = (
    'pods "tiny-g0-0" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=8, limited: 64'
)
LWS_AWAY = (
    'Internal error occurred: failed calling webhook "mpod.kb.io": failed to call webhook: Post '
    '"https://lws-webhook-service.lws-system.svc:443/mutate--v1-pod?timeout=10s": dial tcp 10.96.1.2:443: connect:'
    " connection refused"
)


class Cluster:
    """Answers what Notices asks, and counts."""

    def __init__(self) -> None:
        self.stateful_sets = {"tiny-g0": "sts", "tiny-g0-0": "workers"}
        self.events: list[Obj] = []
        self.asked = 0
        self.error: KubeError | None = None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        assert kind == STATEFUL_SET
        uid = self.stateful_sets.get(name)
        return {"metadata": {"name": name, "uid": uid}} if uid else None

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, field_selector: str = ""
    ) -> list[Obj]:
        self.asked += 1
        if self.error:
            raise self.error
        return [one for one in self.events if fields_match(field_selector, one)]

    def says(self, about: str, uid: str, reason: str, message: str, ago: float = 5.0, **fields: Any) -> None:
        self.events.append(
            {
                "involvedObject": {"name": about, "uid": uid},
                "reason": reason,
                "message": message,
                "lastTimestamp": format_time(NOW - ago),
                **fields,
            }
        )


def _look(
    cluster: Cluster, *groups: GroupFacts, now: float = NOW, notices: Notices | None = None
) -> Notice | None:
    notices = notices or _notices(cluster)
    return asyncio.run(notices.look("serving", groups, now)).get(groups[0].uid)


def _notices(cluster: Cluster) -> Notices:
    return Notices(cast(KubeClient, cluster))


def _empty(age: float = 20.0, **overrides: Any) -> GroupFacts:
    return group(pods=[], created_at=NOW - age, **overrides)


def _told(notice: Notice | None) -> Notice:
    assert notice is not None
    return notice


class TestMissing:
    def test_a_quota_is_told_in_the_api_servers_words(self) -> None:
        cluster = Cluster()
        said = f"create Pod tiny-g0-0 in StatefulSet tiny-g0 failed error: {QUOTA}"
        cluster.says("tiny-g0", "sts", "FailedCreate", said)
        reason, message = _told(_look(cluster, _empty()))
        assert reason == reasons.PODS_REFUSED
        assert message == (
            f"2 of 2 pods were never created: create Pod tiny-g0-0 in StatefulSet tiny-g0 is refused: {QUOTA}"
        )

    def test_workers_that_are_refused_beside_their_leader(self) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0-0", "workers", "FailedCreate", f"create Pod x failed error: {QUOTA}")
        lone = group(pods=[starting_pod()], created_at=NOW - 60)
        reason, message = _told(_look(cluster, lone))
        assert reason == reasons.PODS_REFUSED
        assert message.startswith("1 of 2 pods were never created")

    def test_events_of_a_former_group_of_that_name_do_not_count(self) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0", "another", "FailedCreate", f"create Pod x failed error: {QUOTA}")
        assert _look(cluster, _empty()) is None

    def test_the_newest_words_count_however_the_recorder_writes_its_times(self) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0", "sts", "FailedCreate", "failed error: old", ago=50)
        series = {"lastObservedTime": "2027-01-15T08:00:00.123456Z"}
        cluster.says("tiny-g0", "sts", "FailedCreate", "failed error: new", ago=60, series=series)
        assert _told(_look(cluster, _empty()))[1].endswith("new")
        cluster.says(
            "tiny-g0", "sts", "FailedCreate", "failed error: odd", series={"lastObservedTime": "soon"}
        )
        assert _told(_look(cluster, _empty()))[1].endswith("new")

    def test_lws_own_pod_webhook_away(self) -> None:
        cluster = Cluster()
        cluster.says(
            "tiny-g0", "sts", "FailedCreate", f"create Pod x in StatefulSet y failed error: {LWS_AWAY}"
        )
        reason, message = _told(_look(cluster, _empty()))
        assert reason == reasons.LEADER_WORKER_SET_UNAVAILABLE
        assert "Service lws-webhook-service in namespace lws-system" in message

    def test_lws_own_controller_away(self) -> None:
        cluster = Cluster()
        cluster.stateful_sets.clear()
        reason, message = _told(_look(cluster, _empty(40)))
        assert reason == reasons.LEADER_WORKER_SET_SILENT
        assert "has no StatefulSet tiny-g0 after 40 s" in message
        assert "lws-controller-manager" in message
        cluster.stateful_sets["tiny-g0"] = "sts"
        lone = group(pods=[starting_pod(created_at=NOW - 30)])
        assert "has no StatefulSet tiny-g0-0 after 30 s" in _told(_look(cluster, lone))[1]

    def test_what_lws_says_of_itself_comes_before_its_silence(self) -> None:
        cluster = Cluster()
        cluster.stateful_sets.clear()
        said = 'Failed to create leader statefulset tiny-g0: admission webhook "p.example" denied the request: no'
        cluster.says("tiny-g0", _empty().uid, "FailedCreate", said)
        reason, message = _told(_look(cluster, _empty()))
        assert reason == reasons.PODS_REFUSED
        assert message.endswith("denied the request: no")


class TestStuck:
    @staticmethod
    def _group(**overrides: Any) -> GroupFacts:
        stuck = starting_pod(
            index=1, scheduled_at=NOW - 31, engine=EngineFacts(waiting_reason="ContainerCreating")
        )
        return group(pods=[pod(begun=True, scheduled_at=NOW - 31), stuck], **overrides)

    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            ("FailedMount", reasons.VOLUMES_NOT_MOUNTED),
            ("FailedAttachVolume", reasons.VOLUMES_NOT_MOUNTED),
            ("FailedCreatePodSandBox", reasons.POD_SANDBOX_FAILED),
        ],
    )
    def test_the_kubelets_words_are_told(self, event: str, reason: str) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0-0-1", "uid-tiny-g0-0-1", event, 'secret "token" not found')
        told = _told(_look(cluster, self._group()))
        assert told == (reason, f'pod tiny-g0-0-1 on node node-1: {event}: secret "token" not found')

    def test_a_mount_that_came_later_is_forgotten_while_the_image_is_pulled(self) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0-0-1", "uid-tiny-g0-0-1", "FailedMount", "not yet", ago=20)
        cluster.says("tiny-g0-0-1", "uid-tiny-g0-0-1", "Pulling", "Pulling image", ago=10)
        assert _look(cluster, self._group()) is None

    def test_pods_that_run_or_have_just_been_placed_are_not_asked_about(self) -> None:
        cluster = Cluster()
        early = starting_pod(index=1, scheduled_at=NOW - 29)
        loads = starting_pod(index=1, scheduled_at=NOW - 900, begun=True)
        for one in (early, loads):
            assert _look(cluster, group(pods=[pod(begun=True), one])) is None
        assert cluster.asked == 0


class TestCost:
    def test_a_group_is_looked_at_every_20_seconds_at_most(self) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0", "sts", "FailedCreate", f"failed error: {QUOTA}")
        notices = _notices(cluster)
        for second in range(0, 60, 5):
            assert _look(cluster, _empty(), now=NOW + second, notices=notices) is not None
        assert cluster.asked == 3
        assert INTERVAL == 20

    def test_nothing_is_asked_of_groups_that_do_not_wait(self) -> None:
        cluster = Cluster()
        serves = admitted(group(created_at=NOW - 900))
        lost = admitted(group())
        lost = group(pods=lost.pods[:1], created_at=NOW - 900)
        for one in (_empty(14), serves, lost, _empty(deleting=True), _empty(draining_since=NOW)):
            assert _look(cluster, one) is None
        assert cluster.asked == 0

    def test_a_missing_right_is_said_once_and_costs_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        cluster = Cluster()
        cluster.error = ForbiddenError(403, "Forbidden", "events is forbidden")
        notices = _notices(cluster)
        with caplog.at_level(logging.WARNING):
            for minute in range(30):
                assert _look(cluster, _empty(), now=NOW + 60 * minute, notices=notices) is None
        assert len(caplog.records) == 1
        assert cluster.asked == 3, "the right may be granted: asked again every ten minutes"

    def test_an_api_server_that_fails_leaves_what_is_known(self) -> None:
        cluster = Cluster()
        cluster.says("tiny-g0", "sts", "FailedCreate", f"failed error: {QUOTA}")
        notices = _notices(cluster)
        known = _look(cluster, _empty(), notices=notices)
        cluster.error = KubeError(0, "NoAnswer", "timeout")
        assert _look(cluster, _empty(), now=NOW + 30, notices=notices) == known


def test_a_notice_is_what_the_group_waits_for() -> None:
    assert waiting_for(_empty(notice=("PodsRefused", "words"))) == ("PodsRefused", "words")


class TestWebhooks:
    def test_other_peoples_webhooks_are_told_apart(self) -> None:
        kueue = (
            'failed calling webhook "mleaderworkerset.kb.io": failed to call webhook: Post'
            ' "https://kueue-webhook-service.kueue-system.svc:443/mutate?timeout=10s": context deadline exceeded'
        )
        assert unavailable(LWS_AWAY) is not None
        found = unavailable(kueue)
        assert found is not None
        assert found[0] == reasons.WEBHOOK_UNAVAILABLE
        assert "Service kueue-webhook-service in namespace kueue-system" in found[1]

    def test_a_refusal_by_a_webhook_is_none_that_is_away(self) -> None:
        assert unavailable('admission webhook "p.example" denied the request: no') is None

    def test_a_webhook_at_a_url(self) -> None:
        found = unavailable('failed calling webhook "p": Post "https://policy.example/x": EOF')
        assert found == (
            reasons.WEBHOOK_UNAVAILABLE,
            'failed calling webhook "p": Post "https://policy.example/x": EOF',
        )
