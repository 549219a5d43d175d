"""`python -m render_manifests [--check]`: what is derived from crds/ and charts/ and committed.

    charts/moe-operator-crds/files/   copies of crds/: a chart can only read files of its own
    manifests/install.yaml            both charts rendered, for those who do not use Helm

With --check nothing is written, and it is an error if something would be.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from localcluster.build import ensure_built
from localcluster.layout import cache_root
from localcluster.recipes import add_ons
from localcluster.say import to_stderr

ROOT = Path(__file__).resolve().parents[1]
CRDS = ROOT / "crds"
CHARTS = ROOT / "charts"
CRD_FILES = CHARTS / "moe-operator-crds" / "files"
INSTALL = ROOT / "manifests" / "install.yaml"
NAMESPACE = "moe-system"

_HEADER = f"""\
# moe-operator with its CustomResourceDefinition, in namespace {NAMESPACE}, for all namespaces.
# Rendered from charts/ by `make generate`. Apply it with: kubectl apply --server-side -f install.yaml
"""
# What only Helm's own objects should say.
_HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def helm() -> Path:
    """Helm: the one on PATH, else the one that the local cluster's tools are built with."""
    found = shutil.which("helm")
    if found:
        return Path(found)
    return ensure_built(add_ons(ROOT / "hack"), cache_root(), to_stderr) / "helm"


def crd_chart_files() -> dict[Path, str]:
    """Path -> content of the CRD chart's copies."""
    return {CRD_FILES / path.name: path.read_text(encoding="utf-8") for path in sorted(CRDS.glob("*.yaml"))}


def install_manifest() -> str:
    """Content of install.yaml. Needs the CRD chart's files to be current."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    ]
    objects += _rendered("moe-operator-crds", "--set", "keep=false")
    objects += _rendered("moe-operator")
    for obj in objects:
        _drop_helm_labels(obj)
    return _HEADER + "".join("---\n" + yaml.safe_dump(obj, sort_keys=False, width=110) for obj in objects)


def _rendered(chart: str, *options: str) -> Iterator[dict[str, Any]]:
    command = [str(helm()), "template", chart, str(CHARTS / chart), "--namespace", NAMESPACE, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return (obj for obj in yaml.safe_load_all(done.stdout) if obj)


def _drop_helm_labels(value: Any) -> None:
    """From the object's metadata and from its pod template's."""
    if isinstance(value, dict):
        labels = value.get("labels")
        if isinstance(labels, dict):
            for name in _HELM_LABELS:
                labels.pop(name, None)
        for key in ("metadata", "spec", "template"):
            _drop_helm_labels(value.get(key))


def stale() -> list[Path]:
    """Files that are missing, outdated, or left over."""
    wanted = crd_chart_files()
    found = [path for path in sorted(CRD_FILES.glob("*")) if path not in wanted]
    wanted = {**wanted, INSTALL: install_manifest()}
    return found + [
        p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text
    ]


def write() -> list[Path]:
    """Bring all of it up to date; returns what changed."""
    CRD_FILES.mkdir(parents=True, exist_ok=True)
    wanted = crd_chart_files()
    changed = [path for path in sorted(CRD_FILES.glob("*")) if path not in wanted]
    for path in changed:
        path.unlink()
    changed += [path for path, text in wanted.items() if _update(path, text)]
    # The chart renders the copies: only now can it be asked.
    if _update(INSTALL, install_manifest()):
        changed.append(INSTALL)
    return changed


def _update(path: Path, text: str) -> bool:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


def main() -> int:
    """Exit 1 with --check if a file is not current."""
    if sys.argv[1:] == ["--check"]:
        outdated = stale()
        for path in outdated:
            print(f"{path.relative_to(ROOT)} is not current: run `make generate`", file=sys.stderr)
        return 1 if outdated else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
