"""Run by the engine's Python: reads argument lists as JSON from standard input, checks each as `vllm serve` would up to
the point where it starts processes, and prints one JSON line with what vLLM made of it or why it refused.

The platform is vLLM's own class for NVIDIA or AMD with a stand-in for the driver, so that its rules for GPUs hold on a
machine without one. Of a platform there is one per process: vLLM keeps it in many modules.
"""

# vLLM is in the engine's environment only.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from verify.rope_reader import rotary_embedding


def main() -> None:
    """Standard input: `{"platform": "cuda" | "gfx..." | "cpu", "cases": [{"id", "arguments", "gpus", "memory",
    "capability", "rope"}]}`; bytes of one GPU, its NVIDIA compute capability times ten, whether to build the rotary
    embedding."""
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints to standard output
    told = json.load(sys.stdin)
    become = _platform(told["platform"])
    read = _reader()
    for case in told["cases"]:
        become(case)
        try:
            found = read(case["arguments"], case["rope"])
        except SystemExit as error:
            found = {"error": f"the parser ended with {error.code}"}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:1500]}
        answers.write(json.dumps({"id": case["id"], **found}) + "\n")
        answers.flush()


def _platform(name: str) -> Callable[[dict[str, Any]], None]:
    """Make vLLM believe in this kind of machine; what is returned makes it believe in a case's GPUs."""
    if name == "cpu":
        os.environ.update(VLLM_TARGET_DEVICE="cpu", VLLM_CPU_KVCACHE_SPACE="1")
        _inspect_models_here()
        return lambda case: None
    if name != "cuda":
        _stand_in_driver(name)
    _stand_in_kernels()
    from vllm import platforms
    from vllm.platforms.interface import DeviceCapability

    if name == "cuda":
        from vllm.platforms.cuda import NonNvmlCudaPlatform as Base
    else:
        from vllm.platforms.rocm import RocmPlatform as Base
    now: dict[str, Any] = {}

    class StandIn(Base):  # type: ignore[misc]
        """vLLM's platform, on the GPUs of the case at hand."""

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            if name == "cuda":
                return DeviceCapability(*divmod(now["capability"], 10))
            return super().get_device_capability(device_id)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return "stand-in"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return int(now["memory"])

        @classmethod
        def device_count(cls) -> int:
            return int(now["gpus"])

    platforms._current_platform = StandIn()
    _inspect_models_here()
    return now.update


def _stand_in_kernels() -> None:
    """A build for CPUs has no kernels for GPUs; here only their presence is asked for."""
    for name in ("vllm._C", "vllm._C_stable_libtorch", "vllm._rocm_C"):
        sys.modules[name] = types.ModuleType(name)
    attention: Any = types.ModuleType("vllm.vllm_flash_attn")
    attention.is_fa_version_supported = lambda *_: True
    for name in ("compile_flash_attn_varlen_func_from_specs", "fa_version_unsupported_reason"):
        setattr(attention, name, lambda *_: None)
    for name in ("flash_attn_varlen_func", "get_scheduler_metadata"):
        setattr(attention, name, lambda *_: None)
    sys.modules[attention.__name__] = attention


class _TritonConfig:
    def __init__(self, kwargs: dict[str, Any], num_warps: int = 4, num_stages: int = 3, **_: Any) -> None:
        self.kwargs, self.num_warps, self.num_stages = kwargs, num_warps, num_stages


def _inspect_models_here() -> None:
    """vLLM looks at each model's class in a process of its own: not on this platform, and slowly."""
    from vllm import _custom_ops
    from vllm.model_executor.models import registry
    from vllm.triton_utils import triton

    # Without Triton vLLM has a function in its place; some kernels choose among their configurations at import.
    triton.Config = _TritonConfig
    for name in vars(_custom_ops):
        if name.startswith("cutlass_") and "support" in name:
            setattr(_custom_ops, name, lambda *_: True)
    registry._run_in_subprocess = lambda function: function()


