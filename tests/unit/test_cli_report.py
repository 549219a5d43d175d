"""`kubectl moe report` as people run it, against an API server and a Prometheus: what is asked, and what comes of
answers that one may not have.

Lost otherwise: the whole record for want of one right, or figures of another period than it says.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from factories.cluster_objects import NAME, NAMESPACE, NOW
from factories.records import DAY, collected, lived, matrix, vector
from moe_operator.api import names
from moe_operator.cli import kubectl_moe
from unit.answers import Answers as Cluster
from unit.answers import listed

SPACE = f"/api/v1/namespaces/{NAMESPACE}"
DEPLOYMENTS = f"/apis/{names.GROUP}/{names.VERSION}/namespaces/{NAMESPACE}/modeldeployments"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
STEP = 1800.0

Reply = tuple[int, str]


class Prometheus:
    """One that knows the deployment for all of the thirty days: evenly 100 input tokens in half an hour."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], str | None]] = []
        """Path, words and Authorization of every request."""
        self.reply: Callable[[str, dict[str, str]], Reply] = self.figures
        self.url = ""

    def figures(self, path: str, words: dict[str, str]) -> Reply:
        query = words["query"]
        if path.endswith("/query"):
            if query.startswith("count by"):
                found = [({"namespace": NAMESPACE, "name": one}, 1.0) for one in (NAME, "gone")]
                return 200, vector(*found)
            return 200, vector(({}, 4.0))
        start, end, step = (float(words[key]) for key in ("start", "end", "step"))
        times = [start + at * step for at in range(int((end - start) / step) + 1)]
        if "deployment_ready" in query:
            ready = 40.0 if query.startswith("sum(sum_over_time") else 80.0
            return 200, matrix(({}, [(at, ready if at == times[-1] else 80.0) for at in times]))
        if "groups_lost" in query:
            return 200, matrix(({"reason": "Hung", "instance": "a"}, [(at, 1.0) for at in times[10:]]))
        metric = {"__name__": "moe_operator_tokens_total", "kind": "input"}
        return 200, matrix((metric, [(at, 5000.0 + 100 * index) for index, at in enumerate(times)]))


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    made = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            words = {key: values[0] for key, values in parse_qs(parts.query).items()}
            made.asked.append((parts.path, words, self.headers.get("Authorization")))
            code, text = made.reply(parts.path, words)
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_operator.cli.report.command.time.time", lambda: NOW + 0.7)


