"""Logs: whoever looks for one deployment among a thousand filters by its key."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from moe_operator.runtime import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_lines_of_a_reconcile_carry_its_key_and_others_do_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    log = logging.getLogger("moe_operator.controller.reconcile")

    async def work(name: str) -> None:
        with logs.bound_key(("serving", name)):
            await asyncio.sleep(0)
            log.info("created %s-g%d", name, 0)

    await asyncio.gather(work("a"), work("b"))
    log.warning("outside")
    found = lines(capsys)
    assert [(f.get("key"), f["message"]) for f in found] == [
        ("serving/a", "created a-g0"),
        ("serving/b", "created b-g0"),
        (None, "outside"),
    ]
    assert {"time", "level", "logger"} <= set(found[0])
    assert found[2]["level"] == "warning"


def test_a_failure_is_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("x").exception("reconcile failed")
    (line,) = lines(capsys)
    assert "RuntimeError: broken" in line["exception"]


def test_libraries_are_quiet_and_debug_is_ours_to_ask_for(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "json")
    logging.getLogger("kopf.objects").info("event")
    logging.getLogger("moe_operator.runtime").debug("detail")
    assert [line["message"] for line in lines(capsys)] == ["detail"]


def test_people_may_read_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "console")
    logging.getLogger("x").warning("something %s", "happened")
    logging.getLogger("x").info("unseen")
    text = capsys.readouterr().err
    assert "something happened" in text
    assert "unseen" not in text
