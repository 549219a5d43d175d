"""What a user may read of scaling: `status.scaling`."""

from typing import Annotated

from pydantic import Field

from moe_operator.api.base import WHOLE_LIST, ApiModel

#: Changes of the number of groups that the status remembers.
CHANGES_KEPT = 10
#: A number with a fraction: Kubernetes' API has no floats.
_Decimal = Annotated[str, Field(max_length=24)]


class ScalingFigures(ApiModel):
    """What a scaling decision was made of. Numbers with a fraction are decimals in text. While groups move to another
    width, in groups of the width before."""

    load: _Decimal
    """Of the groups, in full groups."""
    resource: str | None = None
    """What the most loaded group runs out of first: KvCache, RequestSlots or StepTime."""
    arrivals: _Decimal
    """Requests per second."""
    waiting: int = 0
    """Requests that wait for a slot."""
    forecast: _Decimal
    """Load that is to be expected when a group that is ordered now would serve."""
    forecaster: str
    """Which of the forecasts that is: the one that was off least of late."""
    lead_seconds: int
    """Until a group that is ordered now would serve."""
    worth_having: int
    """Groups that are worth having for that time, whatever the limits say."""
    late_percent: _Decimal
    """Requests that would be late with the groups that there were."""
    late_percent_then: _Decimal
    """Requests that would be late with as many groups as are worth having."""
    enough: int
    """Groups that would do until another could be had again."""
    worth: _Decimal
    """Groups that one pays for rather than have all requests of one group late."""
    held_until: str | None = None
    """Fewer would do, and go from then on if nothing changes (RFC 3339)."""
    silent: int = 0
    """Groups that serve and give no current figures: none goes meanwhile."""


class ScalingChange(ApiModel):
    """One change of the number of groups."""

    time: str
    """When (RFC 3339)."""
    before: int
    """Groups that were wanted."""
    after: int
    """Groups that were wanted from then on."""
    reason: str
    """One of the scaling decisions in the API reference, or `WidthChosen` or `WidthGivenUp`."""
    message: str | None = None
    """Why, where no figures say it."""
    figures: ScalingFigures | None = None
    """What the decision was made of; absent where it was made of none."""


class LearnedStatus(ApiModel):
    """What the autoscaler has learned of the deployment, for the operator's next leader.

    Written at most every ten minutes, and only when something moved; of another version it is not used.
    """

    time: str | None = None
    """As of when (RFC 3339)."""
    idle_step_microseconds: int | None = None
    """A step of the engines without load; absent while unknown."""
    request_milliseconds: int | None = None
    """For so long a request takes a whole group: load per arrival; absent while unknown."""
    cold_start_seconds: int | None = None
    """That a start is counted with."""
    cold_starts: int = 0
    """Starts that this is from."""
    last_start: str | None = None
    """The newest of those groups, and when it was created (RFC 3339)."""
    late_percent: _Decimal | None = None
    """Requests that were late, over hours."""
    version: Annotated[str, Field(max_length=64)] = ""
    """Of `state`."""
    state: Annotated[str, Field(max_length=4096)] = ""
    """All of it, for the operator alone."""


class FloorStatus(ApiModel):
    """What asks for more groups than `scaling.minGroups` at this time."""

    groups: int
    """Groups that there are at least, as far as `scaling.maxGroups` allows."""
    message: str
    """Which schedule or annotation, and until when."""
    until: str | None = None
    """Until when (RFC 3339); absent: for ever."""


class ChosenWidthStatus(ApiModel):
    """How wide groups are by the operator's choice (`scaling.width: Auto`), and what they were before."""

    gpus: int
    """GPUs of a group."""
    planned: int
    """Those of the plan's own choice: `scaling.maxGroups` counts groups of that width."""
    before: int
    """Those of the groups before: they go one by one."""
    percent: int
    """What a group takes, in percent of one of before."""
    groups: int
    """Groups of it that were wanted when it was chosen."""
    groups_before: int
    """Groups that were wanted of before: as they go, they stand for `groups` of it."""
    since: str
    """When it was chosen (RFC 3339)."""
    given_up: int | None = None
    """Width of which groups did not come to serve: it is not chosen again for a day."""
    given_up_time: str | None = None
    """When that was given up (RFC 3339)."""


class WaitingStatus(ApiModel):
    """What a deployment waits for while there are not enough GPUs."""

    groups: int
    """Groups that are wanted and have no room."""
    gpus_per_group: int
    """GPUs that each of them takes."""
    accelerator: str
    """Catalogue name."""
    reason: str
    """One of the reasons for waiting in the API reference."""
    message: str
    """For what, and behind whom."""
    behind: Annotated[list[str], Field(max_length=8), WHOLE_LIST] = Field(default_factory=list)
    """The first of the ModelDeployments (`NAMESPACE/NAME`) that come before it and wait too."""
    since: str
    """Since when (RFC 3339)."""


class ScalingStatus(ApiModel):
    """The last scaling decision, and what came of it where GPUs are scarce."""

    desired: int
    """Groups that it wants."""
    granted: int | None = None
    """Groups that it may have, where that is fewer than it wants."""
    waiting: WaitingStatus | None = None
    """What it waits for, while groups have no room."""
    advised: int | None = None
    """Mode Advisory: what Auto would have."""
    reason: str
    """One of the scaling decisions in the API reference."""
    message: str
    """The numbers behind it."""
    floor: FloorStatus | None = None
    """What keeps more groups than `scaling.minGroups`, while something does."""
    ignored: str | None = None
    """What was asked for and cannot be followed, and why."""
    last_change_time: str | None = None
    """When `desired` last changed (RFC 3339)."""
    figures: ScalingFigures | None = None
    """What is looked at now, as fresh as `throughput`; absent while nothing is measured."""
    history: Annotated[list[ScalingChange], Field(max_length=CHANGES_KEPT), WHOLE_LIST] = Field(
        default_factory=list
    )
    """The last changes of `desired`, oldest first."""
    learned: LearnedStatus | None = None
    """What was learned of the deployment; absent before its first minutes under load."""
    recommended_width: int | None = None
    """GPUs in a group with which what is asked would take clearly fewer GPU-hours; absent while there is none."""
    width_message: str | None = None
    """The numbers behind that, of when it was found."""
    width_change_time: str | None = None
    """When `recommendedWidth` last came, changed or went (RFC 3339)."""
    chosen_width: ChosenWidthStatus | None = None
    """The width that the operator chose in place of the plan's own; absent where it never did."""
