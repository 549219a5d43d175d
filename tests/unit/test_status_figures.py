"""When figures of the status are written.

What a user would lose: the API server's patience, if every round of telemetry wrote; or figures side by side that are
of different moments.
"""

from dataclasses import replace
from typing import Any

from factories.groups import NOW
from moe_operator.api.cost import CostFigures, CostStatus, PriceStatus
from moe_operator.api.hbm import HbmSource
from moe_operator.api.status import ModelDeploymentStatus, ThroughputStatus
from moe_operator.controller.hbm import HbmFigures
from moe_operator.controller.learned import CostNews, Learned
from moe_operator.controller.status import fold
from moe_operator.controller.status_figures import Figures, figures
from moe_operator.telemetry.figures import Figures as Delivered
from moe_operator.telemetry.percentiles import Percentiles
from unit.test_hbm_figures import found
from unit.test_status_fold import after, learned, serving


def cost(per_million: str, **overrides: Any) -> CostNews:
    span = CostFigures(since="2026-01-01T00:00:00Z", per_million_tokens=per_million)
    made = CostStatus(
        time="2026-01-01T00:00:00Z",
        since="2026-01-01T00:00:00Z",
        currency="USD",
        price=PriceStatus(message="spec.cost.pricePerGPUHour"),
        per_million_tokens=per_million,
        last_hour=span,
        last_day=span,
        total=span,
    )
    return replace(CostNews(make=lambda: made, urgent=False, moved=False), **overrides)


def now(of: Learned) -> Figures:
    return figures(of.deployment.status, of.throughput, of.scaling, of.hbm, of.cost, of.now)


def half(of: HbmFigures) -> HbmFigures:
    """As if an exporter knew one GPU only."""
    one, other = of.gpus
    return replace(of, gpus=(one, replace(other, measured=False)))


#: What moved by less than is worth a write, with what moved by more.
SLOW = ThroughputStatus(output_tokens_per_second=1005)


def written() -> ModelDeploymentStatus:
    rate = ThroughputStatus(output_tokens_per_second=1000)
    return fold(learned(groups=[serving()], throughput=rate, hbm=found(), cost=cost("0.40", moved=True)))


def test_cost_that_moved_brings_the_others_along() -> None:
    told = fold(
        after(
            written(),
            groups=[serving()],
            throughput=SLOW,
            hbm=found(used=172_900),
            cost=cost("0.50", moved=True),
        )
    )
    assert told.hbm is not None
    assert told.cost is not None
    assert (told.throughput, told.hbm.used_mib, told.cost.per_million_tokens) == (SLOW, 345_800, "0.50")


def test_memory_that_moved_brings_the_others_along() -> None:
    told = fold(
        after(written(), groups=[serving()], throughput=SLOW, hbm=found(used=176_000), cost=cost("0.41"))
    )
    assert told.cost is not None
    assert (told.throughput, told.cost.per_million_tokens) == (SLOW, "0.41")


def test_none_of_them_is_written_twice_in_half_a_minute() -> None:
    before = written()
    moved = after(
        before,
        groups=[serving()],
        throughput=ThroughputStatus(output_tokens_per_second=9),
        hbm=found(used=176_000),
        cost=cost("9", moved=True),
        figures_written_at=NOW,
    )
    assert fold(replace(moved, now=NOW + 29)) == before
    assert fold(replace(moved, now=NOW + 30)) != before
    assert now(moved).differ(before), "so that there is another look in time"


def latency(p50: float) -> Delivered:
    return Delivered(first_token=Percentiles(p50, 2.0, 3.0))


def test_latency_that_moved_is_written_with_the_others_and_noise_is_not() -> None:
    before = fold(learned(groups=[serving()], delivered=latency(0.4)))
    assert before.latency is not None
    at = {"groups": [serving()], "throughput": SLOW}
    assert fold(after(before, groups=[serving()], delivered=latency(0.43))) == before
    moved = after(before, **at, delivered=latency(0.8), figures_written_at=NOW)
    assert fold(replace(moved, now=NOW + 29)) == before
    told = fold(replace(moved, now=NOW + 30))
    assert told.latency is not None
    assert told.latency.time_to_first_token_milliseconds is not None
    assert (told.latency.time_to_first_token_milliseconds.p50, told.throughput) == ("800", SLOW)
    assert fold(after(told, **at)).latency is None, "too few requests to tell"


def test_how_much_is_measured_is_a_figure_and_that_all_is_no_longer_is_told_at_once() -> None:
    before = fold(learned(groups=[serving()], hbm=found()))
    at = {"groups": [serving()], "figures_written_at": NOW, "now": NOW + 1}
    part = fold(after(before, hbm=half(found()), **at))
    assert part.hbm is not None
    assert (part.hbm.source, part.hbm.measured_gpus) == (HbmSource.ESTIMATED, 1)
    assert fold(after(part, hbm=found(exporter=False), **at)) == part, (
        "exporters that come and go write no more"
    )
    later = fold(after(part, hbm=found(exporter=False), **{**at, "now": NOW + 31}))
    assert later.hbm is not None
    assert later.hbm.measured_gpus == 0


def test_what_must_not_be_lost_is_written_at_once_and_alone() -> None:
    before = written()
    told = fold(
        after(
            before,
            groups=[serving()],
            throughput=SLOW,
            hbm=found(used=172_900),
            cost=cost("0.50", urgent=True),
            figures_written_at=NOW,
        )
    )
    assert (told.throughput, told.hbm) == (before.throughput, before.hbm)
    assert told.cost is not None
    assert told.cost.per_million_tokens == "0.50"


def test_a_rate_that_drifts_is_looked_at_again() -> None:
    """No round of telemetry brings news of half a percent; ten of them are five."""
    drifted = after(written(), groups=[serving()], throughput=SLOW, hbm=found())
    assert now(drifted).differ(drifted.deployment.status)
    assert not now(drifted).moved(drifted.deployment.status)
