"""Compiled kernels that outlive a pod: where engines write theirs, and where the agent keeps snapshots of them.

Engines never work in the shared folder: vLLM rewrites its index in place. See docs/decisions/0014.
"""

import hashlib
import json
from collections.abc import Iterable

from moe_operator.api import reasons
from moe_operator.api.compile_cache import CompileCacheSpec, CompileCaching
from moe_operator.api.spec import AgentMode, EngineSpec
from moe_operator.catalog.compile_cache_site import CompileCacheSite
from moe_operator.planner.plan import Refusal
from moe_operator.resources.argument import Argument
from moe_operator.resources.hardening import is_restricted
from moe_operator.resources.pod_parts import Object, PodParts

#: Where snapshots are mounted.
STORE_PATH = "/var/cache/moe-compiled"
VOLUME = "moe-compiled"
#: Below the engines' own cache folder.
_FOLDER = "compiled"
#: Arguments that no compiler sees: addresses and names. All others count, what they are for is not known.
_NOT_COMPILED = frozenset(
    (
        "host",
        "port",
        "served-model-name",
        "shutdown-timeout",
        "disable-access-log-for-endpoints",
        "middleware",
        "data-parallel-address",
        "data-parallel-rpc-port",
        "master-addr",
    )
)
_KEY_LENGTH = 16


def compile_cache_of(engine: EngineSpec, site: CompileCacheSite) -> CompileCacheSpec | None:
    """Where kernels of this engine are kept; None: nowhere.

    The site's default is for those who can use it: with the agent, and, where it is a folder of the node, as root.
    """
    if engine.compile_cache is not None or engine.compile_caching is CompileCaching.DISABLED:
        return engine.compile_cache
    usable = site.default is not None and (site.default.host_path is None or not is_restricted(engine))
    return site.default if usable and engine.agent is AgentMode.ENABLED else None


def compile_cache_refusal(engine: EngineSpec, site: CompileCacheSite) -> Refusal | None:
    """Why kernels cannot be kept as the spec says."""
    cache = compile_cache_of(engine, site)
    if cache is None or cache.host_path is None or site.allows(cache.host_path):
        return None
    return Refusal(
        reasons.HOST_PATH_NOT_ALLOWED,
        f"engine.compileCache.hostPath {cache.host_path} is not allowed here (allowed:"
        f" {', '.join(site.folders) or 'none'}): use one of these, a claim, or have it added to"
        " compileCache.hostPaths of the operator's configuration",
    )


def compile_key(image: str, accelerator: str, arguments: Iterable[Argument]) -> str:
    """Sixteen hex digits, the same for engines that compile the same.

    It spares useless copies; that a kernel fits is for vLLM's own keys to say. The agent adds what only the container
    knows.
    """
    compiled = [one.tokens() for one in arguments if one.flag not in _NOT_COMPILED]
    text = json.dumps((image, accelerator, compiled), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def compile_cache_parts(cache: CompileCacheSpec, namespace: str, key: str, root: str) -> PodParts:
    """What the pods need to keep kernels. `root`: the engines' own cache folder, which goes with the pod."""
    folder = f"{root}/{_FOLDER}"
    # DeepGEMM's kernels, autotuning results and torch.compile's are below VLLM_CACHE_ROOT by themselves.
    compilers = {
        "VLLM_CACHE_ROOT": (f"{folder}/vllm", "torch.compile's and DeepGEMM's kernels, autotuning results"),
        "TRITON_CACHE_DIR": (f"{folder}/triton", "Triton's kernels"),
        "TORCHINDUCTOR_CACHE_DIR": (f"{folder}/inductor", "Inductor's kernels, but for those of the model"),
        "FLASHINFER_WORKSPACE_BASE": (f"{folder}/flashinfer", "FlashInfer's kernels"),
        "TILELANG_CACHE_DIR": (f"{folder}/tilelang", "TileLang's kernels"),
        "CUDA_CACHE_PATH": (f"{folder}/cuda", "what the CUDA driver compiles from PTX"),
    }
    agent = {
        "MOE_AGENT_COMPILED": (folder, "the agent fills it from a snapshot, and publishes it"),
        "MOE_AGENT_COMPILED_STORE": (STORE_PATH, "where snapshots are"),
        "MOE_AGENT_COMPILED_KEY": (key, "image, accelerator and arguments: which snapshot"),
    }
    mount: Object = {"name": VOLUME, "mountPath": STORE_PATH}
    if cache.claim is not None:
        volume: Object = {"name": VOLUME, "persistentVolumeClaim": {"claimName": cache.claim}}
        # The claim may hold other things, such as weights, that are not the engine's to write.
        mount["subPath"] = VOLUME
        place = f"claim {cache.claim}"
    else:
        # It holds code: namespaces that share it could run theirs in each other's engines.
        path = f"{cache.host_path}/{namespace}"
        volume = {"name": VOLUME, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
        place = f"hostPath {path}"
    given = {**compilers, **agent}
    return PodParts(
        env=tuple({"name": name, "value": value} for name, (value, _) in given.items()),
        volumes=(volume,),
        mounts=(mount,),
        reasons={
            **{name: f"{what}: kept in {place}" for name, (_, what) in compilers.items()},
            **{name: what for name, (_, what) in agent.items()},
            STORE_PATH: f"kernels that earlier pods compiled, in {place}",
        },
    )
