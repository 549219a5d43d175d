"""What a user may write: `spec` of a ModelDeployment.

Every field but `model.name` and `hardware` has a default that the plan fills in and the status shows.
Bounds that one field can state are here; rules over several fields are CEL rules in `api.rules`.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from moe_operator.api.base import ApiModel, Duration

#: An object whose shape is Kubernetes' own (a toleration, a volume ...) and is passed on as written.
KubernetesObject = dict[str, Any]

Name = Annotated[str, Field(min_length=1, max_length=253)]


class ScalingMode(StrEnum):
    """Who decides how many groups there are."""

    AUTO = "Auto"
    ADVISORY = "Advisory"
    EXTERNAL = "External"


class AgentMode(StrEnum):
    """Whether the operator's agent runs inside the engine's processes."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class ModelSpec(ApiModel):
    """The model to serve."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name on the Hugging Face hub (`Qwen/Qwen3.5-397B-A17B`) or any name of yours for other sources."""
    source: Annotated[str, Field(pattern=r"^(hf|pvc)://[^\s]+$", max_length=512)] | None = None
    """Where the weights are: `hf://ORG/NAME` (default: from the name) or `pvc://CLAIM/PATH`."""
    revision: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Commit, tag or branch on the hub."""
    served_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Name that clients put in a request's `model`; default: `name`."""
    context_length: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Longest request in tokens, prompt and output together; default: what the model's configuration says."""
    precision: Annotated[str, Field(pattern=r"^(auto|bfloat16|float16|float32)$")] | None = None
    """Precision to compute in; default: as the checkpoint is stored."""


class HardwareSpec(ApiModel):
    """The accelerators to run on. Exactly one of `accelerator` and `accelerators`."""

    accelerator: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Catalogue name (`B200`), or what nodes call it (`NVIDIA-B200`); `cpu` for laptops and CI."""
    accelerators: Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(min_length=1, max_length=8)] | None = None
    """Accelerators in the order to fall back along: the first that the cluster has is used."""
    gpus_per_group: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Width of a group in GPUs; default: one node's GPUs (two ranks on `cpu`)."""
    gpus_per_node: Annotated[int, Field(ge=1, le=72)] | None = None
    """Pins what is otherwise read from the nodes: GPUs that a group uses on each node."""


class ParallelismSpec(ApiModel):
    """Overrides the plan's layout."""

    tensor: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one rank (tensor parallelism); all on one node."""
    data: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Ranks of one group (data parallelism)."""


class ObjectiveSpec(ApiModel):
    """The latency that requests should see on average; the autoscaler adds groups when it is missed."""

    time_to_first_token: Duration | None = None
    time_per_output_token: Duration | None = None


class ScalingSpec(ApiModel):
    """How many groups run."""

    mode: ScalingMode = ScalingMode.AUTO
    """Auto: the operator decides; External and Advisory: `spec.replicas` groups, within the limits."""
    min_groups: Annotated[int, Field(ge=0, le=256)] = 1
    max_groups: Annotated[int, Field(ge=0, le=256)] | None = None
    """Default: `minGroups`, in modes External and Advisory 256."""


class ResourcesSpec(ApiModel):
    """Overrides of the engine container's resources; what is not named keeps the profile's value."""

    requests: dict[str, int | str] = Field(default_factory=dict, max_length=32)
    limits: dict[str, int | str] = Field(default_factory=dict, max_length=32)


class EngineSpec(ApiModel):
    """Overrides of the engine."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image; default: the accelerator profile's."""
    args: dict[str, Annotated[str, Field(max_length=4096)]] = Field(default_factory=dict, max_length=64)
    """Flags of `vllm serve` without dashes: `max-num-seqs: "256"`; an empty value gives a bare flag.

    Flags that the operator derives (parallel layout, addresses, ports, model) are refused by name.
    """
    env: list[KubernetesObject] = Field(default_factory=list, max_length=64)
    """Environment variables as in a container; names that the operator sets are refused."""
    resources: ResourcesSpec = ResourcesSpec()
    agent: AgentMode = AgentMode.ENABLED


class PodTemplateSpec(ApiModel):
    """What platform teams need to add to the pods. What the operator owns is refused by name."""

    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)
    tolerations: list[KubernetesObject] = Field(default_factory=list, max_length=32)
    node_selector: dict[str, str] = Field(default_factory=dict, max_length=32)
    affinity: KubernetesObject = Field(default_factory=dict)
    image_pull_secrets: list[KubernetesObject] = Field(default_factory=list, max_length=16)
    scheduler_name: Name | None = None
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None
    volumes: list[KubernetesObject] = Field(default_factory=list, max_length=32)
    volume_mounts: list[KubernetesObject] = Field(default_factory=list, max_length=32)
    """Added to the engine container."""
    containers: list[KubernetesObject] = Field(default_factory=list, max_length=8)
    """Further containers beside the engine."""


class RolloutSpec(ApiModel):
    """How groups move to a new revision, and how a group is drained."""

    max_surge: Annotated[int, Field(ge=0, le=16)] = 1
    """Groups above the wanted number while a new revision comes up."""
    max_unavailable: Annotated[int, Field(ge=0, le=16)] = 0
    """Groups below the wanted number while a new revision comes up. Not both 0."""
    drain_deadline: Duration = "5m"
    """Longest wait for running requests of a group that is to go."""


class RecoverySpec(ApiModel):
    """When a group counts as lost, and is replaced."""

    stall_limit: Duration = "120s"
    """Requests are running but no token comes for this long: the group hangs."""
    unready_limit: Duration = "60s"
    """A group that served has a pod that is not ready (its node is silent, say) for this long."""
    start_deadline: Duration = "30m"
    """A new group is not whole after this long."""


class ModelDeploymentSpec(ApiModel):
    """The wanted state of a ModelDeployment."""

    model: ModelSpec
    hardware: HardwareSpec
    parallelism: ParallelismSpec = ParallelismSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    scaling: ScalingSpec = ScalingSpec()
    replicas: Annotated[int, Field(ge=0, le=256)] = 1
    """Groups in modes External and Advisory (also written by `kubectl scale`, HPA, KEDA); ignored in Auto."""
    engine: EngineSpec = EngineSpec()
    pod_template: PodTemplateSpec = PodTemplateSpec()
    rollout: RolloutSpec = RolloutSpec()
    recovery: RecoverySpec = RecoverySpec()
