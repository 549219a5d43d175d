"""Events of a real cluster: a quota's words are where Kubernetes puts them, found by a selector that it knows."""

import time

import pytest

from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, until
from factories.groups import group
from moe_operator.api import reasons
from moe_operator.controller.kube import STATEFUL_SET, Kind
from moe_operator.controller.notices import MISSING_AFTER, Notices
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)

QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")


async def test_a_quotas_words_are_told(client: AioKubeClient, namespace: str) -> None:
    """Lost: why a group has no pods, which no object's status says."""
    quota = {"metadata": {"name": "none", "namespace": namespace}, "spec": {"hard": {"pods": "0"}}}
    await client.create(QUOTA, {"apiVersion": "v1", "kind": "ResourceQuota", **quota})

    async def counted() -> bool:
        live = await client.get(QUOTA, namespace, "none")
        return bool(live and (live.get("status") or {}).get("hard"))

    await until(counted, "the quota counts")
    labels = {"app": "tiny"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "tiny-g0", "namespace": namespace},
        "spec": {"serviceName": "tiny", "selector": {"matchLabels": labels}, "template": template},
    }
    await client.create(STATEFUL_SET, stateful_set)
    facts = group(pods=[], created_at=time.time() - MISSING_AFTER)

    async def told() -> bool:
        found = await Notices(client).look(namespace, [facts], time.time())
        if facts.uid not in found:
            return False
        reason, message = found[facts.uid]
        assert reason == reasons.PODS_REFUSED
        assert "create Pod tiny-g0-0 in StatefulSet tiny-g0 is refused" in message
        assert "exceeded quota: none" in message
        return True

    await until(told, "the refusal is told")
