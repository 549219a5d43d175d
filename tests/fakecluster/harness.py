"""A world with operators in it, a user, and what tests ask: settle, compare end states, crash at every write."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from factories import deployments
from fakecluster.api_server import Write
from fakecluster.clock import run_virtual
from fakecluster.engines import Engine, EngineSettings
from fakecluster.faults import FaultPlan, WatchFaults
from fakecluster.invariants import Invariants
from fakecluster.objects import is_true
from fakecluster.operator import Operator
from fakecluster.world import World
from moe_operator.api import names
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.kube import (
    CHILD_KINDS,
    CORE_EVENT,
    EVENT,
    LEADER_WORKER_SET,
    LEASE,
    MODEL_DEPLOYMENT,
    POD,
    Obj,
)
from moe_operator.resources.agent_token import KEY_BYTES

NAMESPACE, NAME = "serving", "tiny"
USER = "kubectl"
#: Seconds until a crashed operator's successor starts.
RESTART_AFTER = 2.0
#: Seconds between two looks while waiting for something.
_POLL = 0.1


def manifest(replicas: int = 1, name: str = NAME, **spec: Any) -> Obj:
    """A ModelDeployment of groups of two pods with eight GPUs each."""
    hardware = {"accelerator": "B200", "gpusPerGroup": 16}
    return deployments.manifest(name, NAMESPACE, replicas, **{"hardware": hardware, **spec})


@dataclass
class Harness:
    """One world, one user and the operator instances that came and went."""

    world: World
    seed: int = 0
    operators: list[Operator] = field(default_factory=list)
    supervised: bool = True
    """Whether a crashed operator gets a successor."""
    config: OperatorConfig | None = None
    """The site's configuration, of operators that start from now on; None: of a site that says nothing."""

    key: bytes = bytes(KEY_BYTES)
    """By which operators that start from now on prove themselves to agents."""

    def __post_init__(self) -> None:
        self.invariants = Invariants(self.world, lambda: any(o.leads for o in self.operators))
        self._supervisors: list[asyncio.Task[None]] = []
        self._changed_at = 0.0
        self.world.server.write_listeners.append(self._note)
        self.next_faults: Callable[[], FaultPlan | None] = lambda: None
        """Faults of each successor."""
        self.watch_faults: Callable[[], WatchFaults | None] = lambda: None

    # --- operators --------------------------------------------------------------------------------

    @property
    def operator(self) -> Operator:
        """The newest instance."""
        return self.operators[-1]

    def start_operator(self, faults: FaultPlan | None = None, *, elected: bool = True) -> Operator:
        """Start a replica beside those that run."""
        number = len(self.operators)
        operator = Operator(
            self.world,
            f"operator-{number}",
            faults=faults,
            watch_faults=self.watch_faults(),
            seed=self.seed * 1000 + number,
            elected=elected,
            config=self.config,
            key=self.key,
        )
        self.operators.append(operator)
        operator.start()
        self._supervisors.append(asyncio.create_task(self._supervise(operator)))
        return operator

    def _note(self, write: Write) -> None:
        if write.kind not in (LEASE, EVENT, CORE_EVENT):
            self._changed_at = write.at

    async def _supervise(self, operator: Operator) -> None:
        await operator.ended.wait()
        if not self.supervised:
            return
        await asyncio.sleep(RESTART_AFTER)
        if self.supervised:
            self.start_operator(self.next_faults())

    def kill_operators(self) -> None:
        """All replicas end at once, and stay away."""
        self.supervised = False
        for operator in self.operators:
            operator.kill()

    @property
    def writes(self) -> int:
        """Writes of all instances but Leases and Events."""
        return sum(len(o.client.writes) for o in self.operators)

    def written(self, since: int = 0) -> list[str]:
        """The operators' writes, for messages."""
        every = sorted((w for o in self.operators for w in o.client.writes), key=lambda w: w.at)
        return [str(w) for w in every[since:]]

    # --- the user ---------------------------------------------------------------------------------

    def apply(self, obj: Obj, manager: str = USER) -> Obj:
        """`kubectl apply --server-side --force-conflicts`."""
        return self.world.server.apply(MODEL_DEPLOYMENT, obj, manager)

    def edit(self, name: str = NAME, **spec: Any) -> Obj:
        """`kubectl patch`: null removes."""
        return self.world.server.patch(MODEL_DEPLOYMENT, NAMESPACE, name, {"spec": spec}, USER)

    def wake(self, until: str | None, name: str = NAME) -> Obj:
        """`kubectl annotate`: the time as it is written; None removes it."""
        annotations = {names.ANNOTATION_WAKE_UNTIL: until}
        return self.world.server.patch(
            MODEL_DEPLOYMENT, NAMESPACE, name, {"metadata": {"annotations": annotations}}, USER
        )

    def delete(self, name: str = NAME) -> None:
        """`kubectl delete`."""
        self.world.server.delete(MODEL_DEPLOYMENT, NAMESPACE, name, USER)

    # --- questions --------------------------------------------------------------------------------

    def deployment(self, name: str = NAME) -> Obj:
        """The ModelDeployment. Raises KeyError if there is none."""
        obj = self.world.server.get(MODEL_DEPLOYMENT, NAMESPACE, name)
        if obj is None:
            raise KeyError(f"no ModelDeployment {name}")
        return obj

    def status(self, name: str = NAME) -> dict[str, Any]:
        """Its status, empty at first."""
        return self.deployment(name).get("status") or {}

    def condition(self, type_: str, name: str = NAME) -> dict[str, Any] | None:
        """One condition of it."""
        found = [c for c in self.status(name).get("conditions") or [] if c["type"] == type_]
        return found[0] if found else None

    def ready(self, name: str = NAME) -> bool:
        """Ready for the present generation."""
        current = (
            self.status(name).get("observedGeneration") == self.deployment(name)["metadata"]["generation"]
        )
        return current and is_true(self.deployment(name), "Ready")

    def groups(self, name: str = NAME) -> list[Obj]:
        """Its LeaderWorkerSets, those on their way out included."""
        return self.world.server.list(LEADER_WORKER_SET, NAMESPACE, f"{names.LABEL_DEPLOYMENT}={name}")

    def serving(self, name: str = NAME) -> list[str]:
        """Groups all of whose pods are endpoints of the deployment's Service."""
        members = self.world.endpoints.members.get((NAMESPACE, name), set())
        found = []
        for group in self.groups(name):
            pods = self.world.server.list(POD, NAMESPACE, f"{names.LABEL_GROUP}={group['metadata']['name']}")
            size = group["spec"]["leaderWorkerTemplate"]["size"]
            if len(pods) == size and all(p["metadata"]["uid"] in members for p in pods):
                found.append(group["metadata"]["name"])
        return found

    async def until(self, holds: Callable[[], Any], within: float, what: str = "") -> float:
        """Wait for a condition; returns the virtual seconds it took. Raises AssertionError after `within`."""
        start = self.world.clock.elapsed
        while not holds():
            if self.world.clock.elapsed - start > within:
                raise AssertionError(
                    f"not within {within:.0f} s: {what or 'the condition'} (seed {self.seed})\n{self.report()}"
                )
            await asyncio.sleep(_POLL)
        self.invariants.check()
        return self.world.clock.elapsed - start

    async def rest(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)
        self.invariants.check()

    async def serve(self, groups: int = 1, within: float = 300.0, name: str = NAME) -> float:
        """Wait until the deployment is Ready with exactly so many groups, all serving."""
        return await self.until(
            lambda: self.ready(name) and len(self.serving(name)) == len(self.groups(name)) == groups,
            within,
            f"{groups} groups of {name} serve",
        )

    async def settle(self, quiet: float = 45.0, within: float = 1800.0) -> None:
        """Wait until nothing but Leases and Events has been written for `quiet` seconds."""
        start = self.world.clock.elapsed
        while self.world.clock.elapsed - max(start, self._changed_at) < quiet:
            if self.world.clock.elapsed - start > within:
                raise AssertionError(f"never settles (seed {self.seed})\n{self.report()}")
            await asyncio.sleep(1.0)
        self.invariants.check()

    def report(self) -> str:
        """What a failed test shows."""
        lines = ["last writes of the operators:", *self.written()[-25:], "status:"]
        if self.world.server.get(MODEL_DEPLOYMENT, NAMESPACE, NAME):
            status = dict(self.status())
            status.pop("engineArguments", None)
            lines.append(json.dumps(status, indent=1))
        lines += [f"{o['metadata']['name']}: {o['metadata'].get('deletionTimestamp')}" for o in self.groups()]
        lines += ["violations:", *self.invariants.violations]
        return "\n".join(lines)

    # --- end states -------------------------------------------------------------------------------

    def end_state(self) -> dict[str, Any]:
        """Everything that is there and is ours, without what tells one run from another: uids, versions, times, and
        which free slot a group took."""
        state: dict[str, Any] = {}
        for kind in (MODEL_DEPLOYMENT, *CHILD_KINDS):
            for obj in [] if kind in self.world.server.absent else self.world.server.list(kind, NAMESPACE):
                state[f"{kind.kind}/{obj['metadata']['name']}"] = _normal(obj)
        text = json.dumps(state, sort_keys=True)
        slots = sorted(set(re.findall(rf"{NAME}-g(\d+)(?=\D)", text)), key=int)
        live = [s for s in slots if f"LeaderWorkerSet/{NAME}-g{s}" in state]
        for index, slot in enumerate(live):
            text = re.sub(rf"{NAME}-g{slot}(?=\D)", f"{NAME}-group{index}", text)
        text = re.sub(rf"{NAME}-g\d+(?=\D)", f"{NAME}-former-group", text)
        return json.loads(text)  # type: ignore[no-any-return]


