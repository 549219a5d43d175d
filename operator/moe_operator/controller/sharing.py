"""Shares scarce GPUs out between all deployments: brings what each has and wants before the allocation pass.

A deployment is reconciled by itself, so what all the others want is what each of them said when it was looked at last;
what they hold is in the cache. A pass is made only while somebody wants more than it has. Nothing is taken from
anybody, and nobody grows, before every deployment that was decided over before has spoken: after a restart that takes
until each has been looked at once. Whose share changes in a pass of another is looked at next.

Not in the queue, and so never granted less than they want: deployments without GPUs, those whose groups a queue admits
(Kueue: it shares out itself), and all of them where nodes or pods may not be read.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from moe_operator.api.reasons import WaitingReason
from moe_operator.api.scaling import WaitingStatus
from moe_operator.autoscaler.allocation import RECLAIM_AFTER, allocate
from moe_operator.autoscaler.claims import LIVE, Allocation, Share
from moe_operator.catalog.operator_config import OperatorConfig
from moe_operator.controller.census import Census, Present
from moe_operator.controller.claiming import Claims
from moe_operator.controller.group_planner import GroupView
from moe_operator.controller.kube import MODEL_DEPLOYMENT
from moe_operator.controller.pass_state import PassState
from moe_operator.controller.placing import Placing
from moe_operator.controller.scale import Scale
from moe_operator.controller.store import Key, Store
from moe_operator.controller.waiting import waiting_status
from moe_operator.controller.wishes import Wish, phases_of, stopped, wish_of

#: Seconds for which deployments that do not speak keep all others from growing, after a restart. Then they keep what
#: they hold, and the others go on.
_SILENCE = 60.0
#: Seconds between two looks meanwhile.
_AGAIN = 1.0
#: Seconds until the next look at what a deployment waits for: GPUs that others hold or offer are not watched.
_LOOK = 30.0
#: Seconds for which a pass holds while nobody says anything new.
_HOLDS = 5.0


class Sharing:
    """The last word of all deployments, and what each got of the last pass."""

    def __init__(
        self,
        store: Store,
        census: Census,
        placing: Placing,
        config: OperatorConfig,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._census = census
        self._placing = placing
        self._config = config
        self._claims = Claims(store)
        self._enqueue = enqueue
        self._wishes: dict[Key, Wish] = {}
        self._outside: set[Key] = set()
        """Deployments that are not in the queue."""
        self._shares: dict[Key, Share] = {}
        self._since: dict[Key, float] = {}
        """Since when deployments wait."""
        self._began: float | None = None
        self._version = 0
        self._made: tuple[int, float] | None = None
        """Version of the last pass, and until when it holds."""

    def forget(self, key: Key) -> None:
        """The deployment is gone, or holds nothing back any more."""
        self._outside.discard(key)
        if self._wishes.pop(key, None) is None:
            return
        self._shares.pop(key, None)
        self._since.pop(key, None)
        self._placing.kept.pop(key, None)
        self._claims.forget(key)
        self._version += 1
        self._wake(set(self._waiting()))

    async def share(self, state: PassState, views: Sequence[GroupView], scale: Scale) -> Scale:
        """The decision, with the groups that the deployment may have of it."""
        key, now = state.deployment.key, state.now
        self._began = now if self._began is None else self._began
        known = self._shares.get(key)
        granted = known.granted if known is not None else None
        wish = wish_of(state, views, scale, self._config, granted, self._since.get(key))
        if wish is None:
            self._leave(key)
            return _with(scale, None, state, None)
        self._say(key, wish)
        if not self._complete(key, now):
            return self._as_before(state, wish, scale)
        if self._nothing_to_share(key, wish):
            self._shares[key] = Share(wish.wanted)
            self._placing.kept.pop(key, None)
            self._placing.moving_in.pop(key, None)
            return _with(scale, None, state, None)
        if not self._fresh(now) or key not in self._shares:
            present = await self._census.present()
            if present.inventory.nodes is None or present.inventory.held is None:
                self._leave(key)
                return _with(scale, None, state, None)
            self._pass(present, key, now)
        share = self._shares[key]
        waiting = waiting_status(share.waiting, wish, self._since.get(key, now)) if share.waiting else None
        again = None
        if waiting is not None:
            due = self._since.get(key, now) + RECLAIM_AFTER - now
            again = due if waiting.reason == WaitingReason.RECLAIM_DUE and due > 0 else _LOOK
        return _with(scale, share, state, waiting, again, wish.surplus)

    def note(self, state: PassState, views: Sequence[GroupView]) -> None:
        """What a deployment has after it was acted on: groups that were made speak for themselves."""
        self._placing.moving_in.pop(state.deployment.key, None)
        known = self._wishes.get(state.deployment.key)
        if known is not None:
            self._say(state.deployment.key, replace(known, phases=phases_of(views)))

    # --- what deployments say ---------------------------------------------------------------------

    def _say(self, key: Key, wish: Wish) -> None:
        self._outside.discard(key)
        if self._wishes.get(key) != wish:
            self._version += 1
        self._wishes[key] = wish

    def _leave(self, key: Key) -> None:
        self.forget(key)
        self._outside.add(key)

    def _complete(self, key: Key, now: float) -> bool:
        """Whether all have spoken that were decided over before."""
        if self._began is None or now - self._began > _SILENCE:
            return True
        keys = self._store.keys()
        for other in keys:
            if other == key or other in self._wishes or other in self._outside:
                continue
            obj = self._store.get(MODEL_DEPLOYMENT, *other) or {}
            decided = ((obj.get("status") or {}).get("scaling")) is not None
            if decided and not obj["metadata"].get("deletionTimestamp"):
                return False
        self._began = float("-inf")  # whoever comes from now on was not there before
        return True

    def _as_before(self, state: PassState, wish: Wish, scale: Scale) -> Scale:
        """What it had, and no more; what it holds stays whatever was said of it."""
        kept = min(wish.wanted, max(wish.granted, wish.live))
        if kept >= wish.wanted:
            return _with(scale, None, state, None)
        old = state.deployment.status.scaling
        return _with(scale, Share(kept), state, old.waiting if old else None, _AGAIN, wish.surplus)

    # --- passes -----------------------------------------------------------------------------------

    def _waiting(self) -> list[Key]:
        return [key for key, share in self._shares.items() if share.waiting is not None]

    def _nothing_to_share(self, key: Key, wish: Wish) -> bool:
        """Whether it has what it wants, and nobody waits for what it has."""
        placed = [group for group in self._claims.held(key, wish) if group.phase in LIVE and group.nodes]
        halves = any(group.lacks for group in placed)
        return len(placed) >= wish.wanted and not halves and not self._waiting()

    def _fresh(self, now: float) -> bool:
        return self._made is not None and self._made[0] == self._version and now < self._made[1]

    def _pass(self, present: Present, asking: Key, now: float) -> None:
        """All claims at once. Nothing is awaited in it."""
        claims, free = self._claims.of(self._wishes, self._since, present)
        found = allocate(claims, free, now)
        changed = {key for key, share in found.shares.items() if self._shares.get(key) != share}
        self._take_up(found, now)
        holds = _HOLDS if found.recheck_after is None else min(_HOLDS, found.recheck_after)
        self._made = (self._version, now + holds)
        self._wake(changed - {asking})

    def _take_up(self, found: Allocation, now: float) -> None:
        self._shares = dict(found.shares)
        for key, share in found.shares.items():
            wish = self._wishes[key]
            if share.waiting is None:
                self._since.pop(key, None)
            else:
                self._since.setdefault(key, wish.since)
            self._wishes[key] = replace(wish, granted=share.granted, since=self._since.get(key, now))
        self._placing.kept, self._placing.moving_in = dict(found.reserved), dict(found.moving_in)

    def _wake(self, keys: set[Key]) -> None:
        for key in sorted(keys):
            self._enqueue(key)


def _with(
    scale: Scale,
    share: Share | None,
    state: PassState,
    waiting: WaitingStatus | None,
    recheck: float | None = None,
    surplus: int = 0,
) -> Scale:
    """The decision with what came of it; None: all that it wants."""
    granted = scale.desired
    if share is not None and not stopped(state):
        granted = min(share.granted + surplus, scale.desired)
    given_up = frozenset((*share.given_up, *share.gone)) if share is not None else frozenset[str]()
    if share is not None and share.given_up:
        granted = min(granted, share.granted + surplus)
    fewer = granted < scale.desired
    status = scale.status
    if status is not None:
        status = status.model_copy(update={"granted": granted if fewer else None, "waiting": waiting})
    due = [seconds for seconds in (scale.recheck_after, recheck) if seconds is not None]
    return replace(
        scale,
        status=status,
        granted=granted,
        surge=share is None or share.surge,
        given_up=given_up,
        # What is not granted cannot be waited for: the floor is what makes it Ready.
        minimum=min(scale.minimum, max(scale.floor, granted)),
        recheck_after=min(due, default=None),
    )
