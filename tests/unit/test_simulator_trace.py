"""Traces. Without these a wrong file would pass for a right one, or end in a traceback that names no line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from moe_operator.simulator.trace import (
    Trace,
    TraceError,
    cut,
    make_trace,
    on_off_load,
    read_trace,
    scaled,
    step_load,
    stretched,
    with_output_shift,
)

HEADER = "t_seconds,prompt_tokens,output_tokens\n"


def _file(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_reads_plain_and_compressed_alike_and_counts_from_the_first_arrival(tmp_path: Path) -> None:
    text = HEADER + "100.5,10,3\n101.0,7,1\n\n3700.25,8,2\n"
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    for trace in (read_trace(_file(tmp_path, text)), read_trace(packed)):
        assert trace.arrival.tolist() == [0.0, 0.5, 3599.75]
        assert trace.prompt.tolist() == [10, 7, 8]
        assert trace.output.tolist() == [3, 1, 2]
        assert trace.cached.tolist() == [0, 0, 0]
        assert trace.duration == 3599.75


def test_commas_in_quotes_of_an_ignored_column_are_no_columns(tmp_path: Path) -> None:
    """Lost: a whole log, refused with a wrong column for a model's or a user's name."""
    text = 't_seconds,"who, where",prompt_tokens,output_tokens\n0,"a, b",10,3\n2,"c ""d"", e",7,1\n'
    trace = read_trace(_file(tmp_path, text))
    assert (trace.prompt.tolist(), trace.output.tolist()) == ([10, 7], [3, 1])


def test_columns_are_found_by_name_and_others_are_ignored(tmp_path: Path) -> None:
    text = "session, output_tokens,cached_prefix_tokens_inf,t_seconds,prompt_tokens\na,3,4,0,10\nb,1,0,1,0\n"
    trace = read_trace(_file(tmp_path, text))
    assert trace.cached.tolist() == [4, 0]
    assert trace.prompt.tolist() == [10, 1], "an empty prompt still costs a token"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "line 1: no column t_seconds, prompt_tokens, output_tokens in the header ''"),
        (HEADER, "holds no request"),
        (HEADER + "\n \n", "holds no request"),
        ("t_seconds,prompt,output_tokens\n0,1,1\n", "line 1: no column prompt_tokens"),
        ("0,1,1\n1,1,1\n", "line 1: no column t_seconds"),
        (HEADER[:-1] + ",t_seconds\n0,1,1,0\n", "column t_seconds is there twice"),
        (HEADER[:-1] + ",cached_tokens\n0,1,1,0\n", "column cached_tokens is not known"),
        (
            HEADER + "0,1,1\n1,-5,1\n",
            "line 3, column prompt_tokens: found '-5': a number of tokens cannot be",
        ),
        (HEADER + "0,1,1\n\n1,5,-1\n", "line 4, column output_tokens: found '-1'"),
        (HEADER + "0,1,1\nnan,5,1\n", "line 3, column t_seconds: found 'nan': a finite number"),
        (HEADER + "0,1,1\n1,NaN,1\n", "line 3, column prompt_tokens: found 'NaN'"),
        (HEADER + "0,1,1\ninf,5,1\n", "line 3, column t_seconds: found 'inf'"),
        (HEADER + "0,1,1\n2,1,1\n1,1,1\n", "line 4, column t_seconds: 1 s is before the 2 s of line 3: sort"),
        (HEADER + "0,1,1\n1,,1\n", "line 3, column prompt_tokens: found '': nothing is there"),
        (HEADER + "0,1,1\n1,x,1\n", "line 3, column prompt_tokens: found 'x': a number is needed"),
        (HEADER + "0,1,1\n1,1.5,1\n", "found '1.5': a whole number"),
        (HEADER + "0,1,1\n1,1\n", "line 3: 2 values where the header has 3 columns"),
        (HEADER + "0,1,3000000000\n", "more than 100000000 tokens: check the column's unit"),
        (HEADER[:-1] + ",cached_prefix_tokens_inf\n0,5,1,6\n", "6 tokens of a prompt of 5 cannot be cached"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_column(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(TraceError) as refused:
        read_trace(_file(tmp_path, text))
    assert found in str(refused.value)
    assert "trace.csv" in str(refused.value)


def test_a_damaged_archive_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "0,1,1\n" * 99).encode())[:-20])
    with pytest.raises(TraceError, match=r"damaged .*: fetch it again"):
        read_trace(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(TraceError, match="is not text"):
        read_trace(path)


def test_a_million_requests_in_one_second_are_a_trace(tmp_path: Path) -> None:
    lines = "".join(f"{i / 1e6:.6f},1,1\n" for i in range(1_000_000))
    trace = read_trace(_file(tmp_path, HEADER + lines))
    assert len(trace) == 1_000_000
    assert trace.duration < 1


def test_a_trace_whose_columns_do_not_fit_is_refused() -> None:
    with pytest.raises(TraceError, match="ascend"):
        make_trace([1.0, 0.0], [1, 1], [1, 1])
    with pytest.raises(TraceError, match="one length"):
        make_trace([1.0], [1, 1], [1, 1])
    with pytest.raises(TraceError, match="cannot hold"):
        make_trace([5.0], [1], [1], duration=4)
    with pytest.raises(TraceError, match="at least one"):
        make_trace([5.0], [1], [0])


def _day(n: int = 20_000) -> Trace:
    """Arrivals in bursts, with lengths that are all different."""
    rng = np.random.default_rng(5)
    arrival = np.sort(np.concatenate([rng.normal(600 * k, 60, n // 10) for k in range(1, 11)]).clip(0, 7200))
    return make_trace(arrival, np.arange(1, n + 1), np.arange(1, n + 1)[::-1], duration=7200)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5, 4.0])
def test_scaling_changes_the_rate_and_keeps_bursts_and_lengths(factor: float) -> None:
    day = _day()
    other = scaled(day, factor, seed=1)
    assert len(other) == pytest.approx(factor * len(day), rel=0.02)
    assert other.duration == day.duration
    before = np.histogram(day.arrival, bins=120, range=(0, 7200))[0] / len(day)
    after = np.histogram(other.arrival, bins=120, range=(0, 7200))[0] / len(other)
    assert np.abs(before - after).sum() < 0.1, "share of the requests of each minute"
    assert other.output.mean() == pytest.approx(day.output.mean(), rel=0.02)
    assert (other.prompt + other.output == len(day) + 1).all(), "a request's lengths stay together"


def test_scaling_is_the_same_for_the_same_seed_only() -> None:
    day = _day()
    assert scaled(day, 2.5, seed=1).arrival.tolist() == scaled(day, 2.5, seed=1).arrival.tolist()
    assert scaled(day, 2.5, seed=1).arrival.tolist() != scaled(day, 2.5, seed=2).arrival.tolist()
    assert scaled(day, 1.0, seed=1).arrival.tolist() == day.arrival.tolist()


def test_a_cut_covers_its_window_also_where_nothing_arrives() -> None:
    trace = make_trace([0, 10, 20, 100], [1, 2, 3, 4], [1, 1, 1, 1])
    part = cut(trace, 10, 90)
    assert part.arrival.tolist() == [0, 10]
    assert part.prompt.tolist() == [2, 3]
    assert part.duration == 80
    assert cut(trace, 20, 100).prompt.tolist() == [3, 4]
    assert len(cut(trace, 30, 90)) == 0
    with pytest.raises(TraceError, match="empty"):
        cut(trace, 50, 50)


def test_other_loads() -> None:
    day = _day()
    shifted = with_output_shift(day, 3600, 2.0)
    late = day.arrival >= 3600
    assert (shifted.output[late] == 2 * day.output[late]).all()
    assert (shifted.output[~late] == day.output[~late]).all()
    assert stretched(day, 2.0).rate == day.rate / 2

    steps = step_load(day, duration=3000, base=5, steps={1000: 4.0, 2000: 1.0}, seed=3)
    per_step = np.histogram(steps.arrival, bins=3, range=(0, 3000))[0] / 1000
    assert per_step == pytest.approx([5, 20, 5], rel=0.1)
    assert steps.duration == 3000

    waves = on_off_load(day, duration=4000, high=20, low=0, on=500, off=500, seed=3)
    per_wave = np.histogram(waves.arrival, bins=8, range=(0, 4000))[0] / 500
    assert per_wave == pytest.approx([20, 0] * 4, rel=0.1)


def test_a_made_load_may_be_longer_than_the_trace_whose_lengths_it_has() -> None:
    short = make_trace([0.0, 1.0], [5, 6], [7, 8])
    for load in (
        step_load(short, duration=600, base=1.0, steps={}, seed=1),
        on_off_load(short, duration=600, high=2.0, low=0.5, on=60, off=60, seed=1),
    ):
        assert load.duration == 600
        assert load.arrival[-1] > 500
