"""A plan with all that is said of it: sizes, lengths of context, speed, money. Pure; every output is made of this."""

from dataclasses import dataclass, replace

from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import AcceleratorProfile
from moe_operator.catalog.models.catalog import Checkpoint, Model, ModelCatalog
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.cli.contexts import ContextRow, context_rows, resize
from moe_operator.cli.estimates import Fleet, Money, fleet, money
from moe_operator.cli.inventory_source import Nodes
from moe_operator.planner import governance
from moe_operator.planner.checkpoints import choose_checkpoint
from moe_operator.planner.nodes import Hardware, hardware_options
from moe_operator.planner.plan import Plan, Refusal
from moe_operator.planner.planning import plan as make_plan
from moe_operator.planner.room import groups_with_room
from moe_operator.planner.shape import GroupShape
from moe_operator.planner.sizing import Sized
from moe_operator.planner.transports import Transports
from moe_operator.planner.wants import Wants, wants_of
from moe_operator.resources.argument import Argument
from moe_operator.resources.compile_cache import compile_cache_refusal
from moe_operator.resources.engine_args import explained_arguments
from moe_operator.resources.fabric import fabric_additions
from moe_operator.resources.group import render_revision
from moe_operator.resources.pod_security import PodSecurity, template_security
from moe_operator.resources.rendering import Rendering
from moe_operator.resources.revision import Revision
from moe_operator.resources.weights import weights_refusal


@dataclass(frozen=True)
class Sizes:
    """What is known of a plan whose model is known."""

    model: Model
    checkpoint: Checkpoint
    sized: Sized
    wants: Wants
    contexts: tuple[ContextRow, ...]
    money: Money | None
    fleet: Fleet | None


@dataclass(frozen=True)
class PlanReport:
    """A plan and what follows from it."""

    deployment: ModelDeployment
    plan: Plan
    profile: AcceleratorProfile
    hardware: Hardware
    nodes: Nodes
    revision: Revision
    arguments: tuple[Argument, ...]
    room: int | None
    """Groups that find free GPUs now; None where that is not known."""
    rendering: Rendering
    """What the revision is made from."""
    sizes: Sizes | None
    """None for a model that neither the catalogue nor a config.json describes."""
    provenance: governance.Provenance
    site: OperatorConfig
    security: PodSecurity

    @property
    def shape(self) -> GroupShape:
        return shape_of(self.plan)


def shape_of(plan: Plan) -> GroupShape:
    """The layout as the planner's own type."""
    return GroupShape(plan.tensor, plan.data, plan.gpus_per_pod)


def make_report(
    deployment: ModelDeployment,
    nodes: Nodes,
    site: OperatorConfig,
    models: ModelCatalog,
    *,
    config: Model | None = None,
    requests_per_second: float | None = None,
) -> PlanReport | Refusal:
    """Plan the deployment on these nodes, as the site's policy allows. `config`: the model of its config.json."""
    catalog, policy, namespace = site.catalog, site.policy, deployment.namespace
    known = models.find(deployment.spec.model.name)
    if forbidden := governance.refused(policy, deployment, known):
        return forbidden
    deployment = governance.constrained(deployment, policy)
    if not nodes.assumed:
        nodes = replace(nodes, inventory=governance.narrowed(nodes.inventory, policy, namespace))
    planned = make_plan(deployment, nodes.inventory, catalog, models, config)
    if isinstance(planned, Refusal):
        return governance.with_policy_nodes(planned, policy, namespace)
    spec = deployment.spec
    if refused := weights_refusal(spec, planned, site.weights):
        return refused
    if refused := compile_cache_refusal(spec.engine, site.compile_cache):
        return refused
    options = hardware_options(spec, nodes.inventory, catalog)
    assert not isinstance(options, Refusal)  # there is a plan on one of them
    hardware = next(option for option in options if option.profile.name == planned.accelerator)
    profile = hardware.profile
    model = config or models.find(spec.model.name)
    rendering = Rendering(deployment, planned, site)
    revision = render_revision(rendering)
    security = template_security(revision.template)
    forbidden = governance.refused(
        policy,
        deployment,
        known,
        planned,
        image=revision.image,
        pods=(security.level, security.reasons),
        fabric=fabric_additions(revision.template),
    )
    if forbidden:
        return forbidden
    return PlanReport(
        deployment=deployment,
        plan=planned,
        profile=profile,
        hardware=hardware,
        nodes=nodes,
        revision=revision,
        arguments=explained_arguments(rendering),
        rendering=rendering,
        room=groups_with_room(spec, hardware, nodes.inventory, shape_of(planned), planned.transport),
        sizes=None
        if model is None or planned.sizing is None
        else _sizes(deployment, planned, hardware, model, models, requests_per_second),
        provenance=governance.provenance(policy, deployment, known, planned, security.level),
        site=site,
        security=security,
    )


def _sizes(
    deployment: ModelDeployment,
    plan: Plan,
    hardware: Hardware,
    model: Model,
    models: ModelCatalog,
    requests_per_second: float | None,
) -> Sizes:
    wants = wants_of(deployment.spec)
    checkpoint, _ = choose_checkpoint(model, deployment.spec.model, hardware.profile, models)
    shape = shape_of(plan)
    link = Transports(deployment.spec, hardware).link(shape)
    # The plan is made of the same.
    assert not isinstance(link, Refusal)
    sized = resize(model, checkpoint, hardware, shape, wants, link)
    assert sized is not None
    assert plan.sizing is not None
    context = plan.sizing.context_length
    price = hardware.profile.price
    return Sizes(
        model=model,
        checkpoint=checkpoint,
        sized=sized,
        wants=wants,
        contexts=tuple(context_rows(model, checkpoint, hardware, shape, wants, link, context)),
        money=money(plan, wants, price),
        fleet=fleet(plan, wants, price, requests_per_second) if requests_per_second else None,
    )
