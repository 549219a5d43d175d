"""When a deployment is looked at again by itself. Lost otherwise: one that waits for something that nobody tells the
operator of stands still until the next resync, or is looked at without end."""

from typing import Any

import pytest

from factories.deployments import model_deployment
from factories.groups import NOW
from moe_operator.api import reasons
from moe_operator.api.status import ThroughputStatus
from moe_operator.controller.group_planner import CreateGroup, GroupPlan
from moe_operator.controller.learned import Trouble
from moe_operator.controller.load import Load
from moe_operator.controller.pass_state import Decision, PassState
from moe_operator.controller.planning import Room
from moe_operator.controller.requeue import LEAST, soonest, waits
from moe_operator.controller.scale import Scale


def found(seen_slots: tuple[int, ...] = (), after_slots: tuple[int, ...] = (), **learned: Any) -> list[float]:
    """The waits of a pass that saw to these new groups and then wants those."""
    deployment = model_deployment()
    state = PassState(deployment, deployment.spec, NOW, {})
    for name, value in learned.items():
        setattr(state, name, value)
    seen, after = (
        Decision(
            views=[],
            plan=GroupPlan([CreateGroup(slot, reasons.GROUP_WANTED) for slot in slots]),
            scale=Scale(1, 1, None, None),
            load=Load(0.0, {}, {}, ThroughputStatus()),
        )
        for slots in (seen_slots, after_slots)
    )
    return list(waits(state, seen, after))


def trouble(reason: str, *, stalled: bool = True, spec_at_fault: bool = False) -> Trouble:
    return Trouble(reason, "why", stalled=stalled, spec_at_fault=spec_at_fault)


@pytest.mark.parametrize(
    ("learned", "wait"),
    [
        ({"trouble": trouble(reasons.FORBIDDEN)}, 20.0),
        ({"trouble": trouble(reasons.NO_NODES, stalled=False, spec_at_fault=True)}, 20.0),
        ({"trouble": trouble(reasons.NAME_CONFLICT)}, 20.0),
        ({"trouble": trouble(reasons.NAME_CONFLICT, stalled=False)}, 2.0),
        ({"hindrance": (reasons.WEBHOOK_UNAVAILABLE, "why")}, 5.0),
        ({"room": Room(groups=0, free=4, nodes=2)}, 30.0),
        ({"leaving": True}, 20.0),
    ],
)
def test_what_nobody_tells_the_end_of_is_looked_at_again(learned: dict[str, Any], wait: float) -> None:
    assert found(**learned) == [wait]


def test_a_spec_that_only_its_owner_can_mend_waits_for_the_owner() -> None:
    assert found(trouble=trouble(reasons.INVALID_SPEC, spec_at_fault=True)) == []


def test_a_next_step_comes_at_once_and_the_same_one_does_not_come_again() -> None:
    assert found((0,), (1,)) == [LEAST]
    assert found((0,), (0,)) == []
    assert found((0,), ()) == []


def test_the_first_wait_counts_and_none_is_too_short_to_be_told() -> None:
    assert soonest(None, 7.0, 3.0) == 3.0
    assert soonest(1e-9, None) == LEAST
    assert soonest(None) is None
