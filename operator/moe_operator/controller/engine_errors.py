"""What an engine's last lines say of its end: a reason, the line that tells it, and the numbers in it. Pure.

Read are the termination message, which the agent fills, and the end of a container's log. Wording is that of vLLM
0.32 and of the torch 2.13, gloo, NCCL 2.29, NVSHMEM 3.4 and safetensors 0.8 that it brings; the sources are named
beside each pattern, and the table test has their texts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from moe_operator.api import reasons

#: Bounds in bytes: of the text that goes into a message, and of the output in a cause, whose root line may be longer.
MAX_TEXT = 600
MAX_OUTPUT = 1024
MAX_OUTPUT_LINES = 5
_ROOT_LINE, _OTHER_LINE = 400, 150
#: Of what is read; a termination message has at most 4096 bytes, a log's end is asked for by lines.
_MAX_READ = 256 * 1024
_MAX_LINES, _MAX_LINE = 2000, 2048


class Weight(IntEnum):
    """How much a pod's words tell of the group's end; smallest first. Of equals, the first pod to end is the cause."""

    ROOT = 0
    """Trouble that does not come from a peer."""
    VAGUE = 1
    """An error that a peer's end may have brought about, or that nobody knows."""
    SILENT = 2
    CONSEQUENCE = 3
    """Says that a peer was lost first."""


@dataclass(frozen=True)
class EngineError:
    """What was read."""

    reason: str
    text: str = ""
    """The line that tells, with its numbers in words where they are known; at most MAX_TEXT bytes."""
    output: tuple[str, ...] = ()
    """The lines that errors stand in, oldest first; at most MAX_OUTPUT_LINES and MAX_OUTPUT bytes together."""
    weight: Weight = Weight.SILENT


@dataclass(frozen=True)
class _Kind:
    reason: str
    pattern: re.Pattern[str]
    weight: Weight = Weight.ROOT


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


