"""The operator scales real vLLM groups out and in again by itself, by recorded traffic through the Service. Without it
requests wait while processors are free, or a team pays for groups that nobody needs; and if a drain loses requests,
nobody lets it scale anything."""

from collections import Counter
from collections.abc import Iterator

import pytest

from demo.replay import read_trace
from e2e.conftest import NAMESPACE, STEADY, delete
from harness.deployments import condition, wait_ready
from harness.history import History, watched
from harness.kubectl import JsonObject, items, kubectl
from harness.wait import wait_for
from moe_operator.api import names
from traffic.arrivals import Mix, replayed
from traffic.changes import GroupLife
from traffic.clients import Load
from traffic.counts import Outcome, Record, count
from traffic.watch import Watch

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("steady")]

URL = f"http://{STEADY}.{NAMESPACE}.svc.cluster.local:{names.HTTP_PORT}/v1"
MIX = Mix(rate=0.0, clients=4)
#: Lengths of the trace are divided by these, for a tiny model that answers one request at a time, each in a third of
#: a second or half of one: in the trace's minute, which begins with one request a second and ends with five, a group
#: comes to its limits, also on a machine that does nothing else.
PROMPT, OUTPUT = 16, 2.2
#: Seconds that a request may wait: what is shown is not how fast this machine is beside other tests.
PATIENCE = 300.0
#: Of the trace's requests each so many-th while the second group starts, and once the load has fallen.
HALF, CALM = 2, 12
#: Requests that two groups are sent before the load falls.
SHARED = 15


@pytest.fixture(scope="module", autouse=True)
def gone() -> Iterator[None]:
    """The deployment goes with the last module that uses it."""
    yield
    delete(STEADY)


class Story:
    """What a watch shows of the deployment; nothing is asked while two groups and their clients share the machine."""

    def __init__(self, history: History) -> None:
        self.history = history

    def scaling(self) -> list[JsonObject]:
        """`status.scaling`, each version once."""
        found: list[JsonObject] = []
        for version in list(self.history.seen):
            now = (version.get("status") or {}).get("scaling")
            if now and (not found or found[-1] != now):
                found.append(now)
        return found

    def wanted(self) -> list[JsonObject]:
        """The same at each change of the wanted number."""
        found = self.scaling()
        return [now for at, now in enumerate(found) if not at or found[at - 1]["desired"] != now["desired"]]

    def wants(self, groups: int) -> JsonObject | None:
        """The decision, while it is for so many."""
        now = self.wanted()
        return now[-1] if now and now[-1]["desired"] == groups else None

    def summary(self) -> str:
        """What the table says of groups."""
        return str(self.history.seen[-1]["status"]["groups"]["summary"])


def test_a_replayed_trace_brings_a_second_group_and_lets_it_go_again() -> None:
    """1 → 2 → 1, and no request fails or is cut."""
    wait_ready(STEADY, NAMESPACE, seconds=300)
    every = 1
    trace = read_trace(prompt_scale=PROMPT, output_scale=OUTPUT)
    load = Load(URL, "tiny-moe", replayed(trace, MIX.clients, lambda: every), MIX, PATIENCE)
    watch = Watch(STEADY, NAMESPACE, load.now, load.id_prefix)
    with watched(names.PLURAL, NAMESPACE, "--field-selector", f"metadata.name={STEADY}") as history:
        story = Story(history)
        idle = wait_for("an idle group is no news", lambda: _idle(story), seconds=60)
        with load, watch:
            more = wait_for("a second group is wanted", lambda: story.wants(2), seconds=150)
            _tell(load, more)
            every = (
                HALF  # a machine that is busy besides would have a queue of minutes by the time it is there
            )
            wait_for("two groups serve", lambda: story.summary() == "2/2", seconds=1.4 * PATIENCE)
            _tell(load, story.scaling()[-1])
            shared = load.sent + SHARED
            wait_for("both take requests", lambda: load.sent >= shared, seconds=60)
            every = CALM
            fewer = wait_for("one group is wanted", lambda: story.wants(1), seconds=PATIENCE)
            _tell(load, fewer)
            wait_for("the other is gone", lambda: bool(_left(watch)), seconds=120)
            wait_for("the status says so", lambda: story.summary() == "1/1", seconds=30)
            records = load.finish(load.sent + 1)
        lives, versions = watch.groups(), list(history.seen)
    _judge_requests(records, lives, watch.taken)
    assert [one["desired"] for one in story.wanted()] == [1, 2, 1]
    assert "0.0 full groups" in idle["message"]
    assert more["reason"] in ("DemandGrows", "RequestsWaiting")
    assert "by request slots" in more["message"]
    assert fewer["reason"] == "LoadFitsInFewer"
    assert {version["spec"]["replicas"] for version in versions} == {1}, "spec.replicas is the user's"
    ready = [condition(version, "Ready") for version in versions]
    assert {one["status"] for one in ready if one} == {"True"}
    assert not any(condition(version, "Reconciling") for version in versions), "a GitOps wait would hang"
    (left,) = _left(watch)
    _judge_events(more, fewer, left.name)


def _idle(story: Story) -> JsonObject | None:
    now = story.scaling()
    return now[-1] if now and now[-1]["reason"] == "WithinObjective" else None


def _left(watch: Watch) -> list[GroupLife]:
    return [group for group in watch.groups() if group.gone is not None]


def _tell(load: Load, now: JsonObject) -> None:
    print(f"[{load.now():6.1f} s] {now['desired']} wanted: {now['reason']}: {now['message']}", flush=True)


def _judge_requests(records: list[Record], lives: list[GroupLife], taken: dict[int, str]) -> None:
    counts = count(records)
    print(f"{counts.sent} requests, latency p50 {counts.latency_p50} s, p99 {counts.latency_p99} s")
    for life in lives:
        print(life)
    assert [r for r in records if r.outcome is not Outcome.SUCCEEDED] == []
    assert len(lives) == 2
    (left,) = [g for g in lives if g.gone is not None]
    assert left.drain is not None, "it had clients, and was not deleted under them"
    pods = {pod: g.name for g in lives for pod in g.pods}
    by_group = Counter(pods[pod] for pod in taken.values())
    print(f"requests by group: {dict(by_group)}")
    assert set(by_group) == {g.name for g in lives}


def _judge_events(more: JsonObject, fewer: JsonObject, left: str) -> None:
    found = [e for e in items("events.events.k8s.io", NAMESPACE) if e["regarding"]["name"] == STEADY]
    notes = {e["note"]: e["reason"] for e in found}
    assert notes[f"1 → 2 groups: {more['message']}"] == more["reason"]
    assert notes[f"2 → 1 groups: {fewer['message']}"] == fewer["reason"]
    assert {f"created group {STEADY}-g1", f"group {STEADY}-g1 serves"} <= set(notes)
    assert {f"draining group {left}", f"deleted group {left}"} <= set(notes)
    table = kubectl("get", names.PLURAL, STEADY, "-n", NAMESPACE)
    print(table)
    assert "1/1" in table
