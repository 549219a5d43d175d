"""The layers of tests: what each runs."""

import sys
from dataclasses import dataclass
from pathlib import Path

_PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
_QUIET = (*_PYTEST, "-q", "--durations=8")
#: Without Hypothesis, which its plugin would import as a session ends, whether tests use it or not: compiling it
#: while a leftover is collected fails in Python 3.11 ("AST constructor recursion depth mismatch").
_PLAIN = ("-p", "no:hypothesispytest")
#: Slow layers name each test as it ends, with its figures, so that nobody waits before a silent screen.
_TELLING = (*_PYTEST, *_PLAIN, "-v", "-rA", "--durations=30")
_CLUSTER = (sys.executable, "-m", "localcluster", "run")


@dataclass(frozen=True)
class Layer:
    """Steps of one layer: commands, each tests (a JUnit report is appended) or a check by exit code."""

    name: str
    prepare: tuple[tuple[str, ...], ...] = ()
    checks: tuple[tuple[str, ...], ...] = ()
    tests: tuple[tuple[str, ...], ...] = ()
    engine: bool = False
    """Runs real engines: such layers run one after another, beside the others. Two at once would need more memory than
    a laptop has."""
    optional: bool = False
    """Runs only when named: it shows something once, and takes long."""


def _module(name: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *args)


_ENGINE = (_module("engine", "install"), _module("engine", "model"))

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
    Layer("unit", tests=((*_QUIET, "tests/unit"),)),
    Layer("properties", tests=((*_QUIET, "tests/properties"),)),
    Layer("faults", tests=((*_QUIET, *_PLAIN, "tests/faults", "tests/weights"),)),
    Layer(
        "rules",
        prepare=(_module("localcluster", "build"), _module("harness.prometheus")),
        tests=((*_QUIET, *_PLAIN, "tests/rules"),),
    ),
    Layer("engine", prepare=_ENGINE, tests=((*_TELLING, "tests/loopback"),), engine=True),
    Layer(
        "cluster",
        prepare=(
            _module("localcluster", "build"),
            _module("localcluster.dra"),
            _module("localcluster.keda"),
            _module("harness.scan"),
        ),
        tests=(
            (*_CLUSTER, "--name", "tests", "--", *_QUIET, *_PLAIN, "tests/cluster", "-m", "not outside"),
            (*_TELLING, "tests/cluster", "-m", "outside"),
        ),
    ),
    Layer(
        "e2e",
        prepare=(_module("localcluster", "build"), *_ENGINE),
        tests=((*_CLUSTER, "--name", "e2e", "--", *_TELLING, "tests/e2e"),),
        engine=True,
    ),
    Layer(
        "upgrade",
        prepare=(_module("localcluster", "build"), *_ENGINE),
        tests=((*_CLUSTER, "--name", "upgrade", "--", *_TELLING, "tests/upgrade"),),
        engine=True,
        optional=True,
    ),
    Layer(
        "families",
        prepare=_ENGINE,
        tests=((*_CLUSTER, "--name", "families", "--", *_TELLING, "tests/families"),),
        engine=True,
        optional=True,
    ),
    Layer(
        "traffic",
        prepare=(_module("localcluster", "build"), *_ENGINE),
        tests=((*_CLUSTER, "--name", "traffic", "--", *_TELLING, "tests/traffic"),),
        engine=True,
        optional=True,
    ),
)
