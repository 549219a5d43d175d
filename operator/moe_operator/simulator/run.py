"""One run: a trace, an engine, a policy, and the same result for the same seed."""

from collections.abc import Iterable

import numpy as np

from moe_operator.simulator import kernel
from moe_operator.simulator.engine_model import EngineModel
from moe_operator.simulator.fleet import Fleet, Life
from moe_operator.simulator.policy import FleetState, Policy
from moe_operator.simulator.result import Action, Objective, Result
from moe_operator.simulator.scrape import Fault, Scraper, View
from moe_operator.simulator.trace import Trace

#: Of a cold start, either way.
JITTER = 0.15


def simulate(
    trace: Trace,
    engine: EngineModel,
    policy: Policy,
    *,
    cold_start: float,
    seed: int,
    start_groups: int,
    floor: int = 1,
    ceiling: int = 64,
    objective: Objective | None = None,
    jitter: float = JITTER,
    drain_deadline: float = 600.0,
    scrape_interval: float = 15.0,
    scrape_delay: float = 15.0,
    faults: Iterable[Fault] = (),
    run_out: float = 900.0,
    settle: float = 0.0,
) -> Result:
    """Serve a trace with groups that a policy scales. Times in seconds.

    `start_groups` are ready at the beginning. The policy is asked every `policy.interval`, first one interval in, and
    what it wants is cut off at `floor` and `ceiling`; it is asked no more, and GPU time no longer counted, after the
    trace's end, from which the requests in flight have `run_out` to finish. For the first `settle` there are never
    fewer than `start_groups`: a trace begins with idle groups, which no fleet that has run before has. What happens at
    one time: requests and steps, groups that get ready or end, samples, the decision. Raises ValueError for bounds that
    cannot be kept.
    """
    if not 0 <= floor <= ceiling or not floor <= start_groups <= ceiling:
        raise ValueError(
            f"{start_groups} groups to start with, at least {floor} and at most {ceiling} do not go together: "
            "floor <= start_groups <= ceiling is needed"
        )
    if not policy.interval > 0 or not scrape_interval > 0:
        raise ValueError(
            f"a policy cannot be asked every {policy.interval} s, nor scraped every {scrape_interval} s"
        )
    requests = kernel.requests(trace, engine)
    fleet = Fleet(
        requests,
        engine,
        cold_start=cold_start,
        jitter=jitter,
        drain_deadline=drain_deadline,
        places=min(ceiling, 2 * start_groups + 2),
        seed=seed,
    )
    scraper = Scraper(fleet, interval=scrape_interval, delay=scrape_delay, faults=faults)
    for _ in range(start_groups):
        fleet.start(0.0, ready=True)
    desired = start_groups
    actions: list[Action] = []
    samples: list[tuple[float, ...]] = []
    scrapes = decisions = 0
    end = trace.duration
    while True:
        next_scrape, next_decision = scrapes * scrape_interval, (decisions + 1) * policy.interval
        now = min(next_scrape, next_decision, fleet.next_due(), end)
        fleet.run_until(now)
        if now >= end:
            break
        if now == next_scrape:
            scraper.scrape(now)
            samples.append(_sample(fleet, now, desired))
            scrapes += 1
        if now == next_decision:
            decisions += 1
            least = floor if now >= settle else start_groups
            state = FleetState(
                desired,
                fleet.count(Life.READY),
                fleet.count(Life.STARTING),
                fleet.count(Life.DRAINING),
                least,
                ceiling,
            )
            wanted = min(max(policy.desired(View(scraper, now), state, now), least), ceiling)
            if wanted != desired:
                actions.append(Action(now, desired, wanted))
                desired = wanted
            fleet.scale(desired, now, undrain=policy.undrain)
    samples.append(_sample(fleet, end, desired))
    spent, cancelled = fleet.close_books(end)
    _run_out(fleet, end, run_out)
    gaps = trace.output - 1
    with np.errstate(invalid="ignore"):
        tpot = np.where(gaps > 0, (requests.last - requests.first) / np.maximum(gaps, 1), 0.0)
    tpot[requests.outcome != kernel.FINISHED] = np.nan
    return Result(
        policy=policy.name,
        trace=trace,
        objective=objective or Objective(),
        ttft=requests.first - trace.arrival,
        tpot=tpot,
        outcome=requests.outcome,
        preemptions=fleet.preemptions(),
        gpus=engine.gpus,
        group_seconds=spent,
        cancelled_seconds=cancelled,
        actions=tuple(actions),
        samples=np.array(samples),
    )


def _run_out(fleet: Fleet, begin: float, seconds: float) -> None:
    """Let requests finish, with the groups that there are and those that start."""
    last = begin + seconds
    # What arrived at the very end has yet to be let in.
    now = np.nextafter(begin, np.inf)
    while now < last:
        fleet.run_until(now)
        if not fleet.busy():
            return
        now = min(fleet.next_due(), now + 15.0, last)
    fleet.run_until(last)


def _sample(fleet: Fleet, time: float, desired: int) -> tuple[float, ...]:
    return (
        time,
        desired,
        fleet.count(Life.READY),
        fleet.count(Life.STARTING),
        fleet.count(Life.DRAINING),
        int(fleet.places.running.sum()),
        int(fleet.places.waiting.sum()),
        kernel.at_gateway(fleet.requests),
    )
