"""What the operator asks engines for itself. Counted as load it would keep groups that nobody uses."""

from factories.engine_pages import histogram, metrics
from moe_operator.telemetry.observation import PodObservation
from moe_operator.telemetry.own_requests import Own, OwnRequests
from moe_operator.telemetry.window import PodWindow


class TestOwnRequests:
    """What the operator asks for is no load."""

    @staticmethod
    def _seen(window: PodWindow) -> PodObservation:
        seen = window.observation()
        assert seen is not None
        return seen

    def test_a_canary_is_neither_work_nor_progress_nor_use_whenever_the_scrape_comes(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(prompt_tokens=100, output_tokens=50), 0, own=own.of("u"))
        with own.asking("u", 2) as asked:
            window.add(
                5, metrics(prompt_tokens=100, output_tokens=50, running=1, waiting=1), 2, own=own.of("u")
            )
            assert not self._seen(window).busy
            # Counted by the engine, and not yet answered.
            window.add(
                10,
                metrics(prompt_tokens=106, output_tokens=52, first_token=histogram(0.1, 0.1)),
                0,
                own=own.of("u"),
            )
            asked.prompt_tokens, asked.output_tokens = 6, 2
        window.add(
            15,
            metrics(prompt_tokens=106, output_tokens=52, first_token=histogram(0.1, 0.1)),
            0,
            own=own.of("u"),
        )
        seen = self._seen(window)
        assert (seen.prompt_tokens_per_second, seen.output_tokens_per_second) == (0, 0)
        assert seen.time_to_first_token is None
        assert (seen.used_at, seen.progress_at, seen.requests) == (0, 15, 0)

    def test_requests_of_others_beside_it_count(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(), 0, own=own.of("u"))
        with own.asking("u", 1):
            window.add(5, metrics(running=3, waiting=1), 4, own=own.of("u"))
        seen = self._seen(window)
        assert (seen.running, seen.waiting, seen.in_flight, seen.used_at) == (2, 1, 3, 5)

    def test_a_request_between_two_scrapes_is_use(self) -> None:
        window = PodWindow("u")
        window.add(0, metrics(output_tokens=50), 0)
        window.add(5, metrics(output_tokens=51), 0)
        window.add(10, metrics(output_tokens=51), 0)
        assert self._seen(window).used_at == 5

    def test_a_canary_that_never_answers_takes_nothing_off_for_good(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(output_tokens=50), 0, own=own.of("u"))
        with own.asking("u", 4):
            window.add(5, metrics(output_tokens=50), 4, own=own.of("u"))
        window.add(10, metrics(output_tokens=60), 0, own=own.of("u"))
        assert self._seen(window).output_tokens_per_second == 1

    def test_a_canary_is_in_no_figure_that_it_can_be_told_apart_in(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        before = metrics((0, 1), running=3, running_worst=2, finished=9.0, per_token=histogram(0.5, 0.5))
        window.add(0, before, 3, own=own.of("u"))
        with own.asking("u", 2) as asked:
            busy = metrics((0, 1), running=5, running_worst=3, finished=9.0, per_token=histogram(0.5, 0.5))
            window.add(5, busy, 5, own=own.of("u"))
            seen = self._seen(window).counters
            assert (seen.running, seen.running_worst, seen.finished) == (3, 2, 9)
            asked.output_tokens = 2
        after = histogram(0.5, 0.5, 0.0, 0.0)
        told = metrics((0, 1), running=3, running_worst=2, output_tokens=2.0, finished=11.0, per_token=after)
        window.add(10, told, 3, own=own.of("u"))
        seen = self._seen(window).counters
        assert (seen.running_worst, seen.output_tokens, seen.finished) == (2, 0, 9)
        assert seen.per_token == histogram(0.5, 0.5)

    def test_a_canary_does_not_shorten_the_time_per_output_token(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(), 0, own=own.of("u"))
        with own.asking("u", 1) as asked:
            asked.output_tokens = 1
        told = metrics(output_tokens=11.0, per_token=histogram(0.5, 0.0))
        window.add(5, told, 0, own=own.of("u"))
        assert self._seen(window).time_per_output_token == 0.5

    def test_the_canary_that_let_an_engine_in_is_nobodys(self) -> None:
        """It is asked before there is a scrape. Lost: a request and its tokens per engine, in every account."""
        own, window = OwnRequests(), PodWindow("u")
        with own.asking("u", 4) as asked:
            asked.prompt_tokens, asked.output_tokens = 8, 4
        window.add(0, metrics(prompt_tokens=8, output_tokens=4, finished=4), 0, own=own.of("u"))
        counted = self._seen(window).counters
        assert (counted.prompt_tokens, counted.output_tokens, counted.finished) == (0, 0, 0)
        other = PodWindow("u")
        other.add(0, metrics(prompt_tokens=1, output_tokens=1, finished=1), 0, own=own.of("u"))
        counted = self._seen(other).counters
        assert (counted.prompt_tokens, counted.output_tokens) == (1, 1), (
            "an engine that began after it was asked"
        )

    def test_what_a_canary_took_is_no_latency(self) -> None:
        """Lost: a time to first token of a model that nobody asks, and two passes for each canary."""
        own, window = OwnRequests(), PodWindow("u")
        window.add(0, metrics(first_token=histogram()), 0, own=own.of("u"))
        with own.asking("u", 1) as asked:
            asked.prompt_tokens = asked.output_tokens = 1
        told = metrics(prompt_tokens=1, output_tokens=1, finished=1, first_token=histogram(0.2))
        window.add(5, told, 0, own=own.of("u"))
        assert not self._seen(window).timed
        used = metrics(prompt_tokens=9, output_tokens=9, finished=2, first_token=histogram(0.2, 0.2))
        window.add(10, used, 0, own=own.of("u"))
        assert self._seen(window).timed

    def test_after_a_restart_of_the_engine_earlier_canaries_do_not_count(self) -> None:
        own, window = OwnRequests(), PodWindow("u")
        with own.asking("u", 100) as asked:
            asked.output_tokens = 100
        window.add(0, metrics(output_tokens=150), 0, own=own.of("u"))
        window.add(5, metrics(output_tokens=0), 0, own=own.of("u"))
        window.add(10, metrics(output_tokens=50), 0, own=own.of("u"))
        assert self._seen(window).output_tokens_per_second == 10

    def test_pods_that_are_gone_are_forgotten(self) -> None:
        own = OwnRequests()
        with own.asking("u", 1) as asked:
            asked.output_tokens = 1
            own.forget([])
            assert own.of("u").in_flight == 1
        own.forget([])
        assert own.of("u") == Own()
