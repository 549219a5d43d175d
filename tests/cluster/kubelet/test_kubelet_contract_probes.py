"""Probes, hooks and what they do to a pod's conditions."""

from __future__ import annotations

from pathlib import Path

from cluster.kubelet.harness import (
    POD_IP,
    SLEEP,
    Api,
    Obj,
    condition,
    last_end,
    python,
    ready,
    restarts,
    running,
    shell,
)
from kubelet_contract import row


@row("probes", "conditions", "events")
async def test_readiness_follows_its_probe_and_is_told_once(api: Api) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    probe = {"exec": {"command": ["test", "-e", "/v/ok"]}, "periodSeconds": 1, "failureThreshold": 1}
    mounts = [{"name": "v", "mountPath": "/v"}]
    main = shell(SLEEP, readinessProbe=probe, volumeMounts=mounts)
    switch = shell("sleep 2; touch /v/ok; sleep 3; rm /v/ok; sleep 600", "switch", volumeMounts=mounts)
    await api.run("flip", main, switch, volumes=volumes)
    await api.until_pod("flip", lambda pod: running(pod) and not ready(pod))
    await api.until_pod("flip", ready)
    pod = await api.until_pod("flip", lambda pod: not ready(pod))
    assert restarts(pod) == 0
    messages = await api.until(lambda: api.events("Unhealthy"), bool)
    assert all(message.startswith("Readiness probe failed") for message in messages)


@row("probes")
async def test_a_failed_liveness_probe_restarts_and_a_startup_probe_protects(api: Api) -> None:
    alive_probe = {
        "exec": {"command": ["test", "!", "-e", "/tmp/sick"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    await api.run("sick", shell("sleep 1.5; touch /tmp/sick; sleep 600", livenessProbe=alive_probe))
    slow = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    strict = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1}
    await api.run(
        "slow", shell("sleep 2.5; touch /tmp/up; sleep 600", startupProbe=slow, livenessProbe=strict)
    )
    never = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 2}
    await api.run("never", shell(SLEEP, startupProbe=never))
    sick = await api.until_pod("sick", lambda pod: restarts(pod) >= 1)
    assert last_end(sick)["exitCode"] == 137  # sh as the first process ignores SIGTERM
    messages = await api.events("Killing")
    assert "Container main failed liveness probe, will be restarted" in messages
    pod = await api.until_pod("slow", ready)
    assert restarts(pod) == 0
    await api.until_pod("never", lambda pod: restarts(pod) >= 1)


@row("probes", "server-access")
async def test_an_http_probe_reaches_the_pods_own_address(api: Api) -> None:
    code = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" and self.headers["X-Probe"] == "yes" else 500)
        self.end_headers()
http.server.HTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
    get = {"port": "http", "path": "/ready", "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}
    ports = [{"name": "http", "containerPort": 8080}]
    good = python(code, env=[POD_IP], ports=ports, readinessProbe={"httpGet": get, "periodSeconds": 1})
    await api.run("good", good)
    await api.run(
        "wrong", python(code, env=[POD_IP], readinessProbe={"httpGet": {"port": 8080}, "periodSeconds": 1})
    )
    await api.until_pod("good", ready)
    messages = await api.until(
        lambda: api.events("Unhealthy"), lambda found: any("500" in text for text in found)
    )
    assert "Readiness probe failed: HTTP probe failed with statuscode: 500" in messages
    wrong = await api.pod("wrong")
    assert wrong is not None
    assert not ready(wrong)


@row("hooks")
async def test_hooks_run_at_the_start_and_before_the_end(api: Api, tmp_path: Path) -> None:
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path), "type": "Directory"}}]

    def note(word: str) -> Obj:
        return {"exec": {"command": ["sh", "-c", f"echo {word} >> /v/notes"]}}

    hooks = {"postStart": note("start"), "preStop": note("stop")}
    script = "trap 'echo term >> /v/notes; exit 0' TERM; sleep 600 & wait"
    await api.run(
        "hooks",
        shell(script, lifecycle=hooks, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=volumes,
    )
    await api.until_pod("hooks", ready)
    await api.delete("hooks", 20)
    await api.until_gone("hooks")
    assert (tmp_path / "notes").read_text().split() == ["start", "stop", "term"]
    bad = {"postStart": {"exec": {"command": ["false"]}}}
    await api.run("bad", shell(SLEEP, lifecycle=bad))
    await api.until_pod("bad", lambda pod: restarts(pod) >= 1)
    assert await api.events("FailedPostStartHook")


@row("conditions")
async def test_a_readiness_gate_is_waited_for(api: Api) -> None:
    await api.run("gated", shell(SLEEP), readinessGates=[{"conditionType": "contract/gate"}])
    await api.until_pod("gated", lambda pod: condition(pod, "ContainersReady") == "True")
    pod = await api.pod("gated")
    assert pod is not None
    assert not ready(pod)
    gate = {"type": "contract/gate", "status": "True"}
    await api.client.patch(api.path("pods", "gated") + "/status", {"status": {"conditions": [gate]}})
    pod = await api.until_pod("gated", ready)
    assert condition(pod, "contract/gate") == "True"


@row("status-writes")
async def test_a_settled_pod_is_not_written_and_a_wrong_status_is_put_right(api: Api) -> None:
    await api.run("settled", shell(SLEEP))
    before = await api.until_pod("settled", ready)
    await api.run("other", shell(SLEEP))
    await api.until_pod("other", ready)
    after = await api.pod("settled")
    assert after is not None
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    lie = {"type": "Ready", "status": "False"}
    await api.client.patch(api.path("pods", "settled") + "/status", {"status": {"conditions": [lie]}})
    await api.until_pod("settled", ready, 10)
