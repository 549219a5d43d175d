"""The record as one document, `moe-report/v1`: what `-o json` prints and the pages are made of.

Times are RFC 3339 in UTC, amounts and hours decimals in text. What is not known is null; why, `unread` or a message
beside it says. Fields are only added within a version.
"""

from enum import StrEnum
from typing import Final, Literal

from pydantic import Field

from moe_operator.api.base import ApiModel

#: Name and version of the document.
SCHEMA: Final = "moe-report/v1"
#: Of what nobody knows.
UNKNOWN = "unknown"


class Source(StrEnum):
    """Where a figure is from."""

    PROMETHEUS = "Prometheus"
    """Of the period, as Prometheus recorded it."""
    STATUS = "Status"
    """The ModelDeployment's status: of when it was written."""
    NONE = "None"
    """Nowhere: it is not known."""


class Period(ApiModel):
    """What the record is about."""

    begin: str = Field(alias="from")
    """First moment."""
    end: str = Field(alias="to")
    """First moment after it."""
    seconds: int
    """Its length."""
    notes: list[str] = Field(default_factory=list)
    """What to know of it."""


class Unread(ApiModel):
    """A part that could not be read."""

    section: str
    """Which."""
    needs: str | None = None
    """The right that is missing, such as `list pods in serving`; null where something else is the reason."""
    message: str
    """Why, for people."""


class Scope(ApiModel):
    """Which cluster and namespaces."""

    namespace: str | None = None
    """Null: all."""
    context: str | None = None
    """Of the reader's kubeconfig; null in a pod."""
    cluster: str | None = None
    """Its name in the reader's kubeconfig."""
    cluster_id: str | None = None
    """Uid of the namespace kube-system, which lives as long as the cluster."""


class PrometheusSource(ApiModel):
    """The Prometheus that was asked."""

    url: str
    """Without credentials."""
    message: str | None = None
    """Why it gave nothing; null: it answered."""


class ModelRecord(ApiModel):
    """The model, whose it is, and which weights run."""

    name: str
    """As the spec names it."""
    served_name: str | None = None
    """What clients call it, where that differs."""
    licence: str
    """By the operator's catalogue; `unknown` where that has none."""
    publisher: str
    """Organisation that published the weights; `unknown` where their address names none."""
    source: str
    """Address of the weights; `unknown` before there is a plan."""
    revision: str | None = None
    """Commit, tag or branch that the spec asks for."""
    commit: str | None = None
    """The commit that is loaded."""
    precision: str | None = None
    """Of the weights."""
    adapters: list[str] = Field(default_factory=list)
    """Addresses of LoRA adapters."""
    policy_rule: str | None = None
    """The rule of the operator's policy that allowed it; null without a policy."""
    notes: list[str] = Field(default_factory=list)
    """What is not known of it, and why."""


class WeightsRecord(ApiModel):
    """The bytes: where they lie, and what vouches for them."""

    cache: str | None = None
    """Where they are kept; null where engines read the source themselves."""
    entry: str | None = None
    """Folder in the cache."""
    bytes: int | None = None
    """Of all files, where the source has told."""
    complete_since: str | None = None
    """Since when they are all there, checked."""
    digest: str | None = None
    """What names these very bytes: `git:COMMIT` or `sha256:…`; null where nothing does."""
    verification: str
    """What was checked, and by whom."""


class EngineRecord(ApiModel):
    """What computes."""

    image: str | None = None
    """Of the wanted revision; null before there is a plan."""
    version: str | None = None
    """vLLM's, as the image's tag says it; null where it does not."""
    running: list[str] | None = None
    """Images by digest, as nodes report them of the pods that run; null where pods may not be read."""
    revision: str | None = None
    """The wanted ControllerRevision."""
    pod_security: str | None = None
    """The strictest Pod Security Standard that the pods keep to."""
    code_loading: list[str] = Field(default_factory=list)
    """Arguments in effect that load code beside the image's own."""
    logging: list[str] = Field(default_factory=list)
    """Arguments in effect by which engines write or send away what requests are about."""
    arguments: list[str] = Field(default_factory=list)
    """What `vllm serve` is started with."""


