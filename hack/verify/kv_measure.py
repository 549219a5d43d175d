"""Run by the engine's Python: reads cases as JSON from standard input, prints one JSON line with what vLLM makes
of each. See `verify.kv_cache`.
"""

# vLLM is in the engine's environment only.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from verify.kv_cases import CONFIGS, Case

_SCARCE_BLOCKS = 40


def main() -> None:
    """Measure each case; a case that vLLM refuses is printed with its error."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        TMPDIR=tempfile.gettempdir(),
    )
    _inspect_models_here()
    cases = [Case(**fields) for fields in json.load(sys.stdin)]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints to standard output
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            Path(folder, "config.json").write_text(json.dumps(CONFIGS[case.model]))
            try:
                found = _run_engine(case, folder) if case.engine else _specify(case, folder)
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps({"case": case.name, **found}) + "\n")
            answers.flush()


def _inspect_models_here() -> None:
    """vLLM looks at each model's class in a process of its own, which takes ten seconds each time."""
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda function: function()


def _arguments(case: Case, folder: str) -> dict[str, Any]:
    speculative = {"method": "mtp", "num_speculative_tokens": case.speculative_tokens}
    return {
        "model": folder,
        "dtype": case.dtype,
        "skip_tokenizer_init": True,
        "load_format": "dummy",
        "enforce_eager": True,
        "max_num_batched_tokens": case.max_batched_tokens,
        "max_model_len": case.context_length,
        "enable_prefix_caching": case.prefix_caching,
        "speculative_config": speculative if case.speculative_tokens else None,
    }


def _run_engine(case: Case, folder: str) -> dict[str, Any]:
    from vllm import LLM

    engine = LLM(**_arguments(case, folder), kv_cache_memory_bytes=case.kv_bytes, max_num_seqs=4)
    cache = engine.llm_engine.vllm_config.cache_config
    return {
        "way": "engine",
        "numBlocks": cache.num_gpu_blocks,
        "capacityTokens": cache.kv_cache_size_tokens,
        "concurrency": cache.kv_cache_max_concurrency,
        "concurrentBatches": engine.llm_engine.vllm_config.max_concurrent_batches,
    }


def _specify(case: Case, folder: str) -> dict[str, Any]:
    """vLLM's own model code, without weights, says what cache its layers need; its planner does the rest."""
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.core import kv_cache_utils

    arguments = EngineArgs(
        **_arguments(case, folder), block_size=case.block_size, distributed_executor_backend="uni"
    )
    config = arguments.create_engine_config()
    # What a GPU's platform decides differently: precision and batches in flight. The engine's CPU build would
    # refuse them, but the layers' code does not depend on the device.
    config.scheduler_config.async_scheduling = True
    config.scheduler_config.max_num_batched_tokens = case.max_batched_tokens
    config.cache_config.cache_dtype = case.cache_dtype
    config.cache_config.block_size = case.block_size
    with set_current_vllm_config(config):
        _pretend_tensor_parallel(config, case.tensor)
        _build(config)
        if config.model_config.is_hybrid:
            current_platform.update_block_size_for_backend(config)
        specifications = _specifications(config)
        # What the backends of a GPU prefer: blocks outermost only where pages of many sizes share them.
        compressed = config.model_config.hf_config.model_type == "deepseek_v4"
        config.cache_config.kv_cache_layout = "BLHNC" if compressed else "LBNHC"
        plan = kv_cache_utils.get_kv_cache_configs(config, [specifications], [case.kv_bytes])[0]
        groups = plan.kv_cache_groups
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, plan)
        block = kv_cache_utils._pool_bytes_per_block(config, groups)
        scarce = _SCARCE_BLOCKS * block + 99
        return {
            "way": "model code",
            "modelDtype": str(config.model_config.dtype).removeprefix("torch."),
            "numBlocks": plan.num_blocks,
            "capacityTokens": tokens,
            "concurrency": concurrency,
            "concurrentBatches": config.max_concurrent_batches,
            "blockSize": max(_block_size(group.kv_cache_spec) for group in groups),
            "bytesPerBlock": block,
            "groups": sorted([len(g.layer_names), _block_size(g.kv_cache_spec)] for g in groups),
            "scarceBytes": scarce,
            "scarceContext": kv_cache_utils._estimate_max_model_len_from_groups(
                config, groups, scarce - block
            ),
        }


