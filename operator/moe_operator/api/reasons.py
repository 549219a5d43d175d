"""Condition types and reasons: what they mean and what a user can do. Part of the API; never renamed.

Each constant is a plain string, as it stands in `status` and in Events. The entries behind them make the
generated API reference, so that every reason that can appear is explained there.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class ConditionType:
    """A condition that a ModelDeployment can carry."""

    name: str
    meaning: str
    """What status True says."""
    present: str
    """When the condition is there at all."""


@dataclass(frozen=True)
class Reason:
    """A reason that a condition, a group or an Event can carry."""

    name: str
    group: str
    """Heading in the API reference."""
    when: str
    """When it holds."""
    remedy: str
    """What the user can do; empty where there is nothing to do."""


_conditions: dict[str, ConditionType] = {}
_reasons: dict[str, Reason] = {}


def _condition(name: str, meaning: str, present: str = "always") -> str:
    _conditions[name] = ConditionType(name, meaning, present)
    return name


def _reason(group: str, name: str, when: str, remedy: str = "") -> str:
    if name in _reasons:
        raise ValueError(f"the reason {name} is declared twice")
    _reasons[name] = Reason(name, group, when, remedy)
    return name


def condition_types() -> tuple[ConditionType, ...]:
    """All condition types, in the order in which they are declared."""
    return tuple(_conditions.values())


def all_reasons() -> tuple[Reason, ...]:
    """All reasons, in the order in which they are declared."""
    return tuple(_reasons.values())


def describe(name: str) -> Reason | None:
    """What a reason means, or None for a name that is no reason of ours."""
    return _reasons.get(name)


# --- Condition types -----------------------------------------------------------------------------

READY = _condition("Ready", "The wanted minimum of groups serves the wanted revision.")
RECONCILING = _condition(
    "Reconciling",
    "The operator is bringing up, rolling out or replacing groups. Autoscaling alone never sets it.",
    present="only while true",
)
STALLED = _condition(
    "Stalled",
    "The operator cannot go on until the spec, its rights or the cluster's software change.",
    present="only while true",
)
PLANNED = _condition("Planned", "The spec has a layout on this cluster's nodes; `status.plan` shows it.")
WEIGHTS_READY = _condition("WeightsReady", "The model's weights are where the engine reads them.")
GROUPS_READY = _condition("GroupsReady", "Every wanted group is whole, admitted and of the wanted revision.")
SCALING_ACTIVE = _condition(
    "ScalingActive", "The number of groups follows a decision based on current figures."
)
CAPACITY_AVAILABLE = _condition("CapacityAvailable", "The cluster has room for every wanted group.")

# --- Reasons: the deployment as a whole ----------------------------------------------------------

_GENERAL = "Ready, Reconciling, GroupsReady"
SERVING = _reason(_GENERAL, "Serving", "The wanted minimum of groups serves the wanted revision.")
ALL_GROUPS_READY = _reason(_GENERAL, "AllGroupsReady", "Every wanted group is whole and takes traffic.")
SCALED_TO_ZERO = _reason(
    _GENERAL,
    "ScaledToZero",
    "No group is wanted, or none has to serve yet.",
    "`kubectl moe wake NAME` for a while, else raise `spec.scaling.minGroups` or `spec.replicas`.",
)
STARTING = _reason(
    _GENERAL, "Starting", "Groups are being created or load the model.", "Wait; `status.groups` counts them."
)
GROUPS_UNHEALTHY = _reason(
    _GENERAL,
    "GroupsUnhealthy",
    "Fewer groups serve than wanted because groups were lost.",
    "Read `status.groups.unhealthy` and `status.recovery.lastCause`; the operator replaces them by itself.",
)
SCALING = _reason(_GENERAL, "Scaling", "The minimum serves; further groups are on their way.")
ROLLING_OUT = _reason(_GENERAL, "RollingOut", "Groups are moving to a new revision one by one.")
ROLLOUT_PAUSED = _reason(
    _GENERAL,
    "RolloutPaused",
    "`rollout.paused` keeps groups on the revisions that they are of, and another one is wanted.",
    "Set `rollout.paused: false` to go on.",
)
LEAVING_NODES = _reason(
    _GENERAL,
    "LeavingNodes",
    "Groups move off nodes that are cordoned or about to go.",
    "Wait. Without free GPUs for a new group first, set `rollout.maxUnavailable: 1`.",
)
DELETING = _reason(
    _GENERAL,
    "Deleting",
    "The deployment is being deleted; its groups finish their requests, then its weights go where `deletion.weights`"
    " says so.",
)

# --- Reasons: what stops a spec ------------------------------------------------------------------

_SPEC = "Stalled, Planned"
PLANNED_REASON = _reason(_SPEC, "Planned", "The spec has a layout.")
INVALID_SPEC = _reason(
    _SPEC,
    "InvalidSpec",
    "The stored spec breaks a rule (it was stored before the rule existed, for example).",
    "Correct the fields that the message names.",
)
UNKNOWN_TIME_ZONE = _reason(
    _SPEC,
    "UnknownTimeZone",
    "A schedule names a time zone that the time zone database does not have. The other schedules hold meanwhile.",
    "Write `scaling.schedules[].timeZone` as the database does: `Europe/Berlin`, `America/New_York`, `UTC`.",
)
INVALID_NAME = _reason(
    _SPEC,
    "InvalidName",
    "The name of the ModelDeployment cannot carry its groups' names.",
    "Create it under another name: at most 45 characters, not ending in -g and a number.",
)
INVALID_LAYOUT = _reason(
    _SPEC,
    "InvalidLayout",
    "The wanted width or parallelism does not fit the nodes.",
    "Use one of the widths that the message offers, or leave the field out.",
)
UNKNOWN_ACCELERATOR = _reason(
    _SPEC,
    "UnknownAccelerator",
    "The catalogue has no accelerator of this name.",
    "Use one of the names that the message lists.",
)
RESERVED_ARGUMENT = _reason(
    _SPEC,
    "ReservedArgument",
    "`engine.args` or `engine.env` sets something that the operator derives.",
    "Set the field that the message names instead.",
)
RESERVED_FIELD = _reason(
    _SPEC,
    "ReservedField",
    "`podTemplate` sets something that the operator owns.",
    "Remove it, or give it another name.",
)
NO_NODES = _reason(
    _SPEC,
    "NoNodes",
    "No node of the cluster has the accelerator.",
    "Add or label nodes, or pin `hardware.gpusPerNode` where nodes come only when pods ask for them.",
)
UNKNOWN_FABRIC = _reason(
    _SPEC,
    "UnknownFabric",
    "`hardware.fabric` names a network that the catalogue lacks, or that the accelerator cannot have.",
    "Use one of the names that the message lists, or add the network to `fabrics` in the operator's configuration.",
)
FABRIC_MISSING = _reason(
    _SPEC,
    "FabricMissing",
    "The nodes do not have the network that `hardware.fabric` names, or nobody offers its adapters.",
    "Name the resource that the message lists in the operator's configuration (`fabrics.NAME.rdmaResource`), name"
    " another network, or let the group fit into a node.",
)
DOES_NOT_FIT = _reason(
    _SPEC,
    "DoesNotFit",
    "No layout of the model fits into the memory of the wanted GPUs, however many of them are free.",
    "Make one of the changes that the message lists: each was tried.",
)
POLICY_VIOLATION = _reason(
    _SPEC,
    "PolicyViolation",
    "The policy in the operator's configuration does not allow what the spec would run. What runs already runs on.",
    "Change what the message names to what it says is allowed, or have the policy's rule changed.",
)
LEADER_WORKER_SET_MISSING = _reason(
    _SPEC,
    "LeaderWorkerSetMissing",
    "The cluster does not serve leaderworkersets.leaderworkerset.x-k8s.io/v1.",
    "Install LeaderWorkerSet; the operator goes on by itself.",
)
LEADER_WORKER_SET_TOO_OLD = _reason(
    _SPEC,
    "LeaderWorkerSetTooOld",
    "The cluster's LeaderWorkerSet lacks a field that groups need.",
    "Upgrade LeaderWorkerSet to the version that the message names.",
)
RESOURCE_CLAIMS_UNSUPPORTED = _reason(
    _SPEC,
    "ResourceClaimsUnsupported",
    "The plan asks for GPUs by ResourceClaims, and the cluster does not serve `resource.k8s.io/v1`.",
    "Upgrade to Kubernetes 1.34 or later, or set `hardware.allocation: ExtendedResource` where a device plugin runs.",
)
DEVICE_CLASS_MISSING = _reason(
    _SPEC,
    "DeviceClassMissing",
    "The plan asks for GPUs by ResourceClaims, and the cluster lacks the DeviceClass that gives them.",
    "Install the driver that the message names, or name the site's own class in the operator's configuration"
    " (`deviceClasses`); the operator goes on by itself.",
)
COMPUTE_DOMAIN_MISSING = _reason(
    _SPEC,
    "ComputeDomainMissing",
    "Ranks reach each other's GPU memory over NVLink's fabric, and the cluster does not serve"
    " `computedomains.resource.nvidia.com`.",
    "Install NVIDIA's DRA driver for GPUs with ComputeDomains; or keep a group within a node"
    " (`hardware.gpusPerGroup`), or choose another fabric (`hardware.fabric`). The operator goes on by itself.",
)
ROLLOUT_STOPPED = _reason(
    _SPEC,
    "RolloutStopped",
    "Groups of the wanted revision do not come up; those of the earlier one serve on.",
    "Read `status.recovery.lastCause`; correct the spec, or apply the earlier one again. One group is tried at the"
    " time that the message says.",
)
PROGRESS_DEADLINE = _reason(
    _SPEC,
    "ProgressDeadlineExceeded",
    "A rollout, or a first start, has not come further for `rollout.progressDeadline`.",
    "Read what its groups wait for in the message: nodes, mostly, or an image.",
)
PARKED = _reason(
    _SPEC,
    "RestartBudgetSpent",
    "More groups were lost within `recovery.budgetWindow` than `recovery.restartBudget` allows, so none is made until"
    " `recovery.retryInterval` is over.",
    "Read `status.recovery.lastCause` and mend it; a change of what reaches the pods is tried at once.",
)
FORBIDDEN = _reason(
    _SPEC,
    "Forbidden",
    "The API server, an admission policy or a quota refused a write.",
    "Read the message; grant the right, or change what the policy objects to.",
)
NAME_CONFLICT = _reason(
    _SPEC,
    "NameConflict",
    "An object that the operator did not make has the name of one it needs.",
    "Rename or delete that object, or use another name for the ModelDeployment.",
)
REFUSED = _reason(
    _SPEC,
    "Refused",
    "The API server found an object that the operator wanted to write invalid.",
    "Read the message: usually a field of `podTemplate` or `engine` that Kubernetes does not accept.",
)

# --- Reasons: weights, capacity, scaling ---------------------------------------------------------

_WEIGHTS = "WeightsReady"
WEIGHTS_CACHED = _reason(
    _WEIGHTS, "WeightsCached", "The weights are in the cache, checked against the source."
)
WEIGHTS_MOUNTED = _reason(
    _WEIGHTS, "WeightsMounted", "The weights are on a claim or in an image, and engines read them there."
)
ENGINE_DOWNLOADS = _reason(
    _WEIGHTS,
    "EngineDownloads",
    "There is no cache: each pod reads the source itself whenever it starts.",
    "Set `weights.cache`, or a default in the operator's configuration.",
)
NODES_DOWNLOAD = _reason(
    _WEIGHTS,
    "NodesDownload",
    "Each node downloads once into its own folder, before its first engine starts.",
)
WEIGHTS_WAITING = _reason(
    _WEIGHTS,
    "WeightsWaiting",
    "The pod that downloads has not started.",
    "Read the message: a claim that is not bound, no node, or an image.",
)
WEIGHTS_DOWNLOADING = _reason(
    _WEIGHTS, "WeightsDownloading", "The weights are being downloaded; groups are made once they are there."
)
WEIGHTS_UNAUTHORIZED = _reason(
    _WEIGHTS,
    "WeightsUnauthorized",
    "The source refuses the credentials, or asks for some.",
    "Correct the Secret of `weights.credentialsSecret`, or accept the model's licence; it is tried again every 30 s.",
)
WEIGHTS_NOT_FOUND = _reason(
    _WEIGHTS,
    "WeightsNotFound",
    "The source has no such model or revision.",
    "Correct `model.source`, `model.name` or `model.revision`. Hubs say so of private models too.",
)
WEIGHTS_BAD_SOURCE = _reason(
    _WEIGHTS,
    "WeightsBadSource",
    "What the source holds cannot be served.",
    "Read the message: usually a repository without safetensors, or a wrong folder.",
)
WEIGHTS_BAD_CACHE = _reason(
    _WEIGHTS,
    "WeightsBadCache",
    "The cache cannot be written to.",
    "Let user or group 65532 write to the claim, or see what the message says.",
)
WEIGHTS_CLAIM_NOT_SHARED = _reason(
    _WEIGHTS,
    "WeightsClaimNotShared",
    "A claim of weights or compiled kernels can be mounted by one node or pod at a time, and more are wanted.",
    "Use a ReadWriteMany claim: delete the claim and make it again so, or name another; it is taken up by itself.",
)
WEIGHTS_UNREACHABLE = _reason(
    _WEIGHTS,
    "WeightsUnreachable",
    "The source does not answer.",
    "Check the way out of the cluster, or name a mirror in the operator's configuration (`weights.endpoint`).",
)
WEIGHTS_CORRUPT = _reason(
    _WEIGHTS,
    "WeightsCorrupt",
    "A file is not what the source says it should be; it is named, and never given to an engine.",
    "It is downloaded again by itself. If it stays so, the source or the storage is at fault.",
)
WEIGHTS_DISK_FULL = _reason(
    _WEIGHTS,
    "WeightsDiskFull",
    "The cache has no room for the weights.",
    "Raise `weights.cache.size`, free space, or use another cache; it is tried again every minute.",
)
WEIGHTS_FAILED = _reason(
    _WEIGHTS,
    "WeightsFailed",
    "The download ended without saying why.",
    "Read the log of the pod that the message names.",
)
HOST_PATH_NOT_ALLOWED = _reason(
    _SPEC,
    "HostPathNotAllowed",
    "The operator's configuration does not allow this folder of the nodes as a cache.",
    "Use a folder that the message lists, or have it added to `weights.hostPaths` or `compileCache.hostPaths`.",
)

_CAPACITY = "CapacityAvailable"
CAPACITY_SUFFICIENT = _reason(_CAPACITY, "CapacitySufficient", "All pods of all groups have a node.")
CAPACITY_SHORT = _reason(
    _CAPACITY,
    "CapacityShort",
    "The model fits the GPUs, but not enough of them are free for every wanted group.",
    "Free or add nodes, lower `scaling.minGroups`, or add an accelerator to fall back to.",
)
WAITING_FOR_GPUS = _reason(
    _CAPACITY,
    "WaitingForGpus",
    "Groups are not made yet, as other ModelDeployments come first or are drained for them, or as no nodes have room"
    " for a whole one: `status.scaling.waiting` says which.",
    "Free or add nodes, raise `scaling.priority`, or lower `scaling.minGroups` or `maxGroups` of others.",
)
UNSCHEDULABLE = _reason(
    _CAPACITY,
    "Unschedulable",
    "The scheduler finds no node for a pod of a group.",
    "Read the scheduler's words in the message; free or add nodes, or lower the width or the limits.",
)

SCHEDULING_GATED = _reason(
    _CAPACITY,
    "SchedulingGated",
    "Pods of a group carry scheduling gates: a queue such as Kueue's has not admitted the group yet.",
    "Look at the queue that the message names: its quota, and what is before this group.",
)
CLAIM_PENDING = _reason(
    _CAPACITY,
    "ClaimPending",
    "A pod waits for a ResourceClaim that is not made: its ResourceClaimTemplate is missing, for example.",
    "Read the message; for an NVLink channel, see whether NVIDIA's compute-domain controller runs.",
)

# --- Reasons: why a group was given up -----------------------------------------------------------

_CAUSE = "Causes of lost groups"
ENGINE_EXITED = _reason(
    _CAUSE,
    "EngineExited",
    "The engine of a pod ended, and nothing that it said has a reason of its own; its last error line is in the"
    " message.",
    "Read the message and `status.recovery.lastCause.output`.",
)
OUT_OF_MEMORY = _reason(
    _CAUSE,
    "OutOfMemory",
    "The pod or the node ran out of main memory: the kernel ended the engine, or refused it more.",
    "Raise `engine.resources`, or use nodes with more memory.",
)
ACCELERATOR_OUT_OF_MEMORY = _reason(
    _CAUSE,
    "AcceleratorOutOfMemory",
    "The engine found too little memory on its GPU; the message has the sizes.",
    "Lower `model.contextLength`; with an allocation that failed, `engine.args` `max-num-seqs`,"
    " `max-num-batched-tokens` or `gpu-memory-utilization`; or take a wider group (`hardware.gpusPerGroup`). Where much"
    " less was free than the GPU has, another process holds it.",
)
ACCELERATOR_FAULT = _reason(
    _CAUSE,
    "AcceleratorFault",
    "A GPU, its driver or its links failed: the engine said so, or DCGM exporter showed an Xid after which a GPU is not"
    " to be used, or a failed row remapping. The message names the node.",
    "Look at the node: `dmesg` for Xid, `nvidia-smi -q` for ECC errors. Cordon it if it comes again there; on several"
    " nodes, an illegal memory access is the engine's own: another `engine.image`, or other kernels in `engine.args`.",
)
TRANSPORT_FAILED = _reason(
    _CAUSE,
    "TransportFailed",
    "Ranks could not reach each other: NCCL, gloo, NVSHMEM, UCX or the RDMA adapters beneath.",
    "Read the message. New everywhere: the fabric, its adapters or a network policy; on one node: that node's."
    " `NCCL_DEBUG: INFO` in `engine.env` has it say more.",
)
WEIGHTS_UNREADABLE = _reason(
    _CAUSE,
    "WeightsUnreadable",
    "The engine could not read the model's files, was refused them, or they are not of the model in its `config.json`.",
    "Correct `model.source`, `model.revision` or the Secret that opens it; a file that is damaged on a claim has to be"
    " copied there again.",
)
ARGUMENT_REFUSED = _reason(
    _CAUSE,
    "ArgumentRefused",
    "vLLM does not accept an argument or a combination of them.",
    "Correct what the message names in `engine.args`; with an `engine.image` of another version, it may not know an"
    " argument that the operator gives.",
)
PORT_TAKEN = _reason(
    _CAUSE,
    "PortTaken",
    "Another process has a port that the engine needs.",
    "With `hostNetwork`, keep engines and other servers of a node apart; else look for a container of `podTemplate`"
    " that listens on the port.",
)
POD_LOST = _reason(
    _CAUSE,
    "PodLost",
    "A pod of the group is gone: deleted, evicted or preempted.",
    "Find who deleted it; a PodDisruptionBudget protects against evictions only.",
)
POD_NOT_READY = _reason(
    _CAUSE,
    "PodNotReady",
    "A pod of a group that served was not ready for `recovery.unreadyLimit`.",
    "Read the pod's events and the engine's log.",
)
NODE_NOT_READY = _reason(
    _CAUSE, "NodeNotReady", "The node of a pod stopped reporting.", "Repair or remove the node."
)
ENGINE_STALLED = _reason(
    _CAUSE,
    "EngineStalled",
    "Requests were running but no token came for `recovery.stallLimit`.",
    "Read the engine's log; raise the limit if single steps may take that long.",
)
IDLE_CANARY_FAILED = _reason(
    _CAUSE,
    "IdleCanaryFailed",
    "A group without requests was asked for a token (`recovery.idleCanary`), and three times in a row a rank gave none,"
    " or one whose log-probability is no number.",
    "Read the answer in the message and the engine's log. Again on the same node: its GPUs or links compute nonsense;"
    " everywhere: `engine.args`, or the precision.",
)
START_DEADLINE = _reason(
    _CAUSE,
    "StartDeadline",
    "A new group was not whole within `recovery.startDeadline`.",
    "Raise the deadline if loading takes that long; else read the pods' events and logs.",
)
PLACED_IN_PART = _reason(
    _CAUSE,
    "PlacedInPart",
    "Some pods of a new group had nodes, others found none for `recovery.placementLimit`; the nodes were given back.",
    "Free or add nodes where the message says that they are missing; the next group is made after the back-off.",
)
NOT_PLACED = _reason(
    _CAUSE,
    "NotPlaced",
    "No pod of a new group found a node in its domain for `recovery.placementLimit`, and another domain has room.",
    "Nothing: the next group goes there. The scheduler's words say what the first domain lacked.",
)
CANARY_FAILED = _reason(
    _CAUSE,
    "CanaryFailed",
    "A rank of a new group did not answer one token.",
    "Read the message and the engine's log; `engine.args` are the usual suspect.",
)

# --- Reasons: what keeps a new group from coming up ----------------------------------------------

_WAITS = "What keeps a new group from coming up"
IMAGE_ERROR = _reason(
    _WAITS,
    "ImageError",
    "A container image cannot be pulled.",
    "Read the registry's words in the message; correct `engine.image` or `podTemplate.imagePullSecrets`.",
)
INVALID_IMAGE_NAME = _reason(
    _WAITS,
    "InvalidImageName",
    "A container's image is no name that a registry could have.",
    "Correct `engine.image`, or the container's in `podTemplate`.",
)
CONTAINER_CONFIG_ERROR = _reason(
    _WAITS,
    "CreateContainerConfigError",
    "A container names what is not there: a Secret, a ConfigMap or a key of one.",
    "Create what the message names, or correct `engine.env`, `podTemplate` or `weights.credentialsSecret`; the kubelet"
    " tries again by itself.",
)
CONTAINER_CREATE_ERROR = _reason(
    _WAITS,
    "CreateContainerError",
    "The node's container runtime cannot create or start a container.",
    "Read its words in the message: a command that the image lacks, a device or a mount of the node.",
)
CRASH_LOOP = _reason(
    _WAITS,
    "CrashLoopBackOff",
    "A container of a group that has not come up ends again and again; the message has its exit code and last words.",
    "Read its log: `kubectl logs POD -c CONTAINER --previous`.",
)
INIT_CONTAINER_FAILED = _reason(
    _WAITS,
    "InitContainerFailed",
    "A container that runs before the engine ended with an error; the message has its exit code and last words.",
    "Read its log: `kubectl logs POD -c CONTAINER --previous`.",
)
CONTAINER_WAITING = _reason(
    _WAITS,
    "ContainerWaiting",
    "A container does not start for a reason of the kubelet's that has no entry here; its words are in the message.",
    "Read the message and the pod's Events.",
)
PODS_REFUSED = _reason(
    _WAITS,
    "PodsRefused",
    "Pods of a group were never created: a quota or an admission policy refuses them.",
    "Read the API server's words in the message; raise the quota, or change what the policy objects to. StatefulSets"
    " try again by themselves, after longer and longer pauses: up to 17 minutes.",
)
VOLUMES_NOT_MOUNTED = _reason(
    _WAITS,
    "VolumesNotMounted",
    "A pod has its node, and a volume of it cannot be attached or mounted there.",
    "Read the kubelet's words in the message: a claim that is used on another node, a Secret or ConfigMap that is"
    " missing, or the storage's driver on that node.",
)
POD_SANDBOX_FAILED = _reason(
    _WAITS,
    "PodSandboxFailed",
    "A pod has its node, and the node cannot set up its network or its sandbox.",
    "Read the message: usually the node's network plugin, or its container runtime.",
)
LEADER_WORKER_SET_SILENT = _reason(
    _WAITS,
    "LeaderWorkerSetSilent",
    "The LeaderWorkerSet of a group is there, and nothing has been made for it: its controller does not act.",
    "See that LeaderWorkerSet's controller runs and what its log says; the message names where it usually is.",
)
LEADER_WORKER_SET_UNAVAILABLE = _reason(
    _WAITS,
    "LeaderWorkerSetUnavailable",
    "LeaderWorkerSet's admission webhook does not answer, so neither groups nor their pods can be made or changed. What"
    " serves, serves on.",
    "See that the pods behind the Service that the message names run; the operator goes on by itself.",
)
WEBHOOK_UNAVAILABLE = _reason(
    _WAITS,
    "WebhookUnavailable",
    "An admission webhook of the cluster does not answer, and the API server refuses what it should have been asked"
    " about.",
    "See that the pods behind the Service that the message names run; the operator goes on by itself.",
)


# --- Reasons: steps in the life of a group (Events) ---------------------------------------------

_STEP = "Steps in the life of a group"
GROUP_WANTED = _reason(_STEP, "GroupWanted", "A group was created because fewer live than wanted.")
ROLLOUT = _reason(_STEP, "Rollout", "A group of a new revision was created beside older ones.")
WAKE_UNREADABLE = _reason(
    _STEP,
    "WakeUnreadable",
    "The annotation `moe-operator.dev/wake-until` holds no time, and is ignored.",
    "Write it with `kubectl moe wake NAME`, or as RFC 3339 has times: `2027-01-15T18:00:00Z`.",
)
GROUP_LOST = _reason(_STEP, "GroupLost", "A broken group was deleted; the Event names the cause.")
SUPERSEDED = _reason(_STEP, "Superseded", "A group of an earlier revision goes.")
SCALED_DOWN = _reason(_STEP, "ScaledDown", "A group goes because fewer are wanted.")
RECLAIMED = _reason(
    _STEP,
    "Reclaimed",
    "A group goes because a ModelDeployment of higher `scaling.priority` waits for its GPUs; or it had nodes for some"
    " of its pods only, and another group becomes whole on these.",
    "Raise `scaling.minGroups` to keep more, or `scaling.priority`.",
)
NODE_MAINTENANCE = _reason(
    _STEP, "NodeMaintenance", "A group moves, as one of its nodes is cordoned or about to go."
)
DRAINING = _reason(_STEP, "Draining", "A group gets no new requests and finishes those it has.")
DRAINED = _reason(_STEP, "Drained", "A drained group has no requests left and was deleted.")
DRAIN_DEADLINE = _reason(
    _STEP,
    "DrainDeadline",
    "A group still had requests at `rollout.drainDeadline` and was deleted.",
    "Raise the deadline if requests may take that long.",
)
UNDRAINED = _reason(
    _STEP,
    "Undrained",
    "A group that drained stays, as more groups are wanted again: it is warm, a new one takes minutes.",
)
MEMORY_OFF_PLAN = _reason(
    _STEP,
    "MemoryOffPlan",
    "GPUs hold more or less beside the KV cache than was planned for weights, activations and buffers, by more than 5"
    " percent of a GPU (`status.hbm.plannerErrorPercent`).",
    "More: the KV cache is smaller than planned; compare `status.plan.memory` with `kubectl moe plan`, and look for"
    " another process on the GPU. `gpu-memory-utilization` in `engine.args` leaves more or less room.",
)
WIDTH_RECOMMENDED = _reason(
    _STEP,
    "WidthRecommended",
    "Groups of another width would take clearly fewer GPU-hours (`status.scaling.recommendedWidth`).",
    "Set `scaling.width: Auto`, or `hardware.gpusPerGroup`; with `scaling.width: Fixed` no more is said of it.",
)
WIDTH_CHOSEN = _reason(
    _STEP,
    "WidthChosen",
    "Groups move to another width, by `scaling.width: Auto`.",
    "Set `hardware.gpusPerGroup` to have a width of your own.",
)
WIDTH_GIVEN_UP = _reason(
    _STEP,
    "WidthGivenUp",
    "Groups of the chosen width did not come to serve: those of the width before stay, or come back.",
    "See the cause of the lost groups.",
)
BUDGET_SPENT = _reason(
    _STEP,
    "BudgetSpent",
    "What `cost.budget` allows for the day or month is spent. With `action: Hold` no more groups are made than there"
    " are, until the next one begins.",
    "Raise `cost.budget.amount`, or wait: `status.cost.budget.resetsAt` says until when.",
)
BUDGET_RESUMED = _reason(
    _STEP, "BudgetResumed", "A new day or month began, or the budget was raised: scaling goes on."
)
WEIGHTS_REMOVED = _reason(
    _STEP,
    "WeightsRemoved",
    "A deleted deployment's weights are gone from their claim (`deletion.weights: Delete`).",
)
WEIGHTS_LEFT = _reason(
    _STEP,
    "WeightsLeft",
    "A deployment with `deletion.weights: Delete` is gone, and weights of its stay in their claim: others use them"
    " (Normal), or they could not be removed in time (Warning).",
    "The message of a Warning says what is left and how to remove it.",
)


class ScalingReason(StrEnum):
    """Why the number of groups is what it is (`status.scaling.reason`)."""

    REPLICAS = "Replicas"
    REPLICAS_LIMITED = "ReplicasLimited"
    LIMITS_LEAVE_ONE = "LimitsLeaveOne"
    WITHIN_OBJECTIVE = "WithinObjective"
    REQUESTS_WAITING = "RequestsWaiting"
    DEMAND_GROWS = "DemandGrows"
    LOAD_FITS_IN_FEWER = "LoadFitsInFewer"
    AT_MAXIMUM = "AtMaximum"
    LIMITS_CHANGED = "LimitsChanged"
    TELEMETRY_MISSING = "TelemetryMissing"
    NO_GROUP_SERVES = "NoGroupServes"
    OBSERVING = "Observing"
    IDLE = "Idle"
    SCHEDULED = "Scheduled"
    WOKEN = "Woken"
    BUDGET_HOLDS = "BudgetHolds"


_SCALING = "Scaling decisions"
_SCALING_WHEN: dict[ScalingReason, tuple[str, str]] = {
    ScalingReason.REPLICAS: ("Modes External and Advisory: `spec.replicas` says it.", ""),
    ScalingReason.REPLICAS_LIMITED: (
        "Modes External and Advisory: `spec.replicas` is outside `scaling.minGroups` and `maxGroups`.",
        "Change the limits or the replicas.",
    ),
    ScalingReason.LIMITS_LEAVE_ONE: (
        "The limits leave one number (`maxGroups` is no more than `minGroups`): nothing is measured for it.",
        "",
    ),
    ScalingReason.WITHIN_OBJECTIVE: ("The groups carry the load within the objective.", ""),
    ScalingReason.REQUESTS_WAITING: (
        "More: the groups are full, and requests wait or take longer than the objective.",
        "",
    ),
    ScalingReason.DEMAND_GROWS: (
        "More: by the time another group serves, too many requests would be late with those that there are.",
        "",
    ),
    ScalingReason.LOAD_FITS_IN_FEWER: (
        "Fewer: the load, and what may come before a group could be had again, fits in fewer groups.",
        "",
    ),
    ScalingReason.AT_MAXIMUM: (
        "More groups are needed than `scaling.maxGroups` allows.",
        "Raise `scaling.maxGroups`.",
    ),
    ScalingReason.LIMITS_CHANGED: (
        "The number was outside the limits and moved to the nearer one.",
        "None where that was meant. Set `scaling.maxGroups` before `mode: Auto`: without it Auto stays at the fewest.",
    ),
    ScalingReason.TELEMETRY_MISSING: (
        "A group gives no current figures, so none goes.",
        "Read the operator's log: pods must answer GET /metrics to the operator.",
    ),
    ScalingReason.NO_GROUP_SERVES: ("No group serves yet, so there is nothing to measure.", ""),
    ScalingReason.OBSERVING: (
        "Fewer groups would do, but not yet for long enough; or nothing was measured yet.",
        "",
    ),
    ScalingReason.IDLE: (
        "None: no request came for `scaling.scaleToZeroAfter`, and nothing has woken the deployment since.",
        "`kubectl moe wake NAME`, or `scaling.schedules` for hours that are known.",
    ),
    ScalingReason.SCHEDULED: (
        "More: a schedule (`scaling.schedules`) asks for them, now or as soon as a group could serve.",
        "",
    ),
    ScalingReason.WOKEN: (
        "From none to one: the annotation `moe-operator.dev/wake-until` asks for it, or a request came just before the"
        " last group left the traffic.",
        "",
    ),
    ScalingReason.BUDGET_HOLDS: (
        "More groups are asked for than there are, and `cost.budget` is spent (`action: Hold`).",
        "Raise `cost.budget.amount`, or wait for the next day or month (`status.cost.budget.resetsAt`).",
    ),
}
for _member, (_when, _remedy) in _SCALING_WHEN.items():
    _reason(_SCALING, _member.value, _when, _remedy)


class WaitingReason(StrEnum):
    """What a group without room waits for (`status.scaling.waiting.reason`)."""

    DRAINING = "GpusDraining"
    RECLAIMING = "GpusReclaimed"
    RECLAIM_DUE = "ReclaimDue"
    BEHIND = "BehindOthers"
    NO_ROOM = "NoRoom"


_WAITING = "Reasons for waiting"
_WAITING_WHEN: dict[WaitingReason, tuple[str, str]] = {
    WaitingReason.DRAINING: ("Groups that drain make room for it.", ""),
    WaitingReason.RECLAIMING: ("Groups of lower `scaling.priority` are drained for it.", ""),
    WaitingReason.RECLAIM_DUE: ("The same, once it has waited for 30 s: shorter waits drain nothing.", ""),
    WaitingReason.BEHIND: (
        "Others come first: floors before further groups, then by `scaling.priority`, then by the loss that a group"
        " avoids.",
        "Raise `scaling.priority`, or free or add nodes.",
    ),
    WaitingReason.NO_ROOM: (
        "It is the first in the queue: its group is made, and its pods wait for a node. A group of several nodes is not"
        " made while some of its pods would find one and others not.",
        "Free or add nodes.",
    ),
}
for _reason_of_wait, (_when, _remedy) in _WAITING_WHEN.items():
    _reason(_WAITING, _reason_of_wait.value, _when, _remedy)
