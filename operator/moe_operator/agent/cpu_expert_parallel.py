"""Makes data and expert parallelism work on vLLM's CPU platform, for clusters without GPUs.

vLLM 0.32's CPU communicator lacks the two collectives that dispatch and combine use, and its fused-MoE kernel
does not know that a rank may hold only some of the experts. Each rank receives all ranks' tokens
(all_gatherv), runs them through its own experts with weight 0 for those held elsewhere, and the sum over
ranks (reduce_scatterv) is the full output. Costs: experts held elsewhere are computed as if they were expert
0, and the sum travels to every rank.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

_PATCHED = "_moe_agent_patched"


def apply() -> bool:
    """Patch vLLM if it runs on the CPU. Whether it was patched, now or before."""
    if not importlib.import_module("vllm.platforms").current_platform.is_cpu():
        return False
    communicator = importlib.import_module(
        "vllm.distributed.device_communicators.cpu_communicator"
    ).CpuCommunicator
    if not getattr(communicator, _PATCHED, False):
        communicator.all_gatherv = _all_gatherv
        communicator.reduce_scatterv = _reduce_scatterv
        experts = importlib.import_module("vllm.model_executor.layers.fused_moe.experts.cpu_moe")
        experts.CPUUnquantizedExperts.apply = _with_local_experts(experts.CPUUnquantizedExperts.apply)
        setattr(communicator, _PATCHED, True)
    return True


def _all_gatherv(self: Any, input_: Any, dim: int = 0, sizes: list[int] | None = None) -> Any:
    """Concatenate every rank's rows, in rank order. Ranks may hold different numbers of rows, given by
    `sizes`.
    """
    if isinstance(input_, list):
        return [_all_gatherv(self, tensor, dim, sizes) for tensor in input_]
    _first_dimension_only("all_gatherv", dim)
    torch = importlib.import_module("torch")
    rows = list(sizes) if sizes is not None else [input_.shape[0]] * self.world_size
    longest = max(rows)
    own = input_.contiguous()
    if own.shape[0] < longest:
        own = torch.cat([own, own.new_zeros((longest - own.shape[0], *own.shape[1:]))])
    # gloo gathers equal shapes only, hence the padding.
    gathered = [torch.empty_like(own) for _ in range(self.world_size)]
    torch.distributed.all_gather(gathered, own, group=self.device_group)
    return torch.cat([part[:count] for part, count in zip(gathered, rows, strict=True)])


def _reduce_scatterv(self: Any, input_: Any, dim: int = -1, sizes: list[int] | None = None) -> Any:
    """Sum over ranks, and keep the rows that belong to this rank."""
    _first_dimension_only("reduce_scatterv", dim)
    torch = importlib.import_module("torch")
    total = input_.contiguous().clone()
    torch.distributed.all_reduce(total, group=self.device_group)
    rows = list(sizes) if sizes is not None else [total.shape[0] // self.world_size] * self.world_size
    begin = sum(rows[: self.rank_in_group])
    return total[begin : begin + rows[self.rank_in_group]].contiguous()


def _with_local_experts(original: Any) -> Any:
    """Wrap the kernel so that it runs local experts only: global ids become local ones, remote picks weigh
    nothing.
    """

    @functools.wraps(original)
    def apply_local(
        self: Any,
        output: Any,
        hidden_states: Any,
        w1: Any,
        w2: Any,
        topk_weights: Any,
        topk_ids: Any,
        activation: Any,
        global_num_experts: int,
        expert_map: Any,
        *rest: Any,
        **named: Any,
    ) -> Any:
        if expert_map is not None:
            local = expert_map[topk_ids.long()]
            remote = local < 0
            topk_weights = topk_weights.masked_fill(remote, 0)
            topk_ids = local.masked_fill(remote, 0).to(topk_ids.dtype)
        return original(
            self,
            output,
            hidden_states,
            w1,
            w2,
            topk_weights,
            topk_ids,
            activation,
            global_num_experts,
            None,
            *rest,
            **named,
        )

    return apply_local


def _first_dimension_only(name: str, dim: int) -> None:
    if dim != 0:
        raise ValueError(f"{name} on the CPU handles dimension 0 only, not {dim}")
