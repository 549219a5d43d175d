"""What an autoscaler remembers beyond its process. Lost otherwise: hours of learning; or, to figures that nobody
measured, a fleet of the right size."""

import math
import random
import zlib
from dataclasses import fields, replace
from typing import Any

import pytest

from factories.memories import always_asked, memory
from factories.plant import Plant, plant, profile
from moe_operator.autoscaler.auto import Autoscaler, Profile
from moe_operator.autoscaler.budget import Budget
from moe_operator.autoscaler.cold_start import ColdStart
from moe_operator.autoscaler.demand import DemandMeter
from moe_operator.autoscaler.forecast import Forecaster, Forecasts
from moe_operator.autoscaler.idle_step_time import IdleStepTime
from moe_operator.autoscaler.memory import (
    MOST_DOWNS,
    Memory,
    Unusable,
    UnusableError,
    _downs,
    moved,
    restored,
    snapshot,
)
from moe_operator.autoscaler.memory_text import LONGEST, read, version, written
from moe_operator.autoscaler.width import Leaning
from moe_operator.autoscaler.width_memory import Asked, grounds_of

STARTS = ColdStart((61.0, 63.5, 60.0, 62.0, 61.0, 60.5))


def learned(hours: float = 3.0, **overrides: Any) -> tuple[Plant, Memory]:
    """A fleet after some hours of a load that swings and jumps."""
    made = plant(groups=5, **overrides)
    made.run(
        hours * 3600,
        lambda now: (
            made.capacity * (3 + math.sin(now / 900) + 0.3 * math.sin(now * 7.1) + (now % 4000 > 3000))
        ),
    )
    grounds = grounds_of(always_asked(2.0, Leaning(4, 900.0)), made.now)
    memory = snapshot(made.autoscaler, STARTS, made.now, grounds)
    assert memory is not None
    return made, memory


MADE, MEMORY = learned()
TEXT = written(MEMORY)


def test_it_comes_back_as_it_was_written() -> None:
    back = read(TEXT, version())
    assert len(TEXT) <= LONGEST
    assert back.profile == MEMORY.profile
    assert back.starts == STARTS.seen
    for one, other in ((back.growth[0][0], MEMORY.growth[0][0]), (back.late_tokens, MEMORY.late_tokens)):
        assert one == pytest.approx(other, rel=0.004, abs=0.05)
    assert back.idle_step_time == pytest.approx(MEMORY.idle_step_time, rel=1e-4)
    assert back.work == pytest.approx(MEMORY.work, rel=1e-4)
    assert back.forecaster is MEMORY.forecaster
    assert back.usual == pytest.approx(MEMORY.usual, rel=1e-4)
    assert MEMORY.usual[1] > 3600
    assert back.asked == replace(MEMORY.asked, weight=pytest.approx(MEMORY.asked.weight))
    assert moved(MEMORY, back) < 0.2, "far less than is worth a write"
    assert written(back) == TEXT, "what is read and written again is the same"


@pytest.mark.parametrize(
    "batches", [(1, 2, 1), (1, 1, 1, 5), (5, 1, 1), (12, 9, 4)], ids=lambda batches: f"{batches}"
)
def test_groups_with_little_to_do_are_remembered_too(batches: tuple[int, ...]) -> None:
    """Of a few requests no step is the shortest, and those of more are longer: lost otherwise, with the step time,
    everything else that was learned of a deployment that is seldom busy."""
    seen = IdleStepTime()
    for at, running in enumerate(batches):
        seen = seen.observed(15.0 * at, running, 0.02 + 0.001 * running)
    back = read(written(replace(MEMORY, idle=replace(seen, at=None))), version())
    assert back.idle.least == pytest.approx(seen.least)
    assert back.idle_step_time == pytest.approx(seen.value)


