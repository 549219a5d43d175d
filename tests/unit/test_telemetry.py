"""Telemetry: what the autoscaler, the stall watchdog and the drain rely on. Wrong figures drop or waste groups."""

import pytest

from factories.engine_pages import BOUNDS, PAGE, histogram, metrics, page
from moe_operator.telemetry.engine_counters import EngineCounters, Histogram, merged
from moe_operator.telemetry.metrics_page import parse_metrics
from moe_operator.telemetry.observation import PodObservation, Snapshot
from moe_operator.telemetry.window import WINDOW, PodWindow


class TestPage:
    def test_ranks_are_summed_and_the_worst_rank_tells_the_cache(self) -> None:
        found = parse_metrics(PAGE)
        assert found is not None
        seen = found.counters
        assert (seen.ranks, seen.running, seen.running_worst, seen.waiting) == (2, 5, 3, 4)
        assert (seen.prompt_tokens, seen.output_tokens) == (2500, 42)
        assert seen.kv_worst == 0.75
        assert (seen.first_token.total, seen.first_token.count) == (6.0, 3.0)

    def test_all_that_scaling_goes_by_is_read(self) -> None:
        told = EngineCounters(
            ranks=1, running=3, waiting=2, running_worst=3, kv_worst=0.5, kv_sum=0.5, prompt_tokens=1e6,
            cached_prompt_tokens=4e5, output_tokens=3e5, finished=800.0, aborted=7.0, preemptions=2.0,
            inter_token_sum=12.5, inter_token_count=500.0,
            first_token=histogram(0.05, 0.5, 3.0), per_token=histogram(0.02, 0.02),
        )  # fmt: skip
        found = parse_metrics(page({11: told}))
        assert found is not None
        assert (found.ranks, found.counters) == ({b"11"}, told)

    def test_requests_that_an_engine_failed_are_not_finished(self) -> None:
        """Lost: the mean length of an answer, by which load is foreseen."""
        lines = [
            f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="x"}} {count}.0'
            for reason, count in (("stop", 1), ("length", 2), ("abort", 4), ("error", 8), ("repetition", 16))
        ]
        found = parse_metrics(PAGE + "\n".join(lines).encode())
        assert found is not None
        assert (found.counters.finished, found.counters.aborted) == (19, 12)

    def test_a_page_without_buckets_has_the_count(self) -> None:
        found = parse_metrics(b"\n".join(line for line in PAGE.splitlines() if b"_bucket" not in line))
        assert found is not None
        assert found.counters.first_token == Histogram((float("inf"),), (3.0,), 6.0)
        assert found.counters.per_token == Histogram()

    def test_a_page_without_vllm_says_nothing(self) -> None:
        assert parse_metrics(b"process_cpu_seconds_total 3.0\n") is None

    def test_nan_is_not_a_figure_and_its_rank_is_not_covered(self) -> None:
        found = parse_metrics(PAGE.replace(b"0.75", b"NaN"))
        assert found is not None
        assert (found.counters.kv_worst, found.ranks) == (0.25, {b"0"})


