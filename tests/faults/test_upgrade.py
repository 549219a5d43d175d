"""This version of the operator finds what the last release made (recorded from a real group; tests/upgrade records
anew). Lost otherwise, with an upgrade: every group of every user at once."""

from pathlib import Path
from typing import Any

import yaml

from fakecluster.clock import run_virtual
from fakecluster.harness import Harness, Scenario
from fakecluster.world import World
from moe_operator.api import names, reasons
from moe_operator.controller.kube import MODEL_DEPLOYMENT, Obj
from moe_operator.runtime.source import WATCHED_KINDS

_RECORDED = Path(__file__).with_name("recorded") / "release-0.1.0.yaml"
_NAMESPACE, _NAME = "upgrade", "old"
_KINDS = {kind.kind: kind for kind in WATCHED_KINDS}


def _play(scenario: Scenario) -> None:
    """A world of recorded objects in which nothing but the operator moves: engines are as they were."""

    async def main() -> None:
        world = World(nodes=0)
        for obj in yaml.safe_load_all(_RECORDED.read_text()):
            world.server.restore(_KINDS[obj["kind"]], obj)
        world.stop()
        harness = Harness(world)
        harness.start_operator()
        await scenario(harness)

    run_virtual(main)


def _deployment(h: Harness) -> Obj:
    found = h.world.server.get(MODEL_DEPLOYMENT, _NAMESPACE, _NAME)
    assert found is not None
    return found


def _written(h: Harness) -> list[tuple[str, str]]:
    """Verb and kind of the operator's writes but Leases and Events."""
    return [(w.verb, w.kind.kind) for o in h.operators for w in o.client.writes]


def test_nothing_is_written_but_the_finalizer_the_status_and_the_new_agent() -> None:
    async def scenario(h: Harness) -> None:
        before: dict[str, Any] = _deployment(h)["status"]
        await h.until(lambda: _deployment(h)["metadata"].get("finalizers") == [names.FINALIZER], 60)
        await h.rest(600)
        written = _written(h)
        assert ("patch", "ModelDeployment") in written, written
        assert set(written) <= {
            ("patch", "ModelDeployment"),
            ("apply_status", "ModelDeployment"),
            ("create", "ConfigMap"),
        }
        assert len(written) == len(set(written)), f"each once: {written}"
        after = _deployment(h)["status"]
        assert after["revision"] == before["revision"]
        assert after["plan"] == before["plan"]
        ready = next(c for c in after["conditions"] if c["type"] == reasons.READY)
        assert ready == next(c for c in before["conditions"] if c["type"] == reasons.READY)

    _play(scenario)
