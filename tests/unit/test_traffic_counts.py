"""What `make test-traffic` counts: a request miscounted as succeeded would hide that users lose answers."""

import asyncio
import errno
import io
import itertools
import json

import pytest

from moe_operator.api import names
from traffic.arrivals import Mix, Shape, poisson
from traffic.changes import Lives
from traffic.counts import Outcome, Record, count, fault_of, judge, lost, quantile, unexcused
from traffic.report import Report, as_json, markdown
from traffic.watch import documents


def record(number: int = 0, **fields: object) -> Record:
    given: dict[str, object] = {
        "number": number,
        "shape": Shape.PLAIN,
        "client": 0,
        "sent": 1.0,
        "ended": 2.0,
        "outcome": Outcome.SUCCEEDED,
        **fields,
    }
    return Record(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "finish", "begun", "fault", "expected"),
    [
        (8, "length", True, "", (Outcome.SUCCEEDED, "")),
        (8, None, True, "", (Outcome.CUT, "no finish reason")),
        (7, "length", True, "", (Outcome.CUT, "too few tokens")),
        (7, "abort", False, "", (Outcome.CUT, "too few tokens")),
        (0, None, False, "connection refused", (Outcome.FAILED, "connection refused")),
        (3, None, True, "connection closed", (Outcome.CUT, "connection closed")),
        # An error after the last token is one all the same.
        (8, "length", True, "error in the stream", (Outcome.CUT, "error in the stream")),
    ],
)
def test_only_a_whole_answer_is_a_success(
    tokens: int, finish: str | None, begun: bool, fault: str, expected: tuple[Outcome, str]
) -> None:
    assert judge(8, tokens, finish, begun, fault) == expected


async def test_faults_are_told_apart_as_the_real_client_raises_them() -> None:
    """With the OpenAI client itself, against servers that fail in each way."""
    from openai import AsyncOpenAI

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1]
        while (await reader.readline()).strip():
            continue
        if path.startswith(b"/status"):
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        elif path.startswith(b"/cut"):
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndata"
            )
        elif path.startswith(b"/error"):
            body = b'data: {"error": {"message": "EngineDeadError", "code": 500}}\n\n'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ")
            writer.write(str(len(body)).encode() + b"\r\n\r\n" + body)
        elif path.startswith(b"/hang"):
            await asyncio.sleep(1)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def fault(path: str, port: int = port, stream: bool = False, patience: float = 5) -> str:
        async with AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}{path}", api_key="none", max_retries=0, timeout=patience
        ) as client:
            try:
                found = await client.chat.completions.create(model="m", messages=[], stream=stream)
                async for _ in found:  # type: ignore[union-attr]
                    continue
            except Exception as error:
                return fault_of(error)
        return ""

    assert await fault("/status") == "HTTP 503"
    assert await fault("/close") == "connection closed"
    assert await fault("/cut", stream=True) == "connection closed"
    assert await fault("/error", stream=True) == "error in the stream"
    assert await fault("/hang", patience=0.1) == "timeout"
    server.close()
    await server.wait_closed()
    assert await fault("/close") == "connection refused"


def test_a_reset_is_one_whatever_library_wraps_it() -> None:
    class ReadError(Exception): ...

    outer = RuntimeError()
    outer.__cause__ = ReadError()
    assert fault_of(outer) == "connection reset"
    assert fault_of(OSError(errno.ECONNREFUSED, "")) == "connection refused"


def test_long_streams_stand_apart() -> None:
    records = [
        record(0),
        record(1, outcome=Outcome.FAILED, fault="HTTP 500"),
        record(2, outcome=Outcome.CUT, fault="connection closed", shape=Shape.STREAM),
        record(3, outcome=Outcome.CUT, fault="connection closed", shape=Shape.LONG),
        record(4, shape=Shape.LONG, ended=90.0, pod="a"),
        record(5, shape=Shape.STREAM, first_token=1.25, ended=4.0, pod="a"),
    ]
    counts = count(records)
    assert (counts.sent, counts.succeeded, counts.failed, counts.cut) == (4, 2, 1, 1)
    assert (counts.long_sent, counts.long_cut) == (2, 1)
    assert counts.faults == {"HTTP 500": 1, "connection closed": 1}
    assert (counts.latency_p50, counts.latency_p99, counts.first_token_p50) == (1.0, 3.0, 0.25)
    assert counts.pods == {"a": 2}
    assert [r.number for r in lost(records)] == [1, 2]


