"""`python -m verify.kv_cache [--check] [--engine]`: what vLLM makes of the KV cache of many models and settings,
recorded in tests/unit/golden, with which the planner's arithmetic is compared.

Most cases run vLLM's model and planning code without weights (seconds); with `--engine` a few run the whole
engine on the CPU (minutes), and without it their recorded numbers stay. `--check` compares with the record
instead of writing it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.install import vllm_command
from verify.kv_cases import CASES, Case

GOLDEN = Path(__file__).parents[2] / "tests" / "unit" / "golden" / "kv_cache_vllm_0_32.json"

Row = dict[str, Any]


def main() -> int:
    """Exit status 1: a measurement differs from the record, or a case could not be measured."""
    parser = argparse.ArgumentParser(prog="verify.kv_cache", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the record, write nothing")
    parser.add_argument(
        "--engine", action="store_true", help="run the whole engine for the cases that want it"
    )
    arguments = parser.parse_args()
    recorded = _recorded()
    rows = measure([case for case in CASES if not case.engine])
    for case in CASES:
        if case.engine and arguments.engine:
            rows |= measure([case])  # one process each: an engine leaves its memory behind
        elif case.engine and case.name in recorded:
            rows[case.name] = {**recorded[case.name], "settings": asdict(case)}
    failed = [f"{name}: {row['error']}" for name, row in rows.items() if "error" in row]
    if arguments.check:
        failed += [
            f"{name}: recorded {recorded.get(name)}, measured {row}"
            for name, row in rows.items()
            if recorded.get(name) != row and "error" not in row
        ]
    elif not failed:
        GOLDEN.write_text(_text(rows))
    print("\n".join(failed) or f"{len(rows)} cases agree" if arguments.check or failed else f"wrote {GOLDEN}")
    return 1 if failed else 0


def measure(cases: Sequence[Case]) -> dict[str, Row]:
    """Each case's row by name, measured in one process of the engine's Python.

    Raises:
        RuntimeError: the process ended without an answer for every case.
    """
    hack = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(hack), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(vllm_command().parent / "python"), "-m", "verify.kv_measure"],
        input=json.dumps([asdict(case) for case in cases]),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    answers = {row.pop("case"): row for row in map(json.loads, done.stdout.splitlines())}
    missing = [case.name for case in cases if case.name not in answers]
    if missing:
        raise RuntimeError(f"no answer for {', '.join(missing)}; the process said:\n{done.stderr[-3000:]}")
    return {case.name: {"settings": asdict(case), **answers[case.name]} for case in cases}


def _recorded() -> dict[str, Row]:
    if not GOLDEN.exists():
        return {}
    rows: dict[str, Row] = json.loads(GOLDEN.read_text())["cases"]
    return rows


def _text(rows: dict[str, Row]) -> str:
    """JSON with one line per case, so that a changed case is a changed line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    return f'{{\n "engine": "vLLM 0.32.0",\n "cases": {{\n{lines}\n }}\n}}\n'


if __name__ == "__main__":
    sys.exit(main())