class NodeRecord(ApiModel):
    """A node that pods of the deployment are on now."""

    name: str
    """Of the node."""
    region: str | None = None
    """`topology.kubernetes.io/region`; null: no such label, or nodes may not be read."""
    zone: str | None = None
    """`topology.kubernetes.io/zone`."""


class EgressState(StrEnum):
    """Whether engines may open connections to elsewhere."""

    LIMITED = "Limited"
    """NetworkPolicies name where to; anything else is denied."""
    OPEN = "Open"
    """No NetworkPolicy limits it."""
    UNKNOWN = "Unknown"
    """NetworkPolicies could not be read."""


class PlaceRecord(ApiModel):
    """Where prompts and answers are processed."""

    nodes: list[NodeRecord] | None = None
    """Null where pods may not be read."""
    regions: list[str] = Field(default_factory=list)
    """Of these nodes."""
    required_nodes: dict[str, list[str]] = Field(default_factory=dict)
    """Labels of the only nodes that the operator's policy allows; empty: any."""
    egress: EgressState
    """Whether engines may open connections to elsewhere."""
    egress_to: list[str] = Field(default_factory=list)
    """Where to, where that is limited."""
    egress_policies: list[str] = Field(default_factory=list)
    """The NetworkPolicies that limit it."""


class KeyRecord(ApiModel):
    """The API key that clients must show."""

    required: bool
    """Whether the spec asks for one (`engine.apiKeySecret`)."""
    secret: str | None = None
    """Name of the Secret."""
    key: str | None = None
    """In it."""
    present: bool | None = None
    """Whether the Secret is there; null where it was not or could not be asked."""


class CallersRecord(ApiModel):
    """Who may send requests."""

    endpoint: str | None = None
    """URL in the cluster."""
    services: list[str] | None = None
    """Services of the namespace that select its pods, with their type; null where they may not be read."""
    published: list[str] | None = None
    """Ingresses and HTTPRoutes of the namespace that lead to one of them; null where neither may be read."""
    ingress_limited: bool | None = None
    """Whether NetworkPolicies name who may connect to the HTTP port; null where they may not be read."""
    ingress_from: list[str] = Field(default_factory=list)
    """Who may, where that is limited."""
    api_key: KeyRecord
    """The API key."""


class Outage(ApiModel):
    """A stretch in which Ready was not true all the time."""

    begin: str = Field(alias="from")
    """First moment of the first window."""
    end: str = Field(alias="to")
    """Last moment of the last window."""
    not_ready_seconds: int
    """Of it."""


class UptimeRecord(ApiModel):
    """For how long the condition Ready was true."""

    source: Source
    """Prometheus, or Status: of the last transition alone."""
    ready: str | None = None
    """`True`, `False` or `Unknown` now."""
    since: str | None = None
    """Of the last transition."""
    known_seconds: int = 0
    """Of the period, for how long it is known."""
    ready_seconds: int = 0
    """Of these, Ready."""
    ready_percent: float | None = None
    """Of what is known; null where nothing is."""
    outages: list[Outage] = Field(default_factory=list)
    """Oldest first, at most 50."""
    outages_left_off: int = 0
    """Further ones."""
    window_seconds: int | None = None
    """How finely outages are told apart; null without Prometheus."""
    message: str
    """What this covers."""


