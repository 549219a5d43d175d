"""Engines: the processes in the pods, how they find each other, and the requests they compute.

A group's engines form a cohort once every pod of the group runs a fresh one; a rank cannot rejoin, so an engine that
comes later waits for a cohort that never forms. An engine whose cohort has lost a member answers nothing any more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from fakecluster.controller import Timers


class State(StrEnum):
    """Of one engine process."""

    WAITING = "Waiting"
    """Runs, and waits for the other ranks of its group."""
    LOADING = "Loading"
    UP = "Up"
    DEAD = "Dead"


@dataclass
class Engine:
    """One engine process, in one incarnation of one pod."""

    pod_uid: str
    pod: str
    namespace: str
    group: str
    index: int
    size: int
    ip: str
    node: str
    restarts: int
    agent: bool
    verifier: str
    """What its agent knows the operator by; empty: anyone may drain it."""
    started_at: float
    state: State = State.WAITING
    hung: bool = False
    """Computes nothing and hears no SIGTERM; its server still says it is healthy."""
    draining: bool = False
    running: int = 0
    """Requests being computed."""
    tokens: float = 0.0
    tokens_at: float = 0.0
    progress_at: float = 0.0
    cohort: tuple["Engine", ...] = ()
    canary_passed: bool = False
    garbage: str = ""
    """What every canary finds wrong with its answers."""
    canaries: int = 0
    """Canaries being computed, one per rank."""
    canary_tokens: int = 0
    """Tokens that it has given to canaries."""
    canaries_asked: int = 0
    lost_requests: int = 0

    @property
    def identity(self) -> tuple[str, int]:
        """Which process this is."""
        return (self.pod_uid, self.restarts)


@dataclass
class EngineSettings:
    """How the engines of a world behave."""

    start_seconds: float = 40.0
    """From a complete group to ready engines."""
    start_failure: tuple[int, str] | None = None
    """Exit code and message with which every engine ends instead of becoming ready."""
    request_seconds: float = 8.0
    """Longest time that a request takes: after it, an engine that gets no new ones is idle."""
    requests: int = 0
    """Requests that every endpoint is kept busy with."""
    tokens_per_second: float = 400.0
    step_seconds: float = 0.02
    """Between two tokens of a request, however many there are. Well above what a plan expects of a step without load,
    groups count as loaded whatever is asked of them."""
    kv_blocks: int = 0
    """Of each KV cache; 0: engines do not say."""
    telling: bool = True
    """Whether they answer telemetry; what else they are asked they answer all the same."""
    canary_failure: str | None = None
    """With this message every canary fails."""


@dataclass
class Engines:
    """All engines by pod uid."""

    timers: Timers
    now: Callable[[], float]
    reachable: Callable[[str], bool]
    """Whether a node answers."""
    settings: EngineSettings = field(default_factory=EngineSettings)
    changed: Callable[[Engine], None] = lambda engine: None
    """Called when an engine's state or that of its cohort changes."""
    ended: Callable[[Engine, int, str, str], None] = lambda engine, code, reason, message: None
    """Called when an engine ends by itself or is killed: exit code, reason, termination message."""

    def __post_init__(self) -> None:
        self.by_pod: dict[str, Engine] = {}

    def at(self, ip: str) -> Engine | None:
        """The engine that listens at an address."""
        return next((e for e in self.by_pod.values() if e.ip == ip), None)

    def of_group(self, namespace: str, group: str) -> list[Engine]:
        """The engines of a group by index."""
        found = [e for e in self.by_pod.values() if (e.namespace, e.group) == (namespace, group)]
        return sorted(found, key=lambda e: e.index)

    def whole(self, engine: Engine) -> bool:
        """Whether every rank of the group that this engine is part of is up and can be reached."""
        return bool(engine.cohort) and all(self.answers(e) for e in engine.cohort)

    def answers(self, engine: Engine) -> bool:
        """Whether an engine is up where it can be reached."""
        return (
            engine.state is State.UP
            and self.by_pod.get(engine.pod_uid) is engine
            and self.reachable(engine.node)
        )

    def start(self, engine: Engine) -> None:
        """A process begins in a pod."""
        engine.tokens_at = engine.progress_at = self.now()
        self.by_pod[engine.pod_uid] = engine
        peers = [e for e in self.of_group(engine.namespace, engine.group) if e.state is State.WAITING]
        if len(peers) == engine.size and {e.index for e in peers} == set(range(engine.size)):
            cohort = tuple(peers)
            for one in cohort:
                one.cohort, one.state = cohort, State.LOADING
            self.timers.after(self.settings.start_seconds, lambda: self._loaded(cohort))

    def _loaded(self, cohort: tuple[Engine, ...]) -> None:
        whole = all(e.state is State.LOADING and self.by_pod.get(e.pod_uid) is e for e in cohort)
        if not whole:
            return
        if self.settings.start_failure:
            code, message = self.settings.start_failure
            for one in cohort:
                self.end(one, code, "Error", message)
            return
        for one in cohort:
            one.state = State.UP
            one.tokens_at = one.progress_at = self.now()
        for one in cohort:
            self.changed(one)

    def end(self, engine: Engine, code: int, reason: str, message: str = "") -> None:
        """The process ends; requests in it are lost."""
        if engine.state is State.DEAD:
            return
        self.count(engine)
        engine.lost_requests += engine.running
        engine.state, engine.running = State.DEAD, 0
        self.ended(engine, code, reason, message)
        for one in engine.cohort or (engine,):
            self.changed(one)

    def remove(self, pod_uid: str) -> None:
        """The pod is gone."""
        engine = self.by_pod.pop(pod_uid, None)
        if engine is not None:
            engine.state = State.DEAD
            for one in engine.cohort:
                self.changed(one)

    def hang(self, engine: Engine) -> None:
        """Stop computing from now on."""
        self.count(engine)
        engine.hung = True

    def count(self, engine: Engine) -> None:
        """Bring the token counter up to now."""
        now = self.now()
        moving = engine.state is State.UP and engine.running > 0 and not self._stuck(engine)
        if moving:
            engine.tokens += (now - engine.tokens_at) * self.settings.tokens_per_second
        if moving or engine.running == 0:
            engine.progress_at = now
        engine.tokens_at = now

    def _stuck(self, engine: Engine) -> bool:
        """Ranks run in lockstep: one that hangs or is gone stops all."""
        return any(e.hung or not self.answers(e) for e in engine.cohort)
