"""Throughput and latency of a group from a roofline: an estimate, to choose between layouts and to size a fleet.

A step takes the longer of reading memory and computing, then communicates, then pays for launches. The efficiencies
below were set so that published figures come out (docs/reference/planner.md lists them beside the estimates); they
are shares of the data sheet that real engines reach, not bounds. What was measured replaces this as soon as a
deployment serves.
"""

from dataclasses import dataclass

from moe_operator.catalog.models.architecture import Architecture

#: Share of the data sheet's memory bandwidth that a decode step reaches.
MEMORY_EFFICIENCY = 0.75
#: Share of dense FLOPS that prefill reaches: 26,200 tokens/s on a GB200 and 6,500 on an H100 for DeepSeek R1 are 0.19
#: and 0.24.
COMPUTE_EFFICIENCY = 0.22
#: Share of a link's bandwidth that all-to-all and all-reduce reach.
LINK_EFFICIENCY = 0.6
#: Seconds that one collective takes however small: within an NVLink domain, and over the network.
LINK_LATENCY = 15e-6
NETWORK_LATENCY = 60e-6
#: Bytes per second and GPU of the network between NVLink domains: one 400 Gbit/s adapter per GPU.
NETWORK_BANDWIDTH = 50e9
#: Seconds per step for scheduling and sampling, and per layer for the launches within a CUDA graph.
STEP_OVERHEAD = 1e-3
LAYER_OVERHEAD = 15e-6
#: A prompt waits for about as long as it computes, as steps are shared with others.
QUEUEING = 2.0


@dataclass(frozen=True)
class Speeds:
    """One GPU: bytes/s of memory, FLOPS/s at the weights' precision, bytes/s to others in its NVLink domain."""

    memory: float
    compute: float
    link: float


@dataclass(frozen=True)
class Load:
    """What the group holds and moves in a step."""

    speeds: Speeds
    tensor: int
    data: int
    expert_parallel: bool
    leaves_domain: bool
    """The group spans more than one NVLink domain: experts are reached over the network."""
    routed_bytes: int
    """Routed experts on one GPU."""
    other_bytes: int
    """What every step reads on one GPU besides: without the embedding, of which it reads rows only."""
    kv_bytes_per_sequence: int
    """Read on one GPU in a step for a sequence of average length, recurrent state read and written."""


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


def decode_step(architecture: Architecture, load: Load, sequences: int) -> float:
    """Seconds of one step that gives each of `sequences` per rank one token."""
    tokens = sequences * load.data
    experts = architecture.experts
    touched = 0.0
    if experts is not None:
        # A layer's expert is read if at least one token chose it.
        touched = 1 - (1 - experts.active / experts.count) ** tokens
    read = load.other_bytes + load.routed_bytes * touched + sequences * load.kv_bytes_per_sequence
    memory = read / (load.speeds.memory * MEMORY_EFFICIENCY)
    compute = _flops(architecture, tokens) / (load.tensor * load.data) / _reached(load)
    return max(memory, compute) + _communication(architecture, load, sequences) + _overhead(architecture)


def prefill_rate(architecture: Architecture, load: Load) -> float:
    """Prompt tokens per second that one GPU reads, other work aside."""
    return _reached(load) / _flops(architecture, 1)


def throughput(
    architecture: Architecture, load: Load, sequences: int, prompt: int, output: int
) -> Throughput:
    """The group with `sequences` running on each rank, requests of `prompt` and `output` tokens.

    Prompts take their share of the time, and stretch the steps of those that decode beside them.
    """
    step = decode_step(architecture, load, sequences)
    width = load.tensor * load.data
    rate = prefill_rate(architecture, load)
    decode = sequences * load.data / step
    reading = prompt / output / (rate * width)
    tokens = 1 / (1 / decode + reading)
    return Throughput(
        sequences_per_rank=sequences,
        output_tokens_per_second=tokens,
        prompt_tokens_per_second=tokens * prompt / output,
        time_to_first_token=QUEUEING * prompt / (rate * load.tensor) + step,
        time_per_output_token=sequences * load.data / tokens,
    )


def _flops(architecture: Architecture, tokens: int) -> float:
    """Two per weight and token; attention over the context is left out, as memory binds it in decode."""
    return 2.0 * architecture.active_parameters * tokens


def _reached(load: Load) -> float:
    return load.speeds.compute * COMPUTE_EFFICIENCY


def _overhead(architecture: Architecture) -> float:
    return STEP_OVERHEAD + LAYER_OVERHEAD * architecture.layers


def _communication(architecture: Architecture, load: Load, sequences: int) -> float:
    total, hidden = 0.0, architecture.hidden
    volume: float
    link = load.speeds.link * LINK_EFFICIENCY
    if load.tensor > 1:
        # Two all-reduces a layer, each moving about two copies of the activations.
        volume = sequences * hidden * 2 * 2
        total += architecture.layers * 2 * (volume / link + LINK_LATENCY)
    experts = architecture.experts
    if experts is not None and load.expert_parallel and load.data > 1:
        width = load.tensor * load.data
        # To each chosen expert in 8 bits, and back in 16.
        copies = min(experts.active, width)
        volume = sequences / load.tensor * copies * hidden * 3
        bandwidth, latency = link, LINK_LATENCY
        if load.leaves_domain:
            bandwidth, latency = NETWORK_BANDWIDTH * LINK_EFFICIENCY, NETWORK_LATENCY
        total += experts.layers * (volume / bandwidth + 2 * latency)
    return total
