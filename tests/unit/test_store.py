"""The cache: what a reconcile believes about the cluster. Wrong beliefs restart or duplicate groups."""

from typing import Any

from moe_operator.api import names
from moe_operator.controller.kube import MODEL_DEPLOYMENT, NODE, POD, Kind
from moe_operator.controller.store import Store, owner_key

KEY = ("serving", "qwen")


def pod(name: str, version: int | str, uid: str | None = None, deployment: str = "qwen") -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "serving",
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {names.LABEL_DEPLOYMENT: deployment},
            "managedFields": [{"manager": "kubelet"}],
        }
    }


def versions(store: Store, kind: Kind = POD) -> dict[str, str]:
    return {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in store.all(kind)}


def test_an_older_event_never_hides_a_newer_state() -> None:
    store = Store()
    assert store.upsert(POD, pod("a", 5))
    assert not store.upsert(POD, pod("a", 4))
    assert not store.upsert(POD, pod("a", 5))
    assert store.upsert(POD, pod("a", 10)), "versions compare as numbers, not as text"
    assert versions(store) == {"a": "10"}


def test_opaque_versions_are_taken_as_they_come() -> None:
    """A server whose versions are no numbers must not freeze the cache at the first state seen."""
    store = Store()
    store.upsert(POD, pod("a", "abc"))
    assert store.upsert(POD, pod("a", "abd"))
    assert versions(store) == {"a": "abd"}


def test_a_successor_of_the_same_name_is_taken_up_and_outlives_late_words_of_its_predecessor() -> None:
    store = Store()
    store.upsert(POD, pod("a", 5, "old"))
    assert store.upsert(POD, pod("a", 8, "new"))
    assert not store.upsert(POD, pod("a", 6, "old"))
    assert not store.remove(POD, pod("a", 7, "old"))
    assert versions(store) == {"a": "8"}


def test_a_late_answer_to_a_write_does_not_bring_back_a_deleted_pod() -> None:
    """A ghost pod would make its group look broken until the next resync, and be replaced."""
    store = Store()
    store.upsert(POD, pod("a", 5))
    store.remove(POD, pod("a", 9))
    assert not store.upsert(POD, pod("a", 7))
    assert store.get(POD, "serving", "a") is None


def test_an_object_that_a_finalizer_keeps_after_its_removal_comes_back_with_its_next_version() -> None:
    store = Store()
    store.upsert(POD, pod("a", 5))
    store.remove(POD, pod("a", 5))
    assert store.upsert(POD, pod("a", 6))
    assert versions(store) == {"a": "6"}


def test_a_list_says_what_is_gone_and_names_the_deployments_it_concerns() -> None:
    """A deletion lost in a watch gap would otherwise be believed in for ever."""
    store = Store()
    store.upsert(POD, pod("a", 5))
    store.upsert(POD, pod("b", 6, deployment="other"))
    touched = store.replace(POD, [pod("b", 6, deployment="other")])
    assert touched == {KEY}
    assert versions(store) == {"b": "6"}
    assert POD in store.synced
    assert store.children(KEY, POD) == []


def test_what_a_watch_delivered_while_the_list_was_under_way_stays() -> None:
    """Otherwise a pod created during a slow LIST counts as lost, and its group is torn down."""
    store = Store()
    store.upsert(POD, pod("kept", 1))
    store.upsert(POD, pod("gone", 2))
    mark = store.mark()
    store.upsert(POD, pod("created", 11))
    store.upsert(POD, pod("kept", 12))
    store.remove(POD, pod("gone", 13))
    store.replace(POD, [pod("kept", 1), pod("gone", 2)], since=mark)
    assert versions(store) == {"created": "11", "kept": "12"}


def test_a_list_newer_than_a_lagging_watch_wins() -> None:
    store = Store()
    store.upsert(POD, pod("a", 1))
    mark = store.mark()
    store.upsert(POD, pod("a", 2))
    assert store.replace(POD, [pod("a", 3)], since=mark) == {KEY}
    assert versions(store) == {"a": "3"}


def test_after_a_restored_database_a_list_is_believed_although_its_versions_are_lower() -> None:
    """Restoring etcd turns versions back; the cache would hold the lost future for ever."""
    store = Store()
    store.upsert(POD, pod("a", 900))
    store.upsert(POD, pod("later", 950))
    mark = store.mark()
    assert store.replace(POD, [pod("a", 40)], since=mark) == {KEY}
    assert versions(store) == {"a": "40"}
    assert store.upsert(POD, pod("a", 41)), "and the watch goes on from there"


def test_after_a_restored_database_a_pod_that_was_deleted_later_is_back() -> None:
    store = Store()
    store.upsert(POD, pod("a", 900))
    store.remove(POD, pod("a", 910))
    store.replace(POD, [pod("a", 40)], since=store.mark())
    assert versions(store) == {"a": "40"}


def test_a_list_of_some_namespaces_says_nothing_of_others() -> None:
    store = Store()
    store.upsert(POD, pod("a", 1))
    elsewhere = pod("b", 2)
    elsewhere["metadata"]["namespace"] = "other"
    store.upsert(POD, elsewhere)
    store.replace(POD, [], namespaces=["other"])
    assert versions(store) == {"a": "1"}


def test_an_unchanged_list_concerns_nobody() -> None:
    """A resync of a settled cluster must not cost anything beyond its LISTs."""
    store = Store()
    store.upsert(POD, pod("a", 5))
    assert store.replace(POD, [pod("a", 5)]) == set()


def test_children_are_found_by_their_label_and_parents_by_name() -> None:
    store = Store()
    store.upsert(POD, pod("b", 2))
    store.upsert(POD, pod("a", 1))
    store.upsert(POD, pod("c", 3, deployment="other"))
    parent = {"metadata": {"namespace": "serving", "name": "qwen", "uid": "p", "resourceVersion": "1"}}
    store.upsert(MODEL_DEPLOYMENT, parent)
    assert [p["metadata"]["name"] for p in store.children(KEY, POD)] == ["a", "b"]
    assert store.keys() == [KEY]
    relabelled = pod("a", 9, deployment="other")
    store.upsert(POD, relabelled)
    assert [p["metadata"]["name"] for p in store.children(KEY, POD)] == ["b"]


def test_managed_fields_are_not_kept() -> None:
    """They are about half of a pod's size."""
    store = Store()
    store.upsert(POD, pod("a", 1))
    found = store.get(POD, "serving", "a")
    assert found is not None
    assert "managedFields" not in found["metadata"]


def test_nodes_have_no_namespace_and_belong_to_nobody() -> None:
    store = Store()
    node = {
        "metadata": {
            "name": "n1",
            "uid": "n",
            "resourceVersion": "1",
            "labels": {names.LABEL_DEPLOYMENT: "x"},
        }
    }
    assert owner_key(node) is None
    assert store.replace(NODE, [node]) == set()
    assert store.get(NODE, "", "n1") is node
