"""`kubectl moe rollout undo` and the operator together. Lost otherwise: the way back out of a bad change, at night."""

import json
from typing import Any

from fakecluster.client import MemoryClient
from fakecluster.harness import NAME, NAMESPACE, Harness, manifest, play
from moe_operator.api import names
from moe_operator.api.deployment import parse
from moe_operator.catalog.operator_config import read_config
from moe_operator.cli.cluster import read_seen
from moe_operator.cli.lines import WIDTH
from moe_operator.cli.revision_history import history
from moe_operator.cli.rollout_progress import progress
from moe_operator.cli.spec_changes import Change
from moe_operator.cli.status_picture import Picture, picture
from moe_operator.cli.status_text import status_text
from moe_operator.cli.undo import MANAGER, Undo, undo
from moe_operator.controller.kube import CONTROLLER_REVISION, MODEL_DEPLOYMENT, NODE

CHANGED: dict[str, Any] = {
    "engine": {"image": "vllm/vllm-openai:v0.99.0", "args": {"max-num-seqs": "64"}},
    "podTemplate": {"labels": {"team": "search"}},
}


async def _look(h: Harness) -> Picture:
    seen = await read_seen(MemoryClient(h.world.server), NAMESPACE, NAME)
    assert seen.unread == ()
    return picture(seen, h.world.clock())


def _undo(h: Harness, to: str | None = None) -> Undo:
    deployment = parse(h.deployment())
    return undo(deployment, history(h.world.server.list(CONTROLLER_REVISION, NAMESPACE), deployment), to)


def _apply(h: Harness, found: Undo) -> None:
    h.world.server.patch(MODEL_DEPLOYMENT, NAMESPACE, NAME, found.patch, MANAGER)


def _rendered(h: Harness) -> set[str]:
    """Of each group the bytes of its spec, without its own name, token and nodes."""
    found = set()
    for group in h.groups():
        spec = json.loads(json.dumps(group["spec"]))
        for kind in ("leaderTemplate", "workerTemplate"):
            template = spec["leaderWorkerTemplate"][kind]
            template["metadata"]["annotations"].pop(names.ANNOTATION_AGENT_VERIFIER)
        found.add(json.dumps(spec, sort_keys=True).replace(group["metadata"]["name"], "GROUP"))
    return found


def test_undo_finds_the_kept_revision_and_renders_the_same_bytes() -> None:
    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.serve(2)
        first, rendered = h.status()["revision"], _rendered(h)
        assert len(rendered) == 1
        h.edit(**CHANGED)
        await h.until(lambda: h.status()["revision"] != first, 30)
        await h.serve(2)
        assert _rendered(h) != rendered
        found = _undo(h)
        assert found.patch == {"spec": {"engine": None, "podTemplate": None}}
        _apply(h, found)
        await h.until(lambda: h.status()["revision"] == first, 30, "the kept revision is wanted again")
        await h.serve(2)
        await h.settle()
        assert _rendered(h) == rendered
        kept = history(h.world.server.list(CONTROLLER_REVISION, NAMESPACE), parse(h.deployment()))
        assert [one.number for one in kept] == [1, 2], "nothing was rendered anew"
        assert _undo(h, "2").changes[0] == Change("engine.args.max-num-seqs", None, "64")

    play(scenario)


def test_a_spec_that_is_refused_is_undone_to_what_runs() -> None:
    """Lost: of all ways back the one to what serves."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()
        h.edit(hardware={"gpusPerGroup": 9})
        await h.until(lambda: h.condition("Stalled"), 30)
        seen = await _look(h)
        assert seen.waits == ("you: InvalidLayout: the message beside Stalled says what to change",)
        assert [line.roles for line in seen.revisions or ()] == [("in effect", "serving")]
        assert progress(seen.deployment).failed
        found = _undo(h)
        assert found.patch == {"spec": {"hardware": {"gpusPerGroup": 16}}}
        _apply(h, found)
        await h.until(lambda: not h.condition("Stalled"), 30)
        assert h.serving() == ["tiny-g0"], "what served was never touched"

    play(scenario)


def test_undo_leaves_out_what_only_the_policy_wrote() -> None:
    """Lost: a manifest that names another department's nodes, and keeps them when the policy changes."""

    async def scenario(h: Harness) -> None:
        for node in h.world.server.list(NODE):
            h.world.server.patch(
                NODE, None, node["metadata"]["name"], {"metadata": {"labels": {"zone": "a"}}}, "admin"
            )
        h.config = read_config("policy: {rules: [{name: here, namespaces: ['*'], nodes: {zone: [a]}}]}")
        h.start_operator()
        h.apply(manifest(podTemplate={"labels": {"team": "search"}}))
        await h.serve()
        assert '"zone"' in next(iter(_rendered(h)))
        h.edit(podTemplate={"labels": {"team": "find"}})
        await h.until(lambda: h.status()["groups"]["ready"] and len(h.groups()) == 2, 60)
        await h.serve()
        assert _undo(h).patch == {"spec": {"podTemplate": {"labels": {"team": "search"}}}}
        assert [line.roles for line in (await _look(h)).revisions or ()] == [(), ("wanted", "serving")]

    play(scenario, operator=False)


def test_the_picture_follows_a_rollout_and_a_loss() -> None:
    """Lost: the first look of whoever is on call."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(2))
        await h.rest(3)
        first = await _look(h)
        assert [(g.state, g.ready, g.traffic) for g in first.groups or ()] == [("Starting", 0, 0)] * 2
        assert first.waits[0] == "tiny-g0: waiting for the engine in tiny-g0-0, tiny-g0-0-1"
        assert progress(first.deployment).over is False
        await h.serve(2)
        assert progress(parse(h.deployment())).text.endswith("serves: 2 of 2 groups")
        h.world.crash_engine("tiny-g0-0-1", "CUDA out of memory", code=0)
        await h.until(lambda: h.status()["recovery"].get("lastCause"), 30)
        h.world.delete_pod("tiny-g1-0")
        await h.serve(2)
        h.edit(**CHANGED)
        await h.until(
            lambda: any(names.ANNOTATION_DRAINING in g["metadata"]["annotations"] for g in h.groups()), 300
        )
        await h.rest(0.5)  # Events are posted beside the reconciles
        rolling = await _look(h)
        states = sorted(g.state for g in rolling.groups or ())
        assert states == ["Draining", "Serving", "Serving"]
        assert any("its requests to end: 4m more at most" in one for one in rolling.waits)
        steps = [entry.step for entry in rolling.timeline]
        assert {"created", "serves", "lost", "draining", "revision", "scaling", "ready"} <= set(steps)
        assert [entry.at for entry in rolling.timeline] == sorted(entry.at for entry in rolling.timeline)
        lost = [entry.text for entry in rolling.timeline if entry.step == "lost"]
        assert len(lost) == 2, "each once, though Events and the status both tell of the last one"
        for absolute in (False, True):
            text = status_text(rolling, 20, absolute=absolute)
            assert max(map(len, text.splitlines())) <= WIDTH

    play(scenario)