#: In this order where one line fits several: a config that names a missing model is about the weights.
_KINDS = (
    _Kind(
        reasons.ACCELERATOR_OUT_OF_MEMORY,
        _any(
            # c10/cuda/CUDACachingAllocator.cpp; ROCm's torch says HIP, Intel's XPU.
            r"(?:CUDA|HIP|XPU) out of memory",
            r"torch\.OutOfMemoryError",
            # cudaErrorMemoryAllocation, as c10 and NCCL report it; cuBLAS and cuDNN when they find no workspace.
            r"(?:CUDA|HIP) error: out of memory",
            r"Cuda failure (?:\d+ )?'out of memory'",
            r"CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED",
            # vllm/v1/core/kv_cache_utils.py
            r"No available memory for the cache blocks",
            r"larger than the available KV cache memory",
            r"Cannot auto-fit max_model_len: not enough",
            # vllm/v1/worker/utils.py
            r"on startup is less than desired GPU memory utilization",
        ),
    ),
    _Kind(
        reasons.ACCELERATOR_FAULT,
        _any(
            # libcudart's texts of cudaErrorIllegalAddress, ...ECCUncorrectable, ...LaunchFailure,
            # ...NvlinkUncorrectable, ...HardwareStackError and ...DevicesUnavailable. A device-side assert is a
            # program's error.
            r"an illegal memory access was encountered",
            r"uncorrectable ECC error",
            r"unspecified launch failure",
            r"uncorrectable NVLink error",
            r"over nvlink or a hardware error",
            r"CUDA error: hardware stack error",
            r"CUDA-capable device\(s\) is/are busy or unavailable",
            r"no CUDA-capable device is detected",
            r"CUDA driver version is insufficient",
            r"Found no NVIDIA driver",
            r"CUDA error: system not yet initialized",
            # NVML and the driver's own words, for Xid 79 and its like.
            r"GPU is lost",
            r"has fallen off the bus",
            r"NVRM: Xid",
            r"HIP error: an illegal memory access|HIP error: unspecified",
        ),
    ),
    _Kind(
        reasons.OUT_OF_MEMORY,
        _any(
            # c10/core/impl/alloc_cpu.cpp; Python; strerror(ENOMEM).
            r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)",
            r"\bMemoryError\b(?!\.)",
            r"Cannot allocate memory",
            r"std::bad_alloc",
            # vllm/v1/worker/cpu_worker.py
            r"on kv cache allocation is less than requested memory for kv",
            r"on startup is less than desired CPU memory utilization",
        ),
    ),
    _Kind(
        reasons.WEIGHTS_UNREADABLE,
        _any(
            # safetensors; "header too small", "incomplete metadata, file not fully covered" and others follow it.
            r"SafetensorError|Error while deserializing(?: header)?:",
            # vllm/model_executor/models/utils.py and model_loader
            r"There is no module or parameter named",
            r"Cannot find any model weights with",
            r"Following weights were not initialized from",
            r"AssertionError: Attempted to load weight \(",
            r"Some weights are missing|size mismatch for ",
            r"Attempted to load weight .{1,200} into parameter",
            # vllm/transformers_utils/config.py, transformers and huggingface_hub
            r"Invalid repository ID or local directory specified",
            r"GatedRepoError|You are trying to access a gated repo|Access to model .{1,200} is restricted",
            r"RepositoryNotFoundError|RevisionNotFoundError|EntryNotFoundError|LocalEntryNotFoundError",
            r"401 Client Error|403 Client Error",
            r"is not a (?:local folder and is not a )?valid model identifier",
            r"We couldn't connect to '",
            r"(?:does not appear to have a|Can't load the configuration of|no file named) .{0,200}config\.json",
            r"No such file or directory: .{0,300}\.(?:safetensors|bin|json|index)\b",
            # torch.Tensor.copy_ and narrow, when a checkpoint's tensor has another shape than the model's parameter.
            r"\(shape of the (?:loaded|checkpoint)",
        ),
    ),
    _Kind(
        reasons.PORT_TAKEN,
        _any(
            # strerror(EADDRINUSE) from the API server's socket; torch/csrc/distributed/c10d/socket.cpp; ZMQ.
            r"[Aa]ddress already in use",
            r"EADDRINUSE",
        ),
    ),
    _Kind(
        reasons.ARGUMENT_REFUSED,
        _any(
            # argparse, at the end of `vllm serve: error: ...`
            r"^\S{0,200}vllm\S{0,20}(?: \w{1,40}){0,3}: error: ",
            r"error: argument -",
            r"error: unrecognized arguments",
            # pydantic on vllm/config/*.py and vllm/engine/arg_utils.py; requests are validated by it too.
            r"validation errors? for \w*(?:Config|Args)\b",
        ),
    ),
    _Kind(
        reasons.TRANSPORT_FAILED,
        _any(
            # torch/csrc/distributed/c10d: ProcessGroupNCCL.cpp, NCCLUtils.hpp; vllm's pynccl_wrapper.py
            r"NCCL error",
            r"NCCL Error \d",
            r"ncclSystemError|ncclUnhandledCudaError|ncclInternalError|ncclInvalidUsage",
            r"Watchdog caught collective operation timeout",
            r"watchdog got stuck|ProcessGroupNCCL watchdog hang",
            r"NCCL WARN .{0,300}(?:fail|error|no socket|timed? ?out)",
            # gloo/rendezvous/context.cc, gloo/transport/tcp
            r"Gloo connectFullMesh failed",
            r"gloo.{0,200}(?:Connect timeout|Timed out waiting|Unable to find address)",
            r"makeDeviceFor(?:Hostname|Interface)\(\)",
            # torch/csrc/distributed/c10d: socket.cpp, TCPStore
            r"The client socket has (?:failed to connect|timed out)",
            r"Timed out after \d+ seconds waiting for clients",
            r"Dist(?:Network|Store|Backend)Error",
            # NVSHMEM, DeepEP upon it, and UCX under NIXL
            r"NVSHMEM.{0,200}(?:non-zero status|fail|WARN|error)|nvshmem.{0,200}(?:non-zero status|failed)",
            r"DeepEP error: (?:CPU recv )?timeout|DeepEP.{0,80}timeout",
            r"UCX +ERROR|UCS_ERR_|NIXL_ERR_|nixlBackendError|nixlRemoteDisconnectError",
            # libibverbs, as NCCL and NVSHMEM report it
            r"ibv_\w+ failed|local catastrophic error|transport retry counter exceeded|RDMA.{0,80}(?:fail|error)",
        ),
        weight=Weight.VAGUE,
    ),
)

#: What engines say when another rank's end took them along: gloo/transport/tcp/pair.cc, c10d, NCCL.
_CONSEQUENCES = _any(
    r"[Cc]onnection closed by peer",
    r"[Cc]onnection reset by peer",
    r"[Bb]roken pipe",
    r"NCCL communicator was aborted",
    r"ncclRemoteError|remote process exit",
    r"Application timeout caused pair closure",
    r"[Ff]ailed to recv, got 0 bytes|[Cc]onnection was likely closed|(?:send|recv)(?:Bytes|Value) failed",
)
#: What only points at an error that was said before: vllm/v1/engine/utils.py, exceptions.py, multiproc_executor.py.
_POINTERS = _any(
    r"[Ss]ee root cause above",
    r"EngineDeadError|EngineCore encountered an issue",
    r"(?:WorkerProc|Engine core) initialization failed",
    r"check the stack trace above for the root cause",
    r"Shutting down .{0,80}due to engine",
)
#: What an engine's end begins with, where no kind fits; an error of a single request has none of it.
_ENDS = _any(
    r"died unexpectedly|died with",
    r"exited unexpectedly",
    r"encountered a fatal error",
    r"failed to start",
    r"hit an exception",
    r"initialization failed",
    r"\buncaught\b",
    r"terminate called",
    r"Fatal Python error|Segmentation fault|core dumped",
)
_ERROR = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL)\b|^\S*(?:Error|Exception|Exit|Interrupt)\b(?:: |$)|: error: |^\[E\d|\bNCCL WARN\b"
)
_CHATTER = re.compile(r"\b(?:INFO|DEBUG)\b \d\d-\d\d ")
_WARNING = re.compile(r"\bWARNING\b \d\d-\d\d ")
_DUMPS = ("Dumping input data", "Dumping scheduler")

