"""What `kubectl moe status` prints. Pure: objects in, text out."""

from collections.abc import Iterable
from typing import Any

from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import ColdStartStatus, ProvenanceStatus, WeightsStatus
from moe_operator.cli.tables import table
from moe_operator.controller.observed import pod_facts
from moe_operator.planner.governance import places


def start_text(start: ColdStartStatus) -> str:
    """A group's start in a line: `g0 in 412 s: scheduled 3, image 120, engine 289 (weights 180, graphs 22)`."""
    spans = {"weights": start.weights, "compile": start.compile, "graphs": start.graphs}
    engine = [f"{name} {span}" for name, span in spans.items() if span is not None]
    parts = [f"scheduled {start.schedule}"]
    if start.download is not None:
        parts.append(f"download {start.download}")
    parts += [
        f"image {start.image}",
        f"engine {start.engine}" + (f" ({', '.join(engine)})" if engine else ""),
    ]
    return f"{start.group} in {start.total} s: {', '.join(parts)}"


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
    if status.provenance:
        lines += [f"  {line}" for line in provenance_lines(status.provenance)]
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
    if status.cold_start:
        lines.append(f"  last start {start_text(status.cold_start)}")
    if status.weights:
        lines.append(f"  weights    {_weights(status.weights)}")
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


def provenance_lines(runs: ProvenanceStatus) -> list[str]:
    """What runs and whose it is, and by whose leave and where."""
    version = runs.commit[:12] if runs.commit else runs.revision
    at = f" at {version}" if version else ""
    if not runs.commit and runs.source.startswith("hf://"):
        at += " (not pinned)"
    adapters = f", with adapters {', '.join(runs.adapters)}" if runs.adapters else ""
    where = places({key: tuple(values) for key, values in runs.nodes.items()})
    rule = f"policy rule {runs.policy_rule}" if runs.policy_rule else "no policy"
    return [
        f"runs       {runs.source}{at}, {runs.precision}{adapters}; licence {runs.licence}, publisher {runs.publisher}",
        f"governed   by {rule}; on {where or 'any node'}; Pod Security Standard {runs.pod_security}",
    ]


def _weights(weights: WeightsStatus) -> str:
    commit = f" at {weights.commit[:12]}" if weights.commit else ""
    text = f"{weights.source}{commit} in {weights.cache}"
    if weights.ready_since:
        return f"{text}, {weights.bytes / 1e9:.1f} GB, ready since {weights.ready_since}"
    if not weights.total_bytes:
        return f"{text}, not begun"
    return f"{text}, {weights.bytes / 1e9:.1f} of {weights.total_bytes / 1e9:.1f} GB ({weights.percent} %)"
