"""How long a group's steps take by what is in them: the planner's roofline at one working point, as coefficients.

    t = base + experts x (1 - (1 - k/E)^N) + max over ranks (decode x d + prefill x p + kv x K)

N tokens of the group in the step, k of E experts for each; d requests of a rank that decode, p prompt tokens that it
computes, K tokens in the cache of its running requests. Ranks run in lockstep: the slowest makes the step.
"""

from dataclasses import dataclass

from moe_operator.planner.roofline import MEMORY_EFFICIENCY, Step, prefill_rate
from moe_operator.planner.sizing import Sized
from moe_operator.planner.wants import Wants


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds."""

    base: float
    """Of any step: launches, the exchange, and the weights that every token passes."""
    experts: float
    """For reading every expert."""
    expert_share: float
    """Experts that a token goes to, of all."""
    decode: float
    """For each request that decodes."""
    prefill: float
    """For each prompt token."""
    kv: float
    """For each token in the cache of running requests."""

    def seconds(self, tokens: float, decode: float, prefill: float, kv: float) -> float:
        """Of a step of `tokens` of the whole group, whose slowest rank has the rest."""
        touched: float = 1.0 - (1.0 - self.expert_share) ** tokens
        own = self.decode * decode + self.prefill * prefill + self.kv * kv
        return self.base + self.experts * touched + own


def step_times(sized: Sized, wants: Wants) -> StepTimes:
    """With these a step takes what `roofline` says: without requests but for its launches and weights, and at the
    plan's own working point. Between the two its larger of reading and computing becomes a line."""
    architecture, load = sized.model.architecture, sized.load
    experts = architecture.experts
    memory = load.speeds.memory * MEMORY_EFFICIENCY
    step = Step(architecture, load)
    count = sized.throughput.sequences_per_rank
    reading = load.routed_bytes / memory
    share = min(1.0, experts.active / experts.count) if experts is not None else 1.0
    kv = load.kv_bytes_per_sequence / load.context / memory
    # What remains of a step without requests: launches, and the weights that every token passes.
    base = step.seconds(0)
    touched = 1 - (1 - share) ** (count * load.data)
    rest = step.seconds(count) - base - reading * touched - kv * load.context * count
    return StepTimes(
        base=base,
        experts=reading,
        expert_share=share,
        decode=max(0.0, rest / count),
        prefill=1 / (prefill_rate(architecture, load, wants.input_tokens) * load.tensor),
        kv=kv,
    )
