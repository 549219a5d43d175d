"""Who lets another autoscaler act on the operator's recommendation must get what mode Auto would do: groups with the
load, none gone while nobody knows anything, and no two writers of one number.

API server, LeaderWorkerSet, the HorizontalPodAutoscaler's controller and the operator's process are real; nodes,
containers and engines are played."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from bench.played_nodes import PlayedKubelet
from bench.sightings import Sightings
from cluster.external_metrics import API_SERVICE, ExternalMetrics
from cluster.played_engines import PlayedEngines
from cluster.replica import Replica
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, drop_namespace, make_namespace, until
from cluster.simulated_fleet import SimulatedFleet
from factories.deployments import manifest
from harness.crds import established
from harness.history import watched
from harness.install import ROOT
from harness.kubectl import apply, get, kubectl
from localcluster import keda
from localcluster.kubelet.apiclient import ApiClient, Obj
from moe_operator.api import names
from moe_operator.controller.kube import MODEL_DEPLOYMENT
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = [pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER), pytest.mark.timeout(420)]

EXAMPLES = ROOT / "manifests" / "autoscalers"
NAME = "qwen35-397b"
METRIC = "moe_operator_scaling_recommended_groups"
HPA_ACCOUNT = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"


def deployment(namespace: str) -> Obj:
    """Groups of one pod, from one to three. Without `replicas`, which another writes."""
    scaling = {"mode": "External", "maxGroups": 3, "scaleDown": {"window": "15s"}}
    return manifest(NAME, namespace, scaling=scaling, rollout={"drainDeadline": "10s"})


def autoscaler(namespace: str) -> Obj:
    """The example, for this namespace."""
    obj: Obj = yaml.safe_load((EXAMPLES / "hpa.yaml").read_text())
    obj["metadata"]["namespace"] = namespace
    obj["spec"]["maxReplicas"] = 3
    obj["spec"]["behavior"]["scaleDown"]["tolerance"] = obj["spec"]["behavior"]["scaleUp"]["tolerance"] = "0"
    return obj


def _condition(obj: Obj | None, type_: str) -> str:
    for one in ((obj or {}).get("status") or {}).get("conditions") or []:
        if one["type"] == type_:
            return f"{one['status']} {one['reason']}"
    return ""


async def test_the_autoscaler_of_kubernetes_follows_the_recommendation(
    client: AioKubeClient, tmp_path: Path
) -> None:
    """Up with the load, held while the operator is away, down when it has gone."""
    namespace = await make_namespace(client)
    kubeconfig = Path(os.environ["KUBECONFIG"])
    api = ApiClient.from_kubeconfig(kubeconfig)
    machines = [f"{namespace}-{number}" for number in range(4)]
    kubelet = PlayedKubelet(api, machines)
    seen = Sightings(api, namespace, kubelet.pod)
    replica = await Replica.start(namespace, "first", tmp_path)

    async def page() -> str:
        if replica.process.returncode is not None:
            raise OSError("the operator is away")
        try:
            return (await replica.page("/metrics", metrics=True))[1]
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error

    def serving() -> int:
        routed = seen.routed(NAME)
        pods = [seen.of_group(group["metadata"]["name"]) for group in seen.of_deployment(NAME)]
        return sum(bool(own) and {p["metadata"]["uid"] for p in own} <= routed for own in pods)

    metrics = ExternalMetrics(namespace, kubeconfig.parent / "pki", tmp_path, page)
    which = ("--field-selector", f"metadata.name={NAME}")
    async with SimulatedFleet(client, namespace) as fleet, PlayedEngines().running() as engines:
        for name in machines:
            await fleet.hgx(name, "zone-a")
        seen.start()
        try:
            await client.create(MODEL_DEPLOYMENT, deployment(namespace))
            await seen.until(lambda: serving() == 1, "a group serves")
            with watched(names.PLURAL, namespace, *which) as history:
                async with metrics.serving():
                    await until(
                        lambda: _says("apiservice", API_SERVICE, None, "Available", "True Passed"),
                        "the API server reaches the adapter",
                        60,
                    )
                    await asyncio.to_thread(apply, autoscaler(namespace))
                    await until(lambda: metrics.asked and metrics.asked[-1]["items"], "it is asked", 30)
                    assert {float(i["value"]) for a in metrics.asked for i in a["items"]} == {1.0}

                    engines.load = 0.95
                    await seen.until(lambda: serving() == 3, "three groups serve", 120)
                    await until(lambda: _shown(namespace, "1/1 (avg)"), "the current value is shown", 30)

                    await replica.kill()
                    await until(
                        lambda: _says(
                            "hpa", NAME, namespace, "ScalingActive", "False FailedGetExternalMetric"
                        ),
                        "the autoscaler misses the recommendation",
                        60,
                    )
                    engines.load = 0.0
                    replica = await Replica.start(namespace, "second", tmp_path)
                    await until(
                        lambda: _says("hpa", NAME, namespace, "ScalingActive", "True ValidMetricFound"),
                        "it has one again",
                        60,
                    )
                    await seen.until(lambda: len(seen.of_deployment(NAME)) == 1, "one group is left", 200)
                    await until(lambda: _shown(namespace, "1/1 (avg)"), "the current value is shown", 30)
                versions = list(history.seen)
        finally:
            await replica.kill()
            await drop_namespace(client, namespace)
            await seen.until(lambda: not seen.pods, "the pods are gone", 60)
            await seen.stop()
    await api.close()
    wanted = _changes([version["spec"]["replicas"] for version in versions])
    print(f"spec.replicas: {wanted}")
    top = wanted.index(3)
    assert wanted[: top + 1] == sorted(wanted[: top + 1]), "up, and not to and fro"
    assert wanted[top:] == sorted(wanted[top:], reverse=True)
    assert (wanted[0], wanted[-1]) == (1, 1)
    writers = {
        entry["manager"]
        for entry in versions[-1]["metadata"]["managedFields"]
        if "f:replicas" in json.dumps(entry["fieldsV1"].get("f:spec", {}))
    }
    assert writers == {"kube-controller-manager"}
    reasons = {(v.get("status") or {}).get("scaling", {}).get("reason") for v in versions} - {None}
    assert reasons == {"Replicas"}, "what the operator wants is what it was told"
    assert metrics.users == {HPA_ACCOUNT}


async def _says(kind: str, name: str, namespace: str | None, type_: str, wanted: str) -> bool:
    """Whether a condition is so, by status and reason. kubectl asks what APIs there are, and so the adapter here."""
    return _condition(await asyncio.to_thread(get, kind, name, namespace), type_) == wanted


async def _shown(namespace: str, value: str) -> bool:
    return value in await asyncio.to_thread(kubectl, "get", "hpa", "-n", namespace)


def _changes(values: list[int]) -> list[int]:
    return [v for at, v in enumerate(values) if at == 0 or values[at - 1] != v]


# --- KEDA ----------------------------------------------------------------------------------------


def test_kedas_own_schema_accepts_the_example(place: str) -> None:
    """Lost: an evening with KEDA's log. The API server checks it by KEDA's CRD, unknown fields included."""
    crd = yaml.safe_load(keda.crd().read_text())
    apply(crd)
    try:
        established(crd["metadata"]["name"])
        text = (EXAMPLES / "keda.yaml").read_text().replace("namespace: serving", f"namespace: {place}")
        checked = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
        assert "scaledobject.keda.sh/qwen35-397b created" in kubectl(*checked, stdin=text)
        with pytest.raises(RuntimeError, match="unknown field"):
            kubectl(*checked, stdin=text.replace("failureThreshold", "failureTreshold"))
    finally:
        kubectl("delete", "crd", crd["metadata"]["name"])


def test_keda_knows_the_parameters_of_the_examples_trigger() -> None:
    """They are free text to the CRD. What KEDA does not know it ignores: an absent recommendation would be zero."""
    (trigger,) = _example("keda.yaml")["spec"]["triggers"]
    table = json.loads(keda.triggers().read_text())["scalers"]
    (known,) = [one["parameters"] for one in table if one["type"] == trigger["type"]]
    assert set(trigger["metadata"]) <= {one["name"] for one in known}
    required = {one["name"] for one in known if not one.get("optional") and "default" not in one}
    assert required <= set(trigger["metadata"])
    assert trigger["metadata"]["ignoreNullValues"] == "false"


@pytest.mark.parametrize("file", ["keda.yaml", "hpa.yaml"])
def test_the_examples_scale_a_deployment_by_the_metric_that_there_is(file: str) -> None:
    obj = _example(file)
    assert obj["spec"]["scaleTargetRef"] == {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": obj["metadata"]["name"],
    }
    assert METRIC in json.dumps(obj["spec"])
    assert f"`{METRIC}`" in (ROOT / "docs" / "reference" / "metrics.md").read_text()


def _example(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / file).read_text())
    return found