def _stand_in_driver(target: str) -> None:
    """AMD's management library, as far as vLLM asks it at import: which GPU is there."""
    module: Any = types.ModuleType("amdsmi")
    module.AmdSmiException = type("AmdSmiException", (Exception,), {})
    module.AmdSmiMemoryType = types.SimpleNamespace(VRAM=0)
    for name in ("gpu_device_uuid", "gpu_memory_total"):
        setattr(module, f"amdsmi_get_{name}", lambda *_: 0)
    module.amdsmi_get_gpu_asic_info = lambda *_: {"target_graphics_version": target}
    module.amdsmi_get_processor_handles = lambda: [0]
    for name in ("init", "shut_down", "topo_get_link_type", "topo_get_numa_node_number"):
        setattr(module, f"amdsmi_{name}", lambda *_: None)
    sys.modules["amdsmi"] = module


def _reader() -> Callable[[list[str], bool], dict[str, Any]]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
    # A prefix of a flag is one for argparse: a misspelt flag would pass as the one it begins.
    parser.allow_abbrev = False

    def read(arguments: list[str], rope: bool) -> dict[str, Any]:
        args = parser.parse_args(arguments)
        args.model, args.subparser = args.model_tag, "serve"
        validate_parsed_serve_args(args)
        _check_balancing(args)
        validate_api_server_args(args)
        if args.tool_call_parser:
            ToolParserManager.get_tool_parser(args.tool_call_parser)
        if args.reasoning_parser:
            ReasoningParserManager.get_reasoning_parser(args.reasoning_parser)
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(UsageContext.OPENAI_API_SERVER)
        served = {"served": [[one.name, one.path] for one in args.lora_modules or ()]}
        return _seen(config) | served | ({"rotary": rotary_embedding(config)} if rope else {})

    return read


def _check_balancing(args: Any) -> None:
    """Which modes of balancing exclude each other: said by `vllm serve` itself (`entrypoints/cli/serve.py`) and not
    by the configuration."""
    external = args.data_parallel_external_lb or args.data_parallel_rank is not None
    several = args.data_parallel_multi_port_external_lb
    hybrid = args.data_parallel_hybrid_lb
    if not hybrid and not several:
        hybrid = args.data_parallel_start_rank is not None
    if sum((bool(external), bool(hybrid), bool(several))) > 1:
        raise ValueError("more than one mode of data parallel load balancing")
    if args.headless and args.api_server_count:
        raise ValueError("--api-server-count with --headless")


def _seen(config: Any) -> dict[str, Any]:
    """What tells whether the engine understood what the plan meant."""
    parallel, model = config.parallel_config, config.model_config
    multimodal = model.multimodal_config
    return {
        "tensor": parallel.tensor_parallel_size,
        "total": parallel.data_parallel_size,
        "local": parallel.data_parallel_size_local,
        "rank": parallel.data_parallel_rank,
        "external": parallel.data_parallel_external_lb,
        "hybrid": parallel.data_parallel_hybrid_lb,
        "experts": parallel.enable_expert_parallel,
        "exchange": parallel.all2all_backend,
        "halves": parallel.enable_dbo,
        "balanced": parallel.enable_eplb,
        "redundant": parallel.eplb_config.num_redundant_experts,
        "context": model.max_model_len,
        "sequences": config.scheduler_config.max_num_seqs,
        "tokens": config.scheduler_config.max_num_batched_tokens,
        "cache": config.cache_config.cache_dtype,
        "prefixes": config.cache_config.enable_prefix_caching,
        "drafted": config.num_speculative_tokens,
        "drafts": config.speculative_config.method if config.speculative_config else None,
        "filtered": parallel.enable_ep_weight_filter,
        "balancing": [parallel.eplb_config.window_size, parallel.eplb_config.step_interval],
        "adapters": [config.lora_config.max_loras, config.lora_config.max_lora_rank]
        if config.lora_config
        else None,
        "changed": config.lora_config.target_modules if config.lora_config else None,
        "utilization": config.cache_config.gpu_memory_utilization,
        "quantization": model.quantization,
        "architecture": model.architecture,
        "dtype": str(model.dtype).removeprefix("torch."),
        "images": {k: v.count for k, v in multimodal.limit_per_prompt.items()} if multimodal else {},
    }


if __name__ == "__main__":
    main()
