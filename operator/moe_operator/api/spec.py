"""What a user may write: `spec` of a ModelDeployment.

Every field but `model.name` and `hardware` has a default that the plan fills in and the status shows.
Bounds that one field can state are here; rules over several fields are in `api.rules`.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from moe_operator.api import time_zones
from moe_operator.api.base import (
    NAMED_ITEMS,
    WHOLE_LIST,
    ApiModel,
    Between,
    Duration,
    Extend,
    KubernetesObject,
    MountObject,
    NamedObject,
    Quantity,
)
from moe_operator.api.compile_cache import CompileCacheSpec, CompileCaching
from moe_operator.api.cost import CostSpec
from moe_operator.api.features import AdapterSpec, ExpertBalancingSpec, SpeculationSpec
from moe_operator.api.weights import WeightsSpec

Name = Annotated[str, Field(min_length=1, max_length=253)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
Accelerator = Annotated[str, Field(min_length=1, max_length=63)]

#: A time of the day, 00:00 to 23:59.
TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)]

#: A word in the engine's arguments: no blanks, and no leading dash that would make it a flag.
_WORD = r"^[A-Za-z0-9._/][^\s]*$"


class ScalingMode(StrEnum):
    """Who decides how many groups there are."""

    AUTO = "Auto"
    ADVISORY = "Advisory"
    EXTERNAL = "External"


class WidthPolicy(StrEnum):
    """What is done about how wide groups are, once it is known what is asked of them."""

    FIXED = "Fixed"
    RECOMMEND = "Recommend"
    AUTO = "Auto"


class AgentMode(StrEnum):
    """Whether the operator's agent runs inside the engine's processes."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class PodSecurityProfile(StrEnum):
    """How far the engines' pods are confined."""

    BASELINE = "Baseline"
    RESTRICTED = "Restricted"


class GroupsOnDeletion(StrEnum):
    """What happens to requests when a ModelDeployment is deleted."""

    DRAIN = "Drain"
    IMMEDIATE = "Immediate"


class WeightsOnDeletion(StrEnum):
    """What happens to weights in a shared claim when the ModelDeployment that wanted them is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


class Goal(StrEnum):
    """What the planner prefers among layouts that fit."""

    CHEAPEST = "Cheapest"
    MOST_THROUGHPUT = "MostThroughput"
    FEWEST_GPUS = "FewestGPUs"


class Allocation(StrEnum):
    """How pods ask for their GPUs."""

    EXTENDED_RESOURCE = "ExtendedResource"
    RESOURCE_CLAIMS = "ResourceClaims"


class ConfigSource(ApiModel):
    """A ConfigMap in the same namespace that holds a model's `config.json`."""

    name: Name
    """Name of the ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "config.json"
    """Key in it."""


class ModelSpec(ApiModel):
    """The model to serve."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=_WORD)]
    """Name on the Hugging Face hub (`Qwen/Qwen3.5-397B-A17B`), or any name of yours where `source` says where
    the weights are. It cannot be changed: another model is another deployment."""
    source: Annotated[str, Field(pattern=r"^(hf|pvc|s3|oci)://[A-Za-z0-9][^\s]*$", max_length=512)] | None = (
        None
    )
    """Where the weights are: `hf://ORG/NAME` (default: from the name); `s3://BUCKET/PREFIX`; `pvc://CLAIM/PATH`, a
    folder on a PersistentVolumeClaim in the same namespace; `oci://IMAGE#PATH`, a folder in a container image, which
    is mounted as a volume (Kubernetes 1.33 with the gate ImageVolume, 1.35 without)."""
    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=_WORD)] | None = None
    """Commit, tag or branch on the hub."""
    served_name: Annotated[str, Field(min_length=1, max_length=253, pattern=_WORD)] | None = None
    """Name that clients put in a request's `model`; default: `name`."""
    context_length: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Longest request in tokens, prompt and output together; default: the model's own, or the longest that
    fits. Beyond the model's own, positions are stretched where the model allows it."""
    precision: (
        Annotated[str, Field(pattern=r"^(bf16|fp16|fp32|fp8|nvfp4|mxfp4|int4)$", max_length=8)] | None
    ) = None
    """Precision of the weights: `bf16`, `fp16`, `fp32`, `fp8`, `nvfp4`, `mxfp4` or `int4`. For a model of the
    catalogue it chooses the checkpoint; default: the publisher's own, the smallest of 8 bits or more that the
    GPUs compute in. 4 bits only where the model comes so, or when asked for."""
    kv_cache_precision: Annotated[str, Field(pattern=r"^(auto|fp8|nvfp4)$", max_length=8)] | None = None
    """Precision of the KV cache: `fp8`, `nvfp4` where the GPUs and the model's attention have kernels for it, or
    `auto` for the model's; default: what the checkpoint was calibrated for, else `auto`."""
    config_from: ConfigSource | None = None
    """The model's `config.json`, for a model that the catalogue does not know: with it the group is sized."""
    adapters: Annotated[list[AdapterSpec], Field(max_length=32), NAMED_ITEMS] = Field(default_factory=list)
    """LoRA adapters that are served beside the model. All of them are kept in GPU memory, for which the plan makes
    room; `engine.args` `max-loras` keeps fewer there at a time."""


