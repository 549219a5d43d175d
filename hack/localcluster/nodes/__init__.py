"""The nodes a cluster pretends to have: a name of a file beside this one, or a file of the user's."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import yaml

from localcluster.errors import LocalClusterError

Node = dict[str, Any]

_HERE = Path(__file__).resolve().parent
#: No nodes and no kubelet: an API server, controllers and LeaderWorkerSet only.
NONE = "none"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FIELDS = {"name", "labels", "capacity", "allocatable", "taints"}


def load(which: str) -> list[Node]:
    """``which``: ``none``, or ``default``, ``gpu`` and paths of YAML lists, separated by commas. Raises
    LocalClusterError.
    """
    if which == NONE:
        return []
    return complete([node for part in which.split(",") for node in _read(part)], f"--nodes {which}")


def _read(which: str) -> list[Any]:
    named = _HERE / f"{which}.yaml"
    path = named if named.exists() else Path(which)
    try:
        nodes = yaml.safe_load(path.read_text())
    except OSError as error:
        known = ", ".join(sorted(each.stem for each in _HERE.glob("*.yaml")))
        raise LocalClusterError(
            f"--nodes {which}: neither one of {NONE}, {known} nor a readable file: {error}"
        ) from error
    except yaml.YAMLError as error:
        raise LocalClusterError(f"{path} is not YAML: {error}") from error
    if not isinstance(nodes, list):
        raise LocalClusterError(f"{path}: expected a list of nodes, each with name, labels and capacity.")
    return nodes


def complete(nodes: list[Any], origin: str) -> list[Node]:
    """Check the list and add the labels that every node has. Raises LocalClusterError naming ``origin``."""
    result = []
    for index, node in enumerate(nodes):
        if not isinstance(node, dict) or not node.get("name") or not node.get("capacity"):
            raise LocalClusterError(f"{origin}: node {index} needs a name and a capacity.")
        if unknown := sorted(node.keys() - _FIELDS):
            raise LocalClusterError(
                f"{origin}: node {node['name']} has unknown fields: {', '.join(unknown)}."
            )
        labels = {
            "kubernetes.io/hostname": node["name"],
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        }
        result.append(node | {"labels": labels | (node.get("labels") or {})})
    names = [node["name"] for node in result]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise LocalClusterError(f"{origin}: several nodes are called {', '.join(doubled)}.")
    return result
