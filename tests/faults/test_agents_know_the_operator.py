"""The operator's key over its life: groups obey who has it, and losing it ends nothing that serves."""

from fakecluster.harness import Harness, manifest, play
from moe_operator.api import names
from moe_operator.controller.kube import CONTROLLER_REVISION, POD
from moe_operator.resources.agent_token import agent_token, verifier_of

KEY = bytes(range(32))


def test_a_successor_with_the_same_key_drains_what_its_predecessor_made() -> None:
    """Lost: pooled clients stay with a group that goes, after every restart of the operator."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.serve(2)
        h.operator.kill()
        await h.until(lambda: h.operator.leads, 60)
        h.edit(replicas=1)
        await h.serve(1)
        assert sorted(h.world.engine_client.drained) == ["tiny-g1-0", "tiny-g1-0-1"]

    play(scenario)


def test_another_key_ends_nothing_and_makes_no_new_revision() -> None:
    """Lost: an outage of every model when somebody deletes a Secret."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.serve(2)
        before = {g["metadata"]["uid"] for g in h.groups()}
        h.key = KEY
        h.operator.kill()
        await h.settle()
        assert {g["metadata"]["uid"] for g in h.groups()} == before
        assert len(h.world.server.list(CONTROLLER_REVISION)) == 1
        # They do not hear it, and go at the deadline at the latest; new ones are made with the new key.
        h.edit(replicas=1, rollout={"drainDeadline": "30s"})
        await h.serve(1)
        assert not h.world.engine_client.drained
        h.edit(replicas=2)
        await h.serve(2)
        uid = h.deployment()["metadata"]["uid"]
        (made,) = (p for p in h.world.server.list(POD) if p["metadata"]["name"] == "tiny-g1-0")
        wanted = verifier_of(agent_token(KEY, uid, "tiny-g1"))
        assert made["metadata"]["annotations"][names.ANNOTATION_AGENT_VERIFIER] == wanted

    play(scenario)