def test_restored_it_knows_what_it_knew() -> None:
    made, starts = restored(read(TEXT, version()), profile(), 1e6, 0.0)
    again = snapshot(_looked(made), starts, 1e6, grounds_of(MEMORY.asked, 1e6))
    assert again is not None
    assert moved(MEMORY, again) < 0.2
    assert starts.expected == STARTS.expected
    assert made.cold_start == STARTS.expected


def _looked(made: Autoscaler) -> Autoscaler:
    """As if it had seen load: only then it has something to tell."""
    made._forecasts._pending.extend(MADE.autoscaler._forecasts._pending)
    return made


def test_nothing_is_told_before_there_was_load() -> None:
    assert snapshot(Autoscaler(profile(), 300.0), ColdStart(), 0.0) is None
    fresh, _ = restored(MEMORY, profile(), 0.0, 0.0)
    assert snapshot(fresh, ColdStart(), 0.0) is None, "nor anew by a successor that has seen none"


def test_what_is_old_counts_for_less() -> None:
    """A day later the surges of yesterday are a sixteenth of what they were, and the step time is what it was."""
    old = MEMORY.aged(86400.0)
    assert sum(old.growth[0][0]) == pytest.approx(sum(MEMORY.growth[0][0]) / 16)
    assert old.idle_step_time == pytest.approx(MEMORY.idle_step_time)
    assert old.work == pytest.approx(MEMORY.work)
    assert old.after == 0.0
    assert old.usual == pytest.approx(tuple(each / 16 for each in MEMORY.usual))
    assert moved(MEMORY, old) > 1
    assert moved(MEMORY, MEMORY.aged(60.0)) < 0.2
    assert MEMORY.aged(0.0) == MEMORY


def test_a_clock_that_is_a_little_behind_is_no_reason_to_forget() -> None:
    restored(MEMORY, profile(), 0.0, -30.0)
    with pytest.raises(UnusableError, match="3600 s from now") as caught:
        restored(MEMORY, profile(), 0.0, -3600.0)
    assert caught.value.reason is Unusable.FROM_THE_FUTURE


@pytest.mark.parametrize(
    ("other", "holds"),
    [
        ({}, True),
        ({"idle_step_time": 0.02}, True),
        ({"slots": 128}, False),
        ({"ranks": 16}, False),
        ({"gpus": 16}, False),
        ({"tpot": 0.05}, False),
        ({"ttft": None}, False),
    ],
)
def test_it_is_for_groups_like_those_it_was_learned_of(other: dict[str, Any], holds: bool) -> None:
    if holds:
        restored(MEMORY, profile(**other), 0.0, 0.0)
        return
    with pytest.raises(UnusableError) as caught:
        restored(MEMORY, profile(**other), 0.0, 0.0)
    assert caught.value.reason is Unusable.OTHER_GROUPS


def test_plans_of_one_engine_may_differ_a_little() -> None:
    assert Profile(8, 256, idle_step_time=0.02).like(Profile(8, 256, idle_step_time=0.022))
    assert not Profile(8, 256, idle_step_time=0.02).like(Profile(8, 256, idle_step_time=0.05))
    assert Profile(8, 256, idle_step_time=0.02).like(Profile(8, 256))


def test_the_longest_text_is_as_long_as_the_status_takes() -> None:
    full = (1.0,) * len(MEMORY.growth[0][0])
    asked = Asked(43210.1, 61234.5, tuple(range(400, 468)), (1.23456e12,) * 4, Leaning(16, 1234.5))
    text = written(
        replace(
            MEMORY,
            growth=((full, full),) * len(MEMORY.growth),
            late_first=(0.5,) * len(MEMORY.late_first),
            late_tokens=(0.5,) * len(MEMORY.late_tokens),
            judged=(1.0,) * len(MEMORY.judged),
            starts=(1234.56,) * 20,
            downs=tuple((1234.56 + at, 1000 + at) for at in range(MOST_DOWNS)),
            fell=119.123,
            groups=1000,
            asked=asked,
        )
    )
    assert read(text, version()).asked == asked
    assert len(text) <= 0.8 * LONGEST


