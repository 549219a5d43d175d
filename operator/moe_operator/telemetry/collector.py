"""The telemetry loop: scrapes the engines of all groups at their pods' addresses, beside the reconciles."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import aiohttp

from moe_operator.telemetry.agent_page import AgentState, read_agent_state
from moe_operator.telemetry.ignored import Counts, Ignored, OnIgnored, nobody
from moe_operator.telemetry.metrics_page import BEGINNINGS, EngineMetrics, parse_metrics
from moe_operator.telemetry.observation import PodObservation, Snapshot
from moe_operator.telemetry.own_requests import OwnRequests
from moe_operator.telemetry.page_reader import PageError, Wanted, address, read_page
from moe_operator.telemetry.unforeseen import Unforeseen
from moe_operator.telemetry.window import PodWindow

#: Seconds between two rounds, and between two looks at groups that drain.
INTERVAL = 5.0
FAST_INTERVAL = 1.0
#: Seconds of a round over which deployments are spread.
SPREAD = 4.0
_TIMEOUT = 2.0
_AT_ONCE = 32
_METRICS, _STATE = "/metrics", "/moe/v1/state"
#: By path. vLLM's page has some 50 KB per rank.
_WANTED = {_METRICS: Wanted(BEGINNINGS, 8 * 2**20), _STATE: Wanted(None, 64 * 2**10)}
#: Share by which a rate must move to be news.
_NEWS = 0.01

Key = tuple[str, str]


@dataclass(frozen=True)
class Target:
    """One pod to scrape."""

    key: Key
    """Its ModelDeployment."""
    pod_uid: str
    host: str
    port: int
    request_slots: int = 0
    agent: bool = True
    """Whether the agent runs in it."""
    urgent: bool = False
    """A reconcile waits for its figures: the group drains."""
    serves: bool = True
    """Its engine has answered somebody: from one that still starts nothing is expected."""


class Collector:
    """Keeps a window per pod. `snapshot` is what reconciles see."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        targets: Callable[[], Iterable[Target]],
        on_news: Callable[[Key], None],
        clock: Callable[[], float],
        own: OwnRequests | None = None,
        on_ignored: OnIgnored = nobody,
    ) -> None:
        """`on_news` is called with deployments whose figures changed in a way that a decision may need; `own`:
        requests that do not count as load; `on_ignored`: told of pages that were not used."""
        self._session = session
        self._targets = targets
        self._on_news = on_news
        self._clock = clock
        self._own = own or OwnRequests()
        self._on_ignored = on_ignored
        self._unforeseen = Unforeseen(on_ignored)
        self._windows: dict[str, PodWindow] = {}
        self._unheard: dict[str, float] = {}
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self.last_round: float | None = None
        """When the last round ended."""

    def snapshot(self) -> Snapshot:
        """The newest observations."""
        found = {uid: seen for uid, window in self._windows.items() if (seen := window.observation())}
        return Snapshot(pods=found, taken_at=self._clock(), unheard=dict(self._unheard))

    async def run(self) -> None:
        """Scrape for ever; ends only by cancellation."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._all())
            loops.create_task(self._urgent())

    async def _all(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            begun = time()
            await self.round(SPREAD)
            await asyncio.sleep(max(FAST_INTERVAL, begun + INTERVAL - time()))

    async def _urgent(self) -> None:
        while True:
            await asyncio.sleep(FAST_INTERVAL)
            await self.urgent_round()

    async def round(self, spread: float = 0.0) -> None:
        """Scrape every target once. Deployments follow each other evenly over `spread` seconds: pages that come all at
        once would keep reconciles waiting until the last was read."""
        targets = list(self._targets())
        wanted = {t.pod_uid for t in targets}
        for uid in [u for u in self._windows if u not in wanted]:
            del self._windows[uid]
        self._unheard = {uid: since for uid, since in self._unheard.items() if uid in wanted}
        self._own.forget(wanted)
        groups = _by_deployment(t for t in targets if not (spread and t.urgent))
        pause = spread / len(groups) if groups else 0.0
        await asyncio.gather(*(self._deployment(each, at * pause) for at, each in enumerate(groups)))
        self.last_round = self._clock()

    async def urgent_round(self) -> None:
        """Scrape those that are urgent."""
        groups = _by_deployment(t for t in self._targets() if t.urgent)
        await asyncio.gather(*(self._deployment(each, 0.0) for each in groups))

    async def _deployment(self, targets: Sequence[Target], delay: float) -> None:
        """Its pods at one time, so that their news are one."""
        if delay > 0:
            await asyncio.sleep(delay)
        uids = [t.pod_uid for t in targets]
        before = [self._observation(uid) for uid in uids]
        await asyncio.gather(*(self._scrape(t) for t in targets))
        after = [self._observation(uid) for uid in uids]
        if any(t.urgent for t in targets) or any(map(_news, before, after)):
            self._on_news(targets[0].key)

    def _observation(self, uid: str) -> PodObservation | None:
        window = self._windows.get(uid)
        return window.observation() if window is not None else None

    async def _scrape(self, target: Target) -> None:
        await self._guarded(target)
        if target.serves and self._observation(target.pod_uid) is None:
            self._unheard.setdefault(target.pod_uid, self._clock())
        else:
            self._unheard.pop(target.pod_uid, None)

    async def _guarded(self, target: Target) -> None:
        """Whatever a container answers, it must not end the loop for all others."""
        window = self._windows.setdefault(target.pod_uid, PodWindow(target.pod_uid))
        with self._unforeseen.of(f"the engine at {target.host}:{target.port}"):
            await self._look(target, window)
            window.observation()
            return
        # Nobody knows what it left in the window.
        self._windows[target.pod_uid] = window = PodWindow(target.pod_uid)
        window.failed()

    async def _look(self, target: Target, window: PodWindow) -> None:
        window.slots = target.request_slots
        async with self._limit:
            before = self._own.of(target.pod_uid)
            metrics = await self._metrics(target)
            state = await self._agent_state(target) if metrics and target.agent else None
        if metrics is None:
            window.failed()
            return
        if state is not None:
            window.phases, window.draining = state.phases, state.draining
        own = self._own.of(target.pod_uid)
        # One that ended while the pages were read may still be on them.
        own = replace(own, in_flight=max(own.in_flight, before.in_flight))
        if state is None:
            window.add(self._clock(), metrics, None, own=own)
        else:
            window.add(self._clock(), metrics, state.in_flight, state.idle_connections, own)

    async def _metrics(self, target: Target) -> EngineMetrics | None:
        page = await self._get(target, _METRICS)
        with self._unforeseen.of(f"{_METRICS} of {target.host}:{target.port}"):
            found = parse_metrics(page) if page is not None else None
            if found is not None and found.ignored:
                self._on_ignored(found.ignored)
            return found
        return None

    async def _agent_state(self, target: Target) -> AgentState | None:
        page = await self._get(target, _STATE)
        if page is None:
            return None
        with self._unforeseen.of(f"{_STATE} of {target.host}:{target.port}"):
            state = read_agent_state(page)
            if state is None:
                self._on_ignored(Counts([Ignored.NOT_A_SERIES]))
            return state
        return None

    async def _get(self, target: Target, path: str) -> bytes | None:
        url = address(target.host, target.port, path)
        try:
            return b"\n".join(await read_page(self._session, url, _WANTED[path], _TIMEOUT))
        except PageError as error:
            if error.ignored is not None:
                self._on_ignored(Counts([error.ignored]))
            return None


def _by_deployment(targets: Iterable[Target]) -> list[list[Target]]:
    found: dict[Key, list[Target]] = {}
    for target in targets:
        found.setdefault(target.key, []).append(target)
    return list(found.values())


def _news(before: PodObservation | None, after: PodObservation | None) -> bool:
    """Whether a decision or the status may want to know: load, failures, a drain, or a rate that moved."""
    if before is None or after is None:
        return before is not after
    if (before.busy, before.waiting > 0, before.failures > 1, before.draining, before.timed) != (
        after.busy,
        after.waiting > 0,
        after.failures > 1,
        after.draining,
        after.timed,
    ):
        return True
    if after.busy:
        return True  # the stall limit and the autoscaler's clocks run
    pairs = (
        (before.output_tokens_per_second, after.output_tokens_per_second),
        (before.prompt_tokens_per_second, after.prompt_tokens_per_second),
    )
    return any(abs(a - b) > _NEWS * max(abs(a), abs(b)) for a, b in pairs)
