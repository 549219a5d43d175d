"""NVIDIA's DRA driver for GPUs as far as a cluster without GPUs can have it: its CRDs.

``python -m localcluster.dra`` prints the directory of the CRDs, fetched once into the cache: inside of a cluster there
is no network to fetch them over.
"""

from __future__ import annotations

from pathlib import Path

from localcluster.build import ensure_built
from localcluster.layout import cache_root, hack_root
from localcluster.recipes import dra_driver
from localcluster.say import Say, to_stderr


def crds(say: Say = to_stderr) -> list[Path]:
    """Files of the driver's CRDs. Raises LocalClusterError if they cannot be fetched."""
    home = ensure_built(dra_driver(hack_root()), cache_root(), say)
    return sorted((home / "crds").glob("*.yaml"))


if __name__ == "__main__":
    print(crds()[0].parent)
