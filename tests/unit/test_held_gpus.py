"""The account that the operator's own is compared with: were it wrong in the same way, nobody would see it."""

from typing import Any

from e2e.held_gpus import HeldGpus
from moe_operator.api import names


def _event(
    type_: str = "MODIFIED", *, node: str = "n", traffic: bool = False, ends: bool = False
) -> dict[str, Any]:
    labels = {names.LABEL_TRAFFIC: names.TRAFFIC_ON} if traffic else {}
    meta: dict[str, Any] = {"uid": "u", "name": "p", "labels": labels}
    if ends:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"type": type_, "object": {"metadata": meta, "spec": {"nodeName": node}}}


def test_a_pods_seconds_by_what_it_was_for() -> None:
    held = HeldGpus("tiny", "serving")
    held.see(0, _event(node=""))
    held.see(10, _event())
    held.see(30, _event(traffic=True))
    held.see(90, _event(traffic=True, ends=True))
    held.see(95, _event("DELETED", ends=True))
    assert held.seconds(100, [(40, 60)]) == {"starting": 20, "serving": 20, "idle": 40, "draining": 5}
    assert held.there() == 0


def test_a_moment_in_the_middle_has_what_came_until_then() -> None:
    held = HeldGpus("tiny", "serving")
    held.see(10, _event())
    held.see(30, _event(traffic=True))
    held.see(90, _event("DELETED", traffic=True))
    assert held.seconds(20, []) == {"starting": 10, "serving": 0, "idle": 0, "draining": 0}
    assert held.seconds(50, [(45, 60)]) == {"starting": 20, "serving": 5, "idle": 15, "draining": 0}


def test_doubt_that_passes_is_no_end() -> None:
    held = HeldGpus("tiny", "serving")
    held.see(0, _event(traffic=True))
    held.see(5, _event())
    held.see(8, _event(traffic=True))
    assert held.seconds(10, [])["idle"] == 10