class HardwareSpec(ApiModel):
    """The accelerators to run on. Exactly one of `accelerator` and `accelerators`."""

    accelerator: Accelerator | None = None
    """Catalogue name (`B200`), or what nodes call it (`NVIDIA-B200`); `cpu` for laptops and CI."""
    accelerators: Annotated[list[Accelerator], Field(min_length=1, max_length=8), WHOLE_LIST] | None = None
    """Accelerators in the order to fall back along: the first that the cluster has is used."""
    gpus_per_group: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Width of a group in GPUs; default: the plan's choice (of a model that the catalogue does not know, one node's
    GPUs; two ranks on `cpu`). A group wider than a node takes whole nodes."""
    gpus_per_node: Annotated[int, Field(ge=1, le=72)] | None = None
    """GPUs that a group uses on each node; default: read from the nodes. Pin it where nodes come only when
    pods ask for them, or where the operator may not read nodes. On `cpu`: ranks in a pod."""
    fabric: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None = None
    """Network between the nodes of a group: `mnnvl`, `efa`, `roce`, `infiniband`, `tcp`, or one that the operator's
    configuration adds; default: the best that the nodes show. A group within one node uses none."""
    allocation: Allocation | None = None
    """How pods ask for GPUs: `ExtendedResource` (`nvidia.com/gpu: 8`, of a device plugin) or `ResourceClaims` (of a
    driver for dynamic resource allocation); default: what the nodes offer, where they differ what most GPUs do."""


class ParallelismSpec(ApiModel):
    """Overrides the plan's layout: a group's width is tensor x data."""

    tensor: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one rank (tensor parallelism), all on one node; default 1."""
    data: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Ranks of one group (data parallelism); default: as many as the width holds."""


class ObjectiveSpec(ApiModel):
    """The latency that requests should see on average; mode Auto adds groups when it is missed."""

    time_to_first_token: Annotated[Duration, Between("1ms", "1h")] | None = None
    """From a request's arrival to its first token, for example `2s`."""
    time_per_output_token: Annotated[Duration, Between("1ms", "1h")] | None = None
    """Between two tokens of a request, for example `50ms`."""
    input_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Prompt of a usual request, for planning; default 2048."""
    output_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Output of a usual request, for planning; default 512."""
    goal: Goal = Goal.CHEAPEST
    """What the planner prefers: `Cheapest` per token among layouts that meet the latencies, `MostThroughput` per
    GPU whatever the latency, or `FewestGPUs` in a group."""


class ScaleDownSpec(ApiModel):
    """When groups go."""

    window: Annotated[Duration, Between("0s", "24h")] | None = None
    """Fewer groups must have been enough for this long before one goes; default: as cold starts and demand are learned,
    from 2m to 10m. A shorter one gives GPUs back sooner, and has a cold start between the next rise and them."""


class Weekday(StrEnum):
    """A day of the week."""

    MONDAY = "Monday"
    TUESDAY = "Tuesday"
    WEDNESDAY = "Wednesday"
    THURSDAY = "Thursday"
    FRIDAY = "Friday"
    SATURDAY = "Saturday"
    SUNDAY = "Sunday"


