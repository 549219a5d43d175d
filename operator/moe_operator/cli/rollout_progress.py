"""Where a rollout stands, and the wait for its end. Clock and reads come in as arguments."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.status import Condition, ModelDeploymentStatus
from moe_operator.api.times import parse_time
from moe_operator.cli.errors import ClusterError

#: Seconds between two looks.
POLL = 2.0
#: Seconds by which a loss may come before the condition that it moves.
_MARGIN = 60.0


@dataclass(frozen=True)
class Progress:
    """One look: `over` when nothing more will come of waiting."""

    text: str
    over: bool = False
    failed: bool = False


def progress(deployment: ModelDeployment) -> Progress:
    """Over when the operator has looked at the present spec and either serves it, or is stalled."""
    status = deployment.status
    found = {condition.type: condition for condition in status.conditions if condition.status == "True"}
    if (status.observed_generation or 0) < deployment.generation:
        return Progress(f"the operator has not looked at generation {deployment.generation} of the spec yet")
    if stalled := found.get(reasons.STALLED):
        return Progress(f"Stalled: {_words(stalled)}", over=True, failed=True)
    every = {condition.type: condition for condition in status.conditions}
    if reconciling := found.get(reasons.RECONCILING):
        return Progress("; ".join([_words(reconciling), *_waits(status, every, reconciling)]))
    if reasons.READY not in found:
        ready = every.get(reasons.READY)
        said = _words(ready) if ready else "the operator has said nothing yet"
        return Progress("; ".join([said, *_waits(status, every, ready)]))
    groups = status.groups
    return Progress(
        f"revision {status.revision} serves: {groups.updated} of {groups.desired} groups", over=True
    )


def _waits(
    status: ModelDeploymentStatus, every: Mapping[str, Condition], since: Condition | None
) -> Iterator[str]:
    """The first thing that a person would look for: weights, nodes, the first group that does not serve; and a loss, if
    it came after the condition `since` last moved."""
    for type_ in (reasons.WEIGHTS_READY, reasons.CAPACITY_AVAILABLE):
        if type_ in every and every[type_].status != "True":
            yield _words(every[type_])
            return
    for group in status.groups.unhealthy[:1]:
        yield f"{group.name}: {group.message}"
    lost, begun = (
        parse_time(status.recovery.last_failure_time),
        parse_time(since.last_transition_time) if since else None,
    )
    if status.recovery.last_cause and lost is not None and begun is not None and lost >= begun - _MARGIN:
        yield f"last lost: {status.recovery.last_group}: {status.recovery.last_cause.message}"


def _words(condition: Condition) -> str:
    return f"{condition.reason}: {condition.message}"


async def follow(
    look: Callable[[], Awaitable[ModelDeployment]],
    *,
    patience: float,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    say: Callable[[str], None],
) -> bool:
    """Say what is waited for whenever that changes, until the end or for `patience` seconds; whether it ended well.

    An API server that does not answer for a while is waited for too. Raises ClusterError where it does not answer at
    first, or the deployment is gone.
    """
    deadline = now() + patience
    last = ""
    while True:
        try:
            step = progress(await look())
        except ClusterError as error:
            if not last or error.final:
                raise
            step = Progress(f"the API server does not answer: {error}")
        if step.text != last:
            say(step.text)
            last = step.text
        if step.over:
            return not step.failed
        if now() + POLL > deadline:
            say(f"not over after {patience:g} s: {last}")
            return False
        await sleep(POLL)
