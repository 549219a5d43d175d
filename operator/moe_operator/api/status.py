"""What a user may read: `status` of a ModelDeployment. The only writer is the operator's status fold."""

from typing import Annotated

from pydantic import Field

from moe_operator.api.base import ApiModel


class Condition(ApiModel):
    """A metav1.Condition."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int | None = None


class PlanStatus(ApiModel):
    """The layout in effect for the wanted revision."""

    accelerator: str
    width: int
    """GPUs (ranks x tensor) in a group."""
    pods_per_group: int
    ranks_per_pod: int
    tensor: int
    data: int
    expert_parallel: int
    precision: str | None = None
    context_length: int | None = None
    image: str


class Cause(ApiModel):
    """Why a group was given up."""

    reason: str
    """A constant of `api.reasons`, such as EngineExited."""
    message: str
    """What happened, with the engine's own last error line where there is one."""
    pod: str | None = None
    node: str | None = None
    exit_code: int | None = None


class UnhealthyGroup(ApiModel):
    """One group that does not serve, and why."""

    name: str
    reason: str
    message: str
    since: str | None = None


class GroupsStatus(ApiModel):
    """Counts of groups."""

    desired: int = 0
    current: int = 0
    ready: int = 0
    updated: int = 0
    draining: int = 0
    summary: str = "0/0"
    """`ready/desired`, for the READY column."""
    unhealthy: Annotated[list[UnhealthyGroup], Field(max_length=8)] = []


class ThroughputStatus(ApiModel):
    """Tokens per second over the last telemetry window, all serving groups together."""

    prompt_tokens_per_second: int = 0
    output_tokens_per_second: int = 0


class ScalingStatus(ApiModel):
    """The last scaling decision."""

    desired: int
    reason: str
    message: str
    last_change_time: str | None = None


class RecoveryStatus(ApiModel):
    """The ledger of failures: survives restarts of the operator and paces replacement."""

    failures: int = 0
    """Groups lost in a row without one having served for long in between."""
    last_failure_time: str | None = None
    next_attempt_time: str | None = None
    """No new group is created before this time."""
    last_cause: Cause | None = None
    last_group: str | None = None
    counted: Annotated[list[str], Field(max_length=16)] = []
    """Uids of the newest groups that are counted already, so that none counts twice."""


class ModelDeploymentStatus(ApiModel):
    """The observed state of a ModelDeployment."""

    observed_generation: int | None = None
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    plan: PlanStatus | None = None
    revision: str | None = None
    """Name of the wanted revision."""
    replicas: int = 0
    """Groups that exist and are not on their way out; read by `/scale`."""
    selector: str | None = None
    """Selects one pod of each group (its leader), so that `/scale` counts groups."""
    groups: GroupsStatus = GroupsStatus()
    throughput: ThroughputStatus = ThroughputStatus()
    scaling: ScalingStatus | None = None
    recovery: RecoveryStatus = RecoveryStatus()
    endpoint: str | None = None
    engine_arguments: Annotated[list[str], Field(max_length=128)] = []
