"""The published autoscalers, re-implemented to be compared with: one file a policy, one entry each here.

Every file says its source and what it found there; docs/contributing/baselines.md has them side by side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from moe_operator.simulator.policies import apa, dynamo, hpa_waiting, keda, kpa, slo_aware, static, wva
from moe_operator.simulator.policies.baseline import Served, Tunable
from moe_operator.simulator.policies.projector import Projector
from moe_operator.simulator.policy import Policy


@dataclass(frozen=True)
class Baseline:
    """One autoscaler to compare with."""

    name: str
    published: Callable[[Served], Any]
    """Its settings as published, with the deployment's own facts and objective filled in."""
    make: Callable[[Any], Policy]
    """A fresh policy with these settings, or a variant of them."""
    tunable: Tunable
    tuned_from: Callable[[Served], Any] | None = None
    """Where a sweep starts, where that is not `published`: as a team would set it up that knows its traps."""

    def variants(self, served: Served) -> Iterator[Any]:
        """The settings that a sweep tries."""
        return self.tunable.variants((self.tuned_from or self.published)(served))


def _slo_aware(served: Served) -> slo_aware.SloAwareSettings:
    return slo_aware.SloAwareSettings(ttft=served.ttft, tpot=served.tpot)


_ALL = (
    Baseline("static", lambda _: static.StaticSettings(), static.Static, static.TUNABLE),
    Baseline(
        "hpa-waiting", lambda _: hpa_waiting.HpaWaitingSettings(), hpa_waiting.HpaWaiting, hpa_waiting.TUNABLE
    ),
    Baseline("keda-waiting-kv", lambda _: keda.KedaSettings(), keda.Keda, keda.TUNABLE),
    Baseline("kpa-concurrency", lambda _: kpa.KpaSettings(), kpa.Kpa, kpa.TUNABLE),
    Baseline("apa-kv", lambda _: apa.ApaSettings(), apa.Apa, apa.TUNABLE),
    Baseline("apa-kv-projected", lambda _: apa.ApaSettings(projector=Projector()), apa.Apa, apa.TUNABLE),
    Baseline(
        "wva-v1",
        lambda served: wva.WvaSettings(ranks=served.ranks),
        wva.Wva,
        wva.TUNABLE,
        lambda served: wva.WvaSettings(ranks=served.ranks, behaviour=wva.TUNED),
    ),
    Baseline(
        "dynamo-floor-load",
        lambda served: dynamo.DynamoSettings(served=served),
        dynamo.Dynamo,
        dynamo.TUNABLE,
    ),
    Baseline(
        "dynamo-static-thresholds",
        lambda served: dynamo.DynamoSettings(served=served, target="easy"),
        dynamo.Dynamo,
        dynamo.EASY_TUNABLE,
    ),
    Baseline(
        "llm-d-slo-aware",
        _slo_aware,
        slo_aware.SloAware,
        slo_aware.TUNABLE,
        lambda served: replace(_slo_aware(served), behaviour=slo_aware.TUNED),
    ),
)

BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}
"""By name, in the order of reports. The bound (clairvoyant.py) is none of them: it needs the trace."""