# --- The window before groups go -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_window_before_groups_go_goes_on(seed: int) -> None:
    """Of what was wanted since any look, the highest number is the same, and so is when it was last wanted."""
    draw = random.Random(seed)
    made = Autoscaler(profile(), 300.0)
    looks = [(1000.0 + 15 * at, draw.randrange(1, 6)) for at in range(draw.randrange(1, 41))]
    made._downs.extend(looks)
    now = looks[-1][0] + draw.uniform(0, 15)
    downs = _downs(made, now)
    text = written(memory(profile(), downs=downs))
    again = restored(read(text, version()), profile(), 5000.0, 20.0)[0]._downs
    shift = 5000.0 - 20.0 - now
    assert again[0][0] == pytest.approx(looks[0][0] + shift, abs=0.01)
    for since, _ in looks:
        seen = [groups for at, groups in looks if at >= since]
        known = [groups for at, groups in again if at >= since + shift - 0.01]
        assert max(known) == max(seen)
    for most in range(1, 6):
        seen = [at + shift for at, groups in looks if groups >= most]
        known = [at for at, groups in again if groups >= most]
        assert max(known, default=None) == (pytest.approx(max(seen), abs=0.01) if seen else None)


def test_a_window_that_nobody_watched_begins_anew() -> None:
    told = memory(profile(), downs=((5.0, 2), (300.0, 3), (600.0, 3)))
    assert restored(told, profile(), 0.0, 50.0)[0]._downs
    assert not restored(told, profile(), 0.0, 60.0)[0]._downs


def test_how_long_ago_groups_went_is_known() -> None:
    """Of those that went before the last look of the one before, and of those that have gone since."""
    made, _ = learned(hours=0.2)
    made.autoscaler.want(made.now, 9, 1, 99)
    made.autoscaler.want(made.now, 7, 1, 99)
    found = snapshot(made.autoscaler, STARTS, made.now + 30.0)
    assert found is not None
    back = restored(read(written(found), version()), profile(), 5000.0, 20.0)[0]
    assert back._fell == 5000.0 - 50.0
    assert back._current == 7
    later = snapshot(made.autoscaler, STARTS, made.now + 900.0)
    assert later is not None
    assert later.fell is None
    assert restored(later, profile(), 5000.0, 20.0)[0]._fell == -math.inf


# --- What somebody edits -------------------------------------------------------------------------


