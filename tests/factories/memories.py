"""What an autoscaler remembers, for tests."""

from typing import Any

from moe_operator.autoscaler import growth, lateness, width
from moe_operator.autoscaler.auto import Profile
from moe_operator.autoscaler.forecast import Forecaster
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.autoscaler.memory import Memory
from moe_operator.autoscaler.width import Leaning
from moe_operator.autoscaler.width_memory import CHUNKS, Asked


def memory(profile: Profile, **overrides: Any) -> Memory:
    """Of one that has learned nothing."""
    late, grown = (0.0,) * lateness._BINS, (0.0,) * growth._BINS
    nothing = {
        "profile": profile,
        "lead": 300.0,
        "idle": IdleStepTime(),
        **dict.fromkeys(("calm", "levels", "rates", "after"), 0.0),
        **dict.fromkeys(("late_requests", "judged_requests", "late_lately", "judged_lately"), 0.0),
        "errors": (0.0,) * len(Forecaster),
        "starts": (),
        **dict.fromkeys(("late_first", "late_tokens", "judged"), late),
        "growth": ((grown, grown),) * len(Forecaster),
        "usual": (0.0, 0.0),
    }
    return Memory(**{**nothing, **overrides})


def always_asked(groups: float, leaning: Leaning | None = None) -> Asked:
    """The same for a day."""
    history = width.History()
    for at in range(0, 86400, 60):
        history.observed(float(at), groups)
    place = next(at for at, weight in enumerate(history._weights.weights) if weight)
    return Asked(2 * width.EVIDENCE, 12 * 3600.0, (place,) * len(CHUNKS), leaning=leaning)
