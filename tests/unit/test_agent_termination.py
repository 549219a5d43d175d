"""The container's termination message: where a user reads why a group died."""

from __future__ import annotations

import logging
import logging.config
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_operator.agent import termination


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "termination-log"


@pytest.fixture
def logger(log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """One of vLLM's loggers, recorded, with Python's logging as it was afterwards."""
    monkeypatch.setattr(termination, "_installed", False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    factory = logging.getLogRecordFactory()
    root = logging.getLogger("vllm")
    before = (list(root.handlers), root.level, root.propagate)
    assert termination.install({"MOE_TERMINATION_LOG": str(log)})
    assert termination.install({"MOE_TERMINATION_LOG": str(log)})
    yield logging.getLogger("vllm.v1.engine.core")
    logging.setLogRecordFactory(factory)
    root.handlers, root.level, root.propagate = before


def test_recording_survives_that_vllm_configures_its_logging_anew(log: Path, logger: logging.Logger) -> None:
    """vLLM does so in the API server after loading plugins: its errors would not be recorded at all."""
    handlers = {"vllm": {"class": "logging.StreamHandler"}}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": handlers,
            "loggers": {"vllm": {"handlers": ["vllm"], "level": "INFO", "propagate": False}},
        }
    )
    logger.error("EngineCore encountered an issue")
    assert "EngineCore encountered an issue" in log.read_text()


def test_only_the_engines_own_errors_are_recorded(log: Path, logger: logging.Logger) -> None:
    """Errors of a library that the engine survived would stand where a user looks for the cause."""
    logging.getLogger("httpx").error("could not reach a telemetry server")
    logging.getLogger("vllmware").error("not vLLM either")
    assert not log.exists()


def test_errors_are_recorded_once_and_chatter_is_not(log: Path, logger: logging.Logger) -> None:
    """A message full of warnings hides the error; one that is doubled wastes half of its 4096 bytes."""
    logger.warning("This model is slow")
    logger.info("EngineCore failed to start would be odd at this level")
    logger.error("NCCL error in %s", "all_gather")
    logger.error("Dumping input data for V1 LLM engine (v0.32.0) with config: %s", "x" * 900)
    logger.error("Dumping scheduler output for model execution: SchedulerOutput(prompt_token_ids=[1, 2])")
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("NCCL error in all_gather")


def test_an_engines_death_is_recorded_though_it_is_only_a_warning(log: Path, logger: logging.Logger) -> None:
    """vLLM reports a killed engine core as a warning; the pod would end without any cause."""
    logger.warning("[shutdown] MPClient: engine core exited unexpectedly; starting cleanup")
    assert "engine core exited unexpectedly" in log.read_text()


def test_an_exception_is_recorded_with_what_it_stems_from(log: Path, logger: logging.Logger) -> None:
    """ "Engine core initialization failed" alone says nothing; the reason is in the exception before it."""
    try:
        try:
            raise ValueError("max_model_len 262144 is larger than the KV cache holds\n  (131072)")
        except ValueError as error:
            raise RuntimeError("Engine core initialization failed") from error
    except RuntimeError:
        logger.exception("EngineCore failed to start.")
    line = log.read_text()
    assert (
        "EngineCore failed to start. [RuntimeError: Engine core initialization failed; from ValueError:"
        in line
    )
    assert "max_model_len 262144 is larger than the KV cache holds (131072)" in line


def test_a_long_error_is_recorded_with_its_point(log: Path, logger: logging.Logger) -> None:
    """What is wrong stands in the middle of some messages, and at the end of a traceback."""
    logger.error(
        "1 validation error for VllmConfig\n  invalid literal '0.001'\n    For further information visit x"
    )
    logger.error(
        'failed:\nTraceback (most recent call last):\n  File "core.py"\n    run()\nOSError: no device'
    )
    assert [line.partition(": ")[2] for line in log.read_text().splitlines()] == [
        "1 validation error for VllmConfig invalid literal '0.001'",
        "failed: OSError: no device",
    ]


def test_the_message_stays_within_what_kubernetes_keeps(log: Path, logger: logging.Logger) -> None:
    """Kubernetes cuts at 4096 bytes; cut blindly, cause or end would be lost."""
    logger.error("a request failed")
    logger.error("Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.")
    for number in range(500):
        logger.error("request %d failed: %s", number, "ä" * 2000)
    content = log.read_bytes()
    assert len(content) <= 4096
    lines = content.decode().splitlines()
    assert "VllmWorker-0 died unexpectedly" in lines[0]
    assert "request 499 failed" in lines[-1]
    assert all(len(line.encode()) <= termination.LINE_LIMIT for line in lines)
    assert len(lines) >= 6


