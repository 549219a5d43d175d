"""Energy: from exporters' pages to kWh, to hand calculations. Lost if it is wrong: a bill that nobody owes, by a
counter that began anew; or "nothing", where nobody measured."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from factories.exporter_pages import DcgmGpu, amd_page, b200, dcgm_page, of_pod, series_of
from factories.groups import NOW
from factories.ledgers import counted, held
from moe_operator.costs import text
from moe_operator.costs.accounts import Accounts
from moe_operator.costs.figures import cost_figures, kwh
from moe_operator.costs.holdings import GpuState, Meter, PodSeen
from moe_operator.costs.ledger import Ledger, advanced, in_currency, opened
from moe_operator.telemetry.accelerator_memory import (
    AMD_NAMES,
    DCGM_NAMES,
    GpuMemory,
    amd_memory,
    dcgm_memory,
)
from moe_operator.telemetry.energy_meter import EnergyMeter, PodEnergy
from moe_operator.telemetry.ignored import Counts, Ignored
from moe_operator.telemetry.memory_book import INTERVAL, MemoryBook
from moe_operator.telemetry.pod_memory import NodePod

SERVING = GpuState.SERVING


def gpu(index: int, joules: float | None = None, watts: float | None = None) -> GpuMemory:
    return GpuMemory(str(index), f"GPU-{index}", 1, joules=joules, watts=watts)


class TestPages:
    def test_dcgm_tells_millijoules(self) -> None:
        (found,), _ = dcgm_memory(series_of(dcgm_page([b200(0)]), DCGM_NAMES).series)
        assert (found.joules, found.watts) == (pytest.approx(91_230_456.789), 702.437)

    def test_amd_tells_microjoules_and_power_by_either_name(self) -> None:
        page = amd_page({0: (100, 200)}).replace(b"gpu_package_power", b"gpu_power_usage") + (
            b'gpu_energy_consumed{gpu_id="0",gpu_partition_id="0",serial_number="692224000000"} 5.5e+13\n'
        )
        (found,), ignored = amd_memory(series_of(page, AMD_NAMES).series)
        assert (found.joules, found.watts, dict(ignored)) == (pytest.approx(5.5e7), 611, {})

    def test_a_part_of_a_gpu_has_no_energy_of_its_own(self) -> None:
        """MIG: exporters tell the whole GPU's with every instance."""
        parts = [replace(b200(0, pod=of_pod("a")), instance=str(number)) for number in (1, 2)]
        found, _ = dcgm_memory(series_of(dcgm_page(parts), DCGM_NAMES).series)
        assert [(one.joules, one.watts) for one in found] == [(None, None)] * 2
        one = DcgmGpu(0, b200(0).figures, of_pod("a"), instance="1")
        (alone,), _ = dcgm_memory(series_of(dcgm_page([one]), DCGM_NAMES).series)
        assert alone.joules is None

    @pytest.mark.parametrize("value", ["-1", "1e30", "NaN"])
    def test_what_no_gpu_takes_is_counted_and_not_used(self, value: str) -> None:
        read = series_of(dcgm_page([b200(0, DEV_TOTAL_ENERGY_CONSUMPTION=value)]), DCGM_NAMES)
        (found,), ignored = dcgm_memory(read.series)
        assert found.joules is None
        assert sum((ignored + read.ignored).values()) == 1


