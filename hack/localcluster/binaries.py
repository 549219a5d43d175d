"""Which program to run for each component: the first found along a fixed order, built from source if none
is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localcluster.build import built_directory, ensure_built
from localcluster.errors import LocalClusterError
from localcluster.recipes import KUBERNETES_VERSION, Recipe, add_ons, control_plane
from localcluster.say import Say

#: Programs of the control plane; the first three are what an envtest bundle holds.
CONTROL_PLANE = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler")
ADD_ONS = ("lws-manager", "helm")


@dataclass(frozen=True)
class Binaries:
    """A program for every component, and the directory of LeaderWorkerSet's own manifests."""

    programs: Mapping[str, Path]
    lws_manifests: Path


def environment_variable(program: str) -> str:
    """``kube-apiserver`` -> ``TEST_ASSET_KUBE_APISERVER``, the name that controller test suites share."""
    return "TEST_ASSET_" + program.upper().replace("-", "_")


def prebuilt(program: str, environment: Mapping[str, str]) -> Path | None:
    """A program that the user points to by environment variables. Raises LocalClusterError if it is not
    there.
    """
    variable = environment_variable(program)
    named = environment.get(variable)
    if named:
        path = Path(named)
        if not os.access(path, os.X_OK):
            raise LocalClusterError(f"{variable}={named} is not an executable file: correct or unset it.")
        return path
    assets = environment.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / program, os.X_OK):
        return Path(assets) / program
    return None


def installed(program: str, environment: Mapping[str, str], machine: str = "amd64") -> Path | None:
    """A program installed by other tools: setup-envtest's store, /usr/local/kubebuilder, PATH."""
    share = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "/")) / ".local" / "share")
    store = Path(share) / "kubebuilder-envtest" / "k8s" / f"{KUBERNETES_VERSION}-linux-{machine}"
    for directory in (store, Path("/usr/local/kubebuilder/bin")):
        if os.access(directory / program, os.X_OK):
            return directory / program
    found = shutil.which(program, path=environment.get("PATH"))
    return Path(found) if found else None


def locate(
    hack: Path, cache: Path, say: Say, named: Mapping[str, Path] | None = None, *, build: bool = True
) -> Binaries:
    """Find or build everything.

    Order per program: ``named`` (command line), ``TEST_ASSET_<NAME>``, ``$KUBEBUILDER_ASSETS``, the build
    cache, programs that other tools installed (only all of a kind together and of the right version), and
    last a build. Nothing is ever left out: a control plane without its controller manager or scheduler would
    only look like a cluster.
    """
    programs: dict[str, Path] = {}
    for recipe, names in ((control_plane(hack), CONTROL_PLANE), (add_ons(hack), ADD_ONS)):
        for name in names:
            found = (named or {}).get(name) or prebuilt(name, os.environ)
            if found is not None:
                say(f"{name}: using {found}")
                programs[name] = found
        missing = [name for name in names if name not in programs]
        if missing:
            programs |= _cached_or_installed(recipe, missing, cache) or _build(
                recipe, missing, cache, say, build=build
            )
    # Even where a manager was given, its CRDs are known only from the module, and come with the build.
    manifests = built_directory(add_ons(hack), cache) / "lws"
    if not manifests.is_dir():
        _build(add_ons(hack), list(ADD_ONS), cache, say, build=build)
    return Binaries(programs=programs, lws_manifests=manifests)


def _cached_or_installed(recipe: Recipe, names: list[str], cache: Path) -> dict[str, Path] | None:
    home = built_directory(recipe, cache)
    if home.is_dir():
        return {name: home / name for name in names}
    found = {name: path for name in names if (path := installed(name, os.environ)) is not None}
    complete = len(found) == len(names) and all(right_version(name, path) for name, path in found.items())
    return found if complete else None


def right_version(program: str, path: Path) -> bool:
    """Whether an installed program is of the Kubernetes release that the rest is built for; other
    programs are not.
    """
    if not program.startswith("kube-"):
        return True
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.startswith(f"Kubernetes v{KUBERNETES_VERSION.rpartition('.')[0]}.")


def _build(recipe: Recipe, names: list[str], cache: Path, say: Say, *, build: bool) -> dict[str, Path]:
    if not build:
        raise LocalClusterError(
            f"no {', '.join(names)}: not built yet, not named by {environment_variable(names[0])} or "
            "KUBEBUILDER_ASSETS, and not installed. Build them with `python -m localcluster build`."
        )
    home = ensure_built(recipe, cache, say)
    return {name: home / name for name in names}
