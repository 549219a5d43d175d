"""Ties tests to rows of the kubelet's contract (hack/localcluster/kubelet/README.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "hack" / "localcluster" / "kubelet" / "README.md"
TESTS = (
    *sorted((ROOT / "tests" / "unit").glob("test_kubelet_*.py")),
    *sorted((ROOT / "tests" / "cluster" / "kubelet").glob("test_kubelet_*.py")),
)
_Test = TypeVar("_Test", bound=Callable[..., object])


def row(*_names: str) -> Callable[[_Test], _Test]:
    """Marks a test as one of a row of the contract; read from the source by ``rows_with_tests``."""
    return lambda test: test


def table_rows() -> dict[str, str]:
    """Row name -> what its last column says."""
    section = README.read_text().split("## The contract", 1)[1]
    lines = re.findall(r"^\| ([a-z-]+) \| .* \| (.*) \|$", section, re.MULTILINE)
    return {name: kept for name, kept in lines if name != "row"}


def rows_with_tests() -> dict[str, list[str]]:
    """Row name -> tests that name it."""
    found: dict[str, list[str]] = {}
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "row":
                    for name in mark.args:
                        assert isinstance(name, ast.Constant)
                        found.setdefault(str(name.value), []).append(f"{path.name}::{node.name}")
    return found
