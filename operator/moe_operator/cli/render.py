"""What `kubectl moe` prints. Pure: objects in, text out."""

from collections.abc import Iterable, Sequence
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.controller.observed import pod_facts
from moe_operator.resources.revision import Revision


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned as kubectl does."""
    lines = [tuple(header), *(tuple(r) for r in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def describe_plan(deployment: ModelDeployment, revision: Revision) -> str:
    """Layout and engine arguments of one group."""
    plan = revision.plan
    per_rank = "GPU" if plan.tensor == 1 else "GPUs"
    lines = [
        f"{deployment.name}: {deployment.spec.model.name} on {plan.accelerator}",
        f"  group      {plan.width} wide: {plan.pods_per_group} pods x {plan.ranks_per_pod} ranks"
        f" x {plan.tensor} {per_rank}",
        f"  experts    {'spread over ' + str(plan.width) + ' GPUs' if plan.expert_parallel else 'on one GPU'}",
        f"  image      {revision.image}",
        f"  revision   {revision.name}",
        *(f"  note       {note}" for note in plan.notes),
        "",
        "vllm serve \\",
    ]
    arguments = list(revision.engine_arguments)
    rows: list[str] = []
    for argument in arguments[1:] if arguments[:1] == ["serve"] else arguments:
        if rows and not argument.startswith("--") and rows[-1].startswith("--") and " " not in rows[-1]:
            rows[-1] += f" {argument}"
        else:
            rows.append(argument)
    lines.append(" \\\n".join(f"    {row}" for row in rows))
    return "\n".join(lines)


def describe_deployment(deployment: ModelDeployment, pods: Iterable[dict[str, Any]]) -> str:
    """Conditions, groups, pods, the last decision and the last loss."""
    status = deployment.status
    lines = [f"{deployment.namespace}/{deployment.name}: {deployment.spec.model.name}"]
    if status.plan:
        plan = status.plan
        lines.append(
            f"  plan       {plan.pods_per_group} pods x {plan.ranks_per_pod} ranks x {plan.tensor} GPUs"
            f" on {plan.accelerator}, revision {status.revision}"
        )
    if status.endpoint:
        lines.append(f"  endpoint   {status.endpoint}")
    lines.append(
        f"  groups     {status.groups.summary} ready, {status.groups.updated} updated,"
        f" {status.groups.draining} draining"
    )
    lines.append(
        f"  tokens/s   {status.throughput.prompt_tokens_per_second} prompt,"
        f" {status.throughput.output_tokens_per_second} output"
    )
    if status.scaling:
        lines.append(
            f"  scaling    {status.scaling.desired} wanted: {status.scaling.reason}: {status.scaling.message}"
        )
    if status.recovery.last_cause:
        lines.append(
            f"  last loss  {status.recovery.last_group} at {status.recovery.last_failure_time}:"
            f" {status.recovery.last_cause.message}"
        )
    if status.conditions:
        rows = [(c.type, c.status, c.reason, c.message) for c in status.conditions]
        lines += ["", table(("CONDITION", "STATUS", "REASON", "MESSAGE"), rows)]
    found = [(pod, pod_facts(pod, None)) for pod in pods]
    engines = [(p, f) for p, f in found if names.LABEL_GROUP in (p["metadata"].get("labels") or {})]
    if engines:
        pod_rows = [
            (
                pod["metadata"]["labels"][names.LABEL_GROUP],
                facts.name,
                "yes" if facts.ready else "no",
                "on" if facts.traffic else "off",
                str(facts.engine.restarts),
                facts.node or "-",
                "leaving" if facts.deleting else facts.engine.waiting_reason or facts.phase,
            )
            for pod, facts in sorted(engines, key=lambda e: e[1].name)
        ]
        lines += ["", table(("GROUP", "POD", "READY", "TRAFFIC", "RESTARTS", "NODE", "STATE"), pod_rows)]
    return "\n".join(lines)