class ScheduleSpec(ApiModel):
    """A time of the day in which at least so many groups serve."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """Name, for messages."""
    days: Annotated[list[Weekday], Field(min_length=1, max_length=7), WHOLE_LIST] | None = None
    """Days on which it begins; default: every day."""
    begins: Annotated[TimeOfDay, Field(alias="from")]
    """When the groups are to serve, as `"07:30"`. They are made earlier, by as much as a start takes."""
    ends: Annotated[TimeOfDay, Field(alias="to")]
    """Until when; at or before `from`: on the next day. `from: "00:00"` and `to: "00:00"` are a whole day."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64, pattern=time_zones.PATTERN)] = "UTC"
    """Name in the time zone database, such as `Europe/Berlin`; its daylight saving time counts."""
    min_groups: Annotated[int, Field(ge=1, le=256)]
    """Fewest groups meanwhile, in place of a lower `scaling.minGroups`. `scaling.maxGroups` still holds."""


class ScalingSpec(ApiModel):
    """How many groups run."""

    mode: ScalingMode = ScalingMode.AUTO
    """`Auto`: the operator decides, within the limits. `External`: `spec.replicas` groups, within the limits; a metric
    says what Auto would do. `Advisory`: the same, and the status says it too."""
    min_groups: Annotated[int, Field(ge=0, le=256)] = 1
    """Fewest groups. With 0, mode Auto keeps one all the same, unless `scaleToZeroAfter` is set."""
    max_groups: Annotated[int, Field(ge=0, le=256)] | None = None
    """Most groups; default: `minGroups` in mode Auto, 256 in modes External and Advisory. Where the operator has chosen
    another width, as many as have no more GPUs together."""
    scale_down: ScaleDownSpec = ScaleDownSpec()
    """When groups go, in mode Auto and in what it recommends in the others. For more there is no window: groups come
    as soon as they are worth having."""
    scale_to_zero_after: Annotated[Duration, Between("1m", "168h")] | None = None
    """With `minGroups: 0`: once no request came for this long, the last group is drained, and there is none until a
    schedule or the annotation `moe-operator.dev/wake-until` (`kubectl moe wake`) asks for one. Requests that come
    meanwhile fail: nothing listens. Default: never."""
    schedules: Annotated[list[ScheduleSpec], Field(max_length=16), NAMED_ITEMS] = Field(default_factory=list)
    """Times in which there are more groups at least: for demand that is known ahead, and hours in which a model that
    otherwise scales to zero is there."""
    width: WidthPolicy = WidthPolicy.RECOMMEND
    """How wide groups are (GPUs in a group), where `hardware.gpusPerGroup` and `parallelism` leave that open.
    `Recommend`: the status says when another width would take clearly fewer GPU-hours for what is asked of this
    deployment. `Auto`: in mode Auto the operator moves to it too, one group at a time. `Fixed`: neither. A width that
    was chosen stays until another is, or the spec says one."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Who gets GPUs first where there are not enough. Floors (`minGroups`) of all ModelDeployments come before further
    groups of any; a higher priority comes before a lower one, and has groups of a lower one above its floor drained.
    Not the pods' priority (`podTemplate.priorityClassName`), for which the scheduler ends pods without drain."""


class ResourcesSpec(ApiModel):
    """Overrides of the engine container's resources; what is not named keeps the profile's value."""

    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """For example `memory: 64Gi`. The accelerator's own resource comes from the plan."""
    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """None by default but the accelerator's: a memory limit can end an engine while it loads."""


class SecretKey(ApiModel):
    """A key of a Secret in the same namespace. The kubelet reads it for the pod; the operator never does."""

    name: Name
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "api-key"
    """Key in it."""


