"""What a user may read: `status` of a ModelDeployment. The only writer is the operator's status fold."""

from typing import Annotated

from pydantic import Field

from moe_operator.api.base import WHOLE_LIST, ApiModel, Extend
from moe_operator.api.cost import CostStatus
from moe_operator.api.hbm import HbmStatus
from moe_operator.api.scaling import ScalingStatus

_BY_TYPE = Extend(x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["type"])


class Condition(ApiModel):
    """A condition as Kubernetes defines it (metav1.Condition)."""

    type: Annotated[str, Field(max_length=316)]
    """One of the condition types in the API reference."""
    status: Annotated[str, Extend(enum=["True", "False", "Unknown"])]
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """One of the reasons in the API reference."""
    message: Annotated[str, Field(max_length=32768)]
    """What happened, with the numbers behind it, and what to do."""
    last_transition_time: Annotated[str, Extend(format="date-time")]
    """When `status` last changed."""
    observed_generation: int | None = None
    """Generation of the spec that this was said about."""


class MemoryStatus(ApiModel):
    """Memory of one GPU as planned, in MiB. The parts add up to the capacity."""

    capacity_mib: int
    """What the GPU has."""
    weights_mib: int
    """Weights on the fullest GPU."""
    kv_cache_mib: int
    """Left for the KV cache."""
    buffers_mib: int
    """Activations, CUDA graphs, communication."""
    headroom_mib: int
    """Not given to the engine."""


class PlanStatus(ApiModel):
    """The layout in effect for the wanted revision."""

    accelerator: str
    """Catalogue name."""
    width: int
    """GPUs (ranks x tensor) in a group."""
    pods_per_group: int
    """Pods, each on a node of its own, that make a group."""
    ranks_per_pod: int
    """Data-parallel engines in a pod."""
    tensor: int
    """GPUs of a rank."""
    data: int
    """Ranks of a group."""
    expert_parallel: int
    """Over how many GPUs the experts are spread."""
    fabric: str | None = None
    """What the GPUs of a group reach each other over; absent for a group of one GPU, and on `cpu`."""
    all_to_all: str | None = None
    """How tokens get to the GPUs of their experts (`--all2all-backend`); absent where they need not."""
    precision: str | None = None
    """Precision of the weights."""
    context_length: int | None = None
    """Longest request in tokens."""
    kv_cache_precision: str | None = None
    """Precision of the KV cache."""
    max_sequences: int | None = None
    """Requests that a rank runs at a time."""
    memory: MemoryStatus | None = None
    """One GPU's memory; absent for a model that the catalogue does not know."""
    kv_cache_tokens: int | None = None
    """Tokens that the KV caches of a group hold together, in requests of the planned length."""
    image: str
    """Container image of the engine."""


class Cause(ApiModel):
    """Why a group was given up."""

    reason: str
    """One of the causes of lost groups in the API reference, such as EngineExited."""
    message: str
    """What happened, with the engine's own last error line where there is one."""
    pod: str | None = None
    """The pod that it was seen on."""
    node: str | None = None
    """The node of that pod."""
    exit_code: int | None = None
    """The container's exit code. The engine ends with 0 in some failures too."""
    output: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=5), WHOLE_LIST] = Field(
        default_factory=list
    )
    """The engine's error lines, oldest first: the one that tells the cause and the last beside it, together at most
    1 KiB."""
    domain: str | None = None
    """Where the operator had put the group (`LABEL=VALUE`), if it found no room there."""


class UnhealthyGroup(ApiModel):
    """One group that does not serve, and why."""

    name: str
    """Name of the group's LeaderWorkerSet."""
    reason: str
    """One of the reasons in the API reference."""
    message: str
    """What is known about it."""
    since: str | None = None
    """Since when (RFC 3339)."""


class GroupsStatus(ApiModel):
    """Counts of groups."""

    desired: int = 0
    """Groups that are wanted."""
    current: int = 0
    """Groups that exist and are not on their way out."""
    ready: int = 0
    """Groups that are whole and take traffic."""
    updated: int = 0
    """Groups of the wanted revision."""
    draining: int = 0
    """Groups that finish their requests before they go."""
    summary: str = "0/0"
    """`ready/desired`, for the READY column."""
    unhealthy: Annotated[list[UnhealthyGroup], Field(max_length=8), WHOLE_LIST] = Field(default_factory=list)
    """Groups that do not serve, at most eight of them."""


