"""What an engine said, sorted into causes: a user who is told "the engine exited" for a damaged file, a full GPU and a
broken one alike looks in the wrong place.

The texts are those of vLLM 0.32 and what it brings: from runs of it on a CPU where a comment says "run", else put
together from the format strings of the source that it names.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_operator.api import reasons
from moe_operator.controller.engine_errors import (
    MAX_OUTPUT,
    MAX_OUTPUT_LINES,
    MAX_TEXT,
    EngineError,
    Weight,
    read,
)

#: The agent's prefix, and vLLM's own.
AGENT = "2026-11-30T00:49:07Z VllmWorker-0 multiproc_executor.py:953: "
VLLM = "(EngineCore_DP0 pid=7) ERROR 11-30 00:49:07 [core.py:1510] "

# vllm/v1/engine/utils.py wait_for_engine_startup, vllm/v1/executor/multiproc_executor.py; run
AFTERWARDS = """\
2026-11-30T00:49:07Z EngineCore core.py:1510: EngineCore failed to start. [Exception: WorkerProc initialization failed \
due to an exception in a background process. See stack trace for root cause.; from EOFError: ]
2026-11-30T00:49:07Z uncaught: RuntimeError: Engine core initialization failed. See root cause above. Failed core \
proc(s): {'EngineCore': 1}
"""

# c10/cuda/CUDACachingAllocator.cpp
TORCH_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 178.36 GiB"
    " of which 1.20 GiB is free. Process 123 has 177.10 GiB memory in use. Of the allocated memory 170.01 GiB is"
    " allocated by PyTorch, with 1.2 GiB allocated in private pools (e.g., CUDA Graphs), and 2.10 GiB is reserved by"
    " PyTorch but unallocated."
)
# vllm/v1/core/kv_cache_utils.py _check_enough_kv_cache_memory
KV_TOO_SMALL = (
    "ValueError: To serve at least one request with the model's max seq len (262144), (24.00 GiB KV cache is needed,"
    " which is larger than the available KV cache memory (12.50 GiB). Based on the available memory, the estimated"
    " maximum model length is 136528. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the"
    " CPU backend) or decreasing `max_model_len` when initializing the engine."
)
# vllm/v1/worker/utils.py request_memory
NOT_FREE = (
    "ValueError: Free memory on device cuda:0 (60.31/79.11 GiB) on startup is less than desired GPU memory utilization"
    " (0.92, 72.78 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)

ENDS = [
    # --- accelerator memory
    (
        TORCH_OOM,
        reasons.ACCELERATOR_OUT_OF_MEMORY,
        "tried to allocate 2.00 GiB on GPU 0, which has 1.20 GiB of 178.36",
    ),
    (
        KV_TOO_SMALL,
        reasons.ACCELERATOR_OUT_OF_MEMORY,
        "262144 tokens needs 24.00 GiB and 12.50 GiB are available",
    ),
    (KV_TOO_SMALL, reasons.ACCELERATOR_OUT_OF_MEMORY, "model.contextLength to 136528 or less"),
    (NOT_FREE, reasons.ACCELERATOR_OUT_OF_MEMORY, "only 60.31 of 79.11 GiB of cuda:0 were free"),
    (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when",
        reasons.ACCELERATOR_OUT_OF_MEMORY,
        "no accelerator memory is left for the KV cache",
    ),
    (
        "RuntimeError: CUDA error: out of memory",
        reasons.ACCELERATOR_OUT_OF_MEMORY,
        "CUDA error: out of memory",
    ),
    # NCCL 2.29's alloc.h, within NCCL's own words for transport
    (
        "node-1:7:99 [0] /src/include/alloc.h:228 NCCL WARN Cuda failure 2 'out of memory'",
        reasons.ACCELERATOR_OUT_OF_MEMORY,
        "Cuda failure 2 'out of memory'",
    ),
    # --- accelerators: texts of libcudart 13 after torch's "CUDA error: "
    (
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        reasons.ACCELERATOR_FAULT,
        "illegal memory access",
    ),
    (
        "[rank3]:[E1130 00:40:53.8 ProcessGroupNCCL.cpp:2093] [PG ID 0 PG GUID 0 Rank 3] Process group watchdog thread"
        " terminated with exception: CUDA error: uncorrectable ECC error encountered",
        reasons.ACCELERATOR_FAULT,
        "uncorrectable ECC error",
    ),
    ("RuntimeError: CUDA error: unspecified launch failure", reasons.ACCELERATOR_FAULT, "launch failure"),
    (
        "Unable to determine the device handle for GPU0000:1B:00.0: GPU is lost.",
        reasons.ACCELERATOR_FAULT,
        "lost",
    ),
    ("NVRM: GPU 0000:1b:00.0: GPU has fallen off the bus.", reasons.ACCELERATOR_FAULT, "off the bus"),
    # A program's error, whatever node it runs on.
    ("RuntimeError: CUDA error: device-side assert triggered", reasons.ENGINE_EXITED, "device-side assert"),
    # --- main memory: c10/core/impl/alloc_cpu.cpp
    (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"
        " tried to allocate 966367641600 bytes. Error code 12 (Cannot allocate memory)",
        reasons.OUT_OF_MEMORY,
        "966367641600 bytes",
    ),
    ("MemoryError", reasons.OUT_OF_MEMORY, "MemoryError"),
    # vllm/v1/worker/cpu_worker.py; run
    (
        f"{AGENT}WorkerProc hit an exception. [ValueError: Available memory on node 0 (16.93/19.34 GiB) on kv cache"
        " allocation is less than requested memory for kv (900000.0 GiB).",
        reasons.OUT_OF_MEMORY,
        "(16.93/19.34 GiB)",
    ),
    (
        "ValueError: Available memory on node 0 (16.93/19.34 GiB) on startup is less than desired CPU memory"
        " utilization (0.92, 17.79 GiB).",
        reasons.OUT_OF_MEMORY,
        "desired CPU memory utilization (0.92, 17.79 GiB)",
    ),
    # --- weights; run: a file cut short, a page of HTML in place of one
    (
        f"{AGENT}WorkerProc failed to start. [SafetensorError: Error while deserializing header: incomplete metadata,"
        f" file not fully covered]\n{AFTERWARDS}",
        reasons.WEIGHTS_UNREADABLE,
        "incomplete metadata, file not fully covered",
    ),
    (
        "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: header too large",
        reasons.WEIGHTS_UNREADABLE,
        "header too large",
    ),
    # vllm/model_executor/models/utils.py
    (
        "ValueError: There is no module or parameter named 'model.layers.0.self_attn.x_norm' in Qwen3MoeForCausalLM."
        " The available parameters belonging to model.layers.0.self_attn",
        reasons.WEIGHTS_UNREADABLE,
        "x_norm",
    ),
    # vllm/model_executor/model_loader/default_loader.py, weight_utils.py
    ("RuntimeError: Cannot find any model weights with `/models/x`", reasons.WEIGHTS_UNREADABLE, "/models/x"),
    (
        "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}",
        reasons.WEIGHTS_UNREADABLE,
        "lm_head",
    ),
    (
        "AssertionError: Attempted to load weight (torch.Size([96, 128])) into parameter (torch.Size([64, 128]))",
        reasons.WEIGHTS_UNREADABLE,
        "[96, 128]",
    ),
    # vllm/transformers_utils/config.py within pydantic: about the files, not about the argument
    (
        "ValidationError: 1 validation error for ModelConfig Value error, Invalid repository ID or local directory"
        " specified: '/models/x'.",
        reasons.WEIGHTS_UNREADABLE,
        "/models/x",
    ),
    # huggingface_hub/errors.py and utils/_http.py
    (
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-67)",
        reasons.WEIGHTS_UNREADABLE,
        "401",
    ),
    # --- arguments; run
    (
        "usage: vllm [-h] [-v]\n            {chat,complete,serve}\n            ...\n"
        "vllm: error: unrecognized arguments: --max-batch-tokens 7",
        reasons.ARGUMENT_REFUSED,
        "--max-batch-tokens 7",
    ),
    (
        "vllm serve: error: argument --max-num-seqs: invalid int value: 'many'",
        reasons.ARGUMENT_REFUSED,
        "'many'",
    ),
    (
        "vllm serve: error: argument --eplb-config: 1 validation error for EPLBConfig\nwindowsize\n  Unexpected keyword"
        " argument [type=unexpected_keyword_argument, input_value=5, input_type=int]\n",
        reasons.ARGUMENT_REFUSED,
        "EPLBConfig windowsize Unexpected keyword argument",
    ),
    (
        "2026-11-30T00:47:23Z uncaught: ValidationError: 1 validation error for CacheConfig gpu_memory_utilization"
        " Input should be less than or equal to 1 [type=less_than_equal, input_value=1.7, input_type=float]",
        reasons.ARGUMENT_REFUSED,
        "ValidationError: 1 validation error for CacheConfig gpu_memory_utilization",
    ),
    # The place is what the agent adds; without it, the log's traceback has it.
    (
        "2026-11-30T00:47:23Z uncaught in vllm/engine/arg_utils.py:2265: NotImplementedError: no such thing here",
        reasons.ARGUMENT_REFUSED,
        "NotImplementedError: no such thing here",
    ),
    (
        'Traceback (most recent call last):\n  File "/usr/bin/vllm", line 8, in <module>\n    sys.exit(main())\n'
        '  File "/x/site-packages/vllm/config/parallel.py", line 9, in check\n    raise ValueError(\n'
        "ValueError: two things do not go together",
        reasons.ARGUMENT_REFUSED,
        "two things do not go together",
    ),
    (
        'Traceback (most recent call last):\n  File "/x/site-packages/vllm/config/vllm.py", line 9, in make\n    go()\n'
        '  File "/x/site-packages/vllm/v1/worker/gpu_worker.py", line 9, in go\n    raise ValueError(\n'
        "ValueError: something in the worker",
        reasons.ENGINE_EXITED,
        "something in the worker",
    ),
    # A client's mistake, not the spec's.
    ("ERROR 1 validation error for ChatCompletionRequest", reasons.ENGINE_EXITED, "ChatCompletionRequest"),
    # --- ports; run, and torch/csrc/distributed/c10d/socket.cpp
    ("OSError: [Errno 98] Address already in use", reasons.PORT_TAKEN, "Errno 98"),
    (
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port:"
        " 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        reasons.PORT_TAKEN,
        "port: 29500",
    ),
    # --- transport: c10d's NCCLUtils.hpp and ProcessGroupNCCL.cpp, vllm's pynccl_wrapper.py, gloo, NVSHMEM, NCCL
    (
        "torch.distributed.DistBackendError: NCCL error in: ../ProcessGroupNCCL.cpp:3690, unhandled system error (run"
        " with NCCL_DEBUG=INFO for details), NCCL version 2.29.7\nncclSystemError: System call (e.g. socket, malloc) or"
        " external library call failed or device error. \nLast error:\nBootstrap : no socket interface found",
        reasons.TRANSPORT_FAILED,
        "no socket interface found",
    ),
    (
        "RuntimeError: NCCL error: unhandled cuda error (run with",
        reasons.TRANSPORT_FAILED,
        "unhandled cuda error",
    ),
    (
        "[rank1]:[E1130 ProcessGroupNCCL.cpp:689] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL("
        "SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600012 milliseconds before timing out.",
        reasons.TRANSPORT_FAILED,
        "OpType=ALLREDUCE",
    ),
    (
        "RuntimeError: Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:144] no error",
        reasons.TRANSPORT_FAILED,
        "connectFullMesh",
    ),
    (
        "node-1:7:99 [0] NCCL WARN Call to ibv_modify_qp failed with 110 Connection timed out, on dev mlx5_0:1",
        reasons.TRANSPORT_FAILED,
        "mlx5_0",
    ),
    (
        "torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while trying to connect to"
        " (10.0.0.1, 29500).",
        reasons.TRANSPORT_FAILED,
        "10.0.0.1",
    ),
    (
        "/src/host/init/init.cu:1090: non-zero status: 7 nvshmem initialization failed, exiting ",
        reasons.TRANSPORT_FAILED,
        "non-zero status: 7",
    ),
    # --- everything else stays as it was said
    (
        f"{AGENT}Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.\n"
        f"{AGENT}EngineCore encountered a fatal error. [RuntimeError: cancelled]",
        reasons.ENGINE_EXITED,
        "VllmWorker-0 died unexpectedly (exit code: -9)",
    ),
    # run: the engine core was killed
    (
        "2026-11-30T00:55:26Z MainProcess core_client.py:817: [shutdown] MPClient: engine core exited unexpectedly;"
        " starting cleanup\n2026-11-30T00:55:26Z MainProcess async_llm.py:906: AsyncLLM output_handler failed."
        " [EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.]",
        reasons.ENGINE_EXITED,
        "engine core exited unexpectedly",
    ),
    # run: the same in the log
    (
        "(APIServer pid=7) WARNING 11-30 00:55:26 [core_client.py:817] [shutdown] MPClient: engine core exited"
        " unexpectedly; starting cleanup\n(APIServer pid=7) ERROR 11-30 00:55:26 [async_llm.py:906] AsyncLLM"
        " output_handler failed.\n",
        reasons.ENGINE_EXITED,
        "engine core exited unexpectedly",
    ),
    (
        "WARNING 11-30 00:49:07 [core_client.py:818] [shutdown] MPClient: engine core exited unexpectedly; starting",
        reasons.ENGINE_EXITED,
        "engine core exited unexpectedly",
    ),
    ("INFO ready\nERROR boom", reasons.ENGINE_EXITED, "ERROR boom"),
]


@pytest.mark.parametrize(("said", "reason", "part"), ENDS)
def test_each_end_has_its_reason_and_its_point(said: str, reason: str, part: str) -> None:
    found = read(said)
    assert (found.reason, part in found.text) == (reason, True), found


@pytest.mark.parametrize("prefix", ["", AGENT, VLLM])
@pytest.mark.parametrize(
    ("said", "reason", "part"), [end for end in ENDS if "\n" not in end[0] and end[0][0].isupper()]
)
def test_whoever_wrote_the_line_it_means_the_same(prefix: str, said: str, reason: str, part: str) -> None:
    """With the agent, without it, and from the log of any of the engine's processes."""
    found = read(prefix + said)
    assert (found.reason, part in found.text) == (reason, True), found