class Usage(ApiModel):
    """What was used in a span of time."""

    begin: str | None = Field(default=None, alias="from")
    """When it begins; null: not known."""
    end: str | None = Field(default=None, alias="to")
    """When it ends."""
    input_tokens: int | None = None
    """Prompt tokens, cached ones included."""
    cached_input_tokens: int | None = None
    """Of these, found in a cache."""
    output_tokens: int | None = None
    """Generated."""
    requests_completed: int | None = None
    """Requests that came to their end."""
    requests_aborted: int | None = None
    """Whose client left."""
    requests_failed: int | None = None
    """That the engine failed."""
    gpu_hours: str | None = None
    """All that were held."""
    gpu_hours_by_state: dict[str, str] = Field(default_factory=dict)
    """starting, serving, idle, draining."""
    unpriced_gpu_hours: str | None = None
    """Of these, those that `cost` lacks."""
    cost: dict[str, str] = Field(default_factory=dict)
    """By currency; empty: no price is known."""


class UsageRecord(ApiModel):
    """Tokens, requests, GPU-hours and cost."""

    source: Source
    """Of `period`."""
    period: Usage | None = None
    """The period's; null where it cannot be known."""
    total: Usage | None = None
    """Since the accounts began."""
    last_day: Usage | None = None
    """24 hours before the status was written: not the period's."""
    last_hour: Usage | None = None
    """60 minutes likewise."""
    price: str | None = None
    """Of a GPU-hour now, and whose price that is."""
    notes: list[str] = Field(default_factory=list)
    """What the figures lack."""


class FieldChange(ApiModel):
    """A field of the spec that reaches the pods."""

    path: str
    """Such as `engine.image`."""
    before: str | None = None
    """Null: not set."""
    after: str | None = None
    """Null: not set any more."""


class RevisionRecord(ApiModel):
    """A kept revision."""

    name: str
    """Of the ControllerRevision."""
    number: int
    """In the order in which they were made."""
    created: str
    """When it was first made: going back to a revision makes none."""
    in_period: bool
    """Whether that is in the period."""
    changes: list[FieldChange] | None = None
    """Against the one before; null where nothing can be compared."""


class WriterRecord(ApiModel):
    """A program that wrote the ModelDeployment, by `metadata.managedFields`: of each its last write alone."""

    manager: str
    """As it calls itself."""
    operation: str
    """`Apply` or `Update`."""
    subresource: str | None = None
    """`status` or `scale`; null: the object itself."""
    time: str | None = None
    """Of its last write that changed something."""
    fields: list[str] = Field(default_factory=list)
    """Parts of the spec that it owns."""


class ChangesRecord(ApiModel):
    """What was changed, as far as it can be known."""

    created: str | None = None
    """The ModelDeployment."""
    generation: int
    """Changes of the spec since then, and one."""
    revisions: list[RevisionRecord] | None = None
    """Kept ones, oldest first; null where they may not be read."""
    writers: list[WriterRecord] = Field(default_factory=list)
    """Programs; people are named in the API server's audit log alone."""


class ConditionRecord(ApiModel):
    """A condition that tells of trouble now."""

    type: str
    """Of the condition."""
    status: str
    """Its status."""
    reason: str
    """Its reason."""
    message: str
    """Its message."""
    since: str
    """Of the last transition."""


class EventRecord(ApiModel):
    """An Event in the period."""

    time: str
    """Of a series the last time."""
    since: str | None = None
    """When a series began."""
    count: int
    """How often."""
    type: str
    """`Normal` or `Warning`."""
    reason: str
    """Its reason."""
    message: str
    """Its note."""


class IncidentsRecord(ApiModel):
    """What went wrong."""

    groups_lost: int | None = None
    """Groups given up in the period, at least; null without Prometheus."""
    groups_lost_by_reason: dict[str, int] = Field(default_factory=dict)
    """The same by cause."""
    last_loss: str | None = None
    """When a group was last lost, whenever that was."""
    last_loss_cause: str | None = None
    """Why."""
    conditions: list[ConditionRecord] = Field(default_factory=list)
    """That tell of trouble now."""
    events: list[EventRecord] | None = None
    """In the period, newest last, at most 100; null where they may not be read."""
    events_left_off: int = 0
    """Older ones in the period."""


