"""Runs layers and counts what passed, in two lanes: those with real engines, and all others."""

import subprocess
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from layers.table import Layer

#: Characters of a failed test's message that are repeated at the very end, where it is found though the log was cut.
LONGEST = 300


@dataclass
class Outcome:
    """What a layer came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)
    """What failed, a line for each, tests with the beginning of their message."""


class Runner:
    """Runs commands of layers. With several lanes every line of output begins with its layer's name."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._running: set[subprocess.Popen[str]] = set()
        self._prefixed = False
        self._stopped = False

    def run(self, layers: Iterable[Layer]) -> None:
        """Run all of them, also after a failure. Ends what still runs when it is left by an exception."""
        wanted = tuple(layers)
        engines = [layer for layer in wanted if layer.engine]
        others = [layer for layer in wanted if not layer.engine]
        self._prefixed = bool(engines and others)
        beside = threading.Thread(target=self._lane, args=(engines,), daemon=True)
        beside.start()
        try:
            self._lane(others)
            beside.join()
        finally:
            self._stopped = True
            for process in list(self._running):
                process.terminate()
            beside.join()

    def _lane(self, layers: list[Layer]) -> None:
        for layer in layers:
            print(f"\n=== {layer.name} ===", flush=True)
            self.outcomes[layer.name] = self._layer(layer)

    def _layer(self, layer: Layer) -> Outcome:
        """Run all steps of a layer. A failed preparation fails the layer without its tests."""
        outcome, started = Outcome(), time.monotonic()
        for command in layer.prepare:
            if self._command(layer, command) != 0:
                print(f"{layer.name}: preparation failed: {' '.join(command)}", flush=True)
                outcome.failed += 1
                outcome.broken.append(f"preparation: {' '.join(command)}")
                break
        else:
            for command in layer.checks:
                if self._command(layer, command) == 0:
                    outcome.passed += 1
                else:
                    outcome.failed += 1
                    outcome.broken.append(" ".join(command))
            for command in layer.tests:
                self._tests(layer, command, outcome)
        outcome.seconds = time.monotonic() - started
        return outcome

    def _tests(self, layer: Layer, command: tuple[str, ...], outcome: Outcome) -> None:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            code = self._command(layer, (*command, f"--junit-xml={report}"))
            found = read_report(report) if report.exists() else Outcome(failed=1)
        outcome.passed += found.passed
        outcome.failed += found.failed or (0 if code == 0 else 1)
        outcome.skipped += found.skipped
        outcome.broken += found.broken or ([] if code == 0 else [" ".join(command)])

    def _command(self, layer: Layer, command: tuple[str, ...]) -> int:
        if self._stopped:
            return 1
        output = subprocess.PIPE if self._prefixed else None
        errors = subprocess.STDOUT if self._prefixed else None
        with subprocess.Popen(command, stdout=output, stderr=errors, text=True, errors="replace") as process:
            self._running.add(process)
            if self._stopped:  # after those known then were told
                process.terminate()
            try:
                for line in process.stdout or ():
                    print(f"{layer.name:<10} | {line}", end="", flush=True)
                return process.wait()
            except BaseException:
                # Told to stop: `with` waits for the end.
                process.terminate()
                raise
            finally:
                self._running.discard(process)


def read_report(path: Path) -> Outcome:
    """Counts of a JUnit report, and what failed."""
    suite = ET.parse(path).getroot().find("testsuite")
    assert suite is not None
    total, bad = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    broken = [
        f"{case.get('classname', '')}::{case.get('name', '')}: {' '.join(fault.get('message', '').split())[:LONGEST]}"
        for case in suite.iter("testcase")
        for fault in (*case.iter("failure"), *case.iter("error"))
    ]
    return Outcome(total - bad - skipped, bad, skipped, broken=broken)