_TIMES = {
    "creationTimestamp",
    "deletionTimestamp",
    "lastTransitionTime",
    "lastFailureTime",
    "nextAttemptTime",
    "lastChangeTime",
    "widthChangeTime",
    "givenUpTime",
    "readySince",
    "since",
    "startedAt",
    "finishedAt",
    "createdTime",
    "parkedUntil",
    "windowStartTime",
    "progressTime",
    "lastTime",
}
_OWN = {
    "uid",
    "resourceVersion",
    "podIP",
    "nodeName",
    "node",
    # How long one start took.
    "coldStart",
    # What was decided on the way, and learned: an operator that was away for a while has seen less of it.
    "history",
    "learned",
    # What it looks at: forecasts for a cold start from now.
    "figures",
    # What was taken: longer on one way than on another. tests/faults/test_cost.py has it to the second.
    "cost",
    # Of requests in the last minutes, of which an operator that was away has seen fewer. tests/faults/test_figures.py.
    "latency",
    names.ANNOTATION_INCARNATION,
    names.ANNOTATION_CLAIM_UID,
    # Derived from the group's name, and so from its slot.
    names.ANNOTATION_AGENT_VERIFIER,
    "blockOwnerDeletion",
}


#: Decisions that change nothing: which of them it is hangs on what was learned, which a restart forgets.
_HELD = {"NoGroupServes", "Observing", "WithinObjective"}


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        out: dict[str, Any] = {}
        if value.get("reason") in _HELD:
            value = {**value, "reason": "held", "message": ""}
        for key, inner in value.items():
            if key in _TIMES or key in _OWN:
                continue
            if key == "throughput":
                # Moves by less than a percent are not written, so two runs may rest at slightly different figures.
                out[key] = {name: round(figure, -2) for name, figure in inner.items()}
            elif key == "counted":
                out[key] = len(inner)
            elif key == "suspectNodes":
                out[key] = sorted(node["losses"] for node in inner)
            elif key == "recovery":
                # Speaks of groups that are gone, whose slots may be taken again.
                out[key] = json.loads(
                    re.sub(rf"{NAME}-g\d+(?=\D)", f"{NAME}-former-group", json.dumps(_normal(inner)))
                )
            else:
                out[key] = _normal(inner)
        return out
    if isinstance(value, list):
        return [_normal(v) for v in value]
    return value


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two end states differ, for messages."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in sorted(set(a) | set(b)):
            found += differences(a.get(key, "(absent)"), b.get(key, "(absent)"), f"{path}.{key}")
        return found
    return [] if a == b else [f"{path}: {str(a)[:300]} != {str(b)[:300]}"]


