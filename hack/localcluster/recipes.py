"""What is built from source, and the key under which a build is kept. Pure, but for reading the module's
files.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.36.3"
HELM_VERSION = "4.3.1"
#: Raised when the layout of a finished build changes, so that old caches are not mistaken for new ones.
_LAYOUT = "1"
_BASE_FLAGS = ("-trimpath", "-buildvcs=false")


@dataclass(frozen=True)
class Target:
    """One program: the Go package it is built from and its file name."""

    package: str
    output: str


@dataclass(frozen=True)
class Recipe:
    """One Go module of ours and the programs that come out of it.

    ``links``: further names for the first program. ``flags``: of ``go build``.
    ``assets``: (module path, directory or file inside it, destination) copied beside the programs, as a
    cached build must work where no Go and no module cache is left.
    """

    name: str
    module: Path
    targets: tuple[Target, ...]
    flags: tuple[str, ...]
    links: tuple[str, ...] = ()
    assets: tuple[tuple[str, str, str], ...] = ()

    @property
    def programs(self) -> tuple[str, ...]:
        """The names by which the programs can be run."""
        return (*(target.output for target in self.targets), *self.links)


def version_stamps(version: str) -> str:
    """Linker flags that make ``/version`` and ``kubectl version`` say what was built (unstamped: v0.0.0)."""
    major, minor, _ = version.split(".")
    values = {
        "gitVersion": f"v{version}+local",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())


def control_plane(hack: Path) -> Recipe:
    """etcd, the Kubernetes control plane and kubectl as one program of many names."""
    return Recipe(
        name="controlplane",
        module=hack / "controlplane",
        targets=(Target(".", "controlplane"),),
        flags=(
            *_BASE_FLAGS,
            "-tags=selinux,notest,grpcnotrace",
            f"-ldflags=-s -w {version_stamps(KUBERNETES_VERSION)}",
        ),
        links=("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
    )


def add_ons(hack: Path) -> Recipe:
    """The LeaderWorkerSet manager with its CRDs and webhook objects, and Helm.

    A module of its own: together with the control plane, minimal version selection would raise Kubernetes'
    dependencies.
    """
    return Recipe(
        name="addons",
        module=hack / "addons",
        targets=(Target("sigs.k8s.io/lws/cmd", "lws-manager"), Target("helm.sh/helm/v4/cmd/helm", "helm")),
        flags=(*_BASE_FLAGS, f"-ldflags=-s -w -X helm.sh/helm/v4/internal/version.version=v{HELM_VERSION}"),
        assets=(
            ("sigs.k8s.io/lws", "config/crd/bases", "lws/crds"),
            ("sigs.k8s.io/lws", "config/webhook/manifests.yaml", "lws/webhooks.yaml"),
        ),
    )


def scanners(hack: Path) -> Recipe:
    """kube-score, which reads manifests with Kubernetes' own types and names what is unusual about them."""
    return Recipe(
        name="scan",
        module=hack / "scan",
        targets=(Target("github.com/zegl/kube-score/cmd/kube-score", "kube-score"),),
        flags=(*_BASE_FLAGS, "-ldflags=-s -w"),
    )


def prometheus(hack: Path) -> Recipe:
    """promtool, which checks rules and plays time series against them, and Prometheus, without its web pages and
    without the clients of clouds by which it finds targets.
    """
    return Recipe(
        name="prometheus",
        module=hack / "prometheus",
        targets=tuple(
            Target(f"github.com/prometheus/prometheus/cmd/{name}", name)
            for name in ("promtool", "prometheus")
        ),
        flags=(*_BASE_FLAGS, "-tags=remove_all_sd", "-ldflags=-s -w"),
    )


def dra_driver(hack: Path) -> Recipe:
    """The CRDs of NVIDIA's DRA driver for GPUs: nothing is compiled. Only tests that ask for them have them."""
    return Recipe(
        name="dra",
        module=hack / "dra",
        targets=(),
        flags=(),
        assets=(
            ("sigs.k8s.io/dra-driver-nvidia-gpu", "deployments/helm/dra-driver-nvidia-gpu/crds", "crds"),
        ),
    )


KEDA_CRD, KEDA_TRIGGERS = "scaledobjects.yaml", "triggers.json"


def keda(hack: Path) -> Recipe:
    """What a ScaledObject of KEDA may say: nothing is compiled."""
    module = "github.com/kedacore/keda/v2"
    return Recipe(
        name="keda",
        module=hack / "keda",
        targets=(),
        flags=(),
        assets=(
            (module, "config/crd/bases/keda.sh_scaledobjects.yaml", KEDA_CRD),
            (module, "schema/generated/scalers-schema.json", KEDA_TRIGGERS),
        ),
    )


def source_files(module: Path) -> tuple[Path, ...]:
    """What a build depends on besides Go itself; go.sum pins the contents of everything else."""
    return (module / "go.mod", module / "go.sum", *sorted(module.glob("*.go")))


def cache_key(recipe: Recipe, go_version: str, machine: str | None = None) -> str:
    """16 hexadecimal digits over everything that decides what the build yields."""
    digest = hashlib.sha256()

    def add(*parts: str | bytes) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)

    add(_LAYOUT, recipe.name, go_version, machine or platform.machine(), *recipe.flags, *recipe.links)
    for target in recipe.targets:
        add(target.package, target.output)
    for asset in recipe.assets:
        add(*asset)
    for path in source_files(recipe.module):
        add(path.name, path.read_bytes())
    return digest.hexdigest()[:16]
