"""What a plan of today would change: said, never done, as the planner alone moves nothing that runs."""

from moe_operator.planner.plan import Plan


def described(plan: Plan) -> str:
    """A group's layout in a few words."""
    return (
        f"{plan.pods_per_group} pods x {plan.ranks_per_pod} ranks x {plan.tensor} GPUs on {plan.accelerator}"
    )


def differences(kept: Plan, today: Plan) -> str | None:
    """How a plan made today differs from the one that runs, and what to do for it; None where it does not."""
    changes = []
    if described(kept) != described(today):
        changes.append(f"a group of {described(today)}")
    if kept.sizing is not None and today.sizing is not None:
        before, after = kept.sizing, today.sizing
        if after.precision != before.precision:
            changes.append(f"precision {after.precision}, not {before.precision}")
        if after.context_length != before.context_length:
            changes.append(f"a context of {after.context_length} tokens, not {before.context_length}")
    if not changes:
        return None
    return (
        f"planned for today's nodes and objective it would be {', '.join(changes)}: what runs keeps its plan until"
        " model, hardware, parallelism, engine or podTemplate change"
    )
