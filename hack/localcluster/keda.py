"""KEDA as far as manifests for it can be checked by: the CRD of its ScaledObject, and the table of its triggers.

``python -m localcluster.keda`` prints the directory of both, fetched once into the cache: inside of a cluster there is
no network to fetch them over.
"""

from __future__ import annotations

from pathlib import Path

from localcluster.build import ensure_built
from localcluster.layout import cache_root, hack_root
from localcluster.recipes import KEDA_CRD, KEDA_TRIGGERS, keda
from localcluster.say import Say, to_stderr


def crd(say: Say = to_stderr) -> Path:
    """The file of the CRD. Raises LocalClusterError if it cannot be fetched."""
    return ensure_built(keda(hack_root()), cache_root(), say) / KEDA_CRD


def triggers(say: Say = to_stderr) -> Path:
    """JSON: parameters of each trigger. Raises LocalClusterError if it cannot be fetched."""
    return ensure_built(keda(hack_root()), cache_root(), say) / KEDA_TRIGGERS


if __name__ == "__main__":
    print(crd().parent)
