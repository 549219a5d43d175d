"""Where the operator would put groups on these nodes. Pure."""

from dataclasses import replace

from moe_operator.catalog.accelerators import Catalog
from moe_operator.cli.plan_report import PlanReport
from moe_operator.planner.placement import Fleet, Holding, Placement
from moe_operator.resources.place import need_of, pod_spec


def places(report: PlanReport, catalog: Catalog, groups: int) -> list[Placement]:
    """Of so many groups, one after the other; an empty place for each that would find its own.

    Of nodes without pods, as an inventory may have them, everything counts as free.
    """
    need = need_of(report.revision, catalog)
    inventory = report.nodes.inventory
    if need is None or inventory.nodes is None or report.nodes.assumed:
        return [Placement()] * groups
    known = replace(inventory, held=inventory.held or {})
    made: list[Placement] = []
    holdings: list[Holding] = []
    for _ in range(groups):
        place = Fleet(need, pod_spec(report.revision), known, holdings).place()
        made.append(place)
        if place != Placement():
            holdings.append(
                Holding(True, waiting=need.pods, devices=need.devices, domain=place.domain, node=place.node)
            )
    return made
