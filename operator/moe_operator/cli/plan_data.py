"""A plan as data for scripts (`-o json`, `-o yaml`): camelCase, bytes, tokens, milliseconds, US dollars."""

from typing import Any

from moe_operator.catalog.models.storage import checkpoint_bytes
from moe_operator.cli.estimates import Fleet, Money
from moe_operator.cli.explain import Explained, memory_figures, speed_constants
from moe_operator.cli.plan_report import PlanReport, Sizes
from moe_operator.planner.plan import Refusal, Sizing, Transport
from moe_operator.resources.security_notes import security_notes


def plan_data(report: PlanReport, *, explain: bool = False) -> dict[str, Any]:
    """All of a plan. What is not known (a model that was not sized, a missing price) is null."""
    plan, sizes, sizing = report.plan, report.sizes, report.plan.sizing
    return {
        "name": report.deployment.name,
        "namespace": report.deployment.namespace,
        "revision": report.revision.name,
        "image": report.revision.image,
        "model": _model(sizes, report.deployment.spec.model.name),
        "checkpoint": _checkpoint(sizing, sizes),
        "provenance": {
            "licence": report.provenance.licence,
            "publisher": report.provenance.publisher,
            "source": report.provenance.source,
            "revision": report.provenance.revision,
            "policyRule": report.provenance.rule,
            "nodes": {key: list(values) for key, values in report.provenance.nodes.items()},
        },
        "podSecurity": {"level": report.security.level.value, "reasons": list(report.security.reasons)},
        "accelerator": {
            "name": plan.accelerator,
            "gpusPerNode": report.hardware.gpus_per_node,
            "memoryMib": report.hardware.memory_mib,
        },
        "nodes": {
            "source": report.nodes.source,
            "assumed": report.nodes.assumed,
            "groupsWithRoom": report.room,
            "problems": [
                {"node": p.node, "key": p.key, "message": p.message} for p in report.nodes.inventory.problems
            ],
        },
        "layout": {
            "width": plan.width,
            "podsPerGroup": plan.pods_per_group,
            "gpusPerPod": plan.gpus_per_pod,
            "ranksPerPod": plan.ranks_per_pod,
            "tensor": plan.tensor,
            "data": plan.data,
            "expertParallel": plan.expert_parallel,
            "redundantExperts": sizing.redundant_experts if sizing else None,
        },
        "transport": _transport(plan.transport),
        "memory": _memory(sizing, sizes),
        "kvCache": _kv_cache(sizing, plan.data),
        "contexts": [
            {
                "contextLength": row.context_length,
                "kvCachePrecision": row.kv_cache_precision,
                "bytesPerRequest": row.bytes_per_request,
                "requestsPerGroup": row.requests_per_group,
                "fits": row.fits,
                "stretched": row.stretched,
            }
            for row in (sizes.contexts if sizes else ())
        ],
        "estimate": _estimate(sizing, sizes, plan.width),
        "cost": _cost(sizes.money if sizes else None),
        "load": _load(sizes.fleet if sizes else None),
        "engineArguments": [
            {"flag": one.flag or None, "value": one.value, "reason": one.reason} for one in report.arguments
        ],
        "notes": [*plan.notes, *security_notes(report.deployment, report.revision, report.site)],
        "assumptions": list(sizes.wants.assumed) if sizes else [],
        **(_explained(report) if explain else {}),
    }


def _transport(transport: Transport | None) -> dict[str, Any] | None:
    if transport is None:
        return None
    return {
        "fabric": transport.fabric,
        "allToAll": transport.all2all,
        "rdmaResource": transport.rdma_resource,
        "rdmaCount": transport.rdma_count,
        "domain": transport.domain,
        "domainRequired": transport.domain_required,
        "computeDomain": transport.compute_domain,
    }


def refusal_data(refusal: Refusal) -> dict[str, Any]:
    """Why there is no plan."""
    return {
        "refusal": {
            "reason": refusal.reason,
            "message": refusal.message,
            "retry": refusal.retry,
            "lifts": [{"field": f"spec.{lift.field}", "value": lift.value} for lift in refusal.lifts],
        }
    }


