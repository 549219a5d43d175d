"""`--lock`: the manifest with every field that the plan derived written out, so that it plans to the same elsewhere.

What is written is what a user may set. Parts that are not the plan's own (scaling, objective, image, source, revision)
stay as they are: an objective written out would make mode Auto scale by it.
"""

import copy
from typing import Any

from moe_operator.api.spec import Allocation
from moe_operator.cli.plan_report import PlanReport
from moe_operator.planner.kv_precision import PRECISIONS, precision_of
from moe_operator.planner.plan import Plan, Sizing

#: Flags of the plan that users may set. A switch has no value.
_FLAGS = (
    "gpu-memory-utilization",
    "max-num-seqs",
    "max-num-batched-tokens",
    "enable-prefix-caching",
    "enable-auto-tool-choice",
    "tool-call-parser",
    "reasoning-parser",
    "limit-mm-per-prompt",
    "all2all-backend",
    "enable-dbo",
    "dbo-decode-token-threshold",
)

_SERVER_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def locked_manifest(obj: dict[str, Any], report: PlanReport) -> dict[str, Any]:
    """The object with every derived field, without what the API server writes. `obj` is left as it is."""
    locked = {key: copy.deepcopy(value) for key, value in obj.items() if key != "status"}
    meta = locked["metadata"]
    for key in _SERVER_METADATA:
        meta.pop(key, None)
    annotations = meta.get("annotations")
    if isinstance(annotations, dict):
        annotations.pop(_APPLIED, None)
        if not annotations:
            del meta["annotations"]
    plan, spec = report.plan, locked["spec"]
    hardware = spec["hardware"]
    hardware.pop("accelerators", None)
    hardware["accelerator"] = plan.accelerator
    hardware["gpusPerGroup"] = plan.width
    hardware["gpusPerNode"] = report.hardware.gpus_per_node
    if plan.transport is not None and plan.pods_per_group > 1:
        hardware["fabric"] = plan.transport.fabric
    if report.hardware.profile.resource_name is not None:
        way = Allocation.RESOURCE_CLAIMS if plan.claims else Allocation.EXTENDED_RESOURCE
        hardware["allocation"] = way.value
    spec["parallelism"] = {**(spec.get("parallelism") or {}), "tensor": plan.tensor, "data": plan.data}
    if plan.sizing is not None:
        _lock_model(spec["model"], plan.sizing)
        _lock_flags(spec, report)
        _lock_features(spec["engine"], plan)
    return locked


def _lock_model(model: dict[str, Any], sizing: Sizing) -> None:
    model["precision"] = sizing.precision
    model["contextLength"] = sizing.context_length
    precision = precision_of(sizing.kv_cache_dtype)
    if precision in PRECISIONS:
        model["kvCachePrecision"] = precision


def _lock_features(engine: dict[str, Any], plan: Plan) -> None:
    """Where experts are and what is drafted, unless `engine.args` has it."""
    sizing = plan.sizing
    assert sizing is not None
    given = {name.replace("_", "-").partition(".")[0] for name in engine["args"]}
    if plan.expert_parallel and not given & {"enable-eplb", "no-enable-eplb", "eplb-config"}:
        balancing = engine["expertBalancing"] = dict(engine.get("expertBalancing") or {})
        balancing["mode"] = "Enabled" if sizing.balanced else "Disabled"
        if sizing.balanced:
            balancing["redundantExperts"] = sizing.redundant_experts
        else:
            balancing.pop("redundantExperts", None)
    if sizing.speculation:
        engine["speculation"] = {**engine["speculation"], "tokens": sizing.speculative_tokens}


def _lock_flags(spec: dict[str, Any], report: PlanReport) -> None:
    engine = spec["engine"] = spec.get("engine") or {}
    args = dict(engine.get("args") or {})
    given = {name.replace("_", "-") for name in args}
    for one in report.arguments:
        if one.flag in _FLAGS and one.flag not in given:
            args[one.flag] = one.value or ""
    engine["args"] = dict(sorted(args.items()))
