"""The groups of one deployment as the cache has them, each with what is to be thought of it. Writes nothing."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import RecoverySpec
from moe_operator.api.status import Cause
from moe_operator.controller.causes import broken, limits_of
from moe_operator.controller.children import is_ours
from moe_operator.controller.group_planner import CanaryState, GroupView, classify
from moe_operator.controller.kube import LEADER_WORKER_SET, NODE, POD, Obj
from moe_operator.controller.observed import GroupFacts, group_facts, node_conditions
from moe_operator.controller.occupied import occupied, quiet_for
from moe_operator.controller.store import Store
from moe_operator.resources.group import parse_slot
from moe_operator.telemetry.observation import Snapshot


def groups_of(store: Store, deployment: ModelDeployment, unhealthy: Collection[str] = ()) -> list[GroupFacts]:
    """The deployment's groups with their pods. `unhealthy`: see `node_conditions`."""
    pods: dict[str, list[Obj]] = {}
    where = set()
    for pod in store.children(deployment.key, POD):
        pods.setdefault((pod["metadata"].get("labels") or {}).get(names.LABEL_GROUP, ""), []).append(pod)
        where.add((pod.get("spec") or {}).get("nodeName"))
    nodes = None
    if NODE not in store.forbidden:
        # Several times a pass: not of a whole fleet.
        own = (node for node in store.all(NODE) if node["metadata"]["name"] in where)
        nodes = node_conditions(own, unhealthy)
    groups = []
    for lws in store.children(deployment.key, LEADER_WORKER_SET):
        slot = parse_slot(deployment.name, lws["metadata"]["name"])
        if slot is not None and is_ours(lws, deployment):
            groups.append(group_facts(lws, slot, pods.get(lws["metadata"]["name"], []), nodes))
    return groups


def occupied_slots(store: Store, deployment: ModelDeployment) -> frozenset[int]:
    """Slots whose names are taken: by a group, or by a pod that outlives its own, as one on a silent node does. A group
    made over it would lack the pod of that name, and count the old one as its own."""
    groups, pods = (store.children(deployment.key, kind) for kind in (LEADER_WORKER_SET, POD))
    held = [lws["metadata"]["name"] for lws in groups]
    held += [(pod["metadata"].get("labels") or {}).get(names.LABEL_GROUP, "") for pod in pods]
    slots = (parse_slot(deployment.name, name) for name in held)
    return frozenset(slot for slot in slots if slot is not None)


def judge(
    groups: Sequence[GroupFacts],
    recovery: RecoverySpec,
    snapshot: Snapshot,
    given_up: Mapping[str, Cause],
    canary: Callable[[GroupFacts], CanaryState | None],
    now: float,
) -> list[GroupView]:
    """The state of each group. `given_up`: by name, for reasons that are not to be seen in the group itself."""
    limits = limits_of(recovery)
    stalled = {uid: snapshot.taken_at - seen.progress_at for uid, seen in snapshot.pods.items() if seen.busy}
    views = []
    for group in groups:
        drains, held = group.draining_since is not None, given_up.get(group.name)
        # One that drains is left to finish what it has, as long as it can.
        cause = broken(group, limits, stalled, now) or (None if drains else held)
        view = classify(group, cause, occupied(group, snapshot, now), canary(group))
        views.append(
            replace(
                view,
                quiet=quiet_for(group, snapshot),
                flaw=held if drains else None,
                closing=any(s.draining for p in group.pods if (s := snapshot.pods.get(p.uid))),
            )
        )
    return views
