"""The demo's story, told inside the cluster. Every step checks what it shows."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from demo.replay import read_trace, replay
from harness.deployments import (
    CHILDREN,
    condition,
    deployment,
    engine_pods,
    group_of,
    ready_endpoints,
    wait_ready,
)
from harness.engines import engine_core
from harness.install import ROOT, install_operator, namespace, provide_model
from harness.kubectl import items, kubectl
from harness.requests import complete
from harness.wait import wait_for
from moe_operator.api import names

NAMESPACE = "serving"
NAME = "tiny"
MODEL = "tiny-moe"
#: Of a rank on the CPU the nodes' kubelets know what memory it has. Those of a cluster that was there before may have
#: certificates that the operator refuses.
KUBELETS: tuple[str, ...] = (
    ()
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true"
    else ("config.telemetry.kubelet.metrics=Enabled",)
)
EXAMPLE = ROOT / "manifests" / "examples" / "tiny-cpu.yaml"

_started = time.monotonic()


def say(text: str) -> None:
    """A line with the time since the start."""
    print(f"[{time.monotonic() - _started:5.0f} s] {text}", flush=True)


def heading(text: str) -> None:
    """A step of the story."""
    print(f"\n--- {text}", flush=True)


class Ticker:
    """Says every few seconds what is waited for."""

    def __init__(self, what: str) -> None:
        self._what, self._next = what, 5.0

    def __call__(self, elapsed: float) -> None:
        if elapsed >= self._next:
            self._next = elapsed + 5
            say(f"{self._what} ({elapsed:.0f} s)")


def show_table() -> None:
    """The table that users see."""
    print(kubectl("get", names.PLURAL, "-n", NAMESPACE), flush=True)


def show_figures() -> None:
    """The table while it has all its figures. They are written every 30 s at most, and look back as far."""

    def all_there() -> bool:
        status = deployment(NAME, NAMESPACE)["status"]
        figures = status["throughput"].get("outputTokensPerSecond"), status["cost"].get("perMillionTokens")
        return all(figures) and (KUBELETS == () or "summary" in (status.get("hbm") or {}))

    wait_for("tokens, memory and cost in the table", all_there, seconds=30, every=0.5)
    show_table()


def ask_every_pod() -> None:
    """One real completion from every pod, at its own address."""
    for pod in engine_pods(NAME, NAMESPACE):
        base = f"http://{pod['status']['podIP']}:{names.HTTP_PORT}/v1"
        answer = complete(base, MODEL, "The quick brown fox", 16)
        text = answer["choices"][0]["text"]
        say(f"{pod['metadata']['name']} answers: {text!r}")


def lose_a_pod() -> None:
    """Kill one engine; the group must be out of the Service at once and replaced by itself."""
    before = engine_pods(NAME, NAMESPACE)
    victim = before[-1]
    group, pod = group_of(victim), victim["metadata"]["name"]
    process = engine_core(pod)
    say(f"kill -9 of {process.title.split()[0]} (pid {process.pid}) in pod {pod} of group {group}")
    process.send(signal.SIGKILL)
    killed = time.monotonic()
    ours = {p["metadata"]["name"] for p in before}

    def out() -> bool:
        return not ours & set(ready_endpoints(NAME, NAMESPACE).values())

    wait_for("no ready endpoint of the broken group", out, seconds=10, every=0.05)
    say(f"no endpoint of {group} left in the Service after {time.monotonic() - killed:.1f} s")

    def successor() -> bool:
        pods = engine_pods(NAME, NAMESPACE)
        return bool(pods) and all(group_of(p) != group for p in pods)

    wait_for("a successor", successor, seconds=60, progress=Ticker("waiting for a successor"))
    say(
        f"{group_of(engine_pods(NAME, NAMESPACE)[0])} takes its place after {time.monotonic() - killed:.0f} s"
    )
    wait_ready(NAME, NAMESPACE, progress=Ticker("the new group loads the model"))
    cause = deployment(NAME, NAMESPACE)["status"]["recovery"]["lastCause"]
    say(f"serving again after {time.monotonic() - killed:.0f} s; the status says why:")
    say(f"  {cause['reason']}: {cause['message']}")


def delete_everything() -> None:
    """Nothing may be left behind."""
    kubectl("delete", names.PLURAL, NAME, "-n", NAMESPACE, "--wait=false")
    selector = f"{names.LABEL_DEPLOYMENT}={NAME}"

    def gone() -> bool:
        return not items(CHILDREN, NAMESPACE, selector) and not items(names.PLURAL, NAMESPACE)

    wait_for(
        "all children gone", gone, seconds=90, every=0.5, progress=Ticker("waiting for the children to go")
    )
    say("nothing left: no group, pod, Service, ConfigMap, budget or revision")


def main() -> int:
    """Tell the story. Any failed check ends it with a traceback and exit 1."""
    model = Path(sys.argv[1])
    heading("install the operator with Helm")
    install_operator(values=KUBELETS)
    print(kubectl("get", "pods", "-n", "moe-system", "-o", "wide"), flush=True)

    heading("apply a ModelDeployment")
    namespace(NAMESPACE)
    provide_model(model, NAMESPACE)
    print(EXAMPLE.read_text(), flush=True)
    kubectl("apply", "-n", NAMESPACE, "-f", str(EXAMPLE))
    applied = time.monotonic()
    wait_ready(NAME, NAMESPACE, progress=Ticker("two pods load vLLM and find each other"))
    say(f"Ready {time.monotonic() - applied:.0f} s after apply")
    show_table()

    heading("ask every pod of the group")
    ask_every_pod()

    heading("a minute of real traffic")
    requests = read_trace()
    base = f"http://{NAME}.{NAMESPACE}.svc.cluster.local:{names.HTTP_PORT}/v1"
    outcome = asyncio.run(replay(base, MODEL, requests, say))
    say(outcome.summary())
    if outcome.errors:
        say(f"errors: {outcome.errors[:3]}")
        return 1
    show_figures()

    heading("lose an engine")
    lose_a_pod()
    show_table()
    ask_every_pod()

    heading("delete it")
    delete_everything()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        found = items(names.PLURAL, NAMESPACE)
        for obj in found:
            ready = condition(obj, "Ready")
            print(f"{obj['metadata']['name']}: {ready}", file=sys.stderr)
        raise
