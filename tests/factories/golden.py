"""Rendered objects as files, so that a change of what is rendered shows in review, line by line."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

#: Two files stand for the agent, so that golden files do not change with it. See `resources.agent_config.agent_files`.
AGENT: Mapping[str, str] = MappingProxyType(
    {"moe_agent/__init__.py": "", "moe_agent-1.dist-info/entry_points.txt": "[vllm.general_plugins]\n"}
)
FOLDER = Path(__file__).parents[1] / "unit" / "golden"


def check_golden(name: str, rendered: Any) -> None:
    """Compare with tests/unit/golden/<name>.yaml. UPDATE_GOLDEN=1 writes it instead: read the diff then."""
    check_golden_text(name, yaml.safe_dump(rendered, sort_keys=True, width=110))


def check_golden_text(name: str, text: str, suffix: str = "yaml") -> None:
    """The same for what is text already."""
    path = FOLDER / f"{name}.{suffix}"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing: run the test with UPDATE_GOLDEN=1 and read what it wrote"
    assert path.read_text(encoding="utf-8") == text, (
        f"what is rendered differs from {path}: if that is meant, run with UPDATE_GOLDEN=1 and commit"
    )
