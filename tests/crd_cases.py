"""What a ModelDeployment may be and may not: one table for the API server and for the Python that reads it.

`tests/unit` holds the models and rules against it, `tests/cluster` a real API server with the CRD installed.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]

BASE: Spec = {"model": {"name": "org/model"}, "hardware": {"accelerator": "B200"}}

#: Removes a field of BASE.
ABSENT = object()


@dataclass(frozen=True)
class Case:
    """One object: BASE with `spec` merged into it."""

    id: str
    spec: Spec = field(default_factory=dict)
    refused: str = ""
    """Part of the message that refuses it; empty where it is accepted."""
    name: str = "model"
    server_only: bool = False
    """Python reads it all the same, as it must not stop over an object that is stored."""

    def manifest(self) -> dict[str, Any]:
        """The whole object."""
        return manifest(merged(BASE, self.spec), self.name)


def manifest(spec: Spec, name: str = "model", namespace: str = "default") -> dict[str, Any]:
    """A ModelDeployment as a user writes it."""
    return {
        "apiVersion": "moe-operator.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def merged(base: Spec, patch: Spec) -> Spec:
    """`base` with `patch` over it, field by field; lists are replaced."""
    result = copy.deepcopy(base)
    for key, value in patch.items():
        if value is ABSENT:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _schedule(begins: str = "07:30", ends: str = "19:00", **changes: Any) -> Spec:
    made = {
        "name": "office",
        "days": ["Monday", "Friday"],
        "from": begins,
        "to": ends,
        "timeZone": "Europe/Berlin",
        "minGroups": 2,
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ABSENT}


def _cost(**budget: Any) -> Spec:
    return {"pricePerGPUHour": "2.10", "budget": {"amount": "20"} | budget}


def _args(**flags: str) -> Spec:
    return {"engine": {"args": {flag.replace("_", "-"): value for flag, value in flags.items()}}}


def _arg(flag: str, value: str = "1") -> Spec:
    return {"engine": {"args": {flag: value}}}


def _env(name: str) -> Spec:
    return {"engine": {"env": [{"name": name, "value": "x"}]}}


def _pod(**fields: Any) -> Spec:
    return {"podTemplate": fields}


def _hardware(**fields: Any) -> Spec:
    return {"hardware": fields}


ACCEPTED: tuple[Case, ...] = (
    Case("API key from a Secret", {"engine": {"apiKeySecret": {"name": "keys"}}}),
    Case(
        "API key from a Secret, agent named",
        {"engine": {"apiKeySecret": {"name": "keys", "key": "b"}, "agent": "Enabled"}},
    ),
    Case("minimal"),
    Case(
        "useful",
        {
            "model": {"name": "Qwen/Qwen3.5-397B-A17B", "precision": "bf16", "contextLength": 131072},
            "objective": {"timeToFirstToken": "2s", "timePerOutputToken": "50ms"},
            "scaling": {"minGroups": 1, "maxGroups": 6},
        },
    ),
    Case("name of 45 characters", name="a" * 45),
    Case("name with a g and a digit inside", name="qwen-g1-x"),
    Case("name ending in a g", name="gem-g"),
    Case("accelerators", _hardware(accelerator=ABSENT, accelerators=["B200", "H200"])),
    Case("cpu two by two", _hardware(accelerator="cpu", gpusPerGroup=4, gpusPerNode=2)),
    Case("half a node", _hardware(gpusPerGroup=4, gpusPerNode=8)),
    Case("two nodes", _hardware(gpusPerGroup=16, gpusPerNode=8)),
    Case("layout spelt out", {**_hardware(gpusPerGroup=16), "parallelism": {"tensor": 2, "data": 8}}),
    Case("no width, but parallelism", {"parallelism": {"tensor": 2, "data": 3}}),
    Case("weights on a claim", {"model": {"source": "pvc://weights/qwen/397b"}}),
    Case("weights from a bucket", {"model": {"source": "s3://bucket/models/qwen"}}),
    Case("weights in an image", {"model": {"source": "oci://registry.example:5000/models/qwen:1#models"}}),
    Case("weights kept on a claim", {"weights": {"cache": {"claim": "shared"}, "credentialsSecret": "hub"}}),
    Case("kernels kept on a claim", {"engine": {"compileCache": {"claim": "kernels"}}}),
    Case(
        "kernels kept on a claim, all said",
        {
            "engine": {
                "compileCache": {"claim": "kernels"},
                "compileCaching": "Auto",
                "agent": "Enabled",
                "podSecurity": "Restricted",
            }
        },
    ),
    Case("kernels kept on nodes", {"engine": {"compileCache": {"hostPath": "/var/lib/kernels"}}}),
    Case(
        "kernels not kept, without the agent",
        {"engine": {"compileCaching": "Disabled", "agent": "Disabled"}},
    ),
    Case(
        "weights kept on a claim to be made",
        {"weights": {"cache": {"storageClassName": "nfs", "size": "2Ti"}}},
    ),
    Case(
        "weights kept on nodes",
        {"weights": {"cache": {"hostPath": "/var/lib/weights"}, "loader": "Streamer"}},
    ),
    Case("weights not kept", {"weights": {"caching": "Disabled"}}),
    Case(
        "weights that go with their deployment",
        {"weights": {"cache": {"claim": "shared"}}, "deletion": {"weights": "Delete"}},
    ),
    Case("the same in the site's default cache", {"deletion": {"weights": "Delete", "groups": "Immediate"}}),
    Case("weights from the hub", {"model": {"source": "hf://org/model", "revision": "main"}}),
    Case(
        "adapters",
        {
            "model": {
                "adapters": [
                    {
                        "name": "law",
                        "source": "hf://org/law",
                        "rank": 64,
                        "targetModules": ["q_proj", "o_proj"],
                    },
                    {"name": "team/sql", "source": "pvc://adapters/sql"},
                ]
            }
        },
    ),
    Case("cache in 4 bits", {"model": {"kvCachePrecision": "nvfp4"}}),
    Case("drafts", {"engine": {"speculation": {"method": "MTP", "tokens": 2}}}),
    Case("drafts by flag", _arg("speculative-config", '{"method":"mtp","num_speculative_tokens":1}')),
    Case("balanced experts", {"engine": {"expertBalancing": {"mode": "Enabled", "redundantExperts": 32}}}),
    Case("experts that stay", {"engine": {"expertBalancing": {"mode": "Disabled"}}}),
    Case("number of adapters in memory", _arg("max-loras", "2")),
    Case("a path as a name", {"model": {"name": "/models/mine", "servedName": "mine"}}),
    Case("no groups", {"scaling": {"mode": "External", "minGroups": 0}, "replicas": 0}),
    Case("advisory", {"scaling": {"mode": "Advisory", "maxGroups": 4}, "replicas": 3}),
    Case("to zero when idle", {"scaling": {"minGroups": 0, "maxGroups": 2, "scaleToZeroAfter": "30m"}}),
    Case("advice to go to zero", {"scaling": {"mode": "Advisory", "minGroups": 0, "scaleToZeroAfter": "1m"}}),
    Case("a price and a budget", {"cost": _cost(amount="500", action="Hold", timeZone="Europe/Berlin")}),
    Case("a price of nothing", {"cost": {"pricePerGPUHour": "0"}}),
    Case(
        "an API to compare with",
        {"cost": {"compareTo": {"inputPerMillion": "0.60", "outputPerMillion": "2.40"}}},
    ),
    Case("office hours", {"scaling": {"minGroups": 1, "maxGroups": 2, "schedules": [_schedule()]}}),
    Case(
        "a night in every week",
        {
            "scaling": {
                "schedules": [
                    _schedule(days=ABSENT, begins="22:00", ends="06:00"),
                    _schedule(name="b", timeZone=ABSENT),
                ]
            }
        },
    ),
    Case("a window for fewer groups", {"scaling": {"maxGroups": 4, "scaleDown": {"window": "10m"}}}),
    Case("fewer groups at once", {"scaling": {"maxGroups": 4, "scaleDown": {"window": "0s"}}}),
    Case("maximum equals minimum", {"scaling": {"minGroups": 2, "maxGroups": 2}}),
    Case("rollout without surge", {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}),
    Case("drain at once", {"rollout": {"drainDeadline": "0s"}}),
    Case("long durations", {"recovery": {"startDeadline": "1h30m", "stallLimit": "24h"}}),
    Case("ordinary flags", _args(max_num_seqs="256", enable_prefix_caching="", gpu_memory_utilization="0.9")),
    Case("flag in underscores", _arg("max_num_seqs")),
    Case("negated flag", _arg("no-enable-prefix-caching", "")),
    Case("flag with a dot", _arg("speculative-config.method", "mtp")),
    Case("flag that begins like a reserved one", _arg("model-loader-extra-config", "{}")),
    Case("flag beside a reserved prefix", _arg("distributed-timeout-seconds", "600")),
    Case(
        "middleware without the agent", {"engine": {"agent": "Disabled", "args": {"middleware": "my.Thing"}}}
    ),
    Case("python path without the agent", {"engine": {"agent": "Disabled", "env": [{"name": "PYTHONPATH"}]}}),
    Case(
        "ordinary variables",
        {
            "engine": {
                "env": [
                    {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
                    {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"},
                    {"name": "OMP_NUM_THREADS", "value": "4"},
                ]
            }
        },
    ),
    Case(
        "resources",
        {
            "engine": {
                "resources": {
                    "requests": {"cpu": 16, "memory": "200Gi", "rdma/ib": "1"},
                    "limits": {"memory": "1.5e12"},
                }
            }
        },
    ),
    Case(
        "pod template",
        _pod(
            labels={"team": "search", "app.kubernetes.io/part-of": "chat"},
            annotations={"prometheus.io/scrape": "true", "example.com/note": "x" * 5000},
            tolerations=[{"key": "gpu", "operator": "Exists"}, {"key": "spot", "value": "true"}],
            nodeSelector={"pool": "a"},
            affinity={
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                        ]
                    }
                }
            },
            imagePullSecrets=[{"name": "registry"}],
            schedulerName="volcano",
            queueName="team-a",
            priorityClassName="serving",
            runtimeClassName="nvidia",
            volumes=[{"name": "kernels", "persistentVolumeClaim": {"claimName": "kernels"}}],
            volumeMounts=[{"name": "kernels", "mountPath": "/var/cache/moe-operator/vllm"}],
            containers=[{"name": "logs", "image": "example.com/logs:1", "args": ["-f"]}],
        ),
    ),
)

REFUSED: tuple[Case, ...] = (
    # Names.
    Case("name of 46 characters", refused="at most 45 characters", name="a" * 46),
    Case("name with a dot", refused="lower-case letters, digits and dashes", name="a.b"),
    Case("name that begins with a digit", refused="begin with a letter", name="1a"),
    Case("name of a group", refused="must not end in -g and a number", name="qwen-g0"),
    Case("name of a group, two digits", refused="must not end in -g and a number", name="qwen-g12"),
    # Single fields.
    Case("no model", {"model": ABSENT}, "model"),
    Case("no model name", {"model": {"name": ABSENT}}, "name"),
    Case("no hardware", {"hardware": ABSENT}, "hardware"),
    Case(
        "adapter with the model's name",
        {"model": {"adapters": [{"name": "org/model", "source": "hf://org/law"}]}},
        "other than the model's name and servedName",
    ),
    Case(
        "adapter with the served name",
        {"model": {"servedName": "law", "adapters": [{"name": "law", "source": "hf://org/law"}]}},
        "other than the model's name and servedName",
    ),
    Case(
        "two adapters of one name",
        {"model": {"adapters": [{"name": "a", "source": "hf://o/a"}, {"name": "a", "source": "hf://o/b"}]}},
        "adapters",
    ),
    Case(
        "adapter from elsewhere",
        {"model": {"adapters": [{"name": "a", "source": "https://example.com/a"}]}},
        "source",
    ),
    Case(
        "rank of an adapter",
        {"model": {"adapters": [{"name": "a", "source": "hf://o/a", "rank": 513}]}},
        "rank",
    ),
    Case("adapters by flag", _arg("lora-modules", "a=o/a"), "use spec.model.adapters"),
    Case("modules of adapters by flag", _arg("lora_target_modules", "q_proj"), "use spec.model.adapters"),
    Case("cache in 3 bits", {"model": {"kvCachePrecision": "int3"}}, "kvCachePrecision"),
    Case("drafts without a method", {"engine": {"speculation": {"tokens": 2}}}, "tokens needs a method"),
    Case("too many drafts", {"engine": {"speculation": {"method": "MTP", "tokens": 9}}}, "tokens"),
    Case("drafts by magic", {"engine": {"speculation": {"method": "Magic"}}}, "method"),
    Case(
        "copies without balancing",
        {"engine": {"expertBalancing": {"mode": "Disabled", "redundantExperts": 8}}},
        "leave them out where mode is Disabled",
    ),
    Case("model name like a flag", {"model": {"name": "--host"}}, "model.name"),
    Case("model name with a blank", {"model": {"name": "a b"}}, "model.name"),
    Case("served name like a flag", {"model": {"servedName": "-x"}}, "model.servedName"),
    Case("unknown source", {"model": {"source": "ftp://x/y"}}, "model.source"),
    Case("size that is no whole amount", {"weights": {"cache": {"storageClassName": "nfs", "size": "500m"}}}, "size"),
    Case("folder with steps upwards", {"weights": {"cache": {"hostPath": "/var/../etc"}}}, "hostPath"),
    Case("relative folder", {"weights": {"cache": {"hostPath": "weights"}}}, "hostPath"),
    Case("unknown loader", {"weights": {"loader": "Fast"}}, "loader"),
    Case("unknown precision", {"model": {"precision": "bfloat16"}}, "model.precision"),
    Case("no context", {"model": {"contextLength": 0}}, "model.contextLength"),
    Case("duration without a unit", {"objective": {"timeToFirstToken": "20"}}, "timeToFirstToken"),
    Case("duration in another order", {"objective": {"timeToFirstToken": "5s1m"}}, "timeToFirstToken"),
    Case("no time to first token", {"objective": {"timeToFirstToken": "0s"}}, "between 1ms and 1h"),
    Case("stall limit of a step", {"recovery": {"stallLimit": "5s"}}, "between 10s and 24h"),
    Case("start deadline of a blink", {"recovery": {"startDeadline": "100ms"}}, "between 30s and 24h"),
    Case("half a group for a blink", {"recovery": {"placementLimit": "5s"}}, "between 10s and 24h"),
    Case("queue with a slash", {"podTemplate": {"queueName": "team/a"}}, "spec.podTemplate.queueName"),
    Case("drain for ever", {"rollout": {"drainDeadline": "25h"}}, "between 0s and 24h"),
    Case("negative replicas", {"replicas": -1}, "replicas"),
    Case("too many replicas", {"replicas": 257}, "replicas"),
    Case("unknown mode", {"scaling": {"mode": "Manual"}}, "scaling.mode"),
    Case("a window of days", {"scaling": {"scaleDown": {"window": "48h"}}}, "must be between 0s and 24h"),
    Case("groups as text", {"scaling": {"minGroups": "1"}}, "scaling.minGroups", server_only=True),
    Case("image with a blank", {"engine": {"image": "vllm vllm"}}, "engine.image"),
    Case("no quantity", {"engine": {"resources": {"requests": {"memory": "lots"}}}}, "requests"),
    Case("variable without a name", {"engine": {"env": [{"value": "x"}]}}, "name"),
    Case("variable twice", {"engine": {"env": [{"name": "A"}, {"name": "A"}]}}, "Duplicate value",
         server_only=True),
    Case("mount without a path", _pod(volumeMounts=[{"name": "x"}]), "mountPath"),
    Case("label value with a blank", _pod(labels={"a": "x y"}), "podTemplate.labels"),
    Case("label value too long", _pod(labels={"a": "x" * 64}), "podTemplate.labels"),
    # Several fields.
    Case("no accelerator", _hardware(accelerator=ABSENT), "exactly one of accelerator and accelerators"),
    Case("both accelerators", _hardware(accelerators=["H200"]), "exactly one of accelerator and accelerators"),
    Case("uneven nodes", _hardware(gpusPerGroup=12, gpusPerNode=8), "must be a multiple of gpusPerNode"),
    Case("layout that contradicts itself", {**_hardware(gpusPerGroup=16), "parallelism": {"tensor": 2, "data": 4}},
         "leave one of the three out"),
    Case("ranks that leave GPUs over", {**_hardware(gpusPerGroup=16), "parallelism": {"tensor": 3}},
         "parallelism.tensor must divide"),
    Case("more ranks than fit evenly", {**_hardware(gpusPerGroup=16), "parallelism": {"data": 5}},
         "parallelism.data must divide"),
    Case("limits the wrong way round", {"scaling": {"minGroups": 3, "maxGroups": 2}}, "raise maxGroups too"),
    Case("maximum below the default minimum", {"scaling": {"maxGroups": 0}}, "raise maxGroups too"),
    Case("to zero with a minimum", {"scaling": {"minGroups": 1, "scaleToZeroAfter": "30m"}}, "needs minGroups: 0"),
    Case("to zero in the default limits", {"scaling": {"scaleToZeroAfter": "30m"}}, "needs minGroups: 0"),
    Case("to zero while others decide", {"scaling": {"mode": "External", "minGroups": 0, "scaleToZeroAfter": "30m"}},
         "and mode: Auto"),
    Case("to zero at once", {"scaling": {"minGroups": 0, "scaleToZeroAfter": "0s"}}, "between 1m and 168h"),
    Case("a budget of nothing", {"cost": _cost(amount="0.00")}, "amount must be more than 0"),
    Case("a budget that is no number", {"cost": _cost(amount="a lot")}, "amount"),
    Case("a negative price", {"cost": {"pricePerGPUHour": "-1"}}, "pricePerGPUHour"),
    Case("a price that is a float", {"cost": {"pricePerGPUHour": 2.1}}, "pricePerGPUHour"),
    Case("a currency in small letters", {"cost": {"currency": "eur"}}, "currency"),
    Case("a budget per week", {"cost": _cost(period="Week")}, "period"),
    Case("half a comparison", {"cost": {"compareTo": {"inputPerMillion": "1"}}}, "outputPerMillion"),
    Case("a time that no clock shows", {"scaling": {"schedules": [_schedule(begins="24:00")]}}, "from"),
    Case("a time without its zero", {"scaling": {"schedules": [_schedule(begins="7:30")]}}, "from"),
    Case("no such day", {"scaling": {"schedules": [_schedule(days=["Mon"])]}}, "days"),
    Case("no day", {"scaling": {"schedules": [_schedule(days=[])]}}, "days"),
    Case("a schedule for no group", {"scaling": {"schedules": [_schedule(minGroups=0)]}}, "minGroups"),
    Case("a zone with a blank", {"scaling": {"schedules": [_schedule(timeZone="Europe/New York")]}}, "timeZone"),
    Case("a zone that is a path", {"scaling": {"schedules": [_schedule(timeZone="../etc/localtime")]}}, "timeZone"),
    Case("a schedule twice", {"scaling": {"schedules": [_schedule(), _schedule()]}}, "Duplicate value",
         server_only=True),
    Case("no place for weights", {"weights": {"cache": {}}}, "exactly one of claim, storageClassName"),
    Case("two places for weights", {"weights": {"cache": {"claim": "a", "hostPath": "/b"}}}, "exactly one of claim"),
    Case("class without a size", {"weights": {"cache": {"storageClassName": "nfs"}}}, "size goes with"),
    Case("claim with a size", {"weights": {"cache": {"claim": "a", "size": "1Ti"}}}, "size goes with"),
    Case("cache without caching", {"weights": {"caching": "Disabled", "cache": {"claim": "a"}}}, "contradict"),
    Case("weights of nodes that go with their deployment",
         {"deletion": {"weights": "Delete"}, "weights": {"cache": {"hostPath": "/b"}}},
         "goes by the rule of collection"),
    Case("weights that are kept nowhere and go",
         {"deletion": {"weights": "Delete"}, "weights": {"caching": "Disabled"}},
         "nothing to remove with weights.caching: Disabled"),
    Case("somebody's own weights go", {"deletion": {"weights": "Delete"}, "model": {"source": "pvc://models/qwen"}},
         "only what the operator downloaded"),
    Case("weights go somehow", {"deletion": {"weights": "Sometimes"}}, "weights"),
    Case("no place for kernels", {"engine": {"compileCache": {}}}, "exactly one of claim and hostPath"),
    Case("two places for kernels", {"engine": {"compileCache": {"claim": "a", "hostPath": "/b"}}},
         "exactly one of claim and hostPath"),
    Case("a place for kernels that are not kept",
         {"engine": {"compileCache": {"claim": "a"}, "compileCaching": "Disabled"}},
         "compileCaching: Disabled and compileCache contradict"),
    Case("kernels without the agent", {"engine": {"compileCache": {"claim": "a"}, "agent": "Disabled"}},
         "compileCache needs agent: Enabled"),
    Case("kernels in root's folder", {"engine": {"compileCache": {"hostPath": "/a"}, "podSecurity": "Restricted"}},
         "compileCache.hostPath needs podSecurity: Baseline"),
    Case("folder of kernels with steps upwards", {"engine": {"compileCache": {"hostPath": "/a/../b"}}}, "hostPath"),
    Case("kernels kept somehow", {"engine": {"compileCaching": "Maybe"}}, "compileCaching"),
    Case("nothing may move", {"rollout": {"maxSurge": 0}}, "must not both be 0"),
    # Flags that the operator derives.
    Case("flag: model", _arg("model"), "use spec.model.name"),
    Case("flag: served model name", _arg("served-model-name"), "use spec.model.servedName"),
    Case("flag: context", _arg("max-model-len"), "use spec.model.contextLength"),
    Case("flag: precision", _arg("dtype", "half"), "use spec.model.precision"),
    Case("flag: revision", _arg("revision"), "use spec.model.revision"),
    Case("flag: tensor parallel", _arg("tensor-parallel-size"), "use spec.parallelism.tensor"),
    Case("flag: tensor parallel in underscores", _arg("tensor_parallel_size"), "use spec.parallelism.tensor"),
    Case("flag: tensor parallel abbreviated", _arg("tensor-parallel-siz"), "use spec.parallelism.tensor"),
    Case("flag: tensor parallel abbreviated to a word", _arg("tensor"), "use spec.parallelism.tensor"),
    Case("flag: tensor parallel, short", _arg("tp"), "use spec.parallelism.tensor"),
    Case("flag: data parallel", _arg("data-parallel-size"), "or spec.parallelism.data"),
    Case("flag: data parallel, any", _arg("data_parallel_rpc_port"), "or spec.parallelism.data"),
    Case("flag: data parallel abbreviated", _arg("data-par"), "or spec.parallelism.data"),
    Case("flag: data parallel negated", _arg("no-data-parallel-hybrid-lb", ""), "or spec.parallelism.data"),
    Case("flag: expert parallel off", _arg("no-enable-expert-parallel", ""), "always runs with it"),
    Case("flag: pipeline", _arg("pipeline-parallel-size"), "laid out by spec.hardware"),
    Case("flag: nodes", _arg("nnodes"), "laid out by spec.hardware"),
    Case("flag: master", _arg("master-addr"), "laid out by spec.hardware"),
    Case("flag: headless", _arg("headless", ""), "laid out by spec.hardware"),
    Case("flag: API servers", _arg("api-server-count"), "laid out by spec.hardware"),
    Case("flag: host", _arg("host", "0.0.0.0"), "plain HTTP on port 8000"),
    Case("flag: port", _arg("port"), "plain HTTP on port 8000"),
    Case("flag: TLS", _arg("ssl-keyfile"), "plain HTTP on port 8000"),
    Case("flag: API key", _arg("api-key"), "apiKeySecret"),
    Case("flag: shutdown", _arg("shutdown-timeout"), "spec.rollout.drainDeadline"),
    Case("flag: figures off", _arg("disable-log-stats", ""), "reads the engine's figures"),
    Case("flag: file of flags", _arg("config", "/f.yaml"), "into spec.engine.args"),
    Case("flag: middleware", _arg("middleware", "my.Thing"), "spec.engine.agent: Disabled"),
    Case("flag with dashes", _arg("--max-num-seqs"), "without leading dashes"),
    Case("flag with its value", _arg("max-num-seqs=4", ""), "without leading dashes"),
    Case("flag that is empty", _arg(""), "without leading dashes"),
    # Environment.
    Case("variable: address", _env("VLLM_HOST_IP"), "engine.env must not set"),
    Case("variable: LeaderWorkerSet", _env("LWS_LEADER_ADDRESS"), "LeaderWorkerSet sets these"),
    Case("variable: ranks", _env("VLLM_DP_RANK"), "laid out by spec.hardware"),
    Case("variable: API key", _env("VLLM_API_KEY"), "apiKeySecret"),
    Case(
        "API key without the agent",
        {"engine": {"apiKeySecret": {"name": "keys"}, "agent": "Disabled"}},
        "apiKeySecret needs agent: Enabled",
    ),
    Case("API key of no Secret", {"engine": {"apiKeySecret": {"key": "b"}}}, "name"),
    Case("variable: python path", _env("PYTHONPATH"), "spec.engine.agent: Disabled"),
    Case("variable: agent", _env("MOE_AGENT_DIR"), "spec.engine.agent: Disabled"),
    # What the operator owns of the pods.
    Case("request of GPUs", {"engine": {"resources": {"requests": {"nvidia.com/gpu": 4}}}}, "gpusPerNode"),
    Case("limit of GPUs", {"engine": {"resources": {"limits": {"amd.com/gpu": "4"}}}}, "gpusPerNode"),
    Case("label: ours", _pod(labels={"moe-operator.dev/traffic": "on"}), "podTemplate.labels must not set"),
    Case("label: instance", _pod(labels={"app.kubernetes.io/instance": "x"}), "podTemplate.labels must not set"),
    Case("label: manager", _pod(labels={"app.kubernetes.io/managed-by": "x"}), "podTemplate.labels must not set"),
    Case("label: LeaderWorkerSet", _pod(labels={"leaderworkerset.sigs.k8s.io/name": "x"}),
         "podTemplate.labels must not set"),
    Case("annotation: ours", _pod(annotations={"moe-operator.dev/incarnation": "x"}),
         "podTemplate.annotations must not set"),
    Case("annotation: exclusive topology",
         _pod(annotations={"leaderworkerset.sigs.k8s.io/exclusive-topology": "x"}),
         "podTemplate.annotations must not set"),
    Case("volume: shared memory", _pod(volumes=[{"name": "shm", "emptyDir": {}}]), "podTemplate.volumes must not set"),
    Case("volume: ours", _pod(volumes=[{"name": "moe-agent", "emptyDir": {}}]), "podTemplate.volumes must not set"),
    Case("mount: shared memory", _pod(volumeMounts=[{"name": "x", "mountPath": "/dev/shm"}]),
         "podTemplate.volumeMounts must not set"),
    Case("mount: with a slash", _pod(volumeMounts=[{"name": "x", "mountPath": "/opt/moe-agent/"}]),
         "podTemplate.volumeMounts must not set"),
    Case("mount: kernels", _pod(volumeMounts=[{"name": "x", "mountPath": "/var/cache/moe-compiled"}]),
         "podTemplate.volumeMounts must not set"),
    Case("container: engine", _pod(containers=[{"name": "engine", "image": "x"}]),
         "podTemplate.containers must not set"),
)  # fmt: skip

CASES = (*ACCEPTED, *REFUSED)


@dataclass(frozen=True)
class Change:
    """An accepted object and what a user then makes of it."""

    id: str
    before: Spec
    after: Spec
    refused: str = ""


CHANGES: tuple[Change, ...] = (
    Change("another width", {}, _hardware(gpusPerGroup=16)),
    Change("another accelerator", {}, _hardware(accelerator=ABSENT, accelerators=["H200"])),
    Change("another image", {}, {"engine": {"image": "example.com/vllm:1"}}),
    Change("another revision of the model", {"model": {"revision": "a"}}, {"model": {"revision": "b"}}),
    Change("another model", {}, {"model": {"name": "org/other"}}, "create another ModelDeployment"),
)
