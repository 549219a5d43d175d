"""Which revision is wanted: a kept one where this spec was rendered before, else a new plan.

A revision pins everything that reaches the pods. So an upgrade of the operator, or another set of nodes,
changes nothing that runs, and going back to an earlier spec finds what it rendered then.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.models.catalog import Model
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.children import is_ours
from moe_operator.controller.incarnation import admitted_incarnations
from moe_operator.controller.kube import CONTROLLER_REVISION, LEADER_WORKER_SET, Obj
from moe_operator.controller.observed import GroupFacts
from moe_operator.controller.store import Store
from moe_operator.planner.governance import Provenance
from moe_operator.planner.inventory import Inventory
from moe_operator.planner.plan import Refusal
from moe_operator.planner.planning import plan as make_plan
from moe_operator.resources.compile_cache import compile_cache_refusal
from moe_operator.resources.group import render_revision
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.revision import Revision, read_revision, revision_name
from moe_operator.resources.weights import weights_refusal


@dataclass(frozen=True)
class Choice:
    """The wanted revision; `fresh` when it is not stored yet."""

    revision: Revision
    fresh: bool
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    """What it runs; None until it is judged by the policy."""


def kept(store: Store, deployment: ModelDeployment) -> dict[str, Revision]:
    """Stored revisions by name; unreadable ones are left out."""
    found: dict[str, Revision] = {}
    for obj in store.children(deployment.key, CONTROLLER_REVISION):
        if not is_ours(obj, deployment) or obj["metadata"].get("deletionTimestamp"):
            continue
        try:
            revision = read_revision(obj)
        except ValueError:
            continue
        found[revision.name] = revision
    return found


def find_kept(deployment: ModelDeployment, revisions: dict[str, Revision]) -> Choice | None:
    """The kept revision of this spec."""
    revision = revisions.get(revision_name(deployment))
    return None if revision is None else Choice(revision, fresh=False, notes=revision.plan.notes)


def running(
    groups: Iterable[GroupFacts], revisions: dict[str, Revision], last_lost: str | None = None
) -> Revision | None:
    """What runs: the revision of the newest group that has served, else of the newest, else of the one that was lost
    last; None where there was none."""
    known = [g for g in groups if g.revision in revisions]
    newest = max(known, key=lambda g: (bool(admitted_incarnations(g)), g.created_at, g.slot), default=None)
    return revisions.get(newest.revision if newest else last_lost or "")


def make(
    deployment: ModelDeployment, inventory: Inventory, config: OperatorConfig, model: Model | None = None
) -> Choice | Refusal:
    """A new revision of this spec. `model`: of its config.json, where it has one."""
    planned = make_plan(deployment, inventory, config.catalog, config=model)
    if isinstance(planned, Refusal):
        return planned
    if refused := weights_refusal(deployment.spec, planned, config.weights):
        return refused
    if refused := compile_cache_refusal(deployment.spec.engine, config.compile_cache):
        return refused
    return Choice(render_revision(Rendering(deployment, planned, config)), fresh=True, notes=planned.notes)


def in_use(store: Store, deployment: ModelDeployment, wanted: str) -> set[str]:
    """Names of the wanted revision and of those that groups run."""
    groups = store.children(deployment.key, LEADER_WORKER_SET)
    return {wanted} | {(g["metadata"].get("labels") or {}).get(names.LABEL_REVISION, "") for g in groups}


def to_keep(store: Store, deployment: ModelDeployment, wanted: str) -> set[str]:
    """Names of the revisions that stay: those in use, and the newest for rollback."""
    keep = in_use(store, deployment, wanted)
    stored = sorted(_own(store, deployment), key=_age, reverse=True)
    others = [o["metadata"]["name"] for o in stored if o["metadata"]["name"] not in keep]
    return keep | set(others[: deployment.spec.rollout.history_limit])


def next_number(store: Store, deployment: ModelDeployment) -> int:
    """The number of a revision that is made now: above all that are stored."""
    return max((obj.get("revision") or 0 for obj in _own(store, deployment)), default=0) + 1


def _own(store: Store, deployment: ModelDeployment) -> list[Obj]:
    """The deployment's own: StatefulSets of groups hand its labels on to their revisions."""
    return [obj for obj in store.children(deployment.key, CONTROLLER_REVISION) if is_ours(obj, deployment)]


def _age(obj: Obj) -> str:
    return obj["metadata"].get("creationTimestamp") or ""