def edited(name: str, value: str) -> str:
    """The text with another value, and a sum that fits."""
    parts = dict(part.split("=", 1) for part in TEXT.split(";"))
    assert name in parts
    body = ";".join(f"{k}={value if k == name else v}" for k, v in parts.items() if k != "sum")
    return f"{body};sum={zlib.crc32(body.encode()):08x}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("of", "8,256,nan,0.08,-,16"),
        ("of", "1e300,256,5,0.08,-,16"),
        ("lead", "inf"),
        ("lead", "-1"),
        ("idle", "nan,1,1,1,1,1"),
        ("idle", "-5,1,1,1,1,0.01"),
        ("idle", "10,100,1,0.2,2,0.01"),
        ("idle", "10,100,1000,1e300,2,0.01"),
        ("idle", "10,100,1000,0.2,2,101"),
        ("idle", "10,100,1000,0.2,2,nan"),
        ("idle", "10,100,1000,0.2,2,0"),
        ("work", "600,1e300,1"),
        ("work", "600,1,-1"),
        ("work", "600,1e8,1e-9"),
        ("work", "nan,1,1"),
        ("budget", "10,5,0,0"),
        ("budget", "0,0,-1,5"),
        ("budget", "nan,nan,0,0"),
        ("after", "1e9"),
        ("errors", "0,0,0,0,nan"),
        ("errors", "0,0,0,0,-1"),
        ("starts", "nan"),
        ("starts", "-60"),
        ("starts", "1e300"),
        ("starts", ",".join(["60"] * 21)),
        ("first", "AA" + "__" * 32),
        ("tokens", "AA" + "__" * 32),
        ("Level", "AA" + "__" * 90 + ","),
        ("usual", "nan,60"),
        ("usual", "-1,60"),
        ("usual", "60,nan"),
        ("usual", "1,1e9"),
        ("downs", "30,2,15,3"),
        ("downs", "-5,2"),
        ("downs", "5,-2"),
        ("downs", "nan,2"),
        ("downs", ",".join(f"{at},{at}" for at in range(17))),
        ("fell", "-5,2"),
        ("fell", "nan,2"),
        ("fell", "5,-2"),
        ("asked", "nan,1,1,1,1,1"),
        ("asked", "1e9,1,1,1,1,1"),
        ("asked", "1,0,1,1,1,1"),
        ("asked", "1,1e9,1,1,1,1"),
        ("asked", "1,1,1,1,nan,1"),
        ("demand", "AC" + "AB" * 67),
        ("leaning", "4,nan"),
        ("leaning", "4,1e9"),
        ("leaning", "-4,60"),
    ],
)
def test_figures_that_no_groups_have_are_not_used(name: str, value: str) -> None:
    with pytest.raises(UnusableError) as caught:
        read(edited(name, value), version())
    assert caught.value.reason is Unusable.OUT_OF_BOUNDS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("of", "8,256"),
        ("of", "-,256,5,0.08,-,16"),
        ("of", "nan,256,5,0.08,-,16"),
        ("of", "inf,256,5,0.08,-,16"),
        ("lead", ""),
        ("idle", "1,2,3"),
        ("errors", "0"),
        ("work", "a,b,c"),
        ("starts", "60,,60"),
        ("first", "A"),
        ("tokens", "AA!!"),
        ("tokens", "AB" + "BA" * 32),
        ("Level", "AA" + "BA" * 91 + ","),
        ("Level", ""),
        ("Level", ",,"),
        ("usual", "60"),
        ("usual", ""),
        ("downs", "5"),
        ("downs", "5,inf"),
        ("fell", "5"),
        ("fell", "5,-"),
        ("fell", "5,inf"),
        ("asked", "1,2"),
        ("demand", "AB" * 67),
        ("demand", "__" * 68),
        ("demand", ""),
        ("leaning", "4"),
        ("leaning", "nan,60"),
    ],
)
def test_what_is_not_written_like_that_is_not_read(name: str, value: str) -> None:
    with pytest.raises(UnusableError) as caught:
        read(edited(name, value), version())
    assert caught.value.reason is Unusable.DAMAGED


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";sum=",
        "of=1",
        TEXT[:-1],
        TEXT[1:],
        TEXT.replace("Level=", "Level=A", 1),
        TEXT + ";more=1",
        "x" * 100_000,
    ],
)
def test_a_text_that_is_not_whole_is_not_read(text: str) -> None:
    with pytest.raises(UnusableError) as caught:
        read(text, version())
    assert caught.value.reason is Unusable.DAMAGED


def test_another_version_is_not_read_whatever_it_says() -> None:
    with pytest.raises(UnusableError, match="'2-00000000'") as caught:
        read(TEXT, "2-00000000")
    assert caught.value.reason is Unusable.OTHER_VERSION


# --- What is worth a write -----------------------------------------------------------------------


