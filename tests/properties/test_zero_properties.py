"""Over all courses of requests, gaps in telemetry, restarts, wake-ups and schedules: no group is given up within the
window of a request or on missing figures, and every floor is kept. A breach is a model taken away under its users."""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from factories.deployments import model_deployment
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import ModelDeploymentStatus, ThroughputStatus
from moe_operator.api.times import format_time, parse_time
from moe_operator.autoscaler.idleness import Activity
from moe_operator.autoscaler.schedules import floor_at
from moe_operator.controller.load import GroupRead, Load
from moe_operator.controller.scale import Scale
from moe_operator.controller.scaling import Scaler

_MANY = settings(max_examples=150, deadline=None, derandomize=True)
#: Friday, 15 January 2027, 08:00 UTC.
BEGIN = 1_800_000_000.0
AFTER = 600.0
MOST = 3
#: Seconds from an order until a group serves, before any start was seen, and more.
LEAD = 3600.0
NONSENSE = "tomorrow"


@dataclass
class _World:
    """Groups that are there as soon as they are wanted, their counters, and the operator's decisions."""

    deployment: ModelDeployment
    scaler: Scaler = field(default_factory=Scaler)
    now: float = BEGIN
    groups: dict[str, float] = field(default_factory=dict)
    """Requests that each has counted."""
    made: int = 0
    requested: float = -1e9
    """When a request came last."""
    readable: bool = True
    read_since: float = BEGIN
    """Since when an operator has looked at groups of this deployment, without a restart."""

    @property
    def woken(self) -> bool:
        written = self.deployment.wake_until
        return written is not None and written != NONSENSE and (parse_time(written) or 0.0) > self.now

    def asked(self, lead: float = 0.0) -> int:
        """Groups that the spec, its schedules or the annotation ask for."""
        scaling = self.deployment.spec.scaling
        return max(scaling.min_groups, floor_at(scaling.schedules, self.now, lead).groups, int(self.woken))

    def decide(self, busy: bool = False) -> Scale:
        load = Load(
            clock=self.now - BEGIN,
            serving={name: GroupRead(8, 64, None) for name in self.groups},
            draining={},
            throughput=ThroughputStatus(),
            activity={name: self._activity(name, busy) for name in self.groups},
        )
        scale = self.scaler.scale(self.deployment, load, self.now)
        status = ModelDeploymentStatus(scaling=scale.status)
        self.deployment = replace(self.deployment, status=status)
        while len(self.groups) < scale.desired:
            self.made += 1
            self.groups[f"g{self.made}"] = 0.0
        while len(self.groups) > scale.desired:
            self.groups.pop(next(iter(self.groups)))
        return scale

    def _activity(self, name: str, busy: bool) -> Activity | None:
        # What telemetry saw itself is left out: counters alone must do.
        return Activity(busy, 0.0, (1.0, 8.0, self.groups[name])) if self.readable else None


steps = st.tuples(
    st.sampled_from([5.0, 15.0, 60.0, 299.0, 600.0, 3600.0]),
    st.sampled_from(
        ["nothing", "nothing", "request", "long request", "gap", "back", "restart", "wake", "edit"]
    ),
)
windows = st.lists(
    st.tuples(st.integers(0, 23), st.integers(1, 23), st.integers(1, 4)), max_size=2, unique_by=lambda w: w[0]
)


def _spec(found: list[tuple[int, int, int]], minimum: int) -> dict[str, Any]:
    schedules = [
        {
            "name": f"s{begin}",
            "from": f"{begin:02}:30",
            "to": f"{(begin + length) % 24:02}:00",
            "minGroups": groups,
            "timeZone": "Europe/Berlin",
        }
        for begin, length, groups in found
    ]
    after = {"scaleToZeroAfter": "10m"} if not minimum else {}
    return {"minGroups": minimum, "maxGroups": MOST, "schedules": schedules, **after}


@_MANY
@given(st.lists(steps, min_size=10, max_size=80), windows, st.sampled_from([0, 0, 0, 1]))
def test_a_model_is_there_for_whoever_used_it_or_asked_for_it(
    course: list[tuple[float, str]], found: list[tuple[int, int, int]], minimum: int
) -> None:
    world = _World(model_deployment(scaling=_spec(found, minimum)))
    world.decide()
    for seconds, what in course:
        world.now += seconds
        busy = what == "long request" and bool(world.groups)
        if what in ("request", "long request") and world.groups:
            world.requested = world.now
            world.groups[next(iter(world.groups))] += 1
        elif what == "gap":
            world.readable = False
        elif what == "back":
            world.readable = True
        elif what == "restart":
            world.scaler, world.read_since = Scaler(), world.now
        elif what == "wake":
            world.deployment = replace(world.deployment, wake_until=format_time(world.now + 1000))
        elif what == "edit":
            world.deployment = replace(world.deployment, wake_until=NONSENSE)
        before = len(world.groups)
        scale = world.decide(busy)
        assert scale.desired >= min(world.asked(), MOST), "a floor is kept"
        assert scale.desired <= MOST
        assert scale.minimum <= scale.desired
        assert scale.standing <= scale.desired
        if before and not scale.desired:
            assert world.readable, "not on missing figures"
            assert not busy
            assert world.now - world.requested >= AFTER, "not within the window of a request"
            assert world.now - world.read_since >= AFTER, "not of what nobody looked at"
        if not before and not world.asked(LEAD):
            assert scale.desired == 0, "nothing comes by itself"
        if scale.desired and world.readable and not world.asked(LEAD):
            assert scale.recheck_after is not None, "somebody looks when the window is over"
            assert scale.recheck_after <= AFTER