class ScalingRecord(ApiModel):
    """Decisions to run more or fewer groups."""

    mode: str | None = None
    """`Auto`, `Advisory` or `External`; null where the spec cannot be read."""
    changes: int | None = None
    """Changes of the wanted number in the period; null where nothing tells."""
    at_least: bool = True
    """Whether there may have been more."""
    source: Source
    """Of that number."""
    by_reason: dict[str, int] = Field(default_factory=dict)
    """Those of the last ten changes that are in the period."""


class DeploymentRecord(ApiModel):
    """One ModelDeployment."""

    namespace: str
    """Where it is."""
    name: str
    """Its name."""
    uid: str
    """Tells it from a former one of the name."""
    invalid_spec: str | None = None
    """Why the stored spec cannot be read; then what follows is of the status alone."""
    model: ModelRecord
    """The model."""
    weights: WeightsRecord
    """Its weights."""
    engine: EngineRecord
    """The engine."""
    place: PlaceRecord
    """Where."""
    callers: CallersRecord
    """Who may call."""
    uptime: UptimeRecord
    """Uptime."""
    usage: UsageRecord
    """Use and cost."""
    changes: ChangesRecord
    """Changes."""
    incidents: IncidentsRecord
    """Incidents."""
    scaling: ScalingRecord
    """Scaling."""


class GoneRecord(ApiModel):
    """A ModelDeployment that Prometheus has figures of in the period and that is not there any more."""

    namespace: str
    """Where it was."""
    name: str
    """Its name."""
    uptime: UptimeRecord
    """Uptime."""
    usage: UsageRecord
    """Use and cost."""


class Grant(ApiModel):
    """Somebody to whom RBAC gives something."""

    kind: str
    """`User`, `Group` or `ServiceAccount`."""
    name: str
    """Of it; ServiceAccounts as `NAMESPACE/NAME`."""
    verbs: list[str]
    """Which of the verbs that are asked about, with the resource where it is another."""
    only: list[str] = Field(default_factory=list)
    """Names of the only objects that this is about; empty: all."""
    by: str
    """The binding and the role."""


class AccessRecord(ApiModel):
    """Who may do what in a namespace, by RBAC alone."""

    namespace: str
    """Which."""
    change: list[Grant] | None = None
    """Create, change or delete ModelDeployments, or set their scale; null where bindings may not be read."""
    read: list[Grant] | None = None
    """Read ModelDeployments."""
    reach: list[Grant] | None = None
    """Reach engines through the API server, past NetworkPolicies: exec, attach, port-forward, proxy."""
    secrets: list[Grant] | None = None
    """Read Secrets, and so the API key."""
    undetermined: list[str] = Field(default_factory=list)
    """Bindings whose role could not be read."""


class Coverage(ApiModel):
    """What the record is good for."""

    covers: list[str]
    """What it tells."""
    does_not_cover: list[str]
    """What it does not."""
    obligations: list[str]
    """Which obligations it helps with, and how far."""


class Report(ApiModel):
    """The technical record of ModelDeployments over a period."""

    schema_: Literal["moe-report/v1"] = Field(default=SCHEMA, alias="schema")
    """Always `moe-report/v1`."""
    generated_at: str
    """When the cluster was read: everything but the period's figures is of this moment."""
    generated_by: str
    """Program and version."""
    period: Period
    """The period."""
    scope: Scope
    """Which cluster and namespaces."""
    prometheus: PrometheusSource | None = None
    """Null where none was asked."""
    deployments: list[DeploymentRecord] = Field(default_factory=list)
    """By namespace and name."""
    gone: list[GoneRecord] = Field(default_factory=list)
    """Those that are not there any more; only Prometheus tells of them."""
    access: list[AccessRecord] = Field(default_factory=list)
    """By namespace."""
    unread: list[Unread] = Field(default_factory=list)
    """What could not be read."""
    coverage: Coverage
    """What it is good for."""
