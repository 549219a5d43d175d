"""The operator is upgraded under a real group that serves, as docs/operations.md says. A platform team that loses
groups, requests or the way back to an upgrade puts upgrades off."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.audit import Write, position, writes_since
from harness.deployments import CHILDREN, condition, deployment, engine_pods, group_of, wait_ready
from harness.engines import engine_core
from harness.history import watched
from harness.install import CHARTS, IMAGE_TAG, OPERATOR_NAMESPACE
from harness.kubectl import JsonObject, get, helm, items, kubectl
from harness.leader import LEASE, holder
from harness.release import VERSION
from harness.requests import Stream, complete
from harness.wait import wait_for
from moe_operator.api import names, reasons
from moe_operator.api.times import parse_time
from upgrade.conftest import NAME, NAMESPACE

pytestmark = pytest.mark.timeout(1200)

URL = f"http://{NAME}.{NAMESPACE}.svc.cluster.local:{names.HTTP_PORT}/v1"
SELECTOR = f"{names.LABEL_DEPLOYMENT}={NAME}"
SERVICE_ACCOUNT = f"{OPERATOR_NAMESPACE}:moe-operator"
#: Kinds whose objects live with a group, as the API server lists them.
KINDS = (
    "leaderworkersets",
    "statefulsets",
    "pods",
    "controllerrevisions",
    "services",
    "poddisruptionbudgets",
)
#: Long enough for an operator to start, be elected and write, in seconds.
HANDOVER = 180.0
#: Tokens that a stream may have, beside its prompt.
LONGEST = 16000


def snapshot() -> dict[str, dict[str, Any]]:
    """All that must stay as it is, by kind and name: uid, spec, and what pods say of their containers."""
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        for obj in items(kind, NAMESPACE, SELECTOR):
            meta = obj["metadata"]
            found[f"{kind}/{meta['name']}"] = {
                "uid": meta["uid"],
                "generation": meta.get("generation"),
                "labels": meta.get("labels"),
                "annotations": meta.get("annotations"),
                "spec": obj.get("spec"),
                "data": obj.get("data"),
                "containers": obj.get("status", {}).get("containerStatuses"),
                "version": meta["resourceVersion"],
            }
    return found


def wait_leads(tag: str) -> None:
    """Until a replica of this version leads."""

    def leads() -> bool:
        identity = holder() or ""
        return any(
            pod["metadata"]["name"] in identity and pod["spec"]["containers"][0]["image"].endswith(f":{tag}")
            for pod in items("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/name=moe-operator")
        )

    wait_for(f"a leader of {tag}", leads, seconds=HANDOVER)


def upgrade_operator() -> None:
    """As docs/operations.md says; the tag stands for the version of a chart that is released."""
    helm("upgrade", "moe-operator", str(CHARTS / "moe-operator"), "-n", OPERATOR_NAMESPACE, "--wait",
         "--reset-then-reuse-values", f"--set=image.tag={IMAGE_TAG}")  # fmt: skip


class Clients:
    """Two clients, each with one stream after the other until told to stop. Every stream must be whole."""

    def __init__(self) -> None:
        begun = time.monotonic()
        complete(URL, "tiny-moe", "hello", 64, ignore_eos=True)
        # Of about 20 s, so that one of the two surely runs whenever something happens.
        self._tokens = min(LONGEST, max(256, int(64 * 20 / (time.monotonic() - begun))))
        self.streams: list[Stream] = []
        self._stop = threading.Event()
        self._workers = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(2)]
        for worker in self._workers:
            worker.start()

    def _ask(self, number: int) -> None:
        tokens = self._tokens // (number + 1)
        while not self._stop.is_set():
            stream = Stream(URL, "tiny-moe", tokens)
            self.streams.append(stream)
            stream.wait(600)
            tokens = self._tokens

    def join(self) -> None:
        """Let the last ones end; all must have been whole."""
        self._stop.set()
        for worker in self._workers:
            worker.join(600)
        for stream in self.streams:
            stream.join(0)

    def ran_at(self, moment: float) -> Stream:
        """A stream that ran at this time (s since the epoch). Raises StopIteration if none did."""
        return next(s for s in self.streams if s.ended is not None and s.begun < moment < s.ended)


@contextmanager
def serving_on(tag: str) -> Iterator[None]:
    """Clients before, while and after another version takes the lead; and the deployment is Ready all along."""
    before = condition(deployment(NAME, NAMESPACE), "Ready")
    with watched(names.PLURAL, NAMESPACE, "--field-selector", f"metadata.name={NAME}") as seen:
        clients = Clients()
        wait_for("tokens", lambda: [s for s in clients.streams if s.received > 5], seconds=120)
        yield
        clients.join()
    lease = get("lease", LEASE, OPERATOR_NAMESPACE)
    assert lease is not None
    taken = parse_time(lease["spec"]["acquireTime"])
    assert taken is not None
    across = clients.ran_at(taken)
    print(
        f"{len(clients.streams)} streams, all whole; one of {across.wanted} tokens began {taken - across.begun:.0f} s"
        f" before {tag} took the lead and ended {(across.ended or 0) - taken:.0f} s after"
    )
    said = [condition(version, "Ready") for version in seen.seen]
    assert before is not None
    assert {(one["status"], one["lastTransitionTime"]) for one in said if one} == {
        ("True", before["lastTransitionTime"])
    }


@pytest.fixture(scope="module")
def upgraded(released: Path) -> dict[str, Any]:
    """The upgrade of the handbook, while clients stream; what was there before, and where its writes begin."""
    if file := os.environ.get("RECORD_RELEASE"):
        record(Path(file))
    before, status = snapshot(), deployment(NAME, NAMESPACE)["status"]
    offset = position()
    with serving_on(IMAGE_TAG):
        crds = str(CHARTS / "moe-operator-crds")
        helm("upgrade", "moe-operator-crds", crds, "-n", OPERATOR_NAMESPACE, "--wait")
        upgrade_operator()
        wait_leads(IMAGE_TAG)
        wait_for(
            "the finalizer",
            lambda: deployment(NAME, NAMESPACE)["metadata"].get("finalizers"),
            seconds=HANDOVER,
        )
    return {"snapshot": before, "status": status, "offset": offset}


def record(file: Path) -> None:
    """Keep what the release wrote, for the test that needs no cluster: tests/faults/test_upgrade.py."""
    kept: list[JsonObject] = []
    for kind in (names.PLURAL, "leaderworkersets", "pods", "controllerrevisions", "services", "configmaps",
                 "serviceaccounts", "poddisruptionbudgets", "networkpolicies"):  # fmt: skip
        kept += items(kind, NAMESPACE)
    kept = [obj for obj in kept if obj["metadata"]["name"].startswith(NAME)]
    for obj in kept:
        if obj["kind"] == "ConfigMap":
            obj["data"] = {}
    for node in items("nodes"):
        node["metadata"].pop("annotations", None)
        kept.append(node)
    head = (
        f"# What release {VERSION} kept of a deployment whose group served, as the API server gave it; without the\n"
        "# agent's sources.\n"
    )
    file.write_text(head + yaml.safe_dump_all(kept, sort_keys=False, width=120))


def test_nothing_that_serves_was_touched(upgraded: dict[str, Any]) -> None:
    assert snapshot() == upgraded["snapshot"]


def test_the_operator_wrote_the_status_and_its_finalizer_and_nothing_else(upgraded: dict[str, Any]) -> None:
    wait_ready(NAME, NAMESPACE)
    obj, old = deployment(NAME, NAMESPACE), upgraded["status"]
    assert obj["metadata"]["finalizers"] == [names.FINALIZER]
    assert obj["status"]["revision"] == old["revision"]
    assert obj["status"]["plan"] == old["plan"]
    assert obj["status"]["groups"] == old["groups"]
    print(f"new in the status: {sorted(obj['status'].keys() - old.keys())}")
    written = [w for w in writes_since(upgraded["offset"], SERVICE_ACCOUNT) if not _beside_the_point(w)]
    finalizer = [w for w in written if w.resource == "modeldeployments"]
    others = [w for w in written if w.resource != "modeldeployments"]
    assert [(w.verb, w.code) for w in finalizer] == [("patch", 200)], finalizer
    # Of the agents of this version, for revisions to come.
    new_agent = [w for w in others if (w.resource, w.verb) == ("configmaps", "create")]
    assert len(new_agent) <= 1, new_agent
    assert [w for w in others if w not in new_agent] == []


def _beside_the_point(write: Write) -> bool:
    """Figures in the status, Leases and Events."""
    return write.resource in ("leases", "events", "modeldeployments/status")


def test_a_crash_is_recovered_with_the_revision_of_before(upgraded: dict[str, Any]) -> None:
    pods = engine_pods(NAME, NAMESPACE)
    group = pods[0]["metadata"]["labels"][names.LABEL_GROUP]
    engine_core(pods[-1]["metadata"]["name"]).send(signal.SIGKILL)
    wait_for(
        f"a successor of {group}",
        lambda: (now := engine_pods(NAME, NAMESPACE)) and all(group_of(p) != group for p in now),
        seconds=180,
        every=0.5,
    )
    status = wait_ready(NAME, NAMESPACE, seconds=600)["status"]
    assert status["revision"] == upgraded["status"]["revision"]
    assert status["recovery"]["lastCause"]["reason"] == reasons.ENGINE_EXITED
    assert {p["metadata"]["labels"][names.LABEL_REVISION] for p in engine_pods(NAME, NAMESPACE)} == {
        status["revision"]
    }
    assert complete(URL, "tiny-moe", "hello", 8)["usage"]["completion_tokens"] == 8


def test_a_rollout_takes_what_the_release_made_to_what_this_version_makes(upgraded: dict[str, Any]) -> None:
    change = '{"spec":{"engine":{"args":{"seed":"1"}}}}'
    kubectl("patch", names.PLURAL, NAME, "-n", NAMESPACE, "--type=merge", "-p", change)
    status = wait_ready(NAME, NAMESPACE, seconds=600)["status"]
    assert status["revision"] != upgraded["status"]["revision"]
    assert complete(URL, "tiny-moe", "hello", 8)["usage"]["completion_tokens"] == 8
    kept = {obj["metadata"]["name"] for obj in items("controllerrevisions", NAMESPACE, SELECTOR)}
    assert upgraded["status"]["revision"] in kept, "the way back"


def test_back_to_the_release_nothing_restarts_either(upgraded: dict[str, Any]) -> None:
    """With the API of this version left in place. What it knows more of, the release does not do."""
    before = snapshot()
    with serving_on(VERSION):
        helm("rollback", "moe-operator", "1", "-n", OPERATOR_NAMESPACE, "--wait", "--timeout=180s")
        wait_leads(VERSION)
        change = '{"spec":{"recovery":{"stallLimit":"119s"}}}'
        kubectl("patch", names.PLURAL, NAME, "-n", NAMESPACE, "--type=merge", "-p", change)
        wait_ready(NAME, NAMESPACE, seconds=120)
    assert snapshot() == before
    assert deployment(NAME, NAMESPACE)["metadata"]["finalizers"] == [names.FINALIZER]


def test_and_forth_again_it_can_be_deleted(upgraded: dict[str, Any]) -> None:
    before = snapshot()
    upgrade_operator()
    wait_leads(IMAGE_TAG)
    wait_ready(NAME, NAMESPACE, seconds=120)
    assert snapshot() == before
    kubectl("delete", names.PLURAL, NAME, "-n", NAMESPACE, "--timeout=120s", timeout=150)
    wait_for("nothing left", lambda: not items(CHILDREN, NAMESPACE, SELECTOR), seconds=120, every=0.5)