#: `(EngineCore_DP0 pid=7) ERROR 11-30 00:40:53 [core.py:1510] ` of vLLM/logger.py, and the agent's
#: `2026-11-30T00:40:53Z EngineCore_DP0 core.py:1510: `.
_PREFIXES = (
    re.compile(r"^\([^()]{1,80} pid=\d+\) ?"),
    re.compile(
        r"^(?:INFO|DEBUG|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]{1,120}\] ?"
    ),
    re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z? (?:[^:]{1,80}:\d+|uncaught(?: in [^:]{1,120}:\d+)?): "),
)
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
#: The status is read by more people than the log.
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?i:bearer) +[A-Za-z0-9._~+/=-]{8,}|\bsk-[A-Za-z0-9_-]{16,}")
_FRAME = re.compile(r'^ *File "([^"]+)", line \d+')
#: Where vLLM checks what it was started with.
_CHECKS = re.compile(r"vllm/(?:config/\w+|engine/arg_utils|platforms/\w+|entrypoints/openai/cli_args)\.py")
_REFUSALS = re.compile(r"\b(?:ValueError|TypeError|NotImplementedError|AssertionError|KeyError): ")

_TRIED = re.compile(
    r"Tried to allocate ([\d.]+ \w+)\. (\S+ \d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free"
)
_KV_NEEDED = re.compile(
    r"max seq len \((\d+)\), \(?([\d.]+) GiB KV cache is needed, "
    r"which is larger than the available KV cache memory \(([\d.-]+) GiB\)"
)
_KV_FITS = re.compile(r"estimated maximum model length is (\d+)")
_FREE = re.compile(
    r"Free memory on device (\S* ?)\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization "
    r"\(([\d.]+), ([\d.]+) GiB\)"
)


@dataclass(frozen=True)
class _Line:
    """One line that may tell something."""

    whole: str
    """As it was written, but for secrets and control characters."""
    bare: str
    """Without the prefixes of loggers."""
    checked: bool
    """Comes from where vLLM checks its arguments."""


def read(output: str) -> EngineError:
    """Any text has an answer; one that says nothing is EngineExited without text."""
    lines = list(_telling(output))
    if not lines:
        return EngineError(reasons.ENGINE_EXITED)
    follows = [_CONSEQUENCES.search(line.bare) is not None for line in lines]
    best: tuple[Weight, int, _Kind] | None = None
    for index, line in enumerate(lines):
        kind = _kind(line)
        # A network that fails with or after the loss of a peer fails because of it.
        if kind is None or (kind.weight is not Weight.ROOT and any(follows[: index + 1])):
            continue
        if best is None or (kind.weight, index) < best[:2]:
            best = (kind.weight, index, kind)
    if best is not None:
        weight, index, kind = best
        text = _in_words(kind.reason, lines[index].bare)
        return EngineError(kind.reason, text, _output(lines, lines[index]), weight)
    line, weight = _unknown(lines, follows)
    return EngineError(reasons.ENGINE_EXITED, _cut(line.bare, MAX_TEXT), _output(lines, line), weight)


def _unknown(lines: Sequence[_Line], follows: Sequence[bool]) -> tuple[_Line, Weight]:
    """The line that tells most where no kind fits: how the end began; that a peer was lost; the last error."""
    own = [line for line, follow in zip(lines, follows, strict=True) if not follow]
    ends = [line for line in own if _ENDS.search(line.whole)]
    for line in ends:
        if not _POINTERS.search(line.bare):
            return line, Weight.VAGUE
    if any(follows):
        return lines[follows.index(True)], Weight.CONSEQUENCE
    plain = next((line for line in reversed(own) if not _POINTERS.search(line.bare)), None)
    return plain or (ends or own)[0], Weight.VAGUE


def _kind(line: _Line) -> _Kind | None:
    for kind in _KINDS:
        if kind.pattern.search(line.bare):
            return kind
    return _REFUSED if line.checked and _REFUSALS.search(line.bare) else None


_REFUSED = next(kind for kind in _KINDS if kind.reason == reasons.ARGUMENT_REFUSED)