class ThroughputStatus(ApiModel):
    """Tokens per second over the last telemetry window, all serving groups together."""

    prompt_tokens_per_second: int = 0
    """Prompt tokens read."""
    output_tokens_per_second: int = 0
    """Tokens generated."""


class PercentilesStatus(ApiModel):
    """In milliseconds, decimals in text. Each is absent where too few requests, or too wide a bucket, tell nothing."""

    p50: Annotated[str, Field(max_length=24)] | None = None
    """Half of the requests were as fast."""
    p95: Annotated[str, Field(max_length=24)] | None = None
    """95 of 100 were."""
    p99: Annotated[str, Field(max_length=24)] | None = None
    """99 of 100 were."""


class LatencyStatus(ApiModel):
    """Times that requests saw, by the engines' histograms: of all groups that serve or drain, pooled."""

    window_seconds: int
    """How far back."""
    time_to_first_token_milliseconds: PercentilesStatus | None = None
    """From a request's arrival at the engine to its first token."""
    time_per_output_token_milliseconds: PercentilesStatus | None = None
    """Mean between two tokens of a request, one figure for each request that ended."""


class ColdStartStatus(ApiModel):
    """How long the newest group took from its creation until it was ready, in seconds, by part.

    Pods of a group start side by side, so parts are those of the slowest pod and need not add up to the total.
    """

    group: str
    """The group that it was measured on."""
    created_time: str
    """When that group was created (RFC 3339)."""
    total: int
    """From the group's creation until its last pod was ready."""
    schedule: int
    """Until its pods had their nodes."""
    download: int | None = None
    """In init containers, which bring the weights to the node; absent where there are none."""
    image: int
    """Until the engine's container ran: pulling its image, mounting its volumes."""
    weights: int | None = None
    """Reading the weights into the accelerators' memory; absent where the engine does not say."""
    compile: int | None = None
    """Compiling kernels; absent where nothing was compiled."""
    graphs: int | None = None
    """Capturing graphs; absent where none were captured."""
    engine: int
    """All of the engine's own start, the three before included: from its container's start until it was ready."""


class AvoidedNode(ApiModel):
    """A node on which groups were lost again and again."""

    name: str
    """The node."""
    losses: int
    """Groups lost for which it was to blame, lately."""
    last_time: str
    """When the last of them was lost (RFC 3339)."""


class RolloutStatus(ApiModel):
    """A rollout, or a first start, that is under way."""

    revision: str
    """What groups are moving to."""
    updated: int
    """Groups of it that served at `progressTime`."""
    progress_time: str
    """When it last came further (RFC 3339): `rollout.progressDeadline` counts from here."""


class RecoveryStatus(ApiModel):
    """The ledger of failures: survives restarts of the operator and paces replacement."""

    revision: str | None = None
    """The revision that the counts are about: another one begins anew."""
    failures: int = 0
    """Groups lost in a row without one having served for long in between."""
    window_start_time: str | None = None
    """Since when losses are counted against `recovery.restartBudget` (RFC 3339)."""
    losses_in_window: int = 0
    """Groups lost since then."""
    parked_until: str | None = None
    """Until when no group is made, as the budget is spent or the rollout stopped (RFC 3339). Then one is tried."""
    last_failure_time: str | None = None
    """When a group was last lost (RFC 3339)."""
    next_attempt_time: str | None = None
    """No new group is created before this time."""
    last_cause: Cause | None = None
    """Why the last one was lost."""
    last_group: str | None = None
    """Which one it was."""
    counted: Annotated[list[str], Field(max_length=16), WHOLE_LIST] = Field(default_factory=list)
    """Uids of the newest groups that are counted already, so that none counts twice."""
    avoided_domains: Annotated[list[str], Field(max_length=16), WHOLE_LIST] = Field(default_factory=list)
    """Domains (`LABEL=VALUE`) in which groups found no room though GPUs were free, the newest last: further groups
    go elsewhere first, until groups have been well for a while."""
    suspect_nodes: Annotated[list[AvoidedNode], Field(max_length=16), WHOLE_LIST] = Field(
        default_factory=list
    )
    """Nodes that were to blame for losses lately. From the second loss on, from the first where the device itself
    failed, further groups go elsewhere where there is room, for an hour."""


