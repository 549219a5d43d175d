"""The client against a loopback server that answers as an API server does, errors included."""

import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes.aio.client import Configuration

from moe_operator.controller.kube import (
    LEASE,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
)
from moe_operator.runtime.connection import NoConnectionError, context_namespace, load_configuration
from moe_operator.runtime.kube_client import PAGE, AioKubeClient
from moe_operator.runtime.transport import Transport

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}
    return web.json_response(body, status=code, headers=headers)


@dataclass
class Api:
    """The server: answers from a list, then from `default`; keeps what was asked."""

    url: str = ""
    answers: list[Handler] = field(default_factory=list)
    requests: list[tuple[web.Request, Any]] = field(default_factory=list)
    counted: list[tuple[str, str, int]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append((request, json.loads(raw) if raw else None))
        if self.answers:
            return await self.answers.pop(0)(request)
        return web.json_response({"metadata": {"name": "x"}})

    def answer(self, *responses: web.Response) -> None:
        async def one(_: web.Request, response: web.Response) -> web.StreamResponse:
            return response

        for response in responses:
            self.answers.append(lambda r, response=response: one(r, response))  # type: ignore[misc]

    def request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        self.counted.append((verb, kind, code))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = site.name
    yield api
    await runner.cleanup()


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AioKubeClient]:
    configuration = Configuration(host=api.url)
    timeout = aiohttp.ClientTimeout(total=2)
    client = AioKubeClient(Transport(configuration, observer=api, jitter=lambda: 0.0, timeout=timeout))
    yield client
    await client.close()


async def drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_apply_takes_fields_over_and_names_its_writer(api: Api, client: AioKubeClient) -> None:
    """Without force an edited field would stay edited; of another type, custom resources refuse it."""
    await client.apply(SERVICE, {"metadata": {"namespace": "ns", "name": "x", "uid": "u"}, "spec": {}})
    request, body = api.requests[0]
    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/ns/services/x")
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert dict(request.query) == {"fieldManager": "moe-operator", "force": "true"}
    assert (body["apiVersion"], body["kind"], body["metadata"]["uid"]) == ("v1", "Service", "u")


async def test_status_has_a_writer_of_its_own(api: Api, client: AioKubeClient) -> None:
    """With the reconciler's name, the next apply without a status would erase it."""
    await client.apply_status(MODEL_DEPLOYMENT, {"metadata": {"namespace": "ns", "name": "x"}, "status": {}})
    request, _ = api.requests[0]
    assert request.path == "/apis/moe-operator.dev/v1alpha1/namespaces/ns/modeldeployments/x/status"
    assert dict(request.query) == {"fieldManager": "moe-operator-status", "force": "true"}


async def test_patch_is_a_merge_patch(api: Api, client: AioKubeClient) -> None:
    await client.patch(POD, "ns", "x", {"metadata": {"uid": "u", "labels": {"a": None}}})
    request, body = api.requests[0]
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert body == {"metadata": {"uid": "u", "labels": {"a": None}}}


async def test_delete_means_one_very_object(api: Api, client: AioKubeClient) -> None:
    """Without the uid a stale cache could delete the successor of what it meant."""
    await client.delete(POD, "ns", "x", uid="u", propagation="Foreground", grace_seconds=0)
    request, body = api.requests[0]
    assert request.method == "DELETE"
    assert body["preconditions"] == {"uid": "u"}
    assert (body["propagationPolicy"], body["gracePeriodSeconds"]) == ("Foreground", 0)


async def test_deleting_what_is_gone_or_another_is_done(api: Api, client: AioKubeClient) -> None:
    precondition = "Precondition failed: UID in precondition: a, UID in object meta: b"
    api.answer(status(404, "NotFound", "not found"), status(409, "Conflict", precondition))
    await client.delete(POD, "ns", "x", uid="a")
    await client.delete(POD, "ns", "x", uid="a")
    api.answer(status(409, "Conflict", "the object has been modified"))
    with pytest.raises(ConflictError):
        await client.delete(POD, "ns", "x", uid="a")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, InvalidError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidError),
        (429, KubeError),
        (500, KubeError),
    ],
)
async def test_refusals_are_typed_and_a_refused_write_is_not_repeated(
    api: Api, client: AioKubeClient, code: int, kind: type[KubeError]
) -> None:
    api.answer(status(code, "Because", "said the server", **{"Retry-After": "7"}))
    with pytest.raises(kind) as caught:
        await client.create(POD, {"metadata": {"namespace": "ns", "name": "x"}})
    assert (caught.value.status, caught.value.reason) == (code, "Because")
    assert caught.value.message == "said the server"
    assert caught.value.retry_after == 7.0
    assert len(api.requests) == 1
    assert api.counted == [("create", "Pod", code)]


