"""Which revisions are kept, and their numbers. Lost otherwise: a rollback that finds nothing."""

from typing import Any

from factories.cluster_objects import deployment_object, revision_object
from moe_operator.api.deployment import parse
from moe_operator.controller.kube import CONTROLLER_REVISION
from moe_operator.controller.revisions import next_number, to_keep
from moe_operator.controller.store import Store


def _own(number: int) -> dict[str, Any]:
    obj = deployment_object({"engine": {"args": {"max-num-seqs": str(number)}}})
    made = revision_object(obj, number, 10_000.0 - number)
    made["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "1"}
    return made


def _of_a_stateful_set(number: int) -> dict[str, Any]:
    """It carries the deployment's labels, which its template has."""
    made = _own(number)
    made["metadata"] |= {"name": f"tiny-g0-{number}", "uid": f"uid-set-{number}"}
    made["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "uid": "another", "controller": True}]
    return made


def test_revisions_of_stateful_sets_take_no_room_in_the_history() -> None:
    """Each group brings two of them, newer than all of ours."""
    deployment, store = parse(deployment_object()), Store()
    limit = deployment.spec.rollout.history_limit
    for number in range(1, limit + 3):
        store.upsert(CONTROLLER_REVISION, _own(number))
    for number in range(100, 120):
        store.upsert(CONTROLLER_REVISION, _of_a_stateful_set(number))
    newest = {_own(number)["metadata"]["name"] for number in range(3, limit + 3)}
    assert to_keep(store, deployment, "wanted") - {"wanted"} == newest
    assert next_number(store, deployment) == limit + 3


def test_numbers_begin_at_one_and_go_on_after_versions_that_did_not_count() -> None:
    deployment, store = parse(deployment_object()), Store()
    assert next_number(store, deployment) == 1
    for number in (1, 2):
        store.upsert(CONTROLLER_REVISION, _own(number) | {"revision": 1})
    assert next_number(store, deployment) == 2
