"""What the operator owns, as data: names that a spec may not set, and what to set instead.

Read by `api.rules`, which refuses them in Python and in the CRD alike, and by the API reference.
"""

from dataclasses import dataclass

from moe_operator.api import names


@dataclass(frozen=True)
class Reserved:
    """Names that belong together because the same advice answers all of them."""

    advice: str
    """What to do instead, and why; goes on after "must not set NAMES: "."""
    exact: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    """Short forms of flags, refused like the flags but not worth a mention."""
    agent_only: bool = False
    """Only reserved while the agent runs in the engine."""


#: Flags of `vllm serve` (0.32), without dashes, dashes for underscores. vLLM also takes every unambiguous
#: abbreviation of a flag, and `no-` before a switch: `api.rules` refuses those with the flag itself.
ARGUMENTS: tuple[Reserved, ...] = (
    Reserved("use spec.model.name, or spec.model.source for other places", ("model", "model-tag")),
    Reserved("use spec.model.servedName", ("served-model-name",)),
    Reserved("use spec.model.revision", ("revision",)),
    Reserved("use spec.model.contextLength", ("max-model-len",)),
    Reserved("use spec.model.precision", ("dtype",)),
    Reserved("use spec.model.kvCachePrecision", ("kv-cache-dtype",)),
    Reserved(
        "use spec.model.adapters, for which the plan makes room", ("lora-modules", "lora-target-modules")
    ),
    Reserved("use spec.parallelism.tensor", ("tensor-parallel-size",), short=("tp",)),
    Reserved(
        "use spec.hardware.gpusPerGroup, or spec.parallelism.data",
        prefixes=("data-parallel-", "dp-supervisor-"),
        short=("dp", "dpl", "dpa", "dpp", "dpb", "dpn", "dpr", "dph", "dpe", "dpm"),
    ),
    Reserved("a group of more than one GPU always runs with it", ("enable-expert-parallel",), short=("ep",)),
    Reserved(
        "ranks are laid out by spec.hardware and spec.parallelism, one process tree per pod",
        (
            "headless",
            "api-server-count",
            "nnodes",
            "node-rank",
            "device-ids",
            "distributed-executor-backend",
            "pipeline-parallel-size",
            "prefill-context-parallel-size",
            "enable-elastic-ep",
            "elastic-ep-max-dp-size",
        ),
        ("master-",),
        ("asc", "pp", "pcp"),
    ),
    Reserved(
        f"pods answer plain HTTP on port {names.HTTP_PORT} of their own address; change it at the gateway",
        ("host", "port", "uds", "grpc", "grpc-port"),
        ("ssl-",),
    ),
    Reserved("use spec.engine.apiKeySecret, as arguments can be read by many", ("api-key",)),
    Reserved(
        "it goes with the pods' grace period; spec.rollout.drainDeadline bounds how long a drain waits",
        ("shutdown-timeout",),
    ),
    Reserved("the operator reads the engine's figures", ("disable-log-stats",)),
    Reserved("write the file's flags into spec.engine.args", ("config",)),
    Reserved("use spec.engine.agent: Disabled to bring your own", ("middleware",), agent_only=True),
)

#: Environment variables of the engine container.
ENVIRONMENT: tuple[Reserved, ...] = (
    Reserved(
        "it comes from the pod",
        ("POD_IP", "POD_NAME", "VLLM_HOST_IP"),
    ),
    Reserved("LeaderWorkerSet sets these", (), ("LWS_",)),
    Reserved("ranks are laid out by spec.hardware and spec.parallelism", (), ("VLLM_DP_",)),
    Reserved("use spec.engine.apiKeySecret", ("VLLM_API_KEY",)),
    Reserved("vLLM chooses a folder of its own", ("PROMETHEUS_MULTIPROC_DIR",)),
    Reserved(
        "use spec.engine.agent: Disabled to do without the agent",
        ("PYTHONPATH", "VLLM_PLUGINS"),
        ("MOE_AGENT_",),
        agent_only=True,
    ),
)

#: Labels and annotations of the pods.
METADATA: tuple[Reserved, ...] = (
    Reserved(
        "choose a key of your own",
        ("app.kubernetes.io/name", "app.kubernetes.io/instance", names.LABEL_MANAGED_BY),
        (f"{names.GROUP}/", f"{names.LWS_GROUP}/", f"{names.LWS_LABEL_PREFIX}/"),
    ),
)

#: Names of volumes, and the paths at which they are mounted in the engine container.
VOLUMES: tuple[Reserved, ...] = (Reserved("choose another name", ("shm", "cache", "model"), ("moe-",)),)
MOUNT_PATHS: tuple[Reserved, ...] = (
    Reserved(
        "mount it elsewhere (a folder below /var/cache/moe-operator is fine)",
        (
            "/dev/shm",
            "/dev/termination-log",
            "/models",
            "/adapters",
            "/opt/moe-agent",
            "/run/moe-agent",
            "/var/cache/moe-operator",
            "/var/cache/moe-compiled",
            "/var/cache/moe-weights",
        ),
    ),
)
CONTAINERS: tuple[Reserved, ...] = (
    Reserved(
        "change the engine through spec.engine, and give other containers another name",
        (names.ENGINE_CONTAINER,),
    ),
)
#: Resources of the engine container that follow from the plan.
RESOURCES: tuple[Reserved, ...] = (
    Reserved(
        "use spec.hardware.gpusPerGroup and spec.hardware.gpusPerNode", ("nvidia.com/gpu", "amd.com/gpu")
    ),
)
