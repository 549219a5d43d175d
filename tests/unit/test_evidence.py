"""What the log tells of an engine's end where its pod's status does not: without it, every end without the agent is
"exit code 1"."""

import asyncio

import pytest

from moe_operator.api import names, reasons
from moe_operator.api.status import Cause
from moe_operator.controller import evidence
from moe_operator.controller.evidence import with_logs
from moe_operator.controller.kube import KubeError

ENDED = "the engine in pod tiny-g0-0 ended with code 1"
CAUSE = Cause(reason=reasons.ENGINE_EXITED, message=ENDED, pod="tiny-g0-0", node="node-0", exit_code=1)
POINTER = "RuntimeError: Engine core initialization failed. See root cause above."
ROOT = "ERROR 11-30 00:49:07 [x.py:1] SafetensorError: Error while deserializing header: header too large"


class Logs:
    """A client that has the logs of one container: of the run before, and of the present one."""

    def __init__(self, previous: str | None = None, current: str | None = None) -> None:
        self.texts = {True: previous, False: current}
        self.asked: list[bool] = []

    async def pod_logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, tail_lines: int = 20
    ) -> str:
        assert (namespace, pod, container) == ("serving", "tiny-g0-0", names.ENGINE_CONTAINER)
        self.asked.append(previous)
        text = self.texts[previous]
        if text is None:
            raise KubeError(400, "BadRequest", "previous terminated container not found")
        return text


async def looked_up(cause: Cause, logs: Logs) -> Cause:
    return await with_logs(logs, "serving", cause)  # type: ignore[arg-type]


async def test_the_log_of_the_run_that_ended_tells_the_cause() -> None:
    found = await looked_up(CAUSE, Logs(f"{ROOT}\n{POINTER}", "INFO 11-30 00:50:00 [x.py:1] loading"))
    assert found.reason == reasons.WEIGHTS_UNREADABLE
    assert found.message == f"{ENDED}: SafetensorError: Error while deserializing header: header too large"
    assert found.output == [ROOT, POINTER]
    assert (found.pod, found.node, found.exit_code) == ("tiny-g0-0", "node-0", 1)


async def test_an_engine_that_was_not_started_again_has_only_its_present_log() -> None:
    logs = Logs(None, ROOT)
    assert (await looked_up(CAUSE, logs)).reason == reasons.WEIGHTS_UNREADABLE
    assert logs.asked == [True, False]


async def test_a_message_that_only_points_at_the_root_is_replaced() -> None:
    """Without the agent the kubelet keeps the log's last 2048 bytes: the API server's traceback."""
    said = CAUSE.model_copy(update={"message": f"{ENDED}: {POINTER}", "output": [POINTER]})
    found = await looked_up(said, Logs(f"{ROOT}\n{POINTER}"))
    assert found.reason == reasons.WEIGHTS_UNREADABLE
    assert POINTER not in found.message


async def test_a_log_that_knows_no_more_leaves_what_was_said() -> None:
    said = CAUSE.model_copy(update={"message": f"{ENDED}: ERROR boom", "output": ["ERROR boom"]})
    assert await looked_up(said, Logs("ERROR something else")) == said
    assert await looked_up(said, Logs("", "")) == said
    assert await looked_up(said, Logs()) == said


async def test_a_cause_with_a_reason_of_its_own_costs_no_request() -> None:
    logs = Logs(ROOT)
    for reason in (reasons.POD_LOST, reasons.OUT_OF_MEMORY, reasons.PORT_TAKEN):
        cause = CAUSE.model_copy(update={"reason": reason})
        assert await looked_up(cause, logs) == cause
    assert await looked_up(CAUSE.model_copy(update={"pod": None}), logs)
    assert logs.asked == []


async def test_a_kubelet_that_does_not_answer_delays_the_successor_by_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent:
        async def pod_logs(self, *_: object, **__: object) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(evidence, "LOOK", 0.01)
    async with asyncio.timeout(5):
        assert await looked_up(CAUSE, Silent()) == CAUSE  # type: ignore[arg-type]
