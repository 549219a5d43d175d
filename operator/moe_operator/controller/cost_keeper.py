"""Keeps each deployment's ledger from pass to pass, and says when it is worth a write.

The ledger in the status is behind by what merely goes on, which follows from it. What could not be found out again is
written at once: that a pod is gone, and where a budget stands. That leaves tokens: those that engines counted since the
last write are lost where the operator crashes and the engine ends before the next one reads it, at most those of
CHECKPOINT seconds. An operator that ends cleanly writes them.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from moe_operator.api import names
from moe_operator.api.cost import BudgetState, BudgetStatus, CostStatus, PriceStatus
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.held_pods import held_pods, meter
from moe_operator.controller.kube import NODE, POD
from moe_operator.controller.learned import CostNews
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.store import Key, Store
from moe_operator.costs import text
from moe_operator.costs.budget import Spending, spending, with_periods, zone_of
from moe_operator.costs.counters import Counters
from moe_operator.costs.figures import Split
from moe_operator.costs.holdings import TOKENS, GpuState
from moe_operator.costs.ledger import Ledger, advanced, in_currency, opened, taken
from moe_operator.costs.price import ListPrice, Price, price_of, status_of
from moe_operator.costs.statement import headline, statement
from moe_operator.planner.plan import Plan
from moe_operator.telemetry.observation import Snapshot
from moe_operator.telemetry.pod_memory import PodMemory

log = logging.getLogger(__name__)

#: Seconds between two writes that tokens alone are worth.
CHECKPOINT = 1800.0
#: Seconds between two writes that the cost per million tokens alone is worth, and by how much it must have moved.
_FIGURES, _STEP = 600.0, 0.1
#: Seconds that engines have to tell after a start of the operator.
_SILENCE = 60.0
#: Least seconds until the next look that is due by time alone.
_LEAST = 1.0


@dataclass(frozen=True)
class Account:
    """What a deployment took and cost, for metrics. In a counter that falls Prometheus counts everything again: tokens
    are left out until they have caught up with what was written; seconds and money do not fall (`costs.counters`)."""

    key: Key
    currency: str
    gpu_seconds: Mapping[GpuState, float]
    money: Mapping[GpuState, float]
    unpriced: float
    counts: Mapping[str, float]
    """By name, of `TOKENS`."""
    per_million: float | None
    joules: float | None
    """Energy of the GPUs; None where not all tell, and until it has caught up."""
    budget: BudgetState | None
    spent_ratio: float | None
    """Of the budget; None without one."""


@dataclass
class _Kept:
    """What is kept of one deployment."""

    uid: str
    ledger: Ledger
    written: Ledger | None
    """As the status has it."""
    recalled_at: float | None = None
    """Since when this operator waits for engines to tell what was done while none was there; None: it does not."""
    behind_until: float | None = None
    """Engines of the ledger that was read have not told yet, and are waited for so long at most; None: all have."""
    energy_from: float = 0.0
    """When energy has caught up with what was added up of power, and lost with the operator before."""
    offered: tuple[str, Ledger] | None = None
    """What was made for a status last."""
    news: CostNews | None = None
    spending: Spending | None = None
    counters: Counters = field(default_factory=Counters)
    told_joules: float = 0.0
    """The most that metrics have said: counters do not fall."""


class CostKeeper:
    """Losing it is harmless but for tokens, as above."""

    def __init__(
        self,
        store: Store,
        config: OperatorConfig,
        snapshot: Callable[[], Snapshot],
        memory: Callable[[], Mapping[str, PodMemory]] = dict,
        watched_until: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`memory`: what was measured, by pod uid; `watched_until`: until when, at the latest, another operator led
        before this one, seconds since the epoch."""
        self._store = store
        self._memory = memory
        self._catalog = config.catalog
        self._snapshot = snapshot
        self._watched_until = watched_until
        self._kept: dict[Key, _Kept] = {}

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._kept.pop(key, None)

    def look(self, state: PassState, views: Sequence[GroupView]) -> CostNews:
        """Bring the ledger up to now."""
        deployment, now, spec = state.deployment, state.now, state.deployment.spec.cost
        prices = _Prices(self, state)
        pods = held_pods(
            self._store.children(deployment.key, POD),
            views,
            self._snapshot(),
            lambda revision: _gpus(state, revision),
            lambda revision, node: prices.of(revision, node).millionths,
            now,
            self._memory(),
        )
        kept = self._of(deployment, now)
        if kept is None:
            kept = _Kept(deployment.uid, opened(pods, now, spec.currency), None)
            self._kept[deployment.key] = kept
        before = in_currency(kept.ledger, spec.currency)
        watched = self._watched_until()
        ledger = advanced(
            before,
            pods,
            now,
            recalled=kept.recalled_at is not None,
            watched_until=-math.inf if watched is None else watched,
        )
        ledger = with_periods(before, ledger, zone_of(spec.budget))
        kept.counters.looked(ledger)
        ledger = replace(ledger, told=kept.counters.ahead(ledger))
        kept.ledger = ledger
        if kept.recalled_at is not None:
            told = not any(pod.unsure for pod in pods)
            kept.recalled_at = None if told or now - kept.recalled_at > _SILENCE else kept.recalled_at
        if kept.behind_until is not None and (now > kept.behind_until or not _behind(ledger)):
            kept.behind_until = None
        spent = spending(spec.budget, ledger) if spec.budget is not None else None
        sizing = state.effective.plan.sizing if state.effective is not None else None
        old, price, split = deployment.status.cost, prices.status(), Split.of(sizing)
        if old is not None and kept.offered is not None and old.ledger.state == kept.offered[0]:
            kept.written = kept.offered[1]

        @cache
        def make() -> CostStatus:
            made = statement(ledger, spec, price, split, spent)
            kept.offered = (made.ledger.state, ledger)
            return made

        kept.spending = spent
        kept.news = CostNews(
            make=make,
            urgent=_urgent(old, kept.written, spent, ledger),
            moved=_moved(old, kept.written, price, spent, ledger),
            due=None if spent is None else max(_LEAST, spent.due - now),
            held=spent.held if spent is not None else None,
        )
        return kept.news

    def hand_over(self, deployment: ModelDeployment) -> CostStatus | None:
        """What the next leader is to know besides what the status says: tokens that were counted since. None where
        there are none."""
        kept = self._kept.get(deployment.key)
        if kept is None or kept.news is None or kept.uid != deployment.uid:
            return None
        written = kept.written
        same = written is not None and not _uncertain(written, kept.ledger)
        return None if same else kept.news.make()

    def accounts(self, now: float) -> Iterator[Account]:
        """By now, of each deployment."""
        memory = self._memory()
        for key, kept in self._kept.items():
            found = kept.ledger.accounts_at(now).rounded()
            if kept.recalled_at is None:
                kept.counters.tell(kept.ledger, kept.written, now)
            told = kept.counters.told
            joules = found.joules + sum(
                taken(hold, meter(memory.get(hold.uid)))[0] for hold in kept.ledger.holds
            )
            kept.told_joules = max(kept.told_joules, joules)
            metered = found.metered > 0 and all(
                meter(memory.get(hold.uid)) is not None
                for hold in kept.ledger.holds
                if not hold.ended and hold.state is not GpuState.STARTING
            )
            budget, ratio = kept.spending.status if kept.spending is not None else None, None
            if budget is not None and budget.spent is not None and float(budget.amount) > 0:
                ratio = float(budget.spent) / float(budget.amount)
            yield Account(
                key=key,
                currency=kept.ledger.currency,
                gpu_seconds=told.seconds,
                money=told.money,
                unpriced=told.unpriced,
                counts=dict(zip(TOKENS, found.counts, strict=True)) if kept.behind_until is None else {},
                per_million=headline(kept.ledger),
                joules=kept.told_joules if metered and now >= kept.energy_from else None,
                budget=budget.state if budget is not None else None,
                spent_ratio=ratio,
            )

    def _of(self, deployment: ModelDeployment, now: float) -> _Kept | None:
        kept = self._kept.get(deployment.key)
        if kept is not None and kept.uid == deployment.uid:
            return kept
        told = deployment.status.cost
        if told is None:
            return None
        try:
            ledger = text.read(told.ledger.state, told.ledger.version, now)
        except text.UnusableLedgerError as error:
            log.warning(
                "%s/%s: its accounts begin anew, as what the status has cannot be used: %s",
                *deployment.key,
                error,
            )
            return None
        led = self._watched_until()
        kept = self._kept[deployment.key] = _Kept(
            deployment.uid,
            ledger,
            ledger,
            now,
            now + CHECKPOINT,
            counters=Counters.after(ledger, math.inf if led is None else led, now),
        )
        if any(hold.meter is not None and hold.meter.since for hold in ledger.holds):
            # Lost is what came since the last write; at the same power as much comes in as long.
            kept.energy_from = now + min(CHECKPOINT, max(0.0, now - ledger.at))
        return kept

    def listed(self, accelerator: str) -> ListPrice | None:
        """What the site, or the catalogue, has of it."""
        profile, shipped = (
            self._catalog.accelerator(accelerator),
            load_catalog().accelerator(accelerator),
        )
        if profile is None or profile.price is None:
            return None
        same = shipped is not None and shipped.price == profile.price
        return ListPrice(profile.price.usd_per_gpu_hour, profile.price.source, shipped=same)

    def annotation(self, node: str | None) -> str | None:
        """The price that is written on a node."""
        obj = self._store.get(NODE, "", node) if node else None
        return None if obj is None else (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PRICE)


