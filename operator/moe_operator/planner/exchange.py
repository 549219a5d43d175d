"""Memory that all-to-all backends keep on every GPU for a step's tokens, which vLLM's profiling counts as buffers."""

from moe_operator.catalog.fabrics import Backend
from moe_operator.catalog.models.architecture import Architecture

MIB = 2**20

#: DeepEP's buffer over NVLink, and over the network too (`VLLM_DEEPEP_BUFFER_SIZE_MB`, vLLM 0.32).
DEEPEP_BUFFER = 1024 * MIB
#: Bytes of an expert's choice: an int32 and a float32.
_CHOICE = 8
#: Bytes per value when 16-bit activations are sent, and when results come back.
_WIDE = 2
#: Bytes per value sent, scales included, by precision of the weights: what vLLM quantises activations to first.
_SENT = {"nvfp4": 0.5 + 1 / 16, "fp8": 1 + 4 / 128}


def exchange_bytes(
    architecture: Architecture,
    backend: Backend | None,
    *,
    width: int,
    tokens: int,
    precision: str | None,
    network: bool,
) -> int:
    """Bytes on one GPU of a group of `width` for steps of `tokens` per rank; 0 without a backend of its own.

    What vLLM's default gathers counts as activations.
    """
    experts = architecture.experts
    if backend is None or experts is None:
        return 0
    hidden = architecture.hidden
    match backend.name:
        case "flashinfer_nvlink_one_sided" | "flashinfer_nvlink_two_sided":
            # MoeAlltoAll: room for all tokens of all GPUs, as sent and as they come back.
            sent = int(hidden * _SENT.get(precision or "", _WIDE)) + experts.active * _CHOICE
            return width * tokens * (sent + hidden * _WIDE)
        case "deepep_low_latency" | "nixl_ep":
            return _low_latency(hidden, experts.count, tokens) + DEEPEP_BUFFER
        case "deepep_high_throughput":
            return DEEPEP_BUFFER * (2 if network else 1)
        case "deepep_v2" | "mori_high_throughput" | "mori_low_latency":
            # Estimates from above, not measured: what comes from all GPUs and what goes back, in 16 bits, once within
            # the node and once over the network.
            ways = 2 if network else 1
            return ways * width * tokens * (hidden * _WIDE + experts.active * _CHOICE)
        case _:
            return 0


def _low_latency(hidden: int, experts: int, tokens: int) -> int:
    """DeepEP's `get_low_latency_rdma_size_hint` (csrc/config.hpp): twice a buffer to send from, one to receive into and
    the experts' signals, each with a row for every expert and token."""
    scales = hidden // 128
    dispatch = 16 + max(hidden * _WIDE, hidden + scales * 4)
    combine = scales * 4 + hidden * _WIDE
    send = max(tokens * dispatch, experts * tokens * combine)
    receive = experts * tokens * max(dispatch, combine)
    return 2 * (send + receive + experts * 4)
