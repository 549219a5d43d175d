"""The operator's own metrics, in a registry of their own. `docs/reference/metrics.md` is generated from them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from moe_operator.telemetry.ignored import Counts

#: From a cached decision to a reconcile that waits for a slow API server.
_RECONCILE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 240)
_REQUEST_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)

#: Of each deployment that is scaled, whatever its mode: what it is scaled by, or would be.
SCALING_FIGURES = {
    "recommended_groups": "Groups that mode Auto has, or would have in the other modes, within minGroups and maxGroups."
    " For HPA and KEDA. Does not fall while a group gives no current figures; absent where nothing renews it.",
    "silent_groups": "Groups that serve and give no current figures.",
    "load_groups": "Load on the groups, in full groups: as many, fully loaded at the objective, could just carry it.",
    "forecast_groups": "Load that is forecast for when a group would serve that is ordered now, in full groups.",
    "lead_seconds": "How far ahead that is: the cold start as it is learned, and what metrics are behind.",
    "late_ratio": "Share of requests that were beyond the objective, decaying over hours; before any was seen, what is"
    " aimed at.",
}

#: Of each deployment with groups that serve: name, help, and labels beside namespace and name. What ends in `_total`
#: is a counter.
HBM_FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "hbm_bytes": (
        "Memory of the GPUs of a ModelDeployment's groups that serve, by state: used (measured, or estimated where no"
        " exporter tells), capacity (what processes may have), and of what is used weights, kv_used, kv_free and other."
        " On cpu, main memory of the engines.",
        ("state",),
    ),
    "hbm_gpus": (
        "GPUs that this is about, by source: measured or estimated.",
        ("source",),
    ),
    "hbm_rank_used_ratio": (
        "Used of what processes may have, of each rank's fullest GPU that was measured; rank is empty where it is not"
        " known.",
        ("group", "pod", "rank"),
    ),
    "hbm_bandwidth_ratio": (
        "Share of the time in which memory of GPUs is read or written (DRAM_ACTIVE), mean of those that tell.",
        (),
    ),
    "hbm_planner_error_ratio": (
        "What a GPU was measured to hold beside the KV cache, less what was planned for it, as a share of the GPU;"
        " positive: more. Where that is most.",
        (),
    ),
    "gpu_power_watts": ("Power of a ModelDeployment's GPUs, where all tell.", ()),
}

_ENGINES = "of the groups that serve or drain"
#: What engines deliver, likewise; of groups, those with the label `group`.
DELIVERED_FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "requests_in_engines": (
        f"Requests in the engines {_ENGINES}, by state: running (being computed) or waiting.",
        ("state",),
    ),
    "kv_used_ratio": (f"Share of the KV cache in use, all ranks together, {_ENGINES}.", ()),
    "prefix_hit_ratio": (
        "Share of prompt tokens that were found in the engines' prefix cache, over the last telemetry window.",
        (),
    ),
    "draft_acceptance_ratio": (
        "Share of the tokens proposed by speculative decoding that were accepted, over the last telemetry window.",
        (),
    ),
    "time_to_first_token_seconds": (
        "Percentiles of the time to first token in the last five minutes, by interpolation in the engines' histograms,"
        " all groups pooled. Absent while there are too few requests, or where buckets are too wide to tell.",
        ("quantile",),
    ),
    "time_per_output_token_seconds": (
        "The same of the mean time between two tokens of a request, by requests that ended.",
        ("quantile",),
    ),
    "objective_requests_total": (
        "Requests by whether they kept the spec's objective: part first_token (counted with the first token) or"
        " output_token (counted at the end), outcome within or beyond. A bucket with the objective in it counts in"
        " proportion. Without parts that have no objective; since this operator leads.",
        ("part", "outcome"),
    ),
    "group_tokens_per_second": (
        "Tokens per second of a group over the last telemetry window, by kind: input or output.",
        ("group", "kind"),
    ),
    "group_requests": ("Requests in a group's engines, by state: running or waiting.", ("group", "state")),
    "group_kv_used_ratio": ("Share of the KV cache in use, of the group's fullest rank.", ("group",)),
    "group_imbalance_ratio": (
        "Tokens of the group's busiest rank over the mean of its ranks, in the last telemetry window; 1: even. Absent"
        " where there are too few to say.",
        ("group",),
    ),
}

#: What each deployment took and cost, likewise.
ACCOUNT_FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gpu_seconds_total": (
        "Seconds that GPUs were held (ranks on cpu), by state: starting, serving, idle (in traffic without a request),"
        " draining. What is parked or scaled to zero holds none.",
        ("state",),
    ),
    "unpriced_gpu_seconds_total": ("Of these, those for which no price was known.", ()),
    "cost_total": ("What these cost, without those that have no price.", ("currency", "state")),
    "tokens_total": (
        "Tokens that engines counted, without the operator's own requests, by kind: input, cached_input (part of input"
        " that was found in a cache), output.",
        ("kind",),
    ),
    "requests_total": (
        "Requests that engines ended, without the operator's own, by outcome: completed, aborted, failed; and"
        " preempted, times that one lost its KV cache to others.",
        ("outcome",),
    ),
    "energy_joules_total": (
        "Energy of the GPUs, of their own counters, else of their power over time. Absent where not all of them tell.",
        (),
    ),
    "cost_per_million_tokens": (
        "All of the cost over all tokens, of the last hour, else of the last day, else in total; absent before any.",
        ("currency",),
    ),
    "cost_budget_spent_ratio": (
        "Share of cost.budget that is spent in the day or month; absent without one.",
        (),
    ),
    "cost_budget_held": (
        "1 while cost.budget is spent and scale-up is held, else 0; absent without a budget.",
        (),
    ),
}

M = TypeVar("M", bound=MetricWrapperBase)

Sample = tuple[tuple[str, ...], float]
#: Name, labels and value.
Figure = tuple[str, tuple[str, ...], float]


class _Computed(Collector):
    """A gauge, or counter (`_total`), whose values are computed when they are asked for."""

    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], read: Callable[[], Iterable[Sample]]
    ) -> None:
        self.name, self.documentation, self.labels = name, documentation, labels
        self.read = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family = kind(self.name, self.documentation, labels=self.labels)
        for labels, value in self.read():
            family.add_metric(labels, value)
        yield family


class _ComputedTogether(Collector):
    """Several of them, whose values are computed together: a look at all of them costs what one costs."""

    def __init__(
        self,
        figures: Iterable[tuple[str, str, tuple[str, ...]]],
        read: Callable[[], Iterable[Figure]],
    ) -> None:
        self.figures, self.read = tuple(figures), read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for name, documentation, labels in self.figures:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            families[name] = kind(name, documentation, labels=labels)
        for name, values, value in self.read():
            families[name].add_metric(values, value)
        yield from families.values()


@dataclass(frozen=True)
class WatchedValues:
    """Where values come from that others keep; they are asked for at each scrape. What is not said has none."""

    queue_depth: Callable[[], int] = lambda: 0
    """ModelDeployments that wait to be reconciled."""
    overdue: Callable[[], Iterable[Sample]] = tuple
    """Seconds that watches owe a change, by kind."""
    telemetry_age: Callable[[], float] = lambda: 0.0
    """Seconds since the oldest observation of a pod."""
    telemetry_pods: Callable[[], Iterable[Sample]] = tuple
    groups: Callable[[], Iterable[Sample]] = tuple
    ready: Callable[[], Iterable[Sample]] = tuple
    stalled: Callable[[], Iterable[Sample]] = tuple
    short: Callable[[], Iterable[Sample]] = tuple
    weights: Callable[[], Iterable[Sample]] = tuple
    starts: Callable[[], Iterable[Sample]] = tuple
    scaling: Callable[[str], Iterable[Sample]] = lambda _: ()
    """By figure, of SCALING_FIGURES."""
    hbm: Callable[[], Iterable[Figure]] = tuple
    accounts: Callable[[], Iterable[Figure]] = tuple
    delivered: Callable[[], Iterable[Figure]] = tuple


class Metrics:
    """Everything the operator counts. Implements the observer protocols of the other parts."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every one, which nobody reads
        self.registry = CollectorRegistry()
        self._described: list[tuple[str, str, str, tuple[str, ...]]] = []

        self._reconciles = self._counter(
            "reconciles", "Reconciles by outcome: success, requeue, error or timeout.", "outcome"
        )
        self._reconcile_seconds = self._histogram(
            "reconcile_seconds", "Duration of one reconcile.", _RECONCILE_BUCKETS
        )
        self._queue_wait = self._histogram(
            "queue_wait_seconds", "Time from a key's event to the begin of its reconcile.", _RECONCILE_BUCKETS
        )
        self._requests = self._counter(
            "api_requests",
            "Requests to the API server; code 0 means no answer. "
            "Those with the verbs create, apply, apply_status, patch and delete are writes.",
            "verb",
            "kind",
            "code",
        )
        self._request_seconds = self._histogram(
            "api_request_seconds", "Duration of requests to the API server.", _REQUEST_BUCKETS, "verb"
        )
        self._watch_events = self._counter(
            "watch_events", "Events that the watches delivered.", "kind", "type"
        )
        self._watch_starts = self._counter(
            "watch_starts", "Times the watches were started: once, and again after each failure."
        )
        self._lost_deletions = self._counter(
            "lost_deletions",
            "Objects that a LIST showed to be gone without the watch having said so.",
            "kind",
        )
        self._resyncs = self._counter("resyncs", "Resyncs by outcome: success or error.", "outcome")
        self._resync_seconds = self._histogram(
            "resync_seconds", "Duration of one resync.", _RECONCILE_BUCKETS
        )
        self._leader = self._gauge("leader", "1 on the replica that holds the lease, 0 on the others.")
        self._canaries = self._counter(
            "canaries", "Canaries sent to the pods of a group, by result: passed or failed.", "result"
        )
        self._groups_lost = self._counter(
            "groups_lost",
            "Groups of a ModelDeployment that were given up, by cause: a reason of the API reference. Counted by the"
            " leader since it began to lead.",
            "namespace",
            "name",
            "reason",
        )
        self._learning_anew = self._counter(
            "autoscalers_learning_anew",
            "Autoscalers that do not go on from what the status remembers, by reason: OtherVersion, Damaged,"
            " OutOfBounds, OtherGroups (another layout or objective), FromTheFuture.",
            "reason",
        )
        self._events = self._counter(
            "events_posted",
            "Kubernetes Events by outcome: posted, counted (added to a series), dropped, error.",
            "outcome",
        )
        self._ignored = self._counter(
            "telemetry_ignored",
            "What engines and exporters said and was not used, by reason: series (NotASeries, NotANumber, OutOfRange,"
            " RepeatedLabel, RepeatedSeries, NoDevice, TooManySeries), GPUs (AnotherPod, AnotherContainer,"
            " SharedDevice, TooManyDevices) and whole pages (PageTooLong, LineTooLong, TooSlow, Encoded, Unforeseen).",
            "reason",
        )
        self._gauge("build_info", "1; the label says which version runs.", "version").labels(
            version("moe-operator")
        ).set(1)

    # --- values that are computed when asked for ------------------------------------------------------

    def watch_values(self, of: WatchedValues) -> None:
        """Say where the values come from that others keep."""
        self._computed(
            "queue_depth",
            "ModelDeployments that wait to be reconciled.",
            (),
            lambda: [((), of.queue_depth())],
        )
        self._computed(
            "watch_overdue_seconds",
            "How long the watch of a kind has been owing a change that a LIST has shown; 0 when it owes none.",
            ("kind",),
            of.overdue,
        )
        self._computed(
            "telemetry_age_seconds",
            "Age of the oldest observation of a pod that is scraped; of one that serves and was never observed, since"
            " it was first scraped. 0 without pods.",
            (),
            lambda: [((), of.telemetry_age())],
        )
        self._computed(
            "telemetry_pods",
            "Pods that are scraped, by state: ok, or failing when the last scrape got no answer. Pods whose engines"
            " still start are neither until they answer.",
            ("state",),
            of.telemetry_pods,
        )
        self._computed(
            "groups",
            "Groups of a ModelDeployment: desired, current, ready, updated, draining. From the leader only.",
            ("namespace", "name", "state"),
            of.groups,
        )
        self._computed(
            "deployment_ready",
            "1 when the ModelDeployment's condition Ready is True, else 0. From the leader only.",
            ("namespace", "name"),
            of.ready,
        )
        self._computed(
            "deployment_stalled",
            "1 for each ModelDeployment that is Stalled, with the reason: it waits for its owner, or for the time of"
            " the next attempt. From the leader only.",
            ("namespace", "name", "reason"),
            of.stalled,
        )
        self._computed(
            "capacity_short",
            "1 for each ModelDeployment that needs more groups than it can have, with the reason: one of"
            " CapacityAvailable where that is False (CapacityShort, WaitingForGpus, Unschedulable, SchedulingGated,"
            " ClaimPending), or AtMaximum, where scaling.maxGroups is what is in the way. From the leader only.",
            ("namespace", "name", "reason"),
            of.short,
        )
        self._computed(
            "weights_bytes",
            "Bytes of a ModelDeployment's weights in its cache: cached, and total once the source has told. Of"
            " deployments with a cache, from the leader only.",
            ("namespace", "name", "state"),
            of.weights,
        )
        self._computed(
            "cold_start_seconds",
            "How long the newest group of a ModelDeployment took to come up, by phase: total, schedule, download, "
            "image, engine, and of the engine's weights, compile and graphs. From the leader only.",
            ("namespace", "name", "phase"),
            of.starts,
        )
        for name, help_ in SCALING_FIGURES.items():
            text = f"{help_} From the leader only."
            self._computed(f"scaling_{name}", text, ("namespace", "name"), partial(of.scaling, name))
        self._computed_together(HBM_FIGURES, of.hbm)
        self._computed_together(ACCOUNT_FIGURES, of.accounts)
        self._computed_together(DELIVERED_FIGURES, of.delivered)

    # --- observers ------------------------------------------------------------------------------------

    def reconciled(self, outcome: str, seconds: float, waited: float) -> None:
        self._reconciles.labels(outcome).inc()
        self._reconcile_seconds.observe(seconds)
        self._queue_wait.observe(waited)

    def request(self, verb: str, kind: str, code: int, seconds: float) -> None:
        self._requests.labels(verb, kind, str(code)).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def watch_event(self, kind: str, type_: str) -> None:
        self._watch_events.labels(kind, type_).inc()

    def watch_started(self) -> None:
        self._watch_starts.inc()

    def lost_deletions(self, kind: str, count: int) -> None:
        self._lost_deletions.labels(kind).inc(count)

    def resynced(self, outcome: str, seconds: float) -> None:
        self._resyncs.labels(outcome).inc()
        self._resync_seconds.observe(seconds)

    def leading(self, leads: bool) -> None:
        self._leader.set(1 if leads else 0)

    def canary(self, passed: bool) -> None:
        self._canaries.labels("passed" if passed else "failed").inc()

    def group_lost(self, namespace: str, name: str, reason: str) -> None:
        self._groups_lost.labels(namespace, name, reason).inc()

    def forget_losses(self, namespace: str, name: str) -> None:
        self._groups_lost.remove_by_labels({"namespace": namespace, "name": name})

    def learning_anew(self, reason: str) -> None:
        self._learning_anew.labels(reason).inc()

    def ignored(self, counts: Counts) -> None:
        for reason, times in counts.items():
            self._ignored.labels(reason.value).inc(times)

    def event(self, outcome: str) -> None:
        self._events.labels(outcome).inc()

    # --- reference --------------------------------------------------------------------------------------

    def described(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """Name on the wire, type, help and labels of every metric, by name."""
        return sorted(self._described)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return self._made(Counter, name, f"moe_operator_{name}_total", help_, labels)

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return self._made(Gauge, name, f"moe_operator_{name}", help_, labels)

    def _histogram(self, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return self._made(Histogram, name, f"moe_operator_{name}", help_, labels, buckets=buckets)

    def _made(
        self, type_: type[M], name: str, wire: str, help_: str, labels: tuple[str, ...], **more: Any
    ) -> M:
        self._described.append((wire, type_.__name__.lower(), help_, labels))
        return type_(f"moe_operator_{name}", help_, labels, registry=self.registry, **more)

    def _computed(
        self, name: str, help_: str, labels: tuple[str, ...], read: Callable[[], Iterable[Sample]]
    ) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        self._described.append((f"moe_operator_{name}", kind, help_, labels))
        self.registry.register(_Computed(f"moe_operator_{name}", help_, labels, read))

    def _computed_together(
        self, figures: Mapping[str, tuple[str, tuple[str, ...]]], read: Callable[[], Iterable[Figure]]
    ) -> None:
        """Of deployments that this replica leads for."""
        told = [
            (f"moe_operator_{name}", f"{help_} From the leader only.", ("namespace", "name", *labels))
            for name, (help_, labels) in figures.items()
        ]
        self._described += [
            (name, "counter" if name.endswith("_total") else "gauge", text, labels)
            for name, text, labels in told
        ]
        self.registry.register(
            _ComputedTogether(
                told, lambda: ((f"moe_operator_{name}", at, value) for name, at, value in read())
            )
        )