def test_a_crash_excuses_its_own_pods_requests_for_a_while_only() -> None:
    failed = {"outcome": Outcome.FAILED, "fault": "connection reset"}
    excused = [
        record(0, pod="dead", sent=5.0, ended=10.1, **failed),  # in flight
        record(1, pod="dead", sent=12.0, ended=12.1, **failed),  # sent before the endpoint was out
        record(2, pod="", sent=12.0, ended=12.1, **failed),  # no engine took it
        record(3, pod="alive", sent=12.0, ended=12.1),
    ]
    others = [
        record(4, pod="alive", sent=12.0, ended=12.1, **failed),
        record(5, pod="dead", sent=15.5, ended=16.0, **failed),  # still sent there
        record(6, pod="", sent=16.0, ended=16.0, **failed),
        record(7, pod="dead", sent=5.0, ended=6.0, **failed),  # before the crash
    ]
    assert unexcused([*excused, *others], ["dead"], at=10.0, within=5.0) == others


def test_quantiles_are_values_that_were_measured() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.99) == 3.0
    assert quantile([float(n) for n in range(1, 101)], 0.5) == 50.0
    assert quantile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_arrivals_follow_from_their_seed_at_their_rate() -> None:
    mix = Mix(rate=4.0, long_share=0.02)
    drawn = list(itertools.islice(poisson(mix, 7), 4000))
    assert drawn == list(itertools.islice(poisson(mix, 7), 4000))
    assert drawn != list(itertools.islice(poisson(mix, 8), 4000))
    assert drawn[-1].at == pytest.approx(1000, rel=0.1)
    gaps = [b.at - a.at for a, b in itertools.pairwise(drawn)]
    assert sum(g > 0.25 for g in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # 1/e: memoryless
    assert sum(a.shape is Shape.LONG for a in drawn) / 4000 == pytest.approx(0.02, abs=0.01)
    assert {a.output_tokens for a in drawn if a.shape is Shape.LONG} == {mix.long_output}
    assert {a.client for a in drawn} == set(range(mix.clients))


def pod_event(kind: str, name: str, *, traffic: bool = False, deleting: bool = False) -> dict[str, object]:
    labels = {names.LABEL_GROUP: "t-g0"}
    if traffic:
        labels[names.LABEL_TRAFFIC] = names.TRAFFIC_ON
    meta: dict[str, object] = {"name": name, "uid": name, "labels": labels}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"type": kind, "object": {"metadata": meta}}


def test_a_groups_times_are_those_of_all_its_pods() -> None:
    lives = Lives()
    for at, event in [
        (1.0, pod_event("ADDED", "a")),
        (1.5, pod_event("ADDED", "b")),
        (20.0, pod_event("MODIFIED", "a", traffic=True)),
        (20.5, pod_event("MODIFIED", "b", traffic=True)),
        (21.0, pod_event("MODIFIED", "b", traffic=True)),
        (50.0, pod_event("MODIFIED", "a")),
        (50.2, pod_event("MODIFIED", "b")),
        (55.0, pod_event("MODIFIED", "b", deleting=True)),
        (55.5, pod_event("MODIFIED", "a", deleting=True)),
        (58.0, pod_event("DELETED", "a", deleting=True)),
    ]:
        lives.see(at, event)
    (group,) = lives.groups()
    assert (group.born, group.serving, group.off, group.deleting, group.gone) == (1.0, 20.5, 50.2, 55.0, None)
    assert group.drain == pytest.approx(4.8)
    lives.see(60.0, pod_event("DELETED", "b", deleting=True))
    assert lives.groups()[0].gone == 60.0


def test_a_watchs_objects_are_read_one_by_one() -> None:
    objects = [{"type": "ADDED", "object": {"a": {}, "text": "} {"}}, {"type": "DELETED", "object": {}}]
    text = "".join(json.dumps(o, indent=4) + "\n" for o in objects) + json.dumps(objects[0]) + "\n"
    assert list(documents(io.StringIO(text))) == [*objects, objects[0]]


def test_the_report_names_what_was_lost_and_is_data_too() -> None:
    bad = record(3, outcome=Outcome.CUT, fault="connection closed", detail="ReadError()", pod="t-g0-0")
    report = Report(
        scenario="image change",
        layout="1 group",
        seed=5,
        rate=3.0,
        seconds=10.0,
        counts=count([record(1), bad]),
        groups=(),
        marks={"applied": 2.0},
        lost=[bad],
    )
    text = markdown(report)
    assert "| image change | 1 group | 2 | 1 | 0 | 1 |" in text
    assert "request 3 (plain)" in text
    assert "t-g0-0: connection closed" in text
    assert json.loads(as_json(report, "abc"))["counts"]["cut"] == 1
