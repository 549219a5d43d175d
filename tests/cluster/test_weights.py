"""The operator and the program that downloads, on a real API server with its Job controller and real pods.

What a team pays for otherwise: each of eight pods downloading for itself at every start, a cache that serves broken
files, and a status that says "starting" while a token is wrong.
"""

import hashlib
import random
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.chart_rights import start
from cluster.replica import Replica
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, ensure_crd, new_client, until
from cluster.weights_cluster import (
    NAME,
    claim,
    claim_folder,
    config_file,
    engine_folder,
    fetch_pods,
    manifest,
    reason,
    secret,
    shown,
    weights,
    weights_ready,
)
from harness.deployments import deployment, engine_pods
from harness.kubectl import apply, helm, items, kubectl
from moe_operator.api import names
from tests.weights.faulty_server import Fault
from tests.weights.hub_server import HubServer

pytestmark = [pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER), pytest.mark.timeout(300)]

SHARD = 3_000_000
FILES = {
    "config.json": b'{"architectures": ["Qwen3MoeForCausalLM"]}' + b" " * 64,
    **{f"model-0000{i}-of-00002.safetensors": random.Random(i).randbytes(SHARD) for i in (1, 2)},
}
FIRST, SECOND = sorted(name for name in FILES if name.startswith("model"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add("acme/moe", dict(FILES))
        yield server


@pytest.fixture
async def place() -> AsyncIterator[str]:
    client = await new_client()
    await ensure_crd(client)
    await client.close()
    name = f"weights-{uuid.uuid4().hex[:6]}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    for left in items(names.PLURAL, name):  # the operator is gone by now
        gone = '{"metadata": {"finalizers": null}}'
        kubectl("patch", names.PLURAL, left["metadata"]["name"], "-n", name, "--type=merge", "-p", gone)
    kubectl("delete", "modeldeployments", "--all", "-n", name)
    helm("uninstall", name, "-n", name, "--ignore-not-found")
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return engine_folder(tmp_path)


@pytest.fixture
async def operator(place: str, tmp_path: Path, hub: HubServer) -> AsyncIterator[Replica]:
    """With exactly the chart's rights."""
    config = config_file(tmp_path, hub)
    replica = await start(place, tmp_path, arguments=(f"--config={config}",))
    yield replica
    refused = await replica.count("moe_operator_api_requests_total", code="403")
    await replica.kill()
    assert refused == 0, replica.log.read_text()


def ready(namespace: str, name: str = NAME) -> int:
    """Pods of engines that are ready."""
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        for p in engine_pods(name, namespace)
    )


def served(hub: HubServer) -> int:
    """Bytes of files that the hub gave out."""
    return sum(hub.bytes_of(ending) for ending in {path for path in hub.sent if "/api/models/" not in path})


async def test_eight_pods_a_second_revision_and_another_deployment_download_once(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        apply(manifest(place, engine, pods=8))
        await until(lambda: ready(place) == 8, "eight engines have read their weights", 60)
        assert weights_ready(place)[:2] == ("True", "WeightsCached")
        size = sum(map(len, FILES.values()))
        assert served(hub) == size
        said = weights(place)
        assert (said["bytes"], said["totalBytes"], said["percent"]) == (size, size, 100)
        assert said["commit"] == "a" * 40

        await until(lambda: deployment(NAME, place)["status"]["groups"]["ready"] == 1, "it serves", 60)
        change = manifest(place, engine, pods=8)
        change["spec"]["engine"]["env"].append({"name": "A", "value": "b"})
        revision = deployment(NAME, place)["status"]["revision"]
        apply(change)
        await until(lambda: deployment(NAME, place)["status"]["revision"] != revision, "a new revision", 30)
        await until(lambda: deployment(NAME, place)["status"]["groups"]["updated"] == 1, "it serves too", 120)
        apply(manifest(place, engine, name="other"))
        await until(lambda: ready(place, "other") == 1, "another deployment's engine has read them", 60)
        assert served(hub) == size
        assert len(items("jobs", place)) == 1
        assert len(items("jobs", place)[0]["metadata"]["ownerReferences"]) == 2
        assert len(items("persistentvolumeclaims", place)) == 1


async def test_a_download_whose_pod_is_deleted_goes_on_where_it_stopped(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        hub.plan(_cdn(SECOND), Fault(hold_at=SHARD // 2))
        apply(manifest(place, engine))
        await until(hub.holding.is_set, "half of the second file is there", 60)
        kubectl("delete", "pod", fetch_pods(place)[0]["metadata"]["name"], "-n", place)
        hub.go_on.set()
        await until(lambda: ready(place) == 1, "the engine has read its weights", 120)
        assert hub.bytes_of(_cdn(FIRST)) == SHARD, "the first file came twice"
        assert hub.bytes_of(_cdn(SECOND)) < 1.7 * SHARD, "nothing of the second file was kept"


async def test_a_corrupt_file_is_named_and_never_reaches_an_engine(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        hub.always(_cdn(SECOND), Fault(corrupt_at=1000))
        apply(manifest(place, engine))
        message = await reason(place, "WeightsCorrupt")
        assert SECOND in message
        assert items("leaderworkersets", place) == []
        hub.always(_cdn(SECOND), None)
        await until(lambda: ready(place) == 1, "it is downloaded again by itself", 150)


async def test_a_wrong_token_is_said_within_a_minute_and_its_correction_is_taken_up_by_itself(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        hub.repositories["acme/moe"].token = "right"
        secret(place, HF_TOKEN="wrong")
        spec = {"cache": {"storageClassName": "local", "size": "1Gi"}, "credentialsSecret": "hub"}
        apply(manifest(place, engine, weights=spec))
        message = await reason(place, "WeightsUnauthorized", 60)
        assert "acme/moe" in message
        assert "wrong" not in message, "a token is in the status"
        secret(place, HF_TOKEN="right")
        await until(lambda: ready(place) == 1, "the corrected Secret is used", 90)


async def test_a_private_adapter_comes_with_the_model_and_its_engine_asks_no_hub(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        hub.add("acme/law", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x" * 5000})
        hub.repositories["acme/law"].token = "right"
        secret(place, HF_TOKEN="wrong")
        spec = {"cache": {"storageClassName": "local", "size": "1Gi"}, "credentialsSecret": "hub"}
        model = {"name": "acme/moe", "adapters": [{"name": "law", "source": "hf://acme/law"}]}
        apply(manifest(place, engine, pods=2, weights=spec, model=model))
        message = await reason(place, "WeightsUnauthorized", 60)
        assert "adapter hf://acme/law" in message
        secret(place, HF_TOKEN="right")
        await until(lambda: ready(place) == 2, "the engines have read model and adapter", 90)
        assert weights(place)["commit"] == "a" * 40
        assert weights(place)["totalBytes"] == sum(map(len, FILES.values()))


async def test_a_claim_that_one_node_can_mount_is_said_and_its_correction_taken_up(
    place: str, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        claim(place, "models", "ReadWriteOncePod")
        apply(manifest(place, engine, pods=2, weights={"cache": {"claim": "models"}}))
        message = await reason(place, "WeightsClaimNotShared", 30)
        assert "claim models (the cache) is ReadWriteOncePod" in message
        assert (items("jobs", place), items("leaderworkersets", place)) == ([], [])
        kubectl("delete", "pvc", "models", "-n", place)
        claim(place, "models", "ReadWriteMany")
        await until(lambda: ready(place) == 2, "the engines have read their weights", 90)


async def test_the_last_deployment_to_go_takes_its_weights_along(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        deletion = {"groups": "Immediate", "weights": "Delete"}
        apply(manifest(place, engine, deletion=deletion))
        apply(manifest(place, engine, name="other", deletion=deletion))
        for name in (NAME, "other"):
            await until(lambda name=name: ready(place, name) == 1, f"the engine of {name} has read them", 90)
        folder = claim_folder(place, "moe-weights-local")
        (entry,) = (path for path in folder.iterdir() if not path.name.startswith("."))
        assert deployment(NAME, place)["metadata"]["finalizers"] == [names.FINALIZER]
        kubectl("delete", "modeldeployment", "other", "-n", place, "--timeout=120s")
        assert entry.is_dir(), "another uses it"
        assert ready(place) == 1
        kubectl("delete", "modeldeployment", NAME, "-n", place, "--timeout=120s")
        assert [path.name for path in folder.iterdir()] == [".moe-operator"], "nobody uses it"
        assert not list((folder / ".moe-operator" / "trash").iterdir())
        told = {event["reason"]: event["note"] for event in items("events.events.k8s.io", place)}
        assert "moe uses them" in told["WeightsLeft"]
        assert told["WeightsRemoved"].startswith(
            "removed 0.0 GB of hf://acme/moe from claim moe-weights-local"
        )
        await until(lambda: not items("jobs", place), "no Job is left", 30)
        apply(manifest(place, engine))
        await until(lambda: ready(place) == 1, "it is downloaded again", 90)
        assert served(hub) == 2 * sum(map(len, FILES.values()))


class _Huge(bytes):
    """A file of which the hub says that it is larger than any disk."""

    def __len__(self) -> int:
        return 10**15


async def test_a_cache_without_room_says_so_with_numbers(
    place: str, hub: HubServer, operator: Replica, engine: Path
) -> None:
    with shown(place, operator):
        repository = hub.repositories["acme/moe"]
        repository.commits["b" * 40] = dict(FILES)
        repository.branches["small"] = "b" * 40
        repository.commits["a" * 40][SECOND] = _Huge(FILES[SECOND])
        apply(manifest(place, engine))
        message = await reason(place, "WeightsDiskFull")
        assert re.search(r"[0-9]", message.replace("acme/moe", "")), message
        assert served(hub) == 0, "what cannot end was begun"
        apply(manifest(place, engine, model={"name": "acme/moe", "revision": "small"}))
        await until(lambda: ready(place) == 1, "another revision that fits is taken up at once", 60)
        assert weights(place)["commit"] == "b" * 40


async def test_each_node_downloads_once_into_its_own_folder(
    place: str, hub: HubServer, operator: Replica, engine: Path, tmp_path: Path
) -> None:
    """Local nodes share one disk, so all eight pods are of one node here."""
    folder = tmp_path / "node"
    folder.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("}", f", hostPaths: [{folder}]}}", 1))
    await operator.kill()
    again = await Replica.start(
        place, "again", tmp_path, f"--config={config}", f"--kubeconfig={tmp_path}/kubeconfig",
        f"--lease-name={place}-moe-operator",
    )  # fmt: skip
    operator.process, operator.log = again.process, again.log
    with shown(place, operator):
        apply(manifest(place, engine, pods=8, weights={"cache": {"hostPath": str(folder)}}))
        await until(lambda: ready(place) == 8, "eight engines have read their weights", 60)
        assert served(hub) == sum(map(len, FILES.values()))
        await reason(place, "WeightsCached")
        assert items("jobs", place) == []


async def test_the_api_server_takes_what_is_rendered_for_other_sources(
    place: str, operator: Replica, engine: Path
) -> None:
    """An image as a volume is refused by API servers before 1.33; a bucket needs no volume at all."""
    with shown(place, operator):
        for name, source in (
            ("image", "oci://registry.example/qwen:1#models"),
            ("bucket", "s3://bucket/qwen"),
        ):
            apply(manifest(place, engine, name=name, model={"name": "qwen", "source": source}, weights={}))
            await until(lambda name=name: engine_pods(name, place), f"pods of {name}", 30)
        pod = engine_pods("image", place)[0]["spec"]
        assert {"reference": "registry.example/qwen:1", "pullPolicy": "IfNotPresent"} in [
            volume.get("image") for volume in pod["volumes"]
        ]
        assert weights_ready(place, "image")[:2] == ("True", "WeightsMounted")
        assert weights_ready(place, "bucket")[:2] == ("True", "EngineDownloads")


def _cdn(name: str) -> str:

    return hashlib.sha256(FILES[name]).hexdigest()
