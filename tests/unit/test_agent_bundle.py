"""The agent as it is mounted: it must work with nothing of the operator in reach."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from moe_operator.resources.agent_bundle import MIDDLEWARE, agent_files, agent_hash, config_map_key

# What vLLM does: find the plugin by its entry point and call it; import the middleware by its dotted name.
_AS_VLLM_DOES = """
import importlib, importlib.metadata, sys
found = [point for point in importlib.metadata.entry_points(group="vllm.general_plugins")]
assert [point.name for point in found] == ["moe_agent"], found
register = found[0].load()
register()
module, _, name = sys.argv[1].rpartition(".")
middleware = getattr(importlib.import_module(module), name)
assert isinstance(middleware, type)
middleware(None)
operators = [name for name in sys.modules if name.startswith("moe_operator")]
assert not operators, operators
print(importlib.metadata.version("moe-agent"))
"""


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """The files laid out as the ConfigMap's volume does."""
    for path, content in agent_files().items():
        target = tmp_path / "mount" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return tmp_path / "mount"


def test_the_mounted_agent_is_found_and_imports_without_the_operator(mounted: Path, tmp_path: Path) -> None:
    """A forgotten import of the operator would stop every engine from starting."""
    ended = subprocess.run(
        [sys.executable, "-S", "-c", _AS_VLLM_DOES, MIDDLEWARE],
        env={"PYTHONPATH": str(mounted), "MOE_TERMINATION_LOG": str(tmp_path / "log")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"1+{agent_hash()}"


def test_the_files_fit_a_config_map() -> None:
    """A key that Kubernetes refuses, or two files under one key, would stop every group from starting."""
    files = agent_files()
    keys = {config_map_key(path) for path in files}
    assert len(keys) == len(files)
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in keys)
    assert sum(len(content.encode()) for content in files.values()) < 200 * 1024
    assert "moe_agent/middleware.py" in files


def test_the_hash_follows_the_sources() -> None:
    """Groups would keep an old agent, or be replaced for nothing."""
    assert agent_hash() == agent_hash()
    assert re.fullmatch(r"[0-9a-f]{12}", agent_hash())
    assert agent_hash() in agent_files()["moe_agent-1.dist-info/METADATA"]