def _telling(output: str) -> Iterator[_Line]:
    """Lines of errors, each with what belongs to it. Where no line looks like one, the last."""
    raw = [
        _SECRET.sub("…", _CONTROL.sub("", one[:_MAX_LINE]))
        for one in output[-_MAX_READ:].splitlines()[-_MAX_LINES:]
    ]
    found: list[_Line] = []
    plain: _Line | None = None
    checked = False
    for index, whole in enumerate(raw):
        bare = _bare(whole)
        if frame := _FRAME.match(bare):
            checked = _CHECKS.search(frame[1]) is not None
            continue
        if not bare.strip() or bare[:1].isspace() or bare.startswith(_DUMPS):
            continue
        if bare.startswith(("Traceback (most", "During handling of", "The above exception was")):
            checked = checked and not bare.startswith("Traceback")
            continue
        # vLLM says of an engine core that was killed in a warning.
        if _CHATTER.search(whole) or (_WARNING.search(whole) and not _ENDS.search(bare)):
            plain = _Line(whole.strip(), bare.strip(), checked=False)
            continue
        more = _continued(raw, index, bare)
        line = _Line(
            whole.strip() + more,
            bare.strip() + more,
            checked=checked or _CHECKS.search(whole) is not None,
        )
        if _ERROR.search(bare) or _ERROR.search(whole) or _kind(line) or _tells_of_an_end(line):
            found.append(line)
            checked = False
        else:
            plain = line
    if found:
        yield from found
    elif plain is not None:
        yield plain


def _tells_of_an_end(line: _Line) -> bool:
    return bool(_ENDS.search(line.whole) or _CONSEQUENCES.search(line.bare) or _POINTERS.search(line.bare))


def _continued(raw: Sequence[str], index: int, bare: str) -> str:
    """pydantic says what is wrong in the next lines, NCCL which error it was."""
    if re.search(r"validation errors? for \w*(?:Config|Args)\s*$", bare):
        wanted = 2
    elif "NCCL error in" in bare or bare.rstrip().endswith("Last error:"):
        wanted = 3
    else:
        return ""
    more = [_bare(one).strip() for one in raw[index + 1 : index + 1 + wanted]]
    return "".join(f" {one}" for one in more if one and not one.startswith("For further information"))


def _bare(line: str) -> str:
    for prefix in _PREFIXES:
        line = prefix.sub("", line, count=1)
    return line


def _in_words(reason: str, line: str) -> str:
    """Numbers first, where they are known, and with what to change; else the line as it is."""
    if reason == reasons.ACCELERATOR_OUT_OF_MEMORY and (words := _memory_in_words(line)):
        return _cut(words, MAX_TEXT)
    return _cut(line, MAX_TEXT)


def _memory_in_words(line: str) -> str:
    if tried := _TRIED.search(line):
        size, gpu, capacity, free = tried.groups()
        return (
            f"out of accelerator memory: tried to allocate {size} on {gpu}, which has {free} of {capacity} free; lower"
            " engine.args.gpu-memory-utilization or max-num-batched-tokens, or take a wider group"
            " (hardware.gpusPerGroup)"
        )
    if needed := _KV_NEEDED.search(line):
        length, wanted, available = needed.groups()
        fits = _KV_FITS.search(line)
        most = f" to {fits[1]} or less" if fits else ""
        return (
            f"the KV cache of one request of {length} tokens needs {wanted} GiB and {available} GiB are available;"
            f" lower model.contextLength{most}, or take a wider group (hardware.gpusPerGroup)"
        )
    if free_memory := _FREE.search(line):
        device, free, capacity, share, desired = free_memory.groups()
        return (
            f"only {free} of {capacity} GiB of {device.strip() or 'the device'} were free at the start, and"
            f" gpu-memory-utilization {share} asks for {desired} GiB: another process holds the rest, or"
            " engine.args.gpu-memory-utilization is to be lowered"
        )
    if "No available memory for the cache blocks" in line:
        return (
            "no accelerator memory is left for the KV cache beside weights and activations; take a wider group"
            " (hardware.gpusPerGroup), or raise engine.args.gpu-memory-utilization"
        )
    return ""


def _output(lines: Sequence[_Line], root: _Line) -> tuple[str, ...]:
    """The root line and the last ones beside it, in their order; each once."""
    seen = {root.bare}
    others: list[int] = []
    for index in range(len(lines) - 1, -1, -1):
        if len(others) == MAX_OUTPUT_LINES - 1:
            break
        if lines[index].bare not in seen:
            seen.add(lines[index].bare)
            others.append(index)
    at = next(index for index, line in enumerate(lines) if line is root)
    kept = sorted([*others, at])
    return tuple(_cut(lines[i].whole, _ROOT_LINE if i == at else _OTHER_LINE) for i in kept)


def _cut(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"