class EngineSpec(ApiModel):
    """Overrides of the engine."""

    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s-][^\s]*$")] | None = None
    """Container image; default: the accelerator profile's."""
    args: dict[str, Annotated[str, Field(max_length=4096)]] = Field(default_factory=dict, max_length=64)
    """Flags of `vllm serve` without dashes: `max-num-seqs: "256"`; an empty value gives a bare flag.

    Flags that the operator derives (parallel layout, addresses, ports, model) are refused by name.
    """
    env: Annotated[list[NamedObject], Field(max_length=64), NAMED_ITEMS] = Field(default_factory=list)
    """Environment variables as in a container; names that the operator sets are refused."""
    resources: ResourcesSpec = ResourcesSpec()
    """Overrides of the engine container's resources."""
    api_key_secret: SecretKey | None = None
    """What clients must send as `Authorization: Bearer`. Probes, `/metrics` and the operator need none. Needs the
    agent, which closes the paths that vLLM leaves open and lets the operator's own requests through. Engines read it
    when they start: to roll a new key out, put it in another Secret or key and name that here."""
    pod_security: PodSecurityProfile = PodSecurityProfile.BASELINE
    """`Baseline`: as the image's own user, which is root in vLLM's images, without capabilities but those that the
    fabric needs. `Restricted`: not as root, without any capability, on a read-only file system, as the Pod Security
    Standard of that name asks; RDMA then needs nodes that do not limit locked memory."""
    run_as_user: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """User of the engine with `podSecurity: Restricted`; default 2000, which vLLM's images have. On OpenShift one of
    the namespace's range. Always of group 0, which must be able to read the weights."""
    agent: AgentMode = AgentMode.ENABLED
    """`Enabled`: the operator's agent runs inside the engine; it drains connections, reports the cause of a
    crash and answers the readiness probe. `Disabled`: the engine as it comes."""
    speculation: SpeculationSpec = SpeculationSpec()
    """Speculative decoding."""
    expert_balancing: ExpertBalancingSpec = ExpertBalancingSpec()
    """Whether experts get copies and are moved while a group serves."""
    compile_cache: CompileCacheSpec | None = None
    """Where compiled kernels are kept, so that a pod finds what an earlier one compiled; default: what the operator's
    configuration says (`compileCache.default`), else nowhere, and each pod compiles. It holds code that engines run:
    whoever can write to it can run code in them. Needs the agent."""
    compile_caching: CompileCaching = CompileCaching.AUTO
    """`Auto`: in `compileCache`, or in the site's default. `Disabled`: each pod compiles even where the site has a
    cache."""


class PodTemplateSpec(ApiModel):
    """What platform teams need to add to the pods. What the operator owns is refused by name."""

    labels: dict[str, LabelValue] = Field(default_factory=dict, max_length=32)
    """Added to the pods' labels."""
    annotations: dict[str, Annotated[str, Field(max_length=16384)]] = Field(
        default_factory=dict, max_length=32
    )
    """Added to the pods' annotations."""
    tolerations: Annotated[list[KubernetesObject], Field(max_length=32), WHOLE_LIST] = Field(
        default_factory=list
    )
    """Added to the accelerator's usual ones."""
    node_selector: dict[str, LabelValue] = Field(default_factory=dict, max_length=32)
    """Narrows the nodes of the accelerator, for the plan too."""
    affinity: KubernetesObject = Field(default_factory=dict)
    """Combined with what keeps a group on nodes of its accelerator."""
    image_pull_secrets: Annotated[list[NamedObject], Field(max_length=16), NAMED_ITEMS] = Field(
        default_factory=list
    )
    """Names of Secrets in the same namespace."""
    queue_name: LabelValue | None = None
    """LocalQueue of Kueue, in the same namespace, that admits each group as a whole (Kueue's integration of
    LeaderWorkerSet must be on). A group that waits for a queue is not given a place by the operator."""
    scheduler_name: Name | None = None
    """Scheduler that places the pods; default: the cluster's."""
    priority_class_name: Name | None = None
    """PriorityClass of the pods."""
    runtime_class_name: Name | None = None
    """RuntimeClass of the pods, for example `nvidia`."""
    volumes: Annotated[list[NamedObject], Field(max_length=32), NAMED_ITEMS] = Field(default_factory=list)
    """Further volumes of the pods."""
    volume_mounts: Annotated[
        list[MountObject],
        Field(max_length=32),
        Extend(x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["mountPath"]),
    ] = Field(default_factory=list)
    """Added to the engine container."""
    containers: Annotated[list[NamedObject], Field(max_length=8), NAMED_ITEMS] = Field(default_factory=list)
    """Further containers beside the engine."""


