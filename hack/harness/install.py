"""Installs the operator with its charts, and what a tiny model needs."""

from pathlib import Path

from harness.kubectl import JsonObject, apply, helm, kubectl

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
OPERATOR_NAMESPACE = "moe-system"
#: The image table of a local cluster maps this name to the checkout's own environment.
IMAGE_REPOSITORY, IMAGE_TAG = "moe-operator", "dev"
MODEL_CLAIM = "tiny-moe"


def install_operator(
    *,
    replicas: int = 2,
    values: tuple[str, ...] = (),
    timeout: int = 180,
    charts: Path = CHARTS,
    tag: str = IMAGE_TAG,
) -> None:
    """helm upgrade --install of both charts; returns when the operator's pods are ready."""
    helm("upgrade", "--install", "moe-operator-crds", str(charts / "moe-operator-crds"), "-n", OPERATOR_NAMESPACE,
         "--create-namespace", "--take-ownership", "--wait", f"--timeout={timeout}s")  # fmt: skip
    settings = [
        f"replicas={replicas}",
        f"image.repository={IMAGE_REPOSITORY}",
        f"image.tag={tag}",
        *values,
    ]
    helm("upgrade", "--install", "moe-operator", str(charts / "moe-operator"), "-n", OPERATOR_NAMESPACE,
         "--wait", f"--timeout={timeout}s", *(arg for s in settings for arg in ("--set", s)))  # fmt: skip


def uninstall_operator() -> None:
    """Take the operator away; its CustomResourceDefinition stays."""
    helm("uninstall", "moe-operator", "-n", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait")


def namespace(name: str) -> None:
    """Make a namespace unless it exists."""
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def provide_model(folder: Path, in_namespace: str, claim: str = MODEL_CLAIM) -> None:
    """A PersistentVolumeClaim whose volume is a folder of this machine: the weights of the tiny model."""
    volume: JsonObject = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{in_namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": in_namespace, "name": claim},
            "hostPath": {"path": str(folder)},
        },
    }
    request: JsonObject = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": in_namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": f"{in_namespace}-{claim}",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    apply(volume, request)
    kubectl(
        "wait", "--for=jsonpath={.status.phase}=Bound", f"pvc/{claim}", "-n", in_namespace, "--timeout=60s"
    )