def test_several_processes_write_one_message(log: Path) -> None:
    """API server, engine core and worker die together; whoever writes last must not erase the others."""
    script = (
        "import sys; from pathlib import Path; from moe_operator.agent.termination import append\n"
        "for number in range(40): append(Path(sys.argv[1]), f'{sys.argv[2]}-{number:02}')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(log), name]) for name in ("api", "core", "worker")
    ]
    assert [process.wait(timeout=30) for process in processes] == [0, 0, 0]
    lines = log.read_text().splitlines()
    assert sorted(lines) == sorted(
        f"{name}-{number:02}" for name in ("api", "core", "worker") for number in range(40)
    )


def test_an_uncaught_exception_is_recorded(log: Path) -> None:
    """The API server's own end, for example a port that is taken, goes to standard error alone."""
    script = (
        "from moe_operator.agent import termination; termination.install();"
        "raise OSError('address 10.244.0.7:8000 is in use')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"MOE_TERMINATION_LOG": str(log), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "uncaught: OSError: address 10.244.0.7:8000 is in use" in log.read_text()


def test_without_a_place_to_write_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of a container the engine must run as ever."""
    monkeypatch.setattr(termination, "_installed", False)
    hook = sys.excepthook
    assert not termination.install({"MOE_TERMINATION_LOG": str(tmp_path / "missing" / "log")})
    assert sys.excepthook is hook


def test_a_log_that_cannot_be_written_does_not_disturb_the_engine(log: Path, logger: logging.Logger) -> None:
    """A handler that raises would turn each logged error into another."""
    log.unlink(missing_ok=True)
    log.mkdir()
    logger.error("the engine goes on")


def test_the_root_cause_stays_when_later_errors_are_many(log: Path, logger: logging.Logger) -> None:
    """The API server's "see root cause above" is the last word, and points at lines that nobody sees any more."""
    logger.error("a request failed")
    try:
        raise RuntimeError("Error while deserializing header: incomplete metadata, file not fully covered")
    except RuntimeError:
        logger.exception("WorkerProc failed to start.")
    for number in range(50):
        logger.error("rank %d: Connection closed by peer [10.0.0.2]:%s", number, "1" * 300)
    termination.append(
        log, "uncaught: RuntimeError: Engine core initialization failed. See root cause above."
    )
    lines = log.read_text().splitlines()
    assert "deserializing header" in lines[0]
    assert "See root cause above" in lines[-1]


def test_a_known_cause_stays_beside_the_first_end(log: Path) -> None:
    """A worker's death is told before the engine core tells that its GPU was full."""
    termination.append(
        log, "Worker proc VllmWorker-1 died unexpectedly (exit code: -6), shutting down executor."
    )
    for number in range(40):
        termination.append(log, f"request {number} failed: {'x' * 400}")
    termination.append(log, "EngineCore encountered a fatal error. [OutOfMemoryError: CUDA out of memory.]")
    for number in range(40):
        termination.append(log, f"request {number} failed: {'x' * 400}")
    lines = log.read_text().splitlines()
    assert "VllmWorker-1 died" in lines[0]
    assert "CUDA out of memory" in lines[1]
    assert len(log.read_bytes()) <= termination.LIMIT


def test_a_long_error_leaves_room_for_what_it_stems_from(log: Path, logger: logging.Logger) -> None:
    try:
        try:
            raise OSError("no such device: mlx5_3")
        except OSError as error:
            raise RuntimeError("the group could not be formed " + "x" * 900) from error
    except RuntimeError:
        logger.exception("EngineCore failed to start.")
    assert "from OSError: no such device: mlx5_3" in log.read_text()


def test_the_place_in_vllm_is_told_of_an_uncaught_error(log: Path, tmp_path: Path) -> None:
    """Its checks of arguments raise ValueErrors as everything else does."""
    package = tmp_path / "vllm" / "config"
    package.mkdir(parents=True)
    (package / "parallel.py").write_text("def check():\n    raise ValueError('does not go together')\n")
    script = (
        "from moe_operator.agent import termination; termination.install();"
        "from vllm.config.parallel import check; check()"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        env={"MOE_TERMINATION_LOG": str(log), "PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
        capture_output=True,
        check=False,
    )
    assert "uncaught in vllm/config/parallel.py:2: ValueError: does not go together" in log.read_text()
