"""`kubectl moe top` against an API server: where it finds figures, and what it does where it may not have them. Lost
otherwise: the only look at ranks that needs no dashboards, or a terminal that has to be closed after it."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from factories import figures_page
from factories.cluster_objects import deployment_object
from factories.figures_page import FULL, group, page, rank
from moe_operator.cli import kubectl_moe, operator_page
from moe_operator.cli.errors import ClusterError
from moe_operator.cli.top_watch import again
from unit.answers import Answers, Spoken, listed

MODELS = "/apis/moe-operator.dev/v1alpha1/namespaces/serving/modeldeployments"
ALL_MODELS = "/apis/moe-operator.dev/v1alpha1/modeldeployments"
PODS = "/api/v1/namespaces/moe-system/pods"
SERVICE = "/api/v1/namespaces/moe-system/services/http:moe-operator-metrics:metrics/proxy/figures"
STATUS: dict[str, Any] = {
    "groups": {"desired": 3, "ready": 2, "summary": "2/3"},
    "throughput": {"promptTokensPerSecond": 5120, "outputTokensPerSecond": 900},
}
#: Not old, however long the tests take.
AT = time.time() + 86_400
PAGE = json.dumps(
    page(
        figures_page.deployment("tiny", group("tiny-g0", rank(0, **FULL), **FULL), **FULL),
        at=AT,
    )
).encode()
FOLLOWS = Spoken(503, b'{"error": "operator-1 leads"}')


def operator_pod(name: str, port: int = 9191, namespace: str = "moe-system", **meta: Any) -> dict[str, Any]:
    ports = [{"name": "health", "containerPort": 8080}, {"name": "metrics", "containerPort": port}]
    return {
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": {"containers": [{"name": "sidecar"}, {"name": "operator", "ports": ports}]},
        "status": {"phase": "Running"},
    }


def proxy(pod: str, port: int = 9191, namespace: str = "moe-system") -> str:
    return f"/api/v1/namespaces/{namespace}/pods/http:{pod}:{port}/proxy/figures"


@pytest.fixture
def fleet(cluster: Answers) -> Answers:
    """One deployment, and two replicas of the operator of which the second leads."""
    cluster.answers[MODELS] = listed(deployment_object(**STATUS))
    cluster.answers[f"{MODELS}/tiny"] = deployment_object(**STATUS)
    cluster.answers[PODS] = listed(
        operator_pod("gone", deletionTimestamp="2027-01-15T08:00:00Z"),
        operator_pod("operator-0"),
        operator_pod("operator-1"),
    )
    cluster.answers[proxy("operator-0")] = FOLLOWS
    cluster.answers[proxy("operator-1")] = PAGE
    return cluster


def top(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    code = kubectl_moe.main(["top", *words])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_figures_come_from_the_replica_that_leads(fleet: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = top(capsys)
    assert (code, err, len(out)) == (0, "", 2)
    assert out[1].split()[:5] == ["tiny", "2/3", "-", "182k", "41.2k"]
    assert fleet.asked == [MODELS, PODS, proxy("operator-0"), proxy("operator-1")]
    assert fleet.queries[-1] == "namespace=serving"
    code, out, _ = top(capsys, "tiny", "--ranks", "-o", "wide")
    assert out[1].split()[:2] == ["tiny-g0", "0"]
    assert fleet.queries[-1] == "namespace=serving&name=tiny"


def test_an_operator_elsewhere_is_found_by_those_who_may_look(
    fleet: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.answers[PODS] = listed()
    fleet.answers["/api/v1/pods"] = listed(operator_pod("it", 9090, "platform"))
    fleet.answers[proxy("it", 9090, "platform")] = PAGE
    assert top(capsys)[1][1].split()[3] == "182k"
    code, _, err = top(capsys, "--operator", "moe-system")
    assert code == 0
    assert "no pod of the operator runs in namespace moe-system: say where it is with --operator" in err


def test_the_chart_s_role_is_enough(fleet: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    """It may ask the Service and nothing else; the API server chooses the replica."""
    fleet.answers[PODS] = 403
    fleet.answers[SERVICE] = [FOLLOWS, FOLLOWS, FOLLOWS, PAGE]
    code, out, err = top(capsys)
    assert (code, err) == (0, "")
    assert out[1].split()[3] == "182k"
    assert fleet.asked == [MODELS, PODS, *[SERVICE] * 4]


def test_who_may_list_pods_and_not_ask_them_asks_the_service(
    fleet: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.answers[proxy("operator-0")] = 403
    fleet.answers[SERVICE] = PAGE
    assert top(capsys)[1][1].split()[3] == "182k"


REST = b'{"at": "2027-01-15T08:00:00Z", "deployments": 1}'


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {PODS: 403, SERVICE: 403},
            "ask for the Role moe-operator-figures in namespace moe-system, which may get services/proxy "
            "http:moe-operator-metrics:metrics (the chart's rbac.figures)",
        ),
        ({PODS: 403}, "there is no Service moe-operator-metrics in namespace moe-system"),
        (
            {PODS: 403, SERVICE: [FOLLOWS] * 16},
            "the operator has no figures: operator-1 leads",
        ),
        ({PODS: listed(), "/api/v1/pods": listed()}, "no pod of the operator runs in any namespace"),
        (
            {PODS: listed(), "/api/v1/pods": 403},
            "there is no Service moe-operator-metrics in namespace moe-system",
        ),
        ({PODS: 401}, "the operator's pods could not be listed: "),
        (
            {proxy("operator-1"): FOLLOWS},
            "no replica of the operator has figures: operator-0: operator-1 leads; operator-1: operator-1 leads",
        ),
        (
            {proxy("operator-1"): Spoken(404, b"404: Not Found")},
            "operator-1: it has no such page: it is older",
        ),
        ({proxy("operator-1"): 404}, "operator-1: it is gone"),
        ({proxy("operator-1"): b"<html>"}, "the operator's figures cannot be read (Invalid JSON"),
        ({proxy("operator-1"): REST}, "the operator's figures cannot be read (deployments: "),
        ({proxy("operator-1"): Spoken(500, b"\x1b[2Jx\ny")}, "operator-1: ?[2Jx y"),
        ({proxy("operator-1"): b"x" * 2000}, "operator-1: the answer has more than 1500 bytes"),
    ],
    ids=lambda value: None if isinstance(value, dict) else "",
)
def test_without_figures_the_status_is_shown_and_a_line_says_what_is_missing(
    fleet: Answers,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setattr(operator_page, "LONGEST_PAGE", 1500)

    def change() -> None:
        fleet.answers |= {key: list(to) if isinstance(to, list) else to for key, to in changed.items()}

    change()
    code, out, err = top(capsys)
    assert code == 0
    assert out[1].split()[:5] == ["tiny", "2/3", "-", "5.1k", "900"]
    assert err.count("\n") == 1
    assert err.startswith("kubectl moe: ")
    assert said in err
    assert "\x1b" not in err
    change()
    code, out, err = top(capsys, "--groups")
    assert (code, out) == (1, [])
    assert err.startswith("kubectl moe: --groups needs the operator's figures: ")
    assert said in err
    assert err.count("\n") == 1


def test_an_operator_that_does_not_answer_is_not_waited_for(
    fleet: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit at nothing, any answer takes too long."""
    monkeypatch.setattr(operator_page, "_PATIENCE_WITH_ONE", 0.0)
    assert "operator-0: no answer within 0 s; operator-1: no answer within 0 s" in top(capsys)[2]
    monkeypatch.setattr(operator_page, "_PATIENCE", 0.0)
    code, out, err = top(capsys)
    assert (code, len(out)) == (0, 2)
    assert err == "kubectl moe: the operator's figures did not come within 0 s\n"