def test_what_moved_by_little_is_not_worth_a_write_and_what_changes_decisions_is() -> None:
    def with_(**changed: Any) -> float:
        return moved(MEMORY, replace(MEMORY, **changed))

    assert with_(judged_requests=MEMORY.judged_requests * 1.01) < 1
    assert with_(starts=(*STARTS.seen, 61.0)) < 1
    assert with_(levels=MEMORY.levels * 1.05) < 1
    assert with_(levels=MEMORY.levels * 1.5) > 1
    assert with_(starts=(*STARTS.seen, 900.0, 900.0)) > 1
    assert with_(late_requests=MEMORY.late_requests + 0.01 * MEMORY.judged_requests) > 1
    demand, seconds = MEMORY.usual
    assert with_(usual=(demand * 1.1, seconds)) < 1
    assert with_(usual=(demand * 1.5, seconds)) > 1
    other = next(at for at, name in enumerate(Forecaster) if name is not MEMORY.forecaster)
    errors = [1.0 if at != other else 0.0 for at in range(len(Forecaster))]
    assert with_(errors=tuple(errors)) == math.inf
    best = min(MEMORY.errors)
    close = [best * 1.05 if at != other else best for at in range(len(Forecaster))]
    assert with_(errors=tuple(close)) < 1, "two that are as good"
    chosen = tuple(Forecaster).index(MEMORY.forecaster)
    surge = list(MEMORY.growth[chosen][0])
    surge[70] += 1800
    growth = [*MEMORY.growth]
    growth[chosen] = (tuple(surge), growth[chosen][1])
    assert with_(growth=tuple(growth)) > 1, "half an hour at three times the forecast"


def test_hours_of_the_same_are_less_and_less_news() -> None:
    made = plant(groups=5)
    made.run(3600, lambda _: 3 * made.capacity)
    last = snapshot(made.autoscaler, STARTS, made.now)
    at, times = made.now, []
    while made.now < 12 * 3600:
        made.run(600, lambda _: 3 * made.capacity)
        memory = snapshot(made.autoscaler, STARTS, made.now)
        assert memory is not None
        assert last is not None
        if moved(last.aged(made.now - at), memory) >= 1:
            last, at = memory, made.now
            times.append(made.now)
    assert len(times) <= 12, "an hour apart, on average"
    assert len([each for each in times if each > 8 * 3600]) <= 3


def test_all_that_is_kept_for_hours_is_remembered() -> None:
    """A new part of what is learned is to be remembered too, or named here as what minutes bring back."""
    known = {
        Autoscaler: {
            "profile": "remembered",
            "cold_start": "of the starts",
            "worth": "the caller's",
            "window": "the caller's",
            "_groups": "minutes",
            "_meter": "remembered",
            "_lateness": "remembered",
            "_budget": "remembered",
            "_downs": "remembered",
            "_kept": "made anew",
            "_demand": "one look",
            "_resource": "one look",
            "blind": "one look",
            "serving": "one look",
            "_worth": "one look",
            "_current": "remembered",
            "_fell": "remembered",
            "_full_until": "remembered",
            "_idle": "remembered",
            "_forecasts": "remembered",
        },
        DemandMeter: {
            "_arrivals": "minutes",
            "_calm": "remembered",
            "_levels": "remembered",
            "_rates": "remembered",
            "_at": "one look",
        },
        Forecasts: {
            "lead": "of the starts",
            "filled": "minutes",
            "sure_from": "minutes",
            "_levels": "minutes",
            "_pending": "minutes",
            "_recent": "minutes",
            "_errors": "remembered",
            "_growth": "remembered",
            "_usual": "remembered",
            "_at": "one look",
            "_points": "made anew",
        },
        Budget: {"long": "remembered", "lately": "remembered"},
        IdleStepTime: {
            **dict.fromkeys(("weight", "x", "xx", "t", "xt", "least"), "remembered"),
            "prior": "the plan's",
            "at": "one look",
        },
    }
    for kind, names in known.items():
        declared = {field.name for field in fields(kind)}
        own = set(vars(kind(**_arguments(kind)))) if kind is not IdleStepTime else declared
        assert declared | own == set(names), kind.__name__


def _arguments(kind: type) -> dict[str, Any]:
    return {Autoscaler: {"profile": profile(), "cold_start": 1.0}, Forecasts: {"lead": 60.0}}.get(kind, {})
