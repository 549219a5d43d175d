"""Values that metrics and health read from the parts that keep them."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from moe_operator.api import reasons
from moe_operator.api.cost import BudgetState
from moe_operator.controller.cost_keeper import Account
from moe_operator.controller.delivered import WHOLE, DeploymentFigures
from moe_operator.controller.delivered_keeper import ObjectiveCount
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.kube import MODEL_DEPLOYMENT
from moe_operator.controller.reconcile import Reconciler
from moe_operator.controller.scaling import Advice
from moe_operator.controller.store import Key, Store
from moe_operator.runtime.metrics import Figure, Metrics, Sample, WatchedValues
from moe_operator.telemetry.engine import CanaryResult, EngineClient
from moe_operator.telemetry.figures import Figures
from moe_operator.telemetry.observation import Snapshot

_PHASES = ("total", "schedule", "download", "image", "engine", "weights", "compile", "graphs")
_STATES = ("desired", "current", "ready", "updated", "draining")


def group_counts(store: Store) -> Iterator[Sample]:
    """Groups by deployment and state, as the status says."""
    for obj in store.all(MODEL_DEPLOYMENT):
        meta = obj["metadata"]
        groups = (obj.get("status") or {}).get("groups") or {}
        for state in _STATES:
            yield (meta["namespace"], meta["name"], state), float(groups.get(state) or 0)


def cold_starts(store: Store) -> Iterator[Sample]:
    """Seconds of the newest group's start by phase, as the status says."""
    for obj in store.all(MODEL_DEPLOYMENT):
        meta = obj["metadata"]
        start = (obj.get("status") or {}).get("coldStart") or {}
        for phase in _PHASES:
            if phase in start:
                yield (meta["namespace"], meta["name"], phase), float(start[phase])


def readiness(store: Store) -> Iterator[Sample]:
    """1 for each deployment that is Ready, else 0."""
    for obj in store.all(MODEL_DEPLOYMENT):
        meta = obj["metadata"]
        conditions = (obj.get("status") or {}).get("conditions") or []
        ready = any(c.get("type") == reasons.READY and c.get("status") == "True" for c in conditions)
        yield (meta["namespace"], meta["name"]), float(ready)


def stalled(store: Store) -> Iterator[Sample]:
    """1 with the reason for each deployment that is Stalled."""
    for obj in store.all(MODEL_DEPLOYMENT):
        meta = obj["metadata"]
        for one in (obj.get("status") or {}).get("conditions") or []:
            if one.get("type") == reasons.STALLED and one.get("status") == "True":
                yield (meta["namespace"], meta["name"], one["reason"]), 1.0


def capacity_short(store: Store) -> Iterator[Sample]:
    """1 with the reason for each deployment that needs more groups than it can have."""
    for obj in store.all(MODEL_DEPLOYMENT):
        meta, status = obj["metadata"], obj.get("status") or {}
        for one in status.get("conditions") or []:
            if one.get("type") == reasons.CAPACITY_AVAILABLE and one.get("status") == "False":
                yield (meta["namespace"], meta["name"], one["reason"]), 1.0
        if (status.get("scaling") or {}).get("reason") == reasons.ScalingReason.AT_MAXIMUM:
            yield (meta["namespace"], meta["name"], reasons.ScalingReason.AT_MAXIMUM.value), 1.0


def weights_bytes(store: Store) -> Iterator[Sample]:
    """Bytes of the weights that caches keep, by deployment: those that are there, and all."""
    for obj in store.all(MODEL_DEPLOYMENT):
        meta = obj["metadata"]
        weights = (obj.get("status") or {}).get("weights")
        if weights:
            yield (meta["namespace"], meta["name"], "cached"), float(weights.get("bytes") or 0)
            yield (meta["namespace"], meta["name"], "total"), float(weights.get("totalBytes") or 0)


def accounts(found: Iterable[Account]) -> Iterator[Figure]:
    """Figures of what deployments took and cost: name, labels and value. What is not known is left out."""
    for one in found:
        for figure, read in _ACCOUNTS.items():
            for labels, value in read(one):
                yield figure, (*one.key, *labels), value