async def test_another_uid_in_a_patch_is_a_conflict(api: Api, client: AioKubeClient) -> None:
    message = 'Pod "x" is invalid: metadata.uid: Invalid value: "u": field is immutable'
    api.answer(status(422, "Invalid", message), status(422, "Invalid", "spec.x: Invalid value"))
    with pytest.raises(ConflictError):
        await client.patch(POD, "ns", "x", {"metadata": {"uid": "u"}})
    with pytest.raises(InvalidError):
        await client.patch(POD, "ns", "x", {"metadata": {"uid": "u"}})


async def test_a_connection_that_breaks_is_no_answer(api: Api, client: AioKubeClient) -> None:
    api.answers = [drop]
    with pytest.raises(KubeError) as caught:
        await client.create(POD, {"metadata": {"namespace": "ns", "name": "x"}})
    assert caught.value.status == 0
    assert len(api.requests) == 1, "a write whose answer is lost may have been done"
    assert api.counted == [("create", "Pod", 0)]


async def test_a_server_that_is_not_there_is_no_answer() -> None:
    transport = Transport(Configuration(host="http://127.0.0.1:1"), jitter=lambda: 0.0)
    with pytest.raises(KubeError) as caught:
        await transport.send("POST", "create", "Pod", "/api/v1/pods")
    assert caught.value.status == 0
    await transport.close()


async def test_reads_survive_what_passes(api: Api, client: AioKubeClient) -> None:
    """An API server that restarts must not fail every reconcile and resync under way."""
    api.answers = [drop, drop]  # the HTTP library itself repeats a GET once
    api.answer(status(503, "ServiceUnavailable", "starting"), web.json_response({"metadata": {"name": "y"}}))
    found = await client.get(POD, "ns", "y")
    assert found == {"metadata": {"name": "y"}}
    assert [code for _, _, code in api.counted] == [0, 503, 200]


async def test_reads_wait_as_the_server_asks_but_not_for_ever(api: Api, client: AioKubeClient) -> None:
    api.answer(
        status(429, "TooManyRequests", "slow down", **{"Retry-After": "1"}),
        web.json_response({"metadata": {}}),
    )
    await client.get(POD, "ns", "x")
    assert len(api.requests) == 2
    api.answer(status(429, "TooManyRequests", "slow down", **{"Retry-After": "3600"}))
    with pytest.raises(KubeError) as caught:
        await client.get(POD, "ns", "x")
    assert caught.value.retry_after == 3600
    assert len(api.requests) == 3


async def test_refused_reads_are_not_repeated_and_absence_is_an_answer(
    api: Api, client: AioKubeClient
) -> None:
    api.answer(status(404, "NotFound", "no"), status(403, "Forbidden", "no"))
    assert await client.get(POD, "ns", "x") is None
    with pytest.raises(ForbiddenError):
        await client.get(POD, "ns", "x")
    assert len(api.requests) == 2


async def test_long_lists_come_in_pages_and_items_say_what_they_are(api: Api, client: AioKubeClient) -> None:
    page = {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "more+/="}}
    api.answer(web.json_response(page), web.json_response({"items": [{"metadata": {"name": "b"}}]}))
    found = await client.list(POD, None, "a=b")
    assert [(o["kind"], o["apiVersion"], o["metadata"]["name"]) for o in found] == [
        ("Pod", "v1", "a"),
        ("Pod", "v1", "b"),
    ]
    assert dict(api.requests[0][0].query) == {"labelSelector": "a=b", "limit": str(PAGE)}
    assert api.requests[1][0].query["continue"] == "more+/="