class WeightsStatus(ApiModel):
    """The weights of the wanted revision, where a cache keeps them."""

    source: str
    """Where they come from, as a URL."""
    revision: str | None = None
    """What was asked for: a commit, tag or branch; absent: the default branch, or a source without revisions."""
    commit: str | None = None
    """What that was resolved to, once, when they were downloaded."""
    cache: str
    """Where they are kept: `claim NAME` or `hostPath /FOLDER`."""
    entry: str
    """Folder in the cache."""
    bytes: int = 0
    """Already there."""
    total_bytes: int = 0
    """Of all files; 0 until the source has told."""
    percent: int = 0
    """Of the bytes."""
    ready_since: str | None = None
    """Since when they are all there, checked (RFC 3339)."""


class ProvenanceStatus(ApiModel):
    """What the wanted revision runs, whose it is, where, and by whose leave: for records that an auditor asks for."""

    model: str
    """Name of the model."""
    licence: str
    """The model's, by the catalogue; `unknown` where that has none."""
    publisher: str
    """Organisation that published the weights; `unknown` where their address names none."""
    source: str
    """Address of the weights: the checkpoint that the plan chose, unless the spec names one."""
    revision: str | None = None
    """Commit, tag or branch that the spec asks for; absent: the default branch, or a source without revisions."""
    commit: str | None = None
    """The commit that is loaded. Absent where it is not known: engines that read a branch or tag themselves load what
    it points to when they start."""
    precision: str
    """Precision of the weights; `auto`: the checkpoint's own, of a model that the catalogue does not know."""
    adapters: Annotated[list[str], Field(max_length=32), WHOLE_LIST] = Field(default_factory=list)
    """Addresses of the LoRA adapters."""
    nodes: dict[str, list[str]] = Field(default_factory=dict)
    """Labels of the only nodes on which requests are processed, with the values that the policy allows; empty: any."""
    pod_security: str
    """The strictest Pod Security Standard that the pods keep to: `Privileged`, `Baseline` or `Restricted`."""
    policy_rule: str | None = None
    """The rule of the operator's policy that allowed it; absent without a policy."""


class ModelDeploymentStatus(ApiModel):
    """The observed state of a ModelDeployment."""

    observed_generation: int | None = None
    """Generation of the spec that this status is about."""
    conditions: Annotated[list[Condition], Field(max_length=16), _BY_TYPE] = Field(default_factory=list)
    """What holds: see the condition types and reasons in the API reference."""
    plan: PlanStatus | None = None
    """The layout in effect for the wanted revision."""
    revision: str | None = None
    """Name of the wanted revision, a ControllerRevision."""
    provenance: ProvenanceStatus | None = None
    """What that revision runs, whose it is and where. Kept while a changed spec is refused, as the revision is."""
    replicas: int = 0
    """Groups that exist and are not on their way out; read by `/scale`."""
    selector: str | None = None
    """Selects one pod of each group (its leader), so that `/scale` counts groups."""
    groups: GroupsStatus = GroupsStatus()
    """Counts of groups."""
    throughput: ThroughputStatus = ThroughputStatus()
    """Tokens per second over the last telemetry window, all serving groups together."""
    latency: LatencyStatus | None = None
    """Percentiles of the last minutes; absent while there are too few requests to tell."""
    hbm: HbmStatus | None = None
    """Memory of the GPUs that serve; absent while none do, and where nothing is known of it."""
    scaling: ScalingStatus | None = None
    """The last scaling decision."""
    rollout: RolloutStatus | None = None
    """The rollout, or first start, that is under way; absent when there is none, and while it is paused or stopped."""
    recovery: RecoveryStatus = RecoveryStatus()
    """The ledger of failures."""
    cold_start: ColdStartStatus | None = None
    """How long the newest group took to come up."""
    weights: WeightsStatus | None = None
    """The weights of the wanted revision; absent where engines read the source themselves."""
    cost: CostStatus | None = None
    """What the deployment took and what that cost."""
    endpoint: str | None = None
    """URL at which clients in the cluster reach the model."""
    engine_arguments: Annotated[list[str], Field(max_length=256), WHOLE_LIST] = Field(default_factory=list)
    """What `vllm serve` is started with."""
