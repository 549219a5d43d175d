"""Rendered objects as files, so that a change of what is rendered shows in review, line by line."""

import os
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "unit" / "golden"


def check_golden(name: str, rendered: Any) -> None:
    """Compare with tests/unit/golden/<name>.yaml. UPDATE_GOLDEN=1 writes it instead: read the diff then."""
    path = FOLDER / f"{name}.yaml"
    text = yaml.safe_dump(rendered, sort_keys=True, width=110)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing: run the test with UPDATE_GOLDEN=1 and read what it wrote"
    assert path.read_text(encoding="utf-8") == text, (
        f"what is rendered differs from {path}: if that is meant, run with UPDATE_GOLDEN=1 and commit"
    )