class _Prices:
    """Of the pods of one pass."""

    def __init__(self, keeper: CostKeeper, state: PassState) -> None:
        self._keeper = keeper
        self._state = state
        self._known: dict[tuple[str, str | None], Price] = {}
        self._asked: list[tuple[int, Price]] = []

    def of(self, revision: str, node: str | None) -> Price:
        """Of a GPU-hour of a pod."""
        at = (revision, node)
        if at not in self._known:
            plan = _plan(self._state, revision)
            accelerator = plan.accelerator if plan is not None else ""
            self._known[at] = price_of(
                self._state.deployment.spec.cost,
                accelerator,
                node,
                self._keeper.annotation(node),
                self._keeper.listed(accelerator),
            )
        found = self._known[at]
        self._asked.append((_gpus(self._state, revision), found))
        return found

    def status(self) -> PriceStatus:
        """Of all pods; of none, what one of the wanted revision would cost."""
        if not self._asked:
            self.of(self._state.effective.name if self._state.effective is not None else "", None)
        return status_of(self._asked)


def _plan(state: PassState, revision: str) -> Plan | None:
    """Of a revision; of one that is gone, the present one's stands in."""
    found = state.revision(revision) or state.effective
    return found.plan if found is not None else None


def _gpus(state: PassState, revision: str) -> int:
    plan = _plan(state, revision)
    return plan.gpus_per_pod if plan is not None else 0