class Witness:
    """Sees, twice a second, how many groups serve, and which engines there were."""

    def __init__(self, harness: Harness, name: str = NAME) -> None:
        self._harness = harness
        self._name = name
        self._engines: dict[tuple[str, int], Engine] = {}
        self.lowest = len(harness.serving(name))
        """Fewest groups that served at a time."""
        self.most = len(harness.groups(name))
        """Most groups that were there at a time."""
        harness.world.timers.every(0.5, self._look)

    def _look(self) -> None:
        self.lowest = min(self.lowest, len(self._harness.serving(self._name)))
        self.most = max(self.most, len(self._harness.groups(self._name)))
        self._engines.update({e.identity: e for e in self._harness.world.engines.by_pod.values()})

    @property
    def lost_requests(self) -> dict[str, int]:
        """Requests that ended with their engine, by pod."""
        return {e.pod: e.lost_requests for e in self._engines.values() if e.lost_requests}


Scenario = Callable[[Harness], Awaitable[None]]


def play(
    scenario: Scenario,
    *,
    nodes: int = 8,
    seed: int = 0,
    settings: EngineSettings | None = None,
    operator: bool = True,
) -> Harness:
    """Run a scenario in a world of its own; its invariants are checked at the end."""

    async def main() -> Harness:
        world = World(nodes, settings or EngineSettings())
        harness = Harness(world, seed)
        if operator:
            harness.start_operator()
        await scenario(harness)
        harness.invariants.check()
        harness.supervised = False
        world.stop()
        return harness

    return run_virtual(main)
