"""`python -m layers [LAYER ...]`: run the given layers (default: all), print a summary, exit 1 if one failed.

Every layer runs even if an earlier one failed, so that one run tells everything.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

_PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=8"]
#: Slow layers name each test as it ends, with its figures, so that nobody waits before a silent screen.
_TELLING = [sys.executable, "-m", "pytest", "-v", "-rA", "-p", "no:cacheprovider", "--durations=30"]
_CLUSTER = [sys.executable, "-m", "localcluster", "run"]


@dataclass(frozen=True)
class Layer:
    """Steps of one layer: commands, each tests (a JUnit report is appended) or a check by exit code."""

    name: str
    prepare: tuple[tuple[str, ...], ...] = ()
    checks: tuple[tuple[str, ...], ...] = ()
    tests: tuple[tuple[str, ...], ...] = ()


def _module(name: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *args)


LAYERS = (
    Layer(
        "lint",
        checks=(
            _module("ruff", "check", "."),
            _module("ruff", "format", "--check", "."),
            _module("mypy"),
            (str(Path(sys.executable).with_name("lint-imports")),),
        ),
    ),
    Layer("unit", tests=((*_PYTEST, "tests/unit"),)),
    Layer("properties", tests=((*_PYTEST, "tests/properties"),)),
    Layer("faults", tests=((*_PYTEST, "tests/faults"),)),
    Layer(
        "cluster",
        prepare=(_module("localcluster", "build"),),
        tests=(
            (*_CLUSTER, "--name", "tests", "--", *_PYTEST, "tests/cluster", "-m", "not outside"),
            (*_TELLING, "tests/cluster", "-m", "outside"),
        ),
    ),
    Layer(
        "e2e",
        prepare=(_module("localcluster", "build"), _module("engine", "install"), _module("engine", "model")),
        tests=(
            (*_CLUSTER, "--name", "e2e", "--", *_TELLING, "tests/e2e"),
            (*_TELLING, "tests/loopback/test_agent_in_engine.py"),
        ),
    ),
)


@dataclass
class Outcome:
    """What a layer came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0


def _read_report(path: Path) -> Outcome:
    suite = ET.parse(path).getroot().find("testsuite")
    assert suite is not None
    total, bad = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    return Outcome(total - bad - skipped, bad, skipped)


def _run_tests(command: tuple[str, ...], outcome: Outcome) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = subprocess.run([*command, f"--junit-xml={report}"], check=False).returncode
        found = _read_report(report) if report.exists() else Outcome(failed=1)
    outcome.passed += found.passed
    outcome.failed += found.failed or (0 if code == 0 else 1)
    outcome.skipped += found.skipped


def run_layer(layer: Layer) -> Outcome:
    """Run all steps of a layer. A failed preparation fails the layer without its tests."""
    outcome, started = Outcome(), time.monotonic()
    for command in layer.prepare:
        if subprocess.run(command, check=False).returncode != 0:
            print(f"{layer.name}: preparation failed: {' '.join(command)}", flush=True)
            outcome.failed += 1
            break
    else:
        for command in layer.checks:
            if subprocess.run(command, check=False).returncode == 0:
                outcome.passed += 1
            else:
                outcome.failed += 1
        for command in layer.tests:
            _run_tests(command, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


def chosen(arguments: list[str]) -> list[str]:
    """The layers to run, in the order of LAYERS; all when none is named. Exits with 2 for an unknown name."""
    known = [layer.name for layer in LAYERS]
    parser = argparse.ArgumentParser(prog="layers", description="Run the test layers and sum them up.")
    # No `choices`: with nargs="*" some Python 3.11 releases check the empty list itself against them.
    parser.add_argument(
        "layers", nargs="*", metavar="LAYER", help=f"one of {', '.join(known)} (default: all)"
    )
    named = parser.parse_args(arguments).layers
    if unknown := [name for name in named if name not in known]:
        parser.error(f"no layer {', '.join(unknown)} (choose from {', '.join(known)})")
    return [name for name in known if not named or name in named]


def main() -> int:
    """Exit 0 only if every layer ran at least one test or check and none failed."""
    wanted = chosen(sys.argv[1:])
    # Told to stop, leave by an exception: it ends the running command, and with it the cluster below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes: dict[str, Outcome] = {}
    # Engines and clients leave sockets and files when they are killed; a folder of this run's own takes them along.
    with tempfile.TemporaryDirectory(prefix="moe-", ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = scratch
        for layer in LAYERS:
            if layer.name in wanted:
                print(f"\n=== {layer.name} ===", flush=True)
                outcomes[layer.name] = run_layer(layer)
    print(f"\n{'LAYER':<12}{'PASSED':>8}{'FAILED':>8}{'SKIPPED':>9}{'SECONDS':>9}")
    for name, one in outcomes.items():
        print(f"{name:<12}{one.passed:>8}{one.failed:>8}{one.skipped:>9}{one.seconds:>9.0f}")
    passed = sum(o.passed for o in outcomes.values())
    failed = sum(o.failed for o in outcomes.values())
    skipped = sum(o.skipped for o in outcomes.values())
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    empty = [name for name, one in outcomes.items() if one.passed + one.failed == 0]
    for name in empty:
        print(f"layer {name} ran nothing")
    return 1 if failed or empty else 0


if __name__ == "__main__":
    sys.exit(main())