def _model(sizes: Sizes | None, name: str) -> dict[str, Any]:
    if sizes is None:
        return {"name": name, "sized": False}
    architecture = sizes.model.architecture
    return {
        "name": sizes.model.name,
        "sized": True,
        "architecture": architecture.name,
        "parameters": architecture.total_parameters,
        "activeParameters": architecture.active_parameters,
        "licence": sizes.model.licence,
        "contextLength": architecture.context_length,
        "stretchedContextLength": sizes.model.stretch.up_to if sizes.model.stretch else None,
    }


def _checkpoint(sizing: Sizing | None, sizes: Sizes | None) -> dict[str, Any] | None:
    if sizing is None or sizes is None:
        return None
    return {
        "precision": sizing.precision,
        "repository": sizing.repository,
        "bytes": checkpoint_bytes(sizes.model, sizes.checkpoint),
    }


def _memory(sizing: Sizing | None, sizes: Sizes | None) -> dict[str, Any] | None:
    if sizing is None or sizes is None:
        return None
    weights = sizes.sized.memory.weights
    return {
        "capacityBytes": sizing.capacity_bytes,
        "weightBytes": sizing.weight_bytes,
        "routedExpertBytes": weights.routed_experts,
        "redundantExpertBytes": weights.redundant_experts,
        "adapterBytes": weights.adapters,
        "otherWeightBytes": weights.other,
        "kvCacheBytes": sizing.kv_cache_bytes,
        "activationBytes": sizing.activation_bytes,
        "bufferBytes": sizing.buffer_bytes,
        "headroomBytes": sizing.headroom_bytes,
        "utilizationPercent": sizing.utilization,
    }


def _kv_cache(sizing: Sizing | None, data: int) -> dict[str, Any] | None:
    if sizing is None:
        return None
    return {
        "precision": sizing.kv_cache_dtype,
        "tokens": sizing.kv_cache_tokens,
        "blockTokens": sizing.kv_block_tokens,
        "blockBytes": sizing.kv_block_bytes,
        "requestsPerRank": sizing.concurrency,
        "requestsPerGroup": sizing.concurrency * data,
        "contextLength": sizing.context_length,
        "maxSequences": sizing.max_sequences,
        "maxBatchedTokens": sizing.max_batched_tokens,
        "prefixCaching": sizing.prefix_caching,
        "draftedTokens": sizing.speculative_tokens,
    }


def _estimate(sizing: Sizing | None, sizes: Sizes | None, width: int) -> dict[str, Any] | None:
    if sizing is None or sizes is None:
        return None
    wants = sizes.wants
    return {
        "inputTokens": wants.input_tokens,
        "outputTokens": wants.output_tokens,
        "sequencesPerRank": sizing.sequences_per_rank,
        "outputTokensPerSecond": sizing.output_tokens_per_second,
        "outputTokensPerSecondPerGpu": round(sizing.output_tokens_per_second / width, 1),
        "promptTokensPerSecond": sizing.prompt_tokens_per_second,
        "timeToFirstTokenMs": sizing.time_to_first_token_ms,
        "timePerOutputTokenMs": sizing.time_per_output_token_ms,
        "wantedTimeToFirstTokenMs": round(wants.time_to_first_token * 1000, 3),
        "wantedTimePerOutputTokenMs": round(wants.time_per_output_token * 1000, 3),
        "meetsObjective": sizing.meets_objective,
    }


def _cost(cost: Money | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    return {
        "usdPerGpuHour": cost.usd_per_gpu_hour,
        "source": cost.source,
        "usdPerMillionOutputTokens": round(cost.usd_per_million_output_tokens, 4),
        "usdPerMillionTokens": round(cost.usd_per_million_tokens, 4),
    }


def _load(load: Fleet | None) -> dict[str, Any] | None:
    if load is None:
        return None
    return {
        "requestsPerSecond": load.requests_per_second,
        "requestsPerSecondPerGroup": round(load.requests_per_second_per_group, 3),
        "groups": load.groups,
        "gpus": load.gpus,
        "gpuHoursPerDay": load.gpu_hours_per_day,
        "usdPerDay": None if load.usd_per_day is None else round(load.usd_per_day, 2),
    }


def _explained(report: PlanReport) -> dict[str, Any]:
    def listed(found: tuple[Explained, ...]) -> list[dict[str, str]]:
        return [{"key": one.key, "value": one.value, "reason": one.why} for one in found]

    memory = tuple(memory_figures(report, report.sizes)) if report.sizes else ()
    return {"explanation": {"memory": listed(memory), "speed": listed(speed_constants())}}