def test_all_namespaces(fleet: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    other = deployment_object(**STATUS)
    other["metadata"] = other["metadata"] | {"namespace": "a-team"}
    fleet.answers[ALL_MODELS] = listed(deployment_object(**STATUS), other)
    code, out, _ = top(capsys, "-A", "--sort", "output")
    assert code == 0
    assert out[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert [line.split()[0] for line in out[1:]] == ["serving", "a-team"], "the unknown is last"
    assert fleet.queries[-1] == ""


def test_json(fleet: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = top(capsys, "--groups", "-o", "json")
    data = json.loads("\n".join(out))
    assert (code, data["source"], data["view"]) == (0, "Operator", "groups")
    assert data["items"][0] == {
        "namespace": "serving",
        "name": "tiny",
        "group": "tiny-g0",
        "state": "serving",
        "ranks": 1,
        "figures": FULL,
    }
    fleet.answers[proxy("operator-1")] = FOLLOWS
    code, out, err = top(capsys, "-o", "json")
    data = json.loads("\n".join(out))
    assert (code, data["source"], data["figuresAt"]) == (0, "Status", None)
    assert data["missing"] in err
    assert data["items"][0]["figures"] == {"inputTokensPerSecond": 5120, "outputTokensPerSecond": 900}


def test_what_is_not_there_is_said(fleet: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = top(capsys, "other")
    assert (code, out, err) == (1, [], "kubectl moe: there is no ModelDeployment serving/other\n")
    fleet.answers[MODELS] = listed()
    assert top(capsys) == (0, [], "kubectl moe: there are no ModelDeployments in namespace serving\n")
    assert top(capsys, "-o", "json")[0] == 0
    fleet.answers[PODS] = 401
    assert top(capsys, "--groups")[0] == 0, "of no deployment there is nothing to lack"
    fleet.answers[PODS] = listed(operator_pod("operator-1"))
    fleet.answers[MODELS] = listed(deployment_object(**STATUS))
    fleet.answers[proxy("operator-1")] = json.dumps(page(at=AT)).encode()
    assert top(capsys, "--ranks") == (
        0,
        [],
        "kubectl moe: there are no ranks yet that the operator has figures of\n",
    )
    fleet.answers[MODELS] = 403
    assert top(capsys)[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        *(("tiny", "-A"), ("-A", "-n", "x"), ("--groups", "--ranks"), ("--sort", "tok"), ("-o", "yaml")),
        *(("--watch", "0"), ("--watch", "tiny"), ("--watch", "nan")),
    ],
)
def test_misuse(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    with suppress(SystemExit):
        assert kubectl_moe.main(["top", *words]) == 2
    assert capsys.readouterr().err


# --- again and again --------------------------------------------------------------------------------


async def test_an_api_server_that_is_away_for_a_moment_ends_nothing() -> None:
    """The last look stays, and says that it is the last."""
    answers: list[Any] = ["a", ClusterError("503", final=False), "b", ClusterError("403")]
    shown: list[tuple[str, str | None]] = []

    async def look() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def sleep(seconds: float) -> None:
        assert seconds == 5

    with pytest.raises(ClusterError, match="403"):
        await again(look, lambda seen, trouble: shown.append((seen, trouble)), sleep, 5)
    assert shown == [("a", None), ("a", "the API server does not answer: 503"), ("b", None)]
    answers = [ClusterError("503", final=False)]
    with pytest.raises(ClusterError):
        await again(look, lambda *_: None, sleep, 5)


def _heeds_interrupts() -> None:
    """Of a shell's background job they are ignored, which a child inherits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The command in a terminal of 80 columns and 10 lines."""

    def __init__(self, *words: str, **environment: str) -> None:
        self._here, there = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moe_operator.cli.kubectl_moe", "top", *words],
            stdin=there,
            stdout=there,
            stderr=there,
            # Columns and lines as a window would have them.
            env={**os.environ, "COLUMNS": "80", "LINES": "10", "TERM": "xterm", **environment},
            preexec_fn=_heeds_interrupts,
        )
        os.close(there)

    def until(self, pattern: str) -> None:
        """Reads until it is there, for at most 30 s."""
        end = time.monotonic() + 30
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if select.select([self._here], [], [], 1)[0]:
                self.seen += os.read(self._here, 65536).decode()

    def ended(self) -> int:
        """Its exit code; reads what is left."""
        code = self.process.wait(30)
        with suppress(OSError):  # how Linux says that nobody writes any more
            while chunk := os.read(self._here, 65536):
                self.seen += chunk.decode()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._here)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for one in opened:
        one.close()


FRAME = "\x1b\\[\\?2026h\x1b\\[H.*tiny.*\x1b\\[J\x1b\\[\\?2026l"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_draws_in_place_and_gives_the_terminal_back(
    fleet: Answers, terminals: list[Terminal], number: signal.Signals, code: int
) -> None:
    terminals.append(shown := Terminal("--watch", "1"))
    shown.until(f"{FRAME}.*{FRAME}")
    shown.process.send_signal(number)
    assert shown.ended() == code
    assert shown.seen.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.seen.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in shown.seen
    assert "\x1b[1mNAME" in shown.seen, "colours"
    for line in re.sub("\x1b\\[[?0-9;]*[A-Za-z]", "", shown.seen.replace("\x1b[H", "\n")).splitlines():
        assert len(line) <= 80
    # Told once who leads, it asks nobody else.
    assert fleet.asked.count(proxy("operator-0")) == 1
    assert fleet.asked.count(proxy("operator-1")) >= 2


def test_an_error_gives_the_terminal_back_too(fleet: Answers, terminals: list[Terminal]) -> None:
    terminals.append(shown := Terminal("tiny", "--watch", "1", NO_COLOR="1"))
    shown.until(FRAME)
    fleet.answers[f"{MODELS}/tiny"] = 404
    assert shown.ended() == 1
    rest = shown.seen.partition("\x1b[?25h\x1b[?1049l")[2]
    assert rest.strip() == "kubectl moe: there is no ModelDeployment serving/tiny"
    assert "\x1b[1m" not in shown.seen, "NO_COLOR"


@pytest.mark.parametrize(("words", "count"), [((), 8), (("-o", "json"), 2)])
def test_what_is_not_a_terminal_gets_one_table_after_another(
    fleet: Answers, tmp_path: Path, words: tuple[str, ...], count: int
) -> None:
    """Or, as JSON, one line after another."""
    fleet.answers[PODS] = 403
    fleet.answers[SERVICE] = 403
    command = [sys.executable, "-m", "moe_operator.cli.kubectl_moe", "top", "--watch", "1", *words]
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=_heeds_interrupts
        )
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(count)]
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.stdout.close()
        errors.seek(0)
        said = errors.read()
    for table in (lines[: count // 2], lines[count // 2 :]):
        if words:
            assert json.loads(table[0])["items"][0]["name"] == "tiny"
            continue
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", table[0])
        assert table[1].startswith("NAME")
        assert table[2].startswith("tiny")
        assert table[3] == "\n"
    assert said.count("you may not read the operator's figures") == 1, "not again with every table"


def test_reading_goes_on_when_another_replica_leads(fleet: Answers) -> None:
    """Else a handover ends what somebody watches."""
    fleet.answers[proxy("operator-1")] = [PAGE, FOLLOWS, FOLLOWS]
    fleet.answers[proxy("operator-0")] = [FOLLOWS, PAGE]

    async def twice() -> None:
        from moe_operator.runtime.connection import load_configuration
        from moe_operator.runtime.kube_client import AioKubeClient
        from moe_operator.runtime.transport import Transport

        client = AioKubeClient(Transport(await load_configuration()))
        try:
            reader = operator_page.FiguresReader(client, operator_page.Place.read(None))
            assert (await reader.read("serving", None)).deployments
            assert (await reader.read("serving", None)).deployments
        finally:
            await client.close()

    asyncio.run(twice())
    zero, one = proxy("operator-0"), proxy("operator-1")
    assert [path for path in fleet.asked if "proxy" in path] == [zero, one, one, zero]
