"""ModelDeployments: generations, defaults and the status."""

from fakecluster.contract.base import OTHER_UID, Outcome, case, deployment, refusal, version
from moe_operator.api import names
from moe_operator.controller.kube import MODEL_DEPLOYMENT, KubeClient, Obj


@case(
    {
        "generation": [1, 2, 2, 2, 2],
        "status": True,
        "spec": True,
        "status dropped": None,
        "defaults": [1, "Auto", "120s"],
    }
)
async def generation_counts_changes_of_the_spec_alone(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(MODEL_DEPLOYMENT, {**deployment(ns), "status": {"replicas": 3}})
    changed = await client.patch(MODEL_DEPLOYMENT, ns, "tiny", {"spec": {"replicas": 2}})
    labelled = await client.patch(MODEL_DEPLOYMENT, ns, "tiny", {"metadata": {"labels": {"a": "1"}}})
    bare = {k: v for k, v in deployment(ns).items() if k != "spec"}
    status = await client.apply_status(
        MODEL_DEPLOYMENT, {**bare, "status": {"observedGeneration": 2, "replicas": 1}}
    )
    ignored = await client.patch(MODEL_DEPLOYMENT, ns, "tiny", {"status": {"replicas": 7}})
    return {
        "generation": [o["metadata"]["generation"] for o in (made, changed, labelled, status, ignored)],
        "status": status["status"]["replicas"] == ignored["status"]["replicas"] == 1,
        "spec": status["spec"]["replicas"] == 2,
        "status dropped": made.get("status"),
        "defaults": [
            made["spec"]["replicas"],
            made["spec"]["scaling"]["mode"],
            made["spec"]["recovery"]["stallLimit"],
        ],
    }


@case({"first": ["A", "B"], "second": ["B"], "field": None, "same": True})
async def status_apply_removes_conditions_it_no_longer_names(client: KubeClient, ns: str) -> Outcome:
    made = await client.create(MODEL_DEPLOYMENT, deployment(ns))
    bare = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "tiny", "namespace": ns, "uid": made["metadata"]["uid"]},
    }

    def condition(type_: str) -> Obj:
        return {
            "type": type_,
            "status": "True",
            "reason": "Said",
            "message": "",
            "lastTransitionTime": "2027-01-01T00:00:00Z",
        }

    both = {"conditions": [condition("A"), condition("B")], "endpoint": "http://somewhere"}
    first = await client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": both})
    only = {"conditions": [condition("B")]}
    second = await client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": only})
    third = await client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": only})
    return {
        "first": [c["type"] for c in first["status"]["conditions"]],
        "second": [c["type"] for c in second["status"]["conditions"]],
        "field": second["status"].get("endpoint"),
        "same": version(third) == version(second),
    }


@case({"spec": 422, "none": 404, "uid of another": 1})
async def invalid_specs_and_absent_objects_are_refused(client: KubeClient, ns: str) -> Outcome:
    bad = deployment(ns, replicas=-1)
    bare = {k: v for k, v in deployment(ns).items() if k != "spec"}
    refused = await refusal(client.create(MODEL_DEPLOYMENT, bad))
    none = await refusal(client.apply_status(MODEL_DEPLOYMENT, {**bare, "status": {"replicas": 1}}))
    await client.create(MODEL_DEPLOYMENT, deployment(ns))
    other = {**bare, "metadata": {**bare["metadata"], "uid": OTHER_UID}, "status": {"replicas": 1}}
    # A uid in a status write is no precondition.
    written = await client.apply_status(MODEL_DEPLOYMENT, other)
    return {"spec": refused, "none": none, "uid of another": written["status"]["replicas"]}