class TestMeter:
    def test_counters_are_added_up_over_the_gpus_of_the_pod(self) -> None:
        meter = EnergyMeter()
        assert meter.take(0, [gpu(0, 100), gpu(1, 50)], 2) == (PodEnergy(150, 0), {})
        assert meter.take(15, [gpu(0, 7000), gpu(1, 60)], 2) == (PodEnergy(7060, 15), {})

    def test_part_of_a_pods_gpus_is_no_energy_of_it(self) -> None:
        meter = EnergyMeter()
        assert meter.take(0, [gpu(0, 100)], 2) == (None, {})
        assert meter.take(0, [gpu(0, 100), gpu(1)], 2) == (None, {})
        assert meter.take(0, [gpu(0, 100), gpu(1, watts=9)], 2) == (None, {})
        assert meter.take(0, [], 0) == (None, {})

    def test_power_is_added_up_where_there_is_no_counter(self) -> None:
        """Two GPUs at 300 W together, then 500 W: 15 s x 400 W."""
        meter = EnergyMeter()
        assert meter.take(100, [gpu(0, watts=100), gpu(1, watts=200)], 2)[0] == PodEnergy(0, 100, 100)
        assert meter.take(115, [gpu(0, watts=250), gpu(1, watts=250)], 2)[0] == PodEnergy(6000, 115, 100)

    def test_of_a_silence_nobody_knows_what_it_took(self) -> None:
        meter = EnergyMeter()
        meter.take(100, [gpu(0, watts=100)], 1)
        assert meter.take(160, [gpu(0, watts=100)], 1)[0] == PodEnergy(0, 160, 160)
        assert meter.take(130, [gpu(0, watts=100)], 1)[0] == PodEnergy(0, 130, 130), "a clock that went back"

    def test_a_counter_that_began_anew_and_another_gpu_begin_a_new_sum(self) -> None:
        """The others may have taken more meanwhile than the one had, so the sum alone would not show it."""
        meter = EnergyMeter()
        meter.take(0, [gpu(0, 100), gpu(1, 1000)], 2)
        assert meter.take(15, [gpu(0, 5), gpu(1, 2000)], 2)[0] == PodEnergy(2005, 15, 15)
        assert meter.take(30, [gpu(0, 10), gpu(1, 2000)], 2)[0] == PodEnergy(2010, 30, 15)
        assert meter.take(45, [gpu(0, 10), gpu(7, 9000)], 2)[0] == PodEnergy(9010, 45, 45)

    def test_a_counter_that_leaps_is_counted_and_not_used(self) -> None:
        meter = EnergyMeter()
        meter.take(0, [gpu(0, 100), gpu(1, 100)], 2)
        assert meter.take(15, [gpu(0, 1e9), gpu(1, 1000)], 2) == (None, {Ignored.OUT_OF_RANGE: 1})
        assert meter.take(30, [gpu(0, 1e9 + 5), gpu(1, 1005)], 2)[0] == PodEnergy(1e9 + 1010, 30)


class TestBook:
    def test_energy_is_credited_as_memory_is(self) -> None:
        now, ignored = [NOW], Counts()
        pod = NodePod("serving", "a", "uid-a", "node-0", devices=2)
        book = MemoryBook(
            lambda: [pod], lambda _: 8, "engine", lambda _: None, lambda: now[0], ignored.update
        )

        def round_of(pods: Mapping[int, str], joules: float) -> PodEnergy | None:
            book.begin()
            told = [
                b200(at, pod=of_pod(name), DEV_TOTAL_ENERGY_CONSUMPTION=str(round(joules * 1000)))
                for at, name in pods.items()
            ]
            book.take_gpus("node-0", dcgm_memory(series_of(dcgm_page(told), DCGM_NAMES).series)[0])
            book.end()
            found = book.snapshot().get("uid-a")
            return found.energy if found else None

        assert round_of({0: "a", 1: "a", 2: "other"}, 1000) == PodEnergy(2000, NOW)
        now[0] += INTERVAL
        assert round_of({0: "a", 1: "other", 2: "other"}, 3000) is None, "one of two"
        now[0] += INTERVAL
        assert round_of({0: "a", 1: "a"}, 5000) == PodEnergy(10_000, NOW + 2 * INTERVAL)
        assert not ignored


def at(seconds: float, joules: float, since: float = 0.0, **more: object) -> PodSeen:
    """A pod of eight GPUs that serves since NOW, with its meter read then."""
    meter = Meter(joules, NOW + seconds, since)
    return held(history=((SERVING, NOW),), **{"meter": meter, **more})


def played(*pods: PodSeen) -> Ledger:
    ledger = opened([], NOW, "USD")
    for pod in pods:
        assert pod.meter is not None
        ledger = advanced(ledger, [pod], pod.meter.at)
    return ledger


