"""When one deployment is worth another pass though nothing may tell. Pure; times in seconds."""

from collections.abc import Iterator

from moe_operator.api import reasons
from moe_operator.controller.pass_state import Decision, PassState

#: Least wait: what is due in less than a clock tells apart would be looked at without end.
LEAST = 0.05
#: Until the next try when the cluster, not the spec, is at fault; and until the next look at a deployment that goes.
_RETRY = 20.0
#: ... when an admission webhook does not answer.
_HINDERED = 5.0
#: ... when a pod finds no node: GPUs that others hold or offer are not watched.
_LOOK = 30.0
#: ... and when what is in the way goes by itself.
_SOON = 2.0


def waits(state: PassState, seen: Decision, after: Decision) -> Iterator[float]:
    """For all that is in the way of a pass, or is its next step. `seen`: what it acted on; `after`: what it left."""
    trouble = state.trouble
    if trouble and not (trouble.stalled and trouble.spec_at_fault):
        passing = trouble.reason == reasons.NAME_CONFLICT and not trouble.stalled
        yield _SOON if passing else _RETRY
    elif after.plan.actions and after.plan.actions != seen.plan.actions:
        yield LEAST  # what was just written opened the way to the next step
    if state.room is not None:
        yield _LOOK
    if state.hindrance is not None:
        yield _HINDERED
    if state.leaving:
        yield _RETRY


def soonest(*due: float | None) -> float | None:
    """The first of them to be over; None where nothing is waited for."""
    first = min((one for one in due if one is not None), default=None)
    return None if first is None else max(LEAST, first)