def test_no_reason_is_given_to_nothing() -> None:
    for nothing in ("", "\n \n", "INFO 11-30 00:49:07 [launcher.py:1] Route: /health"):
        assert read(nothing).reason == reasons.ENGINE_EXITED


def test_the_root_is_told_not_the_last_words() -> None:
    """The API server ends with "see root cause above", which nobody sees any more."""
    found = read(f"{AGENT}WorkerProc failed to start. [{TORCH_OOM}]\n{AFTERWARDS}")
    assert found.reason == reasons.ACCELERATOR_OUT_OF_MEMORY
    assert found.output[0].startswith(AGENT)
    assert "root cause above" in found.output[-1]


def test_a_transport_that_fails_for_want_of_memory_is_no_transport_failure() -> None:
    said = "RuntimeError: NCCL error: unhandled cuda error\nRuntimeError: CUDA error: out of memory"
    assert read(said).reason == reasons.ACCELERATOR_OUT_OF_MEMORY
    assert read("\n".join(reversed(said.splitlines()))).reason == reasons.ACCELERATOR_OUT_OF_MEMORY


@pytest.mark.parametrize(
    "said",
    [
        # gloo/transport/tcp/pair.cc
        "RuntimeError: [/src/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:4711",
        # c10d NCCLUtils.hpp
        "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, remote process exited or there was a network"
        " error, NCCL version 2.29.7\nncclRemoteError: A call failed possibly due to a network error or a remote"
        " process exiting prematurely.",
        "torch.distributed.DistBackendError: NCCL communicator was aborted on rank 1.",
        # What follows in the same process follows from it.
        "EngineCore encountered a fatal error. [RuntimeError: [pair.cc:547] Connection closed by peer [10.0.0.2]]\n"
        "RuntimeError: NCCL error: unhandled system error\n"
        "AsyncLLM output_handler failed. [EngineDeadError: EngineCore encountered an issue.]",
        # torch/csrc/distributed/c10d/Utils.hpp, from a TCPStore whose server is gone
        "torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed. Did the remote"
        " server shutdown or crash?",
    ],
)
def test_a_peers_end_is_a_consequence(said: str) -> None:
    """Blamed on the network, a crash of one rank has the whole fabric searched."""
    found = read(said)
    assert (found.reason, found.weight) == (reasons.ENGINE_EXITED, Weight.CONSEQUENCE)
    assert found.text.startswith(said.splitlines()[0][:60])