def _pretend_tensor_parallel(config: Any, tensor: int) -> None:
    """One process stands for one rank of `tensor`: layers ask the group only for its size and their place in it."""
    from vllm.distributed import init_distributed_environment, initialize_model_parallel, parallel_state

    if not parallel_state.model_parallel_is_initialized():
        rendezvous = Path(tempfile.mkdtemp(), "rendezvous")
        init_distributed_environment(1, 0, f"file://{rendezvous}", 0, "gloo")
        initialize_model_parallel(1, 1)
    config.parallel_config.tensor_parallel_size = tensor
    parallel_state.get_tp_group().world_size = tensor


def _build(config: Any) -> None:
    """The model's layers, and the prediction layers' where they are used, on the device without memory."""
    import torch
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.v1.attention.backend import MultipleOf
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    # FlashAttention's, for the alignment of hybrid models; the CPU's kernels want multiples of 32.
    CPUAttentionBackend.get_supported_kernel_block_sizes = staticmethod(
        lambda kv_cache_spec=None: [MultipleOf(16)]
    )
    _allow_sparse_attention()
    if config.cache_config.cache_dtype == "nvfp4":
        CPUAttentionBackend.customize_spec = _flashinfer().customize_spec
    with torch.device("meta"):
        initialize_model(vllm_config=config)
        if config.speculative_config is not None:
            draft = config.speculative_config.draft_model_config
            initialize_model(vllm_config=config, model_config=draft, prefix="draft")


def _flashinfer() -> Any:
    """vLLM's FlashInfer backend, which packs NVFP4. FlashInfer itself is only imported by it, and never run here."""

    class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if name.partition(".")[0] != "flashinfer":
                return None
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

        def exec_module(self, module: Any) -> None:
            def attribute(name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return type(name, (), {})

            module.__getattr__ = attribute

    if not any(type(finder).__name__ == Absent.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Absent())
    from vllm.v1.attention.backends.flashinfer import FlashInferBackend

    return FlashInferBackend


def _allow_sparse_attention() -> None:
    """Sparse MLA has no kernels on the CPU; its layers are built as on a Hopper GPU, and never run."""
    import torch
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.attention.backends.mla.flashmla_sparse import FlashMLASparseBackend
    from vllm.v1.worker import workspace

    if not workspace.is_workspace_manager_initialized():
        workspace.init_workspace_manager(torch.device("meta"))
    dense = CpuPlatform.get_attn_backend_cls.__func__

    def choose(
        cls: Any, selected_backend: Any, attn_selector_config: Any, num_heads: int | None = None
    ) -> str:
        if attn_selector_config.use_sparse:
            return f"{FlashMLASparseBackend.__module__}.{FlashMLASparseBackend.__qualname__}"
        return str(dense(cls, selected_backend, attn_selector_config, num_heads))

    CpuPlatform.get_attn_backend_cls = classmethod(choose)


def _specifications(config: Any) -> dict[str, Any]:
    """As the engine's model runner asks the layers."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    runner = SimpleNamespace(vllm_config=config, shared_kv_cache_layers={})
    specifications: dict[str, Any] = GPUModelRunner.get_kv_cache_spec(runner)
    return specifications


def _block_size(specification: Any) -> int:
    """Tokens per block; 0 for recurrent states."""
    from vllm.v1.kv_cache_interface import MambaSpec

    return 0 if isinstance(specification, MambaSpec) else int(specification.block_size)


if __name__ == "__main__":
    main()