def serve(cluster: Cluster) -> None:
    """Everything that the record reads."""
    found: Any = collected()
    networking = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}"
    cluster.answers = {
        DEPLOYMENTS: listed(*found.deployments),
        f"{SPACE}/pods": listed(*found.pods),
        f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions": listed(*found.revisions),
        f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events": listed(*found.events),
        f"{SPACE}/services": listed(*found.services),
        f"{networking}/networkpolicies": listed(*found.policies),
        f"{networking}/ingresses": listed(),
        "/api/v1/nodes": listed(*found.nodes),
        f"{RBAC}/namespaces/{NAMESPACE}/roles": listed(*found.roles),
        f"{RBAC}/namespaces/{NAMESPACE}/rolebindings": listed(*found.role_bindings),
        f"{RBAC}/clusterroles": listed(*found.cluster_roles),
        f"{RBAC}/clusterrolebindings": listed(*found.cluster_role_bindings),
        f"{SPACE}/secrets/tiny-keys": {"kind": "PartialObjectMetadata", "metadata": {"name": "tiny-keys"}},
        "/api/v1/namespaces/kube-system": {"metadata": {"uid": "the-cluster"}},
    }


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert kubectl_moe.main(["report", *words, "-o", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_record_of_the_context_s_namespace(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    serve(cluster)
    found = report(capsys)
    assert found["scope"] == {
        "namespace": NAMESPACE,
        "context": "a",
        "cluster": "a",
        "clusterId": "the-cluster",
    }
    assert found["period"]["from"] == "2026-12-16T08:00:00Z"
    assert found["period"]["to"] == "2027-01-15T08:00:00Z"
    (one,) = found["deployments"]
    assert one["callers"]["apiKey"]["present"] is True
    assert one["callers"]["services"] == ["tiny (ClusterIP)", "tiny-public (LoadBalancer)"]
    assert found["prometheus"] is None
    # Kinds of the Gateway API are not served here: then there are no routes, and no right is missing.
    assert found["unread"] == []
    assert found["deployments"][0]["callers"]["published"] == []


def test_it_only_reads_and_of_secrets_the_metadata_alone(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_operator.runtime.transport import Transport

    seen: list[tuple[str, str]] = []
    send = Transport.send

    async def watched(
        self: Any, method: str, verb: str, kind: str, path: str, *more: Any, **named: Any
    ) -> bytes:
        assert method == "GET"
        seen.append((path, named.get("accept", "")))
        return await send(self, method, verb, kind, path, *more, **named)

    monkeypatch.setattr(Transport, "send", watched)
    serve(cluster)
    report(capsys)
    accepts = [accept for path, accept in seen if "/secrets" in path]
    assert accepts == ["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"]


def test_the_documented_rights_are_those_that_it_needs(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither one that is missing from a record, nor one that nobody needs to be given."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL) if "moe-report" in one]
    given = {
        (verb, group, resource)
        for rule in yaml.safe_load(block)["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    serve(cluster)
    report(capsys)
    needed = set()
    for path in cluster.asked:
        group = path.split("/")[2] if path.startswith("/apis/") else ""
        parts = path.removeprefix(f"{SPACE}/").split("/") if path.startswith(SPACE) else path.split("/")
        named = re.search(r"/(secrets|namespaces)/(tiny-keys|kube-system)$", path)
        needed.add(("get", group, named[1]) if named else ("list", group, parts[-1]))
    assert given == needed


def test_a_right_that_is_missing_costs_its_part_alone(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(cluster)
    for path in (
        "/api/v1/nodes",
        f"{SPACE}/pods",
        f"{RBAC}/clusterrolebindings",
        f"{SPACE}/secrets/tiny-keys",
        "/api/v1/namespaces/kube-system",
    ):
        cluster.answers[path] = 403
    cluster.answers[f"{SPACE}/services"] = 404
    found = report(capsys)
    assert {one["section"]: one["needs"] for one in found["unread"]} == {
        "pods (images, nodes)": "list pods in serving",
        "Services": None,
        "nodes (regions, zones)": "list nodes",
        "ClusterRoleBindings": "list clusterrolebindings.rbac.authorization.k8s.io",
        f"Secret {NAMESPACE}/tiny-keys": "get secrets in serving",
    }
    assert found["access"][0]["change"] is None
    assert found["scope"]["clusterId"] is None
    assert found["deployments"][0]["model"]["licence"] == "apache-2.0"


def test_a_secret_that_is_not_there_is_told(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    serve(cluster)
    del cluster.answers[f"{SPACE}/secrets/tiny-keys"]
    assert report(capsys)["deployments"][0]["callers"]["apiKey"]["present"] is False
    assert kubectl_moe.main(["report"]) == 0
    assert "is NOT there" in capsys.readouterr().out


def test_without_the_right_to_deployments_there_is_no_record(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers = {DEPLOYMENTS: 403}
    assert kubectl_moe.main(["report"]) == 1
    assert "kubectl moe: 403" in capsys.readouterr().err


def test_all_namespaces(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    other, bindings = lived(), collected().role_bindings
    assert isinstance(bindings, list)
    other["metadata"] |= {"namespace": "research", "uid": "another"}
    cluster.answers = {
        f"/apis/{names.GROUP}/{names.VERSION}/modeldeployments": listed(lived(), other),
        f"{RBAC}/rolebindings": listed(*bindings),
        f"{RBAC}/clusterrolebindings": listed(),
        f"{RBAC}/clusterroles": listed(),
        f"{RBAC}/roles": listed(),
    }
    found = report(capsys, "-A")
    assert [one["namespace"] for one in found["deployments"]] == ["research", NAMESPACE]
    assert [one["namespace"] for one in found["access"]] == ["research", NAMESPACE]
    assert found["scope"]["namespace"] is None


# --- Prometheus -----------------------------------------------------------------------------------


def test_figures_of_the_period_come_from_prometheus(
    cluster: Cluster, prometheus: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five days are 1440 windows of five minutes: 100 tokens in each, and half of the last one not Ready."""
    serve(cluster)
    found = report(capsys, "--since", "5d", "--prometheus", f"{prometheus.url}/")
    (one,) = found["deployments"]
    assert one["usage"]["source"] == "Prometheus"
    assert one["usage"]["period"]["inputTokens"] == 144_000
    assert one["usage"]["total"]["inputTokens"] == 9_000_000
    assert one["uptime"]["readySeconds"] == 5 * DAY - 150
    assert one["uptime"]["outages"][0]["to"] == "2027-01-15T08:00:00Z"
    assert one["incidents"]["groupsLostByReason"] == {"Hung": 1}
    assert one["scaling"]["changes"] == 4
    assert [each["name"] for each in found["gone"]] == ["gone"]
    assert found["prometheus"] == {"url": f"{prometheus.url}/", "message": None}


def test_questions_are_about_this_deployment_and_this_period(
    cluster: Cluster, prometheus: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(cluster)
    report(capsys, "--from", "2027-01-01", "--to", "2027-01-01", "--prometheus", prometheus.url)
    begin, end = NOW - 14 * DAY - 8 * 3600, NOW - 13 * DAY - 8 * 3600
    assert len(prometheus.asked) == 1 + 2 * 5
    for path, words, token in prometheus.asked:
        assert token is None
        assert f'namespace="{NAMESPACE}"' in words["query"]
        if path == "/api/v1/query":
            assert float(words["time"]) == end
            assert re.search(r"\[86400000ms\]", words["query"])
        else:
            assert path == "/api/v1/query_range"
            assert 'name="tiny"' in words["query"] or 'name="gone"' in words["query"]
            assert float(words["step"]) == 60.0
            windows = "over_time" in words["query"]
            assert float(words["start"]) == begin + (60.0 if windows else 0.0)
            assert float(words["end"]) == end + 30.0


def test_a_prometheus_of_several_clusters_is_asked_about_one(
    cluster: Cluster, prometheus: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of another cluster's deployment of the same name are not mixed in."""
    serve(cluster)
    report(capsys, "--prometheus", prometheus.url, "--prometheus-match", 'cluster=prod "eu"')
    assert len(prometheus.asked) > 5
    assert all('cluster="prod \\"eu\\"",' in words["query"] for _, words, _ in prometheus.asked)


def test_a_token_is_sent_and_never_printed(
    cluster: Cluster, prometheus: Prometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(cluster)
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    url = prometheus.url.replace("http://", "http://user:pa55w0rd@")
    assert kubectl_moe.main(["report", "--prometheus", url, "--prometheus-token-file", str(file)]) == 2
    assert (
        kubectl_moe.main(["report", "--prometheus", prometheus.url, "--prometheus-token-file", str(file)])
        == 0
    )
    out = capsys.readouterr().out
    assert {token for *_, token in prometheus.asked} == {"Bearer s3cret"}
    assert "s3cret" not in out
    assert kubectl_moe.main(["report", "--prometheus", url]) == 0
    out = capsys.readouterr().out
    assert "pa55w0rd" not in out
    assert "127.0.0.1" in out


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, ""), "HTTP 401: it wants to know who asks: give --prometheus-token-file"),
        ((404, ""), "HTTP 404: there is no /api/v1 below this address"),
        ((422, ""), "ask for a shorter period"),
        ((302, ""), "HTTP 302"),
        ((200, "<html>"), "its answer is none of a Prometheus"),
        ((200, '{"data": {"resultType": "matrix", "result": []}}'), "its answer is none of a Prometheus"),
        ((200, '{"data": {"resultType": "vector", "result": [{"metric": 1}]}}'), "none of a Prometheus"),
        ((200, "[" * 100_000), "none of a Prometheus"),
    ],
)
def test_a_prometheus_that_gives_no_figures_is_told_and_the_rest_stands(
    cluster: Cluster,
    prometheus: Prometheus,
    capsys: pytest.CaptureFixture[str],
    reply: Reply,
    message: str,
) -> None:
    serve(cluster)
    prometheus.reply = lambda path, words: reply
    found = report(capsys, "--prometheus", prometheus.url)
    assert message in found["prometheus"]["message"]
    assert found["deployments"][0]["uptime"]["source"] == "Status"


def test_a_prometheus_that_is_not_there(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    serve(cluster)
    found = report(capsys, "--prometheus", "http://127.0.0.1:1")
    assert "127.0.0.1" in found["prometheus"]["message"]


def test_samples_that_are_no_numbers_are_left_out(
    cluster: Cluster, prometheus: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(cluster)

    def odd(path: str, words: dict[str, str]) -> Reply:
        code, text = prometheus.figures(path, words)
        return code, text.replace('"5000.0"', '"NaN"')

    prometheus.reply = odd
    found = report(capsys, "--since", "5d", "--prometheus", prometheus.url)
    assert found["deployments"][0]["usage"]["period"]["inputTokens"] == 143_900


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prometheus", "prometheus:9090"], "--prometheus: give an address"),
        (["--prometheus", "file:///etc/passwd"], "--prometheus: give an address"),
        (["--prometheus", "http://x:99999"], "--prometheus: give an address"),
        (["--prometheus", "http://x/?query=1"], "--prometheus: give an address"),
        (["--prometheus", "http://x", "--prometheus-token-file", "/nowhere"], "/nowhere"),
        (["--prometheus", "http://x", "--prometheus-match", "cluster"], "--prometheus-match 'cluster'"),
        (["--prometheus", "http://x", "--prometheus-match", 'a"} or {b=c'], "--prometheus-match"),
        (["--since", "week"], "--since: 'week'"),
    ],
)
def test_misuse_is_told_before_anything_is_asked(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert kubectl_moe.main(["report", *words]) == 2
    assert message in capsys.readouterr().err
    assert cluster.asked == []