def _counted(*names: str) -> Callable[[Account], Iterator[Sample]]:
    return lambda one: (((name,), one.counts[name]) for name in names if name in one.counts)


_ACCOUNTS: dict[str, Callable[[Account], Iterable[Sample]]] = {
    "gpu_seconds_total": lambda one: (((s.value,), v) for s, v in one.gpu_seconds.items()),
    "unpriced_gpu_seconds_total": lambda one: _known(one.unpriced),
    "cost_total": lambda one: (((one.currency, s.value), v) for s, v in one.money.items()),
    "tokens_total": _counted("input", "cached_input", "output"),
    "requests_total": _counted("completed", "aborted", "failed", "preempted"),
    "energy_joules_total": lambda one: _known(one.joules),
    "cost_per_million_tokens": lambda one: _known(one.per_million, one.currency),
    "cost_budget_spent_ratio": lambda one: _known(one.spent_ratio),
    "cost_budget_held": lambda one: _known(None if one.budget is None else one.budget is BudgetState.HELD),
}


def scaling(advice: Iterable[Advice], figure: str) -> Iterator[Sample]:
    """One of the figures that deployments are scaled by. Those that were not measured are left out."""
    for one in advice:
        value = _FIGURES[figure](one)
        if value is not None:
            yield one.key, float(value)


_FIGURES: dict[str, Callable[[Advice], float | None]] = {
    "recommended_groups": lambda one: one.groups,
    "silent_groups": lambda one: one.silent,
    "load_groups": lambda one: one.numbers.level if one.numbers else None,
    "forecast_groups": lambda one: one.numbers.forecast if one.numbers else None,
    "lead_seconds": lambda one: one.numbers.lead if one.numbers else None,
    "late_ratio": lambda one: one.numbers.late if one.numbers else None,
}


def hbm(known: Iterable[tuple[Key, HbmFigures]]) -> Iterator[Figure]:
    """Figures of memory, likewise."""
    for key, one in known:
        for figure, read in _HBM.items():
            for labels, value in read(one):
                yield figure, (*key, *labels), value


def _bytes(one: HbmFigures) -> Iterator[Sample]:
    yield ("used",), float(one.used)
    yield ("capacity",), float(one.capacity)
    if one.split is not None:
        for state in ("weights", "kv_used", "kv_free", "other"):
            yield (state,), float(getattr(one.split, state))


def _ranks(one: HbmFigures) -> Iterator[Sample]:
    fullest: dict[tuple[str, ...], float] = {}
    for gpu in one.gpus:
        if gpu.measured:
            at = gpu.group, gpu.pod, "" if gpu.rank is None else str(gpu.rank)
            fullest[at] = max(fullest.get(at, 0.0), gpu.share)
    yield from fullest.items()


def _known(value: float | None, *labels: str) -> Iterator[Sample]:
    """None where it is not."""
    if value is not None:
        yield labels, float(value)


_HBM: dict[str, Callable[[HbmFigures], Iterable[Sample]]] = {
    "hbm_bytes": _bytes,
    "hbm_gpus": lambda one: (
        (("measured",), float(one.measured)),
        (("estimated",), float(len(one.gpus) - one.measured)),
    ),
    "hbm_rank_used_ratio": _ranks,
    "hbm_bandwidth_ratio": lambda one: _known(one.dram_active),
    "hbm_planner_error_ratio": lambda one: _known(one.error),
    "gpu_power_watts": lambda one: _known(one.watts),
}


def delivered(
    known: Iterable[tuple[DeploymentFigures, Sequence[ObjectiveCount]]],
) -> Iterator[Figure]:
    """Figures of what engines deliver, likewise. What is not known is left out."""
    for one, counts in known:
        for name, labels, value in _deployment(one.figures):
            if value is not None:
                yield name, (*one.key, *labels), float(value)
        for at, count in counts:
            yield "objective_requests_total", (*one.key, *at), count
        for group in one.groups:
            if group.known.state in WHOLE:
                for name, labels, value in _group(group.figures):
                    if value is not None:
                        yield name, (*one.key, group.known.facts.name, *labels), float(value)