def _urgent(old: CostStatus | None, written: Ledger | None, spent: Spending | None, ledger: Ledger) -> bool:
    """Whether the status would lead the next operator to count what is over, or to let a budget go."""
    if old is None or written is None:
        return bool(ledger.holds)
    present = {hold.uid for hold in ledger.holds if not hold.ended}
    over = any(hold.uid not in present for hold in written.holds if not hold.ended)
    before, after = old.budget, spent.status if spent is not None else None
    budget = (before.state if before else None) is not (after.state if after else None)
    return over or budget or old.currency != ledger.currency


def _moved(
    old: CostStatus | None,
    written: Ledger | None,
    price: PriceStatus,
    spent: Spending | None,
    ledger: Ledger,
) -> bool:
    """Whether figures are worth a write when any may be written."""
    if old is None or written is None:
        return False
    states = _states(written)
    if any(states.get(uid) is not state for uid, state in _states(ledger).items()):
        return True
    if _terms(old.price, old.budget) != _terms(price, spent.status if spent is not None else None):
        return True
    age = ledger.at - written.at
    if age >= CHECKPOINT and _uncertain(written, ledger):
        return True
    return age >= _FIGURES and _apart(headline(written), headline(ledger))


def _uncertain(written: Ledger, ledger: Ledger) -> bool:
    """Whether something was counted since that only this operator knows for sure: tokens, and energy that was added up
    of power. GPUs' own counters go on without it."""
    if written.accounts.counts != ledger.accounts.counts:
        return True
    added = any(hold.meter is not None and hold.meter.since for hold in ledger.holds)
    return added and written.accounts.joules != ledger.accounts.joules


def _behind(ledger: Ledger) -> bool:
    """Whether engines have not told yet since the ledger was read."""
    return any(
        hold.reading is not None and hold.reading.since is None for hold in ledger.holds if not hold.ended
    )


def _states(ledger: Ledger) -> Mapping[str, GpuState]:
    return {hold.uid: hold.state for hold in ledger.holds}


def _terms(price: PriceStatus, budget: BudgetStatus | None) -> tuple[object, ...]:
    """What people set."""
    return (
        price.per_gpu_hour,
        price.source,
        budget.amount if budget else None,
        budget.period_start if budget else None,
    )


def _apart(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(before - after) > _STEP * max(before, after)