class RolloutSpec(ApiModel):
    """How groups move to a new revision, and how a group is drained."""

    max_surge: Annotated[int, Field(ge=0, le=16)] = 1
    """Groups above the wanted number while a new revision comes up."""
    max_unavailable: Annotated[int, Field(ge=0, le=16)] = 0
    """Groups below the wanted number while a new revision comes up. Not both 0."""
    drain_deadline: Annotated[Duration, Between("0s", "24h")] = "5m"
    """Longest wait for running requests of a group that is to go."""
    progress_deadline: Annotated[Duration, Between("1m", "24h")] = "1h"
    """A rollout in which no further group of the new revision has come to serve for this long is stopped: groups of
    it that do not serve give their nodes back, the earlier revision serves on, and one group is tried again after
    every `recovery.retryInterval`. Time in which weights are downloaded, and while paused, does not count."""
    history_limit: Annotated[int, Field(ge=1, le=50)] = 10
    """Revisions that are kept beside those that groups run, to go back to."""
    paused: bool = False
    """Groups stay of the revisions that they are of. They are still replaced, moved and scaled, with the revision that
    serves."""


class RecoverySpec(ApiModel):
    """When a group counts as lost, and is replaced."""

    stall_limit: Annotated[Duration, Between("10s", "24h")] = "120s"
    """Requests are running but no token comes for this long: the group hangs."""
    idle_canary: Annotated[Duration, Between("0s", "24h")] = "60s"
    """A group that has had no request for this long is asked for one token of each rank, and again after as long; three
    failures in a row, and it is replaced. `0s` for never; less than `10s` counts as `10s`."""
    unready_limit: Annotated[Duration, Between("5s", "24h")] = "60s"
    """A group that served has a pod that is not ready (its node is silent, say) for this long."""
    placement_limit: Annotated[Duration, Between("10s", "24h")] = "5m"
    """Some pods of a new group have nodes and others find none for this long: the group gives its nodes back and is
    made anew, elsewhere if there is room. A group of which no pod has a node holds nothing, and waits."""
    start_deadline: Annotated[Duration, Between("30s", "24h")] = "30m"
    """A new group is not whole after this long."""
    restart_budget: Annotated[int, Field(ge=1, le=1000)] = 5
    """Groups that may be lost within `budgetWindow`, for each wanted group. Beyond it no group is made until
    `retryInterval` is over; those that serve, serve on."""
    budget_window: Annotated[Duration, Between("1m", "24h")] = "1h"
    """Time in which losses are counted together."""
    retry_interval: Annotated[Duration, Between("1m", "24h")] = "30m"
    """With the budget spent, or a rollout stopped, one group is tried again after this long. A change of what reaches
    the pods is tried at once."""


class DeletionSpec(ApiModel):
    """What happens when the ModelDeployment is deleted."""

    groups: GroupsOnDeletion = GroupsOnDeletion.DRAIN
    """`Drain`: groups finish the requests that they have, as in a scale-down, within `rollout.drainDeadline`; until
    then a finalizer keeps the ModelDeployment. `Immediate`: they end at once, and no finalizer is used for them."""
    weights: WeightsOnDeletion = WeightsOnDeletion.KEEP
    """`Keep`: weights stay in their cache until room is needed. `Delete`: once the groups are gone, what this
    ModelDeployment had downloaded into a claim, adapters included, is removed unless others of the namespace use it;
    the finalizer waits for that for at most 5 minutes. Only with a claim (`weights.cache`, or the site's default)."""


class ModelDeploymentSpec(ApiModel):
    """The wanted state of a ModelDeployment."""

    model: ModelSpec
    """The model to serve."""
    hardware: HardwareSpec
    """The accelerators to run on."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """Overrides the plan's layout."""
    objective: ObjectiveSpec = ObjectiveSpec()
    """The latency that requests should see on average."""
    scaling: ScalingSpec = ScalingSpec()
    """How many groups run."""
    replicas: Annotated[int, Field(ge=0, le=256)] = 1
    """Groups in modes External and Advisory (also written by `kubectl scale`, HPA, KEDA); ignored in Auto."""
    engine: EngineSpec = EngineSpec()
    """Overrides of the engine."""
    pod_template: PodTemplateSpec = PodTemplateSpec()
    """What platform teams need to add to the pods."""
    weights: WeightsSpec = WeightsSpec()
    """Where weights are kept, so that they are downloaded once and not by every pod."""
    rollout: RolloutSpec = RolloutSpec()
    """How groups move to a new revision, and how a group is drained."""
    recovery: RecoverySpec = RecoverySpec()
    """When a group counts as lost, and is replaced."""
    deletion: DeletionSpec = DeletionSpec()
    """What happens when the ModelDeployment is deleted."""
    cost: CostSpec = CostSpec()
    """What GPUs cost, what may be spent, and what to compare with."""
