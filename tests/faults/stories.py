"""What happens to a deployment, in steps that are the same whatever goes wrong beside them."""

from fakecluster.crashes import Story
from fakecluster.engines import EngineSettings
from fakecluster.harness import NAMESPACE, Harness, manifest
from fakecluster.objects import labels_of
from moe_operator.api import names, reasons
from moe_operator.api.times import format_time
from moe_operator.controller.kube import LEADER_WORKER_SET, POD


async def _nothing(h: Harness) -> None:
    pass


async def _served(h: Harness) -> None:
    h.apply(manifest())
    await h.serve()
    await h.settle()


async def _create(h: Harness) -> None:
    h.apply(manifest())


async def _serves_one(h: Harness) -> None:
    await h.serve()


async def _crash_engine(h: Harness) -> None:
    h.world.crash_engine("tiny-g0-0-1", "RuntimeError: CUDA error: an illegal memory access was encountered")


async def _scale_up(h: Harness) -> None:
    h.edit(replicas=3)


async def _serves_three(h: Harness) -> None:
    await h.serve(3)


async def _three(h: Harness) -> None:
    h.apply(manifest(3))
    await h.serve(3)
    await h.settle()


async def _scale_down(h: Harness) -> None:
    h.edit(replicas=1)


async def _two(h: Harness) -> None:
    h.apply(manifest(2))
    await h.serve(2)
    await h.settle()


async def _scale_down_and_back(h: Harness) -> None:
    h.edit(replicas=1)

    def more() -> None:
        h.edit(replicas=2)

    h.world.timers.after(5.0, more)


async def _the_same_two(h: Harness) -> None:
    await h.until(lambda: h.deployment()["spec"]["replicas"] == 2, 60)
    await h.serve(2, within=60)
    made = [w for w in h.world.server.writes if w.verb == "create" and w.kind == LEADER_WORKER_SET]
    assert len(made) == 2, "a group was made while a warm one was there"
    await h.until(lambda: not any(e.draining for e in h.world.engines.by_pod.values()), 30, "agents are told")


async def _new_revision(h: Harness) -> None:
    h.edit(engine={"args": {"max-num-seqs": "64"}})


async def _rolled(h: Harness) -> None:
    revision = h.status().get("revision")
    await h.until(lambda: h.status().get("revision") != revision, 60)
    await h.serve(within=900)


async def _fail_and_delete(h: Harness) -> None:
    """The deployment goes while its group is being replaced: without a failure its deletion needs no write at all."""
    await _crash_engine(h)
    h.world.timers.after(2.0, h.delete)


async def _all_gone(h: Harness) -> None:
    await h.until(lambda: not h.end_state(), 120, "everything is gone")


def busy() -> EngineSettings:
    return EngineSettings(requests=4)


def long_answers() -> EngineSettings:
    """A drain takes two minutes."""
    return EngineSettings(requests=4, request_seconds=120.0)


async def _cordon(h: Harness) -> None:
    h.world.nodes.cordon(h.world.pod("tiny-g0-0")["spec"]["nodeName"])


async def _moved(h: Harness) -> None:
    def on_cordoned_nodes() -> bool:
        pods = h.world.server.list(POD, NAMESPACE, f"{names.LABEL_DEPLOYMENT}=tiny")
        return any(h.world.nodes.cordoned(pod["spec"].get("nodeName")) for pod in pods)

    await h.until(lambda: not on_cordoned_nodes(), 900, "no pod is left on a cordoned node")
    await h.serve(within=300)


async def _delete(h: Harness) -> None:
    h.delete()


async def _lightly(h: Harness) -> None:
    h.apply(manifest(recovery={"restartBudget": 1, "retryInterval": "2h"}))
    await h.serve()
    await h.settle()


async def _bad_revision(h: Harness) -> None:
    h.world.settings.start_failure = (1, "ValueError: no such quantization")
    h.edit(engine={"args": {"quantization": "fp3"}})


async def _stopped_and_back(h: Harness) -> None:
    def stopped() -> bool:
        stalled = h.condition(reasons.STALLED)
        return stalled is not None and stalled["reason"] == reasons.ROLLOUT_STOPPED

    await h.until(stopped, 1800, "the rollout is stopped")
    await h.until(lambda: len(h.groups()) == 1, 120)
    h.world.settings.start_failure = None
    h.edit(engine=None)
    await h.serve(within=300)


async def _paused_edit(h: Harness) -> None:
    h.edit(engine={"args": {"max-num-seqs": "64"}}, rollout={"paused": True})
    h.world.crash_engine("tiny-g0-0", "RuntimeError: boom")


async def _replaced_and_resumed(h: Harness) -> None:
    good = labels_of(h.groups()[0])[names.LABEL_REVISION]
    lost = h.groups()[0]["metadata"]["uid"]

    def successor() -> bool:
        return bool(h.serving()) and lost not in [g["metadata"]["uid"] for g in h.groups()]

    await h.until(successor, 900, "a successor serves")
    await h.settle()
    assert [labels_of(g)[names.LABEL_REVISION] for g in h.groups()] == [good]
    h.edit(rollout={"paused": False})
    await h.until(lambda: good not in [labels_of(g)[names.LABEL_REVISION] for g in h.groups()], 900)
    await h.serve(within=900)


async def _idle(h: Harness) -> None:
    h.apply(manifest(scaling={"minGroups": 0, "maxGroups": 2, "scaleToZeroAfter": "10m"}))
    await h.serve()
    await h.settle()
    await h.rest(400)


async def _none(h: Harness) -> None:
    await h.until(lambda: not h.groups() and h.ready(), 1800, "no group is left")


async def _at_zero(h: Harness) -> None:
    await _idle(h)
    await _none(h)
    await h.settle()


async def _wake(h: Harness) -> None:
    h.wake(format_time(h.world.clock() + 7200))


async def _wake_for_short(h: Harness) -> None:
    h.wake(format_time(h.world.clock() + 200))
    await h.serve()


STORIES = [
    Story("create", _nothing, _create, _serves_one),
    Story("engine crash", _served, _crash_engine, _serves_one),
    Story("scale 1 to 3", _served, _scale_up, _serves_three),
    Story("scale 3 to 1", _three, _scale_down, _serves_one, busy),
    Story("scale 2 to 1 and back", _two, _scale_down_and_back, _the_same_two, long_answers),
    Story("rollout", _served, _new_revision, _rolled, busy),
    Story("failure and deletion", _served, _fail_and_delete, _all_gone),
    Story("deletion under load", _served, _delete, _all_gone, busy),
    Story("node drain", _served, _cordon, _moved, busy),
    Story("a rollout that stops, and back", _lightly, _bad_revision, _stopped_and_back),
    Story("a loss while paused, and on", _served, _paused_edit, _replaced_and_resumed),
    Story("to zero", _idle, _nothing, _none),
    Story("from zero", _at_zero, _wake, _serves_one),
    Story("from zero and back", _at_zero, _wake_for_short, _none),
]
