"""How long an engine's start took, by part: without it nobody knows what a slow cold start waits for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_operator.agent import phases

BOOT = "1800000000000000000"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The pod's shared folder, with this process recording into it."""
    monkeypatch.setattr(phases, "_installed", False)
    monkeypatch.setenv("MOE_AGENT_BOOT", BOOT)
    factory = logging.getLogRecordFactory()
    environ = {"MOE_AGENT_DIR": str(tmp_path / "agent"), "MOE_AGENT_BOOT": BOOT}
    phases.install(environ)
    phases.install(environ)
    yield tmp_path / "agent"
    logging.setLogRecordFactory(factory)


def say(message: str, *arguments: object) -> None:
    """As vLLM logs it, whatever the level that handlers are set to."""
    logger = logging.getLogger("vllm.v1.engine.core")
    logger.handle(logger.makeRecord(logger.name, logging.INFO, "core.py", 1, message, arguments, None))


def read(directory: Path, boot: str = BOOT) -> dict[str, float]:
    return phases.read(directory, {"MOE_AGENT_BOOT": boot})


def test_the_spans_that_vllm_says_are_read_from_its_arguments(directory: Path) -> None:
    say("Loading weights took %.2f seconds", 12.345)
    say("Graph capturing finished in %.0f secs, took %.2f GiB", 21.4, 1.25)
    say("init engine (profile, create kv cache, warmup model) took %.2f s (compilation: %.2f s)", 61.5, 30.0)
    assert read(directory) == {"weights": 12.35, "graphs": 21.4, "init": 61.5, "compile": 30.0}


def test_nothing_was_compiled_where_vllm_does_not_say_so(directory: Path) -> None:
    say("init engine (profile, create kv cache, warmup model) took %.2f s", 3.0)
    assert read(directory) == {"init": 3.0}


def test_the_slowest_process_counts(directory: Path) -> None:
    """Ranks start together: the group waits for the last."""
    for seconds in (3.0, 9.0, 5.0):
        say("Loading weights took %.2f seconds", seconds)
    assert read(directory) == {"weights": 9.0}


def test_a_start_before_this_one_does_not_count(directory: Path) -> None:
    """A container that is restarted in place finds the files of the engine that died."""
    say("Loading weights took %.2f seconds", 400.0)
    assert read(directory, "1800000000000000001") == {}


def test_what_cannot_be_read_does_not_disturb_the_engine(directory: Path) -> None:
    say("Loading weights took %.2f seconds")
    say("Loading weights took %s seconds", "long")
    say("Loading weights took %(seconds)s", {"seconds": 3})
    assert read(directory) == {}
    assert phases.read(directory / "absent", {}) == {}