def _deployment(told: Figures) -> Iterator[tuple[str, tuple[str, ...], float | None]]:
    yield "requests_in_engines", ("running",), told.running
    yield "requests_in_engines", ("waiting",), told.waiting
    yield "kv_used_ratio", (), told.kv_used
    yield "prefix_hit_ratio", (), told.prefix_hits
    yield "draft_acceptance_ratio", (), told.draft_acceptance
    for name, of in (
        ("time_to_first_token_seconds", told.first_token),
        ("time_per_output_token_seconds", told.per_token),
    ):
        yield name, ("0.5",), of.p50
        yield name, ("0.95",), of.p95
        yield name, ("0.99",), of.p99


def _group(told: Figures) -> Iterator[tuple[str, tuple[str, ...], float | None]]:
    yield "group_tokens_per_second", ("input",), told.input_tokens_per_second
    yield "group_tokens_per_second", ("output",), told.output_tokens_per_second
    yield "group_requests", ("running",), told.running
    yield "group_requests", ("waiting",), told.waiting
    yield "group_kv_used_ratio", (), told.kv_used_worst
    yield "group_imbalance_ratio", (), told.imbalance


def of_deployments(store: Store, reconciler: Reconciler, leads: Callable[[], bool]) -> WatchedValues:
    """What is known of ModelDeployments: of those that this replica leads for, so that nothing is told twice."""
    return WatchedValues(
        groups=lambda: group_counts(store) if leads() else (),
        ready=lambda: readiness(store) if leads() else (),
        stalled=lambda: stalled(store) if leads() else (),
        short=lambda: capacity_short(store) if leads() else (),
        weights=lambda: weights_bytes(store) if leads() else (),
        starts=lambda: cold_starts(store) if leads() else (),
        scaling=lambda figure: scaling(reconciler.advice(), figure) if leads() else (),
        hbm=lambda: hbm(reconciler.hbm()) if leads() else (),
        accounts=lambda: accounts(reconciler.accounts()) if leads() else (),
        delivered=lambda: delivered(reconciler.delivered.all()) if leads() else (),
    )


def oldest(snapshot: Snapshot) -> float:
    """Seconds since the oldest of the newest observations; of pods that never gave one, since they were first asked."""
    since = [*(seen.at for seen in snapshot.pods.values()), *snapshot.unheard.values()]
    return snapshot.taken_at - min(since, default=snapshot.taken_at)


def scraped(snapshot: Snapshot) -> Iterator[Sample]:
    """Pods by whether their last scrape was answered. Those that start are neither."""
    failing = sum(1 for seen in snapshot.pods.values() if seen.failures)
    yield ("ok",), float(len(snapshot.pods) - failing)
    yield ("failing",), float(failing + len(snapshot.unheard))


class CountedEngine:
    """An EngineClient that counts its canaries."""

    def __init__(self, engine: EngineClient, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def canary(
        self,
        host: str,
        port: int,
        model: str,
        ranks: int,
        first_rank: int,
        *,
        deadline: float,
        token: str | None = None,
    ) -> CanaryResult:
        result = await self._engine.canary(
            host, port, model, ranks, first_rank, deadline=deadline, token=token
        )
        self._metrics.canary(result.passed)
        return result

    async def drain(self, host: str, port: int, token: str | None = None) -> bool:
        return await self._engine.drain(host, port, token)

    async def undrain(self, host: str, port: int, token: str | None = None) -> bool:
        return await self._engine.undrain(host, port, token)


class LastAnswer:
    """Passes requests on to the metrics, and remembers when the API server answered last."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._at: float | None = None

    def request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """One request ended; code 0: without an answer."""
        self._metrics.request(verb, kind, code, seconds)
        if 0 < code < 500:
            self._at = self._clock()

    def silent(self) -> float | None:
        """Seconds since the last answer; None if there never was one."""
        return None if self._at is None else self._clock() - self._at