class TestLedger:
    def test_a_pod_that_has_ended_takes_nothing(self) -> None:
        """Its GPUs may be somebody else's by now."""
        accounts = played(at(0, 0), at(10, 4000, ended=NOW + 10), at(20, 99_000, ended=NOW + 10)).accounts
        assert accounts.joules == 4000

    def test_differences_are_added_up(self) -> None:
        """What GPUs took before the pod was first seen is not the pod's."""
        accounts = played(at(10, 5e9), at(20, 5e9 + 40_000), at(50, 5e9 + 100_000)).accounts
        assert (accounts.joules, accounts.metered) == (100_000, 8 * 40)

    def test_a_counter_that_began_anew_takes_nothing_away(self) -> None:
        """A driver that was loaded anew: between the two readings nobody knows."""
        accounts = played(at(0, 5e6), at(10, 5e6 + 1000), at(20, 300), at(30, 1300)).accounts
        assert (accounts.joules, accounts.metered) == (2000, 8 * 20)

    def test_more_than_gpus_can_take_is_not_used(self) -> None:
        accounts = played(at(0, 0), at(10, 8 * 10_001 * 10), at(20, 8 * 10_001 * 10 + 8000)).accounts
        assert (accounts.joules, accounts.metered) == (8000, 80)

    def test_sums_of_power_of_two_operators_are_not_compared(self) -> None:
        accounts = played(at(0, 0, since=5.0), at(10, 4000, since=5.0), at(20, 9000, since=7.0)).accounts
        assert (accounts.joules, accounts.metered) == (4000, 80)

    def test_a_silent_exporter_is_made_up_for_by_the_counter(self) -> None:
        ledger = played(at(0, 1000))
        ledger = advanced(ledger, [at(0, 0, meter=None)], NOW + 500)
        assert ledger.accounts.joules == 0
        ledger = advanced(ledger, [at(1000, 401_000)], NOW + 1000)
        assert (ledger.accounts.joules, ledger.accounts.metered) == (400_000, 8000)

    def test_the_next_operator_goes_on_from_what_was_written(self) -> None:
        written = text.written(played(at(0, 1000), at(10, 5000.5)))
        away = advanced(
            text.read(written, text.VERSION, NOW + 900), [at(900, 905_000)], NOW + 900, recalled=True
        )
        assert away.accounts.joules == pytest.approx(904_000, abs=1)
        assert away.accounts.metered == 8 * 900
        assert text.written(text.read(written, text.VERSION, NOW)) == written

    def test_a_ledger_of_before_energy_was_counted_is_read(self) -> None:
        """Lost: all accounts, by an upgrade."""
        old = text.written(advanced(opened([], NOW, "USD"), [at(0, 0, meter=None)], NOW + 50))
        found = text.read(old, text.VERSION, NOW + 50)
        assert (found.accounts.joules, found.accounts.metered, found.holds[0].meter) == (0, 0, None)

    def test_another_currency_keeps_it(self) -> None:
        assert in_currency(played(at(0, 0), at(10, 5000)), "EUR").accounts.joules == 5000

    def test_a_pod_that_came_later_begins_with_its_own(self) -> None:
        ledger = played(at(0, 1000), at(10, 9000))
        second = held("tiny-g1-0", begun=NOW + 10, meter=Meter(7e9, NOW + 20))
        ledger = advanced(ledger, [at(20, 17_000), second], NOW + 20)
        assert ledger.accounts.joules == 16_000


class TestFigures:
    @staticmethod
    def span(metered: float, joules: float = 7.2e6) -> Accounts:
        """One GPU for an hour; 7.2 MJ are 2 kWh. 500,000 tokens."""
        accounts = Accounts().with_gpus(SERVING, 3600, None).with_energy(joules, metered)
        return accounts.with_counts((300_000, 0, 200_000, 0, 0, 0, 0))

    def test_kwh_in_total_and_per_million_tokens(self) -> None:
        found = cost_figures(self.span(3600), NOW, None)
        assert (found.energy_kwh, found.energy_kwh_per_million_tokens) == ("2", "4")
        assert found.wire()["energyKWhPerMillionTokens"] == "4"

    def test_where_not_all_of_it_was_told_there_is_none(self) -> None:
        assert kwh(self.span(0.95 * 3600)) == 2
        assert kwh(self.span(0.94 * 3600)) is None
        assert kwh(Accounts()) is None
        found = cost_figures(self.span(0, 0), NOW, None)
        assert (found.energy_kwh, found.energy_kwh_per_million_tokens) == (None, None)
        assert "energyKWh" not in found.wire()

    def test_without_a_token_there_is_no_ratio(self) -> None:
        accounts = Accounts().with_gpus(SERVING, 3600, None).with_energy(3.6e6, 3600)
        found = cost_figures(accounts, NOW, None)
        assert (found.energy_kwh, found.energy_kwh_per_million_tokens) == ("1", None)


def test_tokens_and_energy_of_one_look() -> None:
    ledger = played(at(0, 0, reading=counted(0, 0)), at(10, 3.6e4, reading=counted(600, 400)))
    assert ledger.accounts.count("output") == 400
    assert ledger.accounts.joules == 3.6e4