class TestWindow:
    def test_rates_are_over_the_window(self) -> None:
        window = PodWindow("u")
        for second in range(0, 100, 5):
            window.add(second, metrics(running=1, output_tokens=second * 10.0), None)
        seen = window.observation()
        assert seen is not None
        assert seen.output_tokens_per_second == pytest.approx(10)
        assert len(window._scrapes) <= WINDOW / 5 + 2

    def test_an_engine_that_restarted_gives_no_negative_rate(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(output_tokens=1000), None)
        window.add(5, metrics(output_tokens=10), None)
        seen = window.observation()
        assert seen is not None
        assert seen.output_tokens_per_second == 0

    def test_work_without_tokens_is_no_progress(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(running=1, output_tokens=5), None)
        window.add(60, metrics(running=1, output_tokens=5), None)
        seen = window.observation()
        assert seen is not None
        assert seen.progress_at == 0
        assert seen.busy

    def test_a_stopped_engine_that_reports_no_requests_is_betrayed_by_its_clients(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(), 0)
        window.add(60, metrics(), 2)
        window.add(120, metrics(), 2)
        seen = window.observation()
        assert seen is not None
        assert seen.busy
        assert seen.progress_at == 0

    def test_idle_is_progress(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(), 0)
        window.add(600, metrics(), 0)
        seen = window.observation()
        assert seen is not None
        assert seen.progress_at == 600
        assert not seen.busy

    def test_a_rank_that_is_missing_from_a_page_is_told_and_its_return_is_no_load(self) -> None:
        """Lost: a group more for every page that was cut short, as all that a rank ever did seems new."""
        window = PodWindow("u")
        window.add(0, metrics((0, 1), output_tokens=3000.0), None)
        window.add(5, metrics((0,), output_tokens=1000.0), None)
        seen = window.observation()
        assert seen is not None
        assert (seen.counters.ranks, seen.counters.ranks_lost, seen.counters.since) == (1, 1, 5)
        window.add(10, metrics((0, 1), output_tokens=3100.0), None)
        seen = window.observation()
        assert seen is not None
        assert (seen.counters.ranks, seen.counters.ranks_lost, seen.counters.since) == (2, 0, 10)
        assert seen.output_tokens_per_second == 0

    @pytest.mark.parametrize("name", ["finished", "aborted", "preemptions", "cached_prompt_tokens"])
    def test_any_counter_that_falls_tells_that_the_engine_began_anew(self, name) -> None:
        window = PodWindow("u")
        window.add(0, metrics(**{name: 5.0}), None)
        window.add(5, metrics(**{name: 4.0}), None)
        seen = window.observation()
        assert seen is not None
        assert seen.counters.since == 5

    def test_sums_of_seconds_that_are_added_up_in_another_order_are_no_restart(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(inter_token_sum=0.1 + 0.2 + 0.3, inter_token_count=3.0), None)
        window.add(5, metrics(inter_token_sum=0.3 + 0.2 + 0.1, inter_token_count=3.0), None)
        seen = window.observation()
        assert seen is not None
        assert seen.counters.since == 0

    def test_latency_is_the_mean_of_what_happened_in_the_window(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(first_token=histogram(*[10.0] * 10)), None)
        window.add(5, metrics(first_token=histogram(*[10.0] * 10, 1.0, 2.0), prompt_tokens=60), None)
        seen = window.observation()
        assert seen is not None
        assert seen.time_to_first_token == pytest.approx(1.5)
        assert seen.time_per_output_token is None


class TestGroup:
    """The reading of a group is that of all its pods, or none."""

    @staticmethod
    def _pod(uid: str, at: float, failures: int = 0, **figures: float) -> PodObservation:
        window = PodWindow(uid)
        window.add(at, metrics(**figures), 0)
        for _ in range(failures):
            window.failed()
        seen = window.observation()
        assert seen is not None
        return seen

    def test_sums_and_the_worst(self) -> None:
        first = self._pod("a", 7, running=3, running_worst=3, kv_worst=0.5, per_token=histogram(0.05))
        second = self._pod("b", 9, running=4, running_worst=4, kv_worst=0.2, per_token=histogram(3.0))
        found = Snapshot({"a": first, "b": second}, 10).counters(["a", "b"])
        assert found is not None
        assert (found.ranks, found.running, found.running_worst, found.kv_worst) == (2, 7, 4, 0.5)
        assert (found.at, found.since) == (7, 9)
        assert found.per_token == Histogram(BOUNDS, (0, 1, 1, 2), 3.05)

    def test_a_pod_of_which_nothing_is_known_leaves_nothing_to_say(self) -> None:
        """Lost: half a group's load for the whole of it, and a group too few."""
        snapshot = Snapshot({"a": self._pod("a", 7), "b": self._pod("b", 7, failures=2)}, 10)
        assert snapshot.counters(["a", "gone"]) is None
        assert snapshot.counters([]) is None
        assert snapshot.counters(["a", "b"], tolerated_failures=1) is None
        assert snapshot.counters(["a", "b"], tolerated_failures=2) is not None

    def test_no_pods_are_no_group(self) -> None:
        with pytest.raises(ValueError, match="no readings"):
            merged([])