async def test_a_list_that_outlives_the_servers_history_begins_anew(api: Api, client: AioKubeClient) -> None:
    """Half of a list taken for the whole would look like deletions."""
    first = {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "t"}}
    for _ in range(2):
        api.answer(web.json_response(first), status(410, "Expired", "too old"))
    api.answer(web.json_response({"items": [{"metadata": {"name": "z"}}]}))
    found = await client.list(POD)
    assert [o["metadata"]["name"] for o in found] == ["z"]
    assert "limit" not in api.requests[-1][0].query


async def test_an_absent_kind_is_told_apart(api: Api, client: AioKubeClient) -> None:
    api.answers = []
    api.answer(web.Response(status=404, text="404 page not found"))
    with pytest.raises(NotFoundError) as caught:
        await client.list(LEASE)
    assert "404 page not found" in caught.value.message


async def test_a_page_of_a_proxy_is_an_error_not_a_crash(api: Api, client: AioKubeClient) -> None:
    api.answer(
        web.Response(status=502, text="<html>Bad Gateway</html>"), web.Response(text="<html>login</html>")
    )
    with pytest.raises(KubeError) as caught:
        await client.create(POD, {"metadata": {"namespace": "ns"}})
    assert caught.value.status == 502
    with pytest.raises(KubeError) as caught:
        await client.create(POD, {"metadata": {"namespace": "ns"}})
    assert caught.value.status == 0
    assert "no JSON" in caught.value.message


async def test_logs_are_text(api: Api, client: AioKubeClient) -> None:
    api.answer(web.Response(text="line\n"))
    assert await client.pod_logs("ns", "x", "engine", previous=True, tail_lines=5) == "line\n"
    query = dict(api.requests[0][0].query)
    assert query == {"container": "engine", "tailLines": "5", "previous": "true"}


async def test_logs_are_asked_for_once(api: Api, client: AioKubeClient) -> None:
    """A node that is gone answers 500 or 502; a group waits to be replaced meanwhile."""
    api.answer(web.Response(status=500, text="dial tcp: no route to host"))
    with pytest.raises(KubeError):
        await client.pod_logs("ns", "x", "engine")
    assert len(api.requests) == 1


async def test_in_the_cluster_a_rotated_token_and_authority_are_used_without_a_restart(
    tmp_path: Path,
) -> None:
    """Tokens of ServiceAccounts last an hour; without this the operator stops after one."""
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first\n")
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({})

    async def serve(port: int) -> web.AppRunner:
        """A server whose certificate is signed by an authority of its own, which it writes to the file."""
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=server_tls(ca, tmp_path)).start()
        return runner

    first = await serve(0)
    port = first.addresses[0][1]
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
    configuration = await load_configuration(environ=environ, token_file=str(token), ca_file=str(ca))
    transport = Transport(configuration, jitter=lambda: 0.0)
    await transport.read("get", "Path", "/version")
    token.write_text("second\n")
    await transport.read("get", "Path", "/version")
    await first.cleanup()
    second = await serve(port)
    await transport.read("get", "Path", "/version")
    await second.cleanup()
    await transport.close()
    assert seen == ["Bearer first", "Bearer second", "Bearer second"]


def server_tls(ca_file: Path, folder: Path) -> ssl.SSLContext:
    """TLS for 127.0.0.1; the certificate that vouches for it goes to `ca_file`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test {key.private_numbers().private_value}"[:60])]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "server.pem"
    key_file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key_file)
    return context


def test_the_namespace_is_the_contexts_as_kubectl_has_it(tmp_path: Path) -> None:
    config = {
        "current-context": "b",
        "contexts": [
            {"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "wrong"}},
            {"name": "b", "context": {"cluster": "c", "user": "u", "namespace": "serving"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    assert context_namespace(str(path)) == "serving"
    assert context_namespace(environ={"KUBECONFIG": str(path)}) == "serving"
    assert context_namespace(str(tmp_path / "absent")) == "default"


async def test_no_connection_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(NoConnectionError, match=r"absent.*--kubeconfig FILE"):
        await load_configuration(str(tmp_path / "absent"))
