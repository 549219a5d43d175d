"""Throughput and latency of a group from a roofline: an estimate, to choose between layouts and to size a fleet.

A step takes the longer of reading memory and computing, then communicates, then pays for launches. The efficiencies
below were set so that published figures come out (docs/reference/planner.md lists them beside the estimates); they
are shares of the data sheet that real engines reach, not bounds. What was measured replaces this as soon as a
deployment serves.
"""

from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Architecture
from moe_operator.planner.arithmetic import decode_flops, prompt_flops

#: Share of the data sheet's memory bandwidth that a decode step reaches.
MEMORY_EFFICIENCY = 0.75
#: Share of dense 16-bit FLOPS that attention kernels reach: FlashMLA about 0.65 of an H800's at its best.
ATTENTION_EFFICIENCY = 0.4
#: Share of a link's bandwidth that all-to-all and all-reduce reach.
LINK_EFFICIENCY = 0.6
#: Seconds that one collective takes within a node, however small.
LINK_LATENCY = 15e-6
#: Seconds per step for scheduling and sampling, per layer for the launches within a CUDA graph, and per sequence of a
#: rank for what its process does in Python and for sampling.
STEP_OVERHEAD = 1e-3
LAYER_OVERHEAD = 15e-6
SEQUENCE_OVERHEAD = 10e-6
#: Share of the drafts of a model's own prediction layer that are right, counted alike for each further one. The report
#: on DeepSeek-V3 has 85 to 90% for the first; less here, as requests differ and later drafts are worse.
DRAFTS_RIGHT = 0.7
#: A step with next to nothing to do takes so many times what this says of it, which was set for full ones: 1.6, 2.2 and
#: 2.5 times in the tables of DeepSeek-R1, Qwen3-235B-A22B and Qwen3-30B-A3B on H200 (`simulator/engines`).
IDLE_FACTOR = 2.0
#: A prompt waits for about as long as it computes, as steps are shared with others.
QUEUEING = 2.0


@dataclass(frozen=True)
class Speeds:
    """One GPU."""

    memory: float
    """Bytes per second."""
    token: float
    """Seconds for the weights that one token passes (`arithmetic.token_seconds`)."""
    attention: float
    """FLOPS in 16 bits."""
    link: float
    """Bytes per second to others in its NVLink domain."""


@dataclass(frozen=True)
class Load:
    """What the group holds and moves in a step, apart from how many sequences run."""

    speeds: Speeds
    tensor: int
    data: int
    expert_parallel: bool
    exchange_bandwidth: float
    """Bytes per second and GPU of what experts are reached over: NVLink, or the network between nodes."""
    exchange_latency: float
    """Seconds of one collective over it, however small."""
    routed_bytes: int
    """Routed experts on one GPU."""
    other_bytes: int
    """What every step reads on one GPU besides: without the embedding, of which it reads rows only."""
    context: int
    """Tokens of a sequence of average length."""
    kv_bytes_per_sequence: int
    """Read on one GPU in a step for a sequence of average length, recurrent state read and written."""
    sparse_dispatch: bool = False
    """Tokens are sent to the GPUs of their experts only (FlashInfer's all-to-all, DeepEP and the like); without, as by
    vLLM's default (allgather and reduce-scatter), to all GPUs of the group."""
    drafted: int = 0
    """Tokens that the model's own layers draft for a sequence in each step."""

    @property
    def tokens_per_step(self) -> float:
        """That a sequence gets of a step: one, and the drafts up to the first wrong one."""
        return sum(DRAFTS_RIGHT**right for right in range(self.drafted + 1))


@dataclass(frozen=True)
class Throughput:
    """Of one group, estimated."""

    sequences_per_rank: int
    """Running at a time."""
    output_tokens_per_second: float
    """With the prompts of the same requests being read beside."""
    prompt_tokens_per_second: float
    time_to_first_token: float
    """Seconds."""
    time_per_output_token: float
    """Seconds."""


class Step:
    """Seconds of a decode step by how many sequences run on each rank, with what is drafted for them; the constants of
    one load, computed once."""

    __slots__ = (
        "_bytes",
        "_chosen",
        "_compute",
        "_data",
        "_kv",
        "_launches",
        "_memory",
        "_per_sequence",
        "_positions",
        "_routed",
    )

    def __init__(self, architecture: Architecture, load: Load) -> None:
        experts = architecture.experts
        width = load.tensor * load.data
        self._data = load.data
        # A layer's expert is read if at least one token chose it.
        self._chosen = 1 - experts.active / experts.count if experts is not None else 1.0
        self._routed, self._bytes = load.routed_bytes, load.other_bytes
        self._kv = load.kv_bytes_per_sequence
        self._memory = load.speeds.memory * MEMORY_EFFICIENCY
        attention = decode_flops(architecture, load.context) / (load.speeds.attention * ATTENTION_EFFICIENCY)
        self._compute = (load.speeds.token + attention) * load.data / width
        latency, per_sequence = _communication(architecture, load)
        # What is drafted is computed and sent like the token that is certain; weights and caches are read once.
        self._positions = 1 + load.drafted
        self._compute *= self._positions
        self._per_sequence = per_sequence * self._positions + SEQUENCE_OVERHEAD
        self._launches = latency + STEP_OVERHEAD + LAYER_OVERHEAD * (architecture.layers + load.drafted)

    def seconds(self, sequences: int) -> float:
        """Of one step that gives each of `sequences` per rank one token."""
        touched = 1 - self._chosen ** (sequences * self._data * self._positions)
        memory = (self._bytes + self._routed * touched + sequences * self._kv) / self._memory
        return max(memory, sequences * self._compute) + sequences * self._per_sequence + self._launches


