"""Whether LeaderWorkerSet can be used. Without the check a deployment would hang with a refusal nobody understands."""

from typing import Any

import pytest

from moe_operator.api import reasons
from moe_operator.controller.kube import ForbiddenError, KubeError, NotFoundError, Obj
from moe_operator.runtime.capabilities import LACKING_FOR, PRESENT_FOR, LeaderWorkerSetCheck

GROUP = "/apis/leaderworkerset.x-k8s.io"
OPENAPI = "/openapi/v3/apis/leaderworkerset.x-k8s.io/v1"


def schema(*policies: str) -> dict[str, Any]:
    policy = {"properties": {"restartPolicy": {"type": "string", "enum": list(policies)}}}
    return {
        "components": {
            "schemas": {
                "io.x-k8s.leaderworkerset.v1.LeaderWorkerSetList": {},
                "io.x-k8s.leaderworkerset.v1.LeaderWorkerSet": {
                    "x-kubernetes-group-version-kind": [
                        {"group": "leaderworkerset.x-k8s.io", "kind": "LeaderWorkerSet", "version": "v1"}
                    ],
                    "properties": {"spec": {"properties": {"leaderWorkerTemplate": policy}}},
                },
            }
        }
    }


class Pages:
    def __init__(self, **pages: Any) -> None:
        self.pages: dict[str, Obj | KubeError] = {}
        self.asked = 0
        self.now = 0.0

    async def get_path(self, path: str) -> Obj:
        self.asked += 1
        page = self.pages.get(path, NotFoundError(404, "NotFound", path))
        if isinstance(page, KubeError):
            raise page
        return page

    def check(self) -> LeaderWorkerSetCheck:
        return LeaderWorkerSetCheck(self, lambda: self.now)


def served(*versions: str) -> Obj:
    return {"versions": [{"version": v} for v in versions]}


async def test_what_is_there_is_looked_for_rarely() -> None:
    pages = Pages()
    pages.pages = {GROUP: served("v1"), OPENAPI: schema("Default", "None")}
    check = pages.check()
    assert await check() is None
    assert await check() is None
    assert pages.asked == 2
    pages.now = PRESENT_FOR
    assert await check() is None
    assert pages.asked == 4


async def test_once_installed_it_is_taken_up_within_seconds() -> None:
    pages = Pages()
    check = pages.check()
    refusal = await check()
    assert refusal is not None
    assert refusal.reason == reasons.LEADER_WORKER_SET_MISSING
    assert "install version 0.9.0" in refusal.message
    pages.pages = {GROUP: served("v1"), OPENAPI: schema("None")}
    assert await check() is refusal, "a thousand deployments do not ask a thousand times"
    pages.now = LACKING_FOR
    assert await check() is None


@pytest.mark.parametrize(
    ("group", "openapi", "says"),
    [
        (served("v1alpha1"), schema("None"), "serves LeaderWorkerSet in v1alpha1, v1 is needed"),
        (
            served("v1"),
            schema("Default", "RecreateGroupOnPodRestart"),
            "Default, RecreateGroupOnPodRestart, None is",
        ),
    ],
)
async def test_one_that_is_too_old_is_refused_with_what_it_lacks(group: Obj, openapi: Obj, says: str) -> None:
    pages = Pages()
    pages.pages = {GROUP: group, OPENAPI: openapi}
    refusal = await pages.check()()
    assert refusal is not None
    assert refusal.reason == reasons.LEADER_WORKER_SET_TOO_OLD
    assert says in refusal.message
    assert "upgrade it to 0.9.0" in refusal.message


async def test_a_page_that_may_not_be_read_or_says_nothing_is_no_reason_to_refuse() -> None:
    unsaid: list[Obj | KubeError] = [
        ForbiddenError(403, "Forbidden", "no"),
        {},
        NotFoundError(404, "NotFound", "no"),
    ]
    for page in unsaid:
        pages = Pages()
        pages.pages = {GROUP: served("v1"), OPENAPI: page}
        assert await pages.check()() is None


async def test_an_api_server_that_stumbles_does_not_turn_a_good_answer_into_a_bad_one() -> None:
    pages = Pages()
    pages.pages = {GROUP: KubeError(503, "ServiceUnavailable", "starting")}
    check = pages.check()
    with pytest.raises(KubeError):
        await check()
    pages.pages = {GROUP: served("v1"), OPENAPI: schema("None")}
    assert await check() is None
    pages.now = PRESENT_FOR
    pages.pages = {GROUP: KubeError(503, "ServiceUnavailable", "restarting")}
    assert await check() is None
