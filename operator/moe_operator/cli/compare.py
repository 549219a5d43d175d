"""`--compare`: the same wishes on every accelerator and in every precision of the model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.spec import HardwareSpec, ParallelismSpec
from moe_operator.catalog.accelerators import AcceleratorProfile, Catalog
from moe_operator.catalog.models.catalog import Model, ModelCatalog
from moe_operator.cli.estimates import Fleet, Money, fleet, money
from moe_operator.cli.inventory_source import Nodes, usual_node
from moe_operator.cli.tables import table
from moe_operator.cli.units import GIB, usd
from moe_operator.planner.facts import Inventory
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.planner.planning import plan as make_plan
from moe_operator.planner.wants import wants_of

_LONGEST_WHY = 64


@dataclass(frozen=True)
class Comparison:
    """One accelerator with one precision: a plan, or why there is none."""

    accelerator: str
    precision: str
    plan: Plan | None
    money: Money | None = None
    fleet: Fleet | None = None
    why: str = ""
    """Short; empty where there is a plan."""


def compare(
    deployment: ModelDeployment,
    nodes: Nodes,
    catalog: Catalog,
    models: ModelCatalog,
    model: Model,
    requests_per_second: float | None = None,
) -> Iterator[Comparison]:
    """Every accelerator of the nodes (of the catalogue, where none was seen) with every precision of the model.

    What the spec says of hardware and layout is left out; objective, context and flags hold.
    """
    profiles = tuple(_profiles(nodes, catalog))
    inventory = nodes.inventory
    if nodes.assumed or inventory.nodes is None:
        selector = deployment.spec.pod_template.node_selector
        inventory = Inventory(tuple(usual_node(profile, catalog, None, selector) for profile in profiles))
    config = model if model.custom else None
    for profile in profiles:
        for precision in model.precisions():
            changed = _on(deployment, profile, precision.value)
            found = make_plan(changed, inventory, catalog, models, config)
            if isinstance(found, Refusal):
                yield Comparison(profile.name, precision.value, None, why=brief(found, model.name))
                continue
            wants = wants_of(changed.spec)
            load = fleet(found, wants, profile.price, requests_per_second) if requests_per_second else None
            cost = money(found, wants, profile.price)
            yield Comparison(profile.name, precision.value, found, cost, load)


def _profiles(nodes: Nodes, catalog: Catalog) -> Iterator[AcceleratorProfile]:
    """GPUs only: what a rank of `cpu` holds says nothing of hardware."""
    seen = None
    if not nodes.assumed and nodes.inventory.nodes is not None:
        found = (catalog.recognise(node.labels) for node in nodes.inventory.nodes)
        seen = {profile.name for profile in found if profile is not None}
    for name in catalog.names():
        profile = catalog.accelerator(name)
        if profile is not None and profile.resource_name and (seen is None or name in seen):
            yield profile


def _on(deployment: ModelDeployment, profile: AcceleratorProfile, precision: str) -> ModelDeployment:
    spec = deployment.spec.model_copy(
        update={
            "hardware": HardwareSpec(accelerator=profile.name),
            "parallelism": ParallelismSpec(),
            "model": deployment.spec.model.model_copy(update={"precision": precision}),
        }
    )
    return ModelDeployment(
        deployment.namespace, deployment.name, deployment.uid, deployment.generation, spec, deployment.status
    )


def brief(refusal: Refusal, model: str) -> str:
    """A refusal in a few words: what is missing where that is a figure, else how it begins. The model is left out, as
    it is the same in all lines."""
    first = refusal.message.replace(f" ({model})", "").removeprefix(f"{model}: ").partition("; ")[0]
    before, missing, after = first.rpartition(" too little")
    if missing:
        figure = before.rpartition(": ")[2]
        what = "KV cache" if "KV cache" in after else "weights"
        return f"{figure} too little per GPU for the {what}"
    first = first.partition(": ")[0]
    return first if len(first) <= _LONGEST_WHY else f"{first[: _LONGEST_WHY - 3]}..."


def compare_text(rows: Iterable[Comparison]) -> str:
    """One line each; the cheapest tokens are the user's to look for, order is the catalogue's."""
    header = (
        "ACCELERATOR",
        "PRECISION",
        "WIDTH",
        "TPxDP",
        "GiB FOR KV",
        "KV TOKENS",
        "REQUESTS",
        "TOKENS/s",
        "$/M OUTPUT",
        "GROUPS",
        "REMARK",
    )
    return table(header, [_cells(row) for row in rows])


def _cells(row: Comparison) -> tuple[str, ...]:
    plan = row.plan
    if plan is None or plan.sizing is None:
        return (row.accelerator, row.precision, *("-",) * 8, row.why or "not sized")
    sizing = plan.sizing
    remarks = [] if sizing.meets_objective else ["misses the objective"]
    if sizing.context_length < sizing.native_context:
        remarks.append(f"context {sizing.context_length}")
    if any("does not compute in" in note for note in plan.notes):
        remarks.append("computes in 16 bits")
    return (
        row.accelerator,
        row.precision,
        str(plan.width),
        f"{plan.tensor}x{plan.data}",
        f"{sizing.kv_cache_bytes / GIB:.1f}",
        str(sizing.kv_cache_tokens),
        str(sizing.concurrency * plan.data),
        str(sizing.output_tokens_per_second),
        usd(row.money.usd_per_million_output_tokens) if row.money else "-",
        str(row.fleet.groups) if row.fleet else "-",
        "; ".join(remarks) or "-",
    )


def compare_data(rows: Iterable[Comparison]) -> list[dict[str, Any]]:
    """The same for scripts: null where it does not apply."""
    return [_data(row) for row in rows]


def _data(row: Comparison) -> dict[str, Any]:
    plan, sizing = row.plan, row.plan.sizing if row.plan else None
    return {
        "accelerator": row.accelerator,
        "precision": row.precision,
        "fits": sizing is not None,
        "why": row.why or None,
        "width": plan.width if plan else None,
        "tensor": plan.tensor if plan else None,
        "data": plan.data if plan else None,
        "contextLength": sizing.context_length if sizing else None,
        "kvCacheBytes": sizing.kv_cache_bytes if sizing else None,
        "kvCacheTokens": sizing.kv_cache_tokens if sizing else None,
        "requestsPerGroup": sizing.concurrency * plan.data if plan and sizing else None,
        "outputTokensPerSecond": sizing.output_tokens_per_second if sizing else None,
        "meetsObjective": sizing.meets_objective if sizing else None,
        "usdPerMillionOutputTokens": round(row.money.usd_per_million_output_tokens, 4) if row.money else None,
        "groups": row.fleet.groups if row.fleet else None,
        "gpuHoursPerDay": row.fleet.gpu_hours_per_day if row.fleet else None,
    }