def idle_step(architecture: Architecture, load: Load) -> float:
    """Seconds of a step of a group with next to nothing to do: one sequence on each rank."""
    return IDLE_FACTOR * Step(architecture, load).seconds(1)


def prefill_rate(architecture: Architecture, load: Load, prompt: int) -> float:
    """Tokens per second that one GPU reads of prompts of this length, other work aside."""
    attention = prompt_flops(architecture, prompt) / (load.speeds.attention * ATTENTION_EFFICIENCY)
    return 1 / (load.speeds.token + attention)


class Serving:
    """A group that reads prompts and writes answers at the same time; the constants of one load, computed once."""

    __slots__ = ("_alone", "_data", "_per_token", "_prompt_share", "_step", "_tokens")

    def __init__(self, architecture: Architecture, load: Load, prompt: int, output: int) -> None:
        """Requests of `prompt` and `output` tokens."""
        rate = prefill_rate(architecture, load, prompt)
        self._step = Step(architecture, load)
        self._tokens = load.tokens_per_step
        self._data = load.data
        # Prompts take their share of the time, and stretch the steps of those that decode beside them.
        self._per_token = prompt / output / (rate * load.tensor * load.data)
        self._prompt_share = prompt / output
        self._alone = QUEUEING * prompt / (rate * load.tensor)

    def times(self, sequences: int) -> tuple[float, float]:
        """(to first token, per output token) in seconds with `sequences` running on each rank."""
        step = self._step.seconds(sequences)
        return self._alone + step, step / self._tokens + sequences * self._data * self._per_token

    def throughput(self, sequences: int) -> Throughput:
        """With `sequences` running on each rank."""
        first, each = self.times(sequences)
        tokens = sequences * self._data / each
        return Throughput(
            sequences_per_rank=sequences,
            output_tokens_per_second=tokens,
            prompt_tokens_per_second=tokens * self._prompt_share,
            time_to_first_token=first,
            time_per_output_token=each,
        )


def busiest(
    serving: Serving, most: int, time_to_first_token: float, time_per_output_token: float
) -> tuple[Throughput, bool]:
    """The most sequences per rank, up to `most`, that keep both times, and whether they do.

    Where a single one is late to its first token, that is the prompt's own time, which fewer sequences do not
    mend: then only the time per output token bounds them. At least one runs.
    """
    first, each = serving.times(1)
    late = first > time_to_first_token
    meets = not late and each <= time_per_output_token

    def holds(sequences: int) -> bool:
        first, each = serving.times(sequences)
        return each <= time_per_output_token and (late or first <= time_to_first_token)

    if holds(most):
        return serving.throughput(most), meets
    # Both times grow with the sequences.
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return serving.throughput(low), meets


def _communication(architecture: Architecture, load: Load) -> tuple[float, float]:
    """Seconds of a step, and more per sequence."""
    fixed, per_sequence = _exchange(architecture, load)
    if load.tensor > 1:
        # Two all-reduces a layer, each moving about two copies of the activations.
        link = load.speeds.link * LINK_EFFICIENCY
        fixed += architecture.layers * 2 * LINK_LATENCY
        per_sequence += architecture.layers * 2 * (architecture.hidden * 2 * 2) / link
    return fixed, per_sequence


def exchange_seconds(architecture: Architecture, load: Load, sequences: int) -> float:
    """Seconds of all-to-all in a step that gives each of `sequences` per rank one token."""
    fixed, per_sequence = _exchange(architecture, load)
    return fixed + sequences * per_sequence


def _exchange(architecture: Architecture, load: Load) -> tuple[float, float]:
    """Seconds of a step's all-to-all, and more per sequence."""
    experts = architecture.experts
    if experts is None or not load.expert_parallel or load.data == 1:
        return 0.0, 0.0
    # There in 8 bits, and back in 16.
    width = load.tensor * load.data
    copies = min(experts.active, width) if load.sparse_dispatch else width - 1
    bandwidth = load.exchange_bandwidth * LINK_EFFICIENCY
    fixed = experts.layers * 2 * load.exchange_latency
    return fixed, experts.layers * copies * architecture.hidden * 3 / load.tensor / bandwidth
