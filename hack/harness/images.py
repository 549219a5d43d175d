"""Images of the local cluster, while it runs."""

import os
import sys
from pathlib import Path

import yaml


def add_image(reference: str, **environment: str) -> None:
    """An image with this checkout's Python and its programs, and these variables. It goes before the others."""
    table = Path(os.environ["KUBECONFIG"]).parent / "images.yaml"
    document = yaml.safe_load(table.read_text())
    entry = {"match": reference, "pathPrepend": [str(Path(sys.executable).parent)], "env": environment}
    others = [image for image in document["images"] if image["match"] != reference]
    fresh = table.with_suffix(".new")
    fresh.write_text(yaml.safe_dump({**document, "images": [entry, *others]}, sort_keys=False))
    fresh.replace(table)
