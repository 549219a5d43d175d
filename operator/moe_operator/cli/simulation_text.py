"""A simulation as text."""

from collections.abc import Iterator

from moe_operator.cli.simulation import Served, Simulation, layout
from moe_operator.cli.simulation_data import p99_first_token
from moe_operator.cli.tables import table
from moe_operator.cli.units import span, usd
from moe_operator.simulator import kernel
from moe_operator.simulator.fleet import Life

HEADER = (
    "POLICY",
    "IN OBJECTIVE",
    "BY TOKEN",
    "TTFT P99",
    "GPU-HOURS",
    "COST",
    "STARTING",
    "CHANGES",
    "REVERSALS",
    "CUT",
)


def simulation_text(found: Simulation) -> str:
    """What was simulated, a row a policy, and what to know of it."""
    notes = [f"  {one.name}: {one.note}" for one in found.served if one.note]
    blocks = [
        "\n".join(head(found)),
        table(HEADER, (row(one) for one in found.served)),
        "\n".join(notes),
        "\n".join(f"warning: {warning}" for warning in found.warnings),
    ]
    return "\n\n".join(block for block in blocks if block)


def head(found: Simulation) -> Iterator[str]:
    """Where the figures are from."""
    trace, deployment = found.trace, found.report.deployment
    scale = f", {found.scale:g} times its rate" if found.scale != 1 else ""
    yield f"{deployment.name}: {deployment.spec.model.name} on {found.report.plan.accelerator}"
    yield (
        f"  trace      {found.path}{scale}: {len(trace):,} requests in {span(trace.duration)}, "
        f"{trace.rate:.2f} a second of {trace.prompt.mean():.0f} + {trace.output.mean():.0f} tokens"
    )
    yield f"  group      {layout(found.engine.engine)}"
    yield f"  engine     {found.engine.source}"
    goal = found.objective
    yield f"  objective  first token within {goal.ttft:g} s, {goal.tpot * 1000:g} ms per further token"
    if found.capacity is not None:
        yield (
            f"  sustains   {found.capacity.rate:.2f} requests ({found.capacity.rate * trace.output.mean():,.0f} output "
            "tokens) a second and group of this mix, 99 % in the objective"
        )
    if found.need is not None:
        yield f"  needs      {found.need.mean():.1f} groups at full capacity on average, {found.need.max():.1f} at most"
    yield (
        f"  groups     {found.floor} to {found.ceiling}, {found.start} at the start; cold start "
        f"{span(found.cold_start)}, seed {found.seed}"
    )
    price = "no price is known" if found.price is None else f"{usd(found.price)} ({found.price_source})"
    yield f"  GPU-hour   {price}"


def row(one: Served) -> tuple[str, ...]:
    """One policy."""
    result, first = one.result, p99_first_token(one.result)
    missing = result.count(kernel.CUT) + result.count(kernel.REJECTED) + result.count(kernel.IN_FLIGHT)
    return (
        one.name,
        share(result.attainment()),
        share(result.token_attainment()),
        "-" if first is None else f"{first:.2f} s",
        f"{result.gpu_hours:,.1f}",
        "-" if one.cost is None else usd(one.cost),
        f"{result.gpu_hours_of(Life.STARTING):,.1f}",
        str(len(result.actions)),
        str(result.reversals()),
        str(missing),
    )


def share(value: float) -> str:
    """`99.31 %`; never rounded up to 100."""
    return f"{int(value * 1e4) / 100:.2f} %"
