"""The step time of an engine without load, learned from how its step time goes with its batch. Pure."""

from dataclasses import dataclass, replace

#: Weight of an observation halves in this time (s): shares are to mean the same all day. What lateness they come with
#: is learned faster.
HALF_LIFE = 12 * 3600.0
#: What the prior counts for, in observations.
_PRIOR_WEIGHT = 0.1
#: Requests at work on a rank from which on a step counts as the shortest: fewer do not reach all experts, and one look
#: at an empty group would make all shares too large for as long as it is remembered.
_FEW = 4.0
#: Of the mean step time: the least that the idle one can be.
_LEAST = 0.1


@dataclass(frozen=True, slots=True)
class IdleStepTime:
    """Weighted sums of a straight line, step time over requests at work. Times in seconds.

    For one mix of requests the line is exact (`capacity`): requests at work are arrivals times output length times step
    time. The prior counts as observations at no load.
    """

    prior: float | None = None
    at: float | None = None
    weight: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    t: float = 0.0
    xt: float = 0.0
    least: float = float("inf")
    """The shortest step time seen."""

    def observed(self, now: float, running: float, step_time: float, worth: float = 1.0) -> "IdleStepTime":
        """With one more observation of one group: requests at work and the mean step time over the same seconds.
        `worth`: what it counts for."""
        kept = 1.0 if self.at is None else 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        return replace(
            self,
            at=now,
            weight=self.weight * kept + worth,
            x=self.x * kept + worth * running,
            xx=self.xx * kept + worth * running * running,
            t=self.t * kept + worth * step_time,
            xt=self.xt * kept + worth * running * step_time,
            least=min(self.least, step_time) if running >= _FEW else self.least,
        )

    @property
    def value(self) -> float | None:
        """The line's value at no load, or the shortest step seen if that is less; the prior while nothing was observed,
        None without one."""
        if self.weight <= 0:
            return self.prior
        # No step is shorter than one without load: what is not below the shortest seen was a wrong guess.
        prior = self.prior if self.prior is not None and self.prior < self.least else None
        mean = self.t / self.weight
        weight, x, xx, t, xt = self.weight, self.x, self.xx, self.t, self.xt
        if prior is not None:
            weight += _PRIOR_WEIGHT
            t += _PRIOR_WEIGHT * prior
        spread = weight * xx - x * x
        if spread <= 1e-9 * max(xx * weight, 1e-9):
            return prior
        slope = max(0.0, (weight * xt - x * t) / spread)
        return min(max((t - slope * x) / weight, _LEAST * mean), self.least)