def test_an_error_that_stems_from_another_is_that_one() -> None:
    """The agent writes both in one line."""
    said = f"{AGENT}failed [RuntimeError: Connection reset by peer; from RuntimeError: CUDA error: out of memory]"
    assert read(said).reason == reasons.ACCELERATOR_OUT_OF_MEMORY


def test_warnings_that_an_engine_lives_through_are_no_cause() -> None:
    """vllm/config/parallel.py tries another port."""
    said = (
        "WARNING 11-30 00:49:07 [parallel.py:746] Address already in use. Retrying with a new port.\n"
        "ERROR 11-30 00:49:09 [core.py:1510] EngineCore failed to start.\n"
    )
    assert read(said).reason == reasons.ENGINE_EXITED


def test_what_users_sent_and_what_opens_doors_stays_out_of_the_status() -> None:
    said = (
        f"{VLLM}Dumping scheduler output for model execution: SchedulerOutput(prompt_token_ids=[1, 2])\n"
        f"{VLLM}401 Client Error for hf_abcdefghijklmnop and Bearer abcdefghijkl\n"
    )
    found = read(said)
    assert found.reason == reasons.WEIGHTS_UNREADABLE
    for text in (found.text, *found.output):
        assert not re.search(r"hf_|abcdef|prompt_token_ids", text)


def bounded(found: EngineError) -> bool:
    return (
        len(found.text.encode()) <= MAX_TEXT
        and len(found.output) <= MAX_OUTPUT_LINES
        and sum(len(line.encode()) for line in found.output) <= MAX_OUTPUT
        and reasons.describe(found.reason) is not None
    )


FRAGMENTS = st.sampled_from(
    [text for text, _, _ in ENDS]
    + [
        AGENT,
        VLLM,
        AFTERWARDS,
        "Traceback (most recent call last):",
        "\n",
        "ä" * 700,
        "\x1b[31m",
        "\udcff",
        "\0",
        " ",
    ]
)


@given(st.lists(FRAGMENTS | st.text(max_size=80), max_size=12).map("".join))
def test_any_text_has_a_cause_within_bounds(text: str) -> None:
    """A judgement that raises would keep the lost group's GPUs for ever."""
    assert bounded(read(text))


@given(st.text(alphabet=st.characters(codec=None), max_size=400))
def test_even_text_that_is_none(text: str) -> None:
    assert bounded(read(text))
