"""`kubectl moe simulate`: what people choose limits and policies by before they spend GPUs on it."""

import builtins
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.plans import plan_manifest, report
from moe_operator.cli import charts, kubectl_moe, simulation
from moe_operator.cli.charts import Chart, Line
from moe_operator.simulator.candidates import candidates
from moe_operator.simulator.engine_model import EngineModel, engines
from moe_operator.simulator.planned_engine import planned_engine
from moe_operator.simulator.result import Objective

R1 = "deepseek-ai/DeepSeek-R1-0528"
HEADER = "t_seconds,prompt_tokens,output_tokens\n"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty minutes, two requests a second."""
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text(HEADER + "".join(f"{at / 2},{400 + at % 300},{80 + at % 60}\n" for at in range(2400)))
    return str(path)


def _manifest(folder: Path, **spec: Any) -> str:
    spec.setdefault("scaling", {"minGroups": 1, "maxGroups": 4})
    spec.setdefault("objective", {"timeToFirstToken": "5s", "timePerOutputToken": "80ms"})
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(plan_manifest(R1, "H200", **spec)))
    return str(path)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A manifest where no cluster is configured."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return _manifest(tmp_path)


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a usage error."""
    assert kubectl_moe.main(["simulate", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    return error


def test_policies_stand_side_by_side(file: str, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody could choose by a table that leaves the cost or the misses of one out."""
    code = kubectl_moe.main(
        [
            *("simulate", "-f", file, "--trace", trace, "--cold-start", "90s", "--seed", "3", "-o", "json"),
            *("--policy", "static", "kpa-concurrency", "clairvoyant"),
        ]
    )
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["policies"]] == ["static", "kpa-concurrency", "clairvoyant"]
    static = found["policies"][0]
    # Four groups of eight GPUs for twenty minutes, at the catalogue's price.
    assert static["gpuHours"]["total"] == pytest.approx(4 * 8 / 3, rel=0.001)
    assert static["usd"] == pytest.approx(static["gpuHours"]["total"] * found["usdPerGpuHour"], abs=0.01)
    assert static["attainment"] > 0.99
    assert static["requests"]["finished"] == found["trace"]["requests"] == 2400
    assert found["policies"][2]["gpuHours"]["total"] < static["gpuHours"]["total"]
    assert found["coldStartSeconds"] == 90
    assert len(static["byMinute"]["ready"]) == 20
    assert found["group"]["sustainedRequestsPerSecond"] > 5
    assert found["engine"]["measured"] is True


def test_text_says_what_was_simulated_and_where_its_figures_are_from(
    file: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        kubectl_moe.main(["simulate", "-f", file, "--trace", trace, "--policy", "static", "--scale", "0.5"])
        == 0
    )
    out, progress = capsys.readouterr()
    assert re.search(r"0\.5 times its rate: 1,\d\d\d requests in 19m", out)
    assert "step times of deepseek-r1-8xh200: aiconfigurator" in out
    assert "first token within 5 s, 80 ms per further token" in out
    assert "static: always 4 groups" in out
    assert "serving" in progress


def test_a_page_needs_nothing_from_elsewhere(
    file: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is mailed around, and read without a network."""
    assert (
        kubectl_moe.main(["simulate", "-f", file, "--trace", trace, "--policy", "static", "-o", "html"]) == 0
    )
    page = capsys.readouterr().out
    assert not re.search(r"<script|<link|<img|url\(|@import|src=", page)
    addresses = set(re.findall(r"https?://[^\s\"<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        ET.fromstring(picture)
    assert "<td>static</td>" in page


def test_a_bad_trace_names_line_and_column(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(HEADER + "0,10,5\n1,-4,5\n")
    message = _refused(capsys, "-f", file, "--trace", str(bad))
    assert "line 3, column prompt_tokens: found '-4': a number of tokens cannot be negative" in message


@pytest.mark.parametrize("unit", [1_000_000, 1_000_000_000], ids=["us", "ns"])
def test_times_in_another_unit_are_asked_about(
    file: str, tmp_path: Path, unit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost: the machine's memory, or an afternoon, to a log whose times are not seconds. An hour by a clock."""
    other, since = tmp_path / "other.csv", 1_700_000_000
    other.write_text(HEADER + f"{since * unit},100,100\n{(since + 3600) * unit},100,100\n")
    message = _refused(capsys, "-f", file, "--trace", str(other))
    assert f"covers {3600 * unit / 86400:,.0f} days, and 60 are simulated at most" in message
    assert "is t_seconds in seconds" in message


def test_a_scale_that_makes_too_many_requests_is_refused(
    file: str, trace: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "_MOST_REQUESTS", 4000)
    message = _refused(capsys, "-f", file, "--trace", trace, "--scale", "2")
    assert "--scale 2: makes 4,800 requests of the trace's 2,400, and 4,000 are simulated at most" in message


def test_a_trace_that_is_not_there_is_said_so(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trace nowhere.csv cannot be read: No such file" in _refused(
        capsys, "-f", file, "--trace", "nowhere.csv"
    )


def test_without_the_simulators_libraries_it_says_how_to_get_them(
    file: str, trace: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "numba":
            raise ImportError("No module named 'numba'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    message = _refused(capsys, "-f", file, "--trace", trace)
    assert "simulate needs numpy and numba" in message
    assert "pip install 'moe-operator[simulator]'" in message


def test_an_unknown_policy_is_answered_with_the_nearest(
    file: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean kpa-concurrency?" in _refused(
        capsys, "-f", file, "--trace", trace, "--policy", "kpa-concurency"
    )


@pytest.mark.parametrize(
    "option",
    [
        ("--cold-start", "soon"),
        ("--cold-start", "48h"),
        ("--scale", "0"),
        ("--scale", "nan"),
        ("--seed", "-1"),
        ("--max-groups", "0"),
    ],
)
def test_options_out_of_range_are_refused(
    file: str, trace: str, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        kubectl_moe.main(["simulate", "-f", file, "--trace", trace, *option])
    assert stopped.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_limits_that_contradict_are_refused(
    file: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ("--min-groups", "5", "--max-groups", "2")
    assert "at least 5 groups and at most 2" in _refused(capsys, "-f", file, "--trace", trace, *both)
    assert "--start-groups 9" in _refused(
        capsys, "-f", file, "--trace", trace, "--start-groups", "9", "--policy", "static"
    )


def test_without_a_ceiling_it_warns_that_nothing_scales(
    tmp_path: Path, file: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _manifest(tmp_path, scaling={"minGroups": 2})
    assert kubectl_moe.main(["simulate", "-f", manifest, "--trace", trace, "--policy", "static"]) == 0
    assert "warning: spec.scaling.maxGroups is not set, so that there are always 2" in capsys.readouterr().out


def test_what_the_spec_says_and_is_not_simulated_is_said() -> None:
    """Lost: the trust in GPU-hours that are those of another spec."""

    def warned(**scaling: Any) -> list[str]:
        limits = {"minGroups": 1, "maxGroups": 2, **scaling}
        made = report(plan_manifest(R1, "H200", scaling=limits))
        return [warning.split()[0] for warning in simulation._limits(made, None, None)[2]]

    day = {"name": "day", "from": "08:00", "to": "18:00", "minGroups": 2}
    assert warned(width="Recommend") == []
    assert warned(schedules=[day]) == ["spec.scaling.schedules"]
    assert warned(minGroups=0, scaleToZeroAfter="30m") == ["spec.scaling.scaleToZeroAfter"]
    assert warned(width="Auto") == ["spec.scaling.width"]


def test_a_spec_without_a_plan_is_no_simulation(
    tmp_path: Path, file: str, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _manifest(tmp_path, hardware={"gpusPerGroup": 1})
    assert kubectl_moe.main(["simulate", "-f", manifest, "--trace", trace]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert "needs" in error


def test_other_commands_do_without_the_simulators_libraries() -> None:
    """`kubectl moe plan` starts in a third of a second, and where numpy is not installed."""
    code = (
        "import sys; from moe_operator.cli import kubectl_moe; kubectl_moe.parser(); "
        "sys.exit('numpy' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Engines of plans ----------------------------------------------------------------------------


def test_a_measured_layout_has_the_measured_step_times_and_the_plans_own_sizes() -> None:
    found = report(plan_manifest(R1, "H200"))
    assert found.sizes is not None
    planned = planned_engine(found.plan, found.sizes.sized, found.sizes.wants)
    known = engines()["deepseek-r1-8xh200"]
    assert planned.measured
    assert (planned.engine.base, planned.engine.prefill) == (known.base, known.prefill)
    sizing = found.plan.sizing
    assert sizing is not None
    assert planned.engine.slots == sizing.max_sequences
    assert planned.engine.kv_tokens == sizing.kv_cache_tokens // found.plan.data


@pytest.mark.parametrize("accelerator", ["B200", "H200"])
def test_elsewhere_a_step_takes_what_the_planner_estimates(accelerator: str) -> None:
    found = report(plan_manifest("Qwen/Qwen3.5-397B-A17B", accelerator))
    assert found.sizes is not None
    sizing = found.plan.sizing
    assert sizing is not None
    sized, wants = found.sizes.sized, found.sizes.wants
    planned = planned_engine(found.plan, sized, wants)
    assert not planned.measured
    assert "roofline" in planned.source
    from moe_operator.planner.roofline import Step

    step = Step(sized.model.architecture, sized.load)
    for count in (1, sized.throughput.sequences_per_rank):
        ours = planned.engine.step_seconds(count, 0, count * sized.load.context)
        assert ours == pytest.approx(step.seconds(count), rel=0.15)


def test_every_policy_can_be_made_for_a_plan() -> None:
    engine = engines()["qwen3-30b-a3b-4xh200"]
    for candidate in candidates().values():
        goal = Objective()
        policy = candidate.make(candidate.defaults(engine, goal), engine, goal)
        assert policy.interval > 0
        assert candidate.tunable is None or len(candidate.tunable.grid) == len(
            candidate.variants(engine, goal)
        )


# --- Pictures ------------------------------------------------------------------------------------


def test_a_chart_skips_what_is_not_known_and_keeps_to_its_frame() -> None:
    nan = float("nan")
    line = Line("groups", [0.0, 1.0, 2.0, 3.0], [1.0, nan, 3.0, 2.0])
    picture = charts.svg(Chart("Groups", "groups", [line], limit=2.5, limit_name="most"))
    tree = ET.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    drawn = [p.get("d", "") for p in tree.iter(f"{space}path") if "line" in (p.get("class") or "")]
    # Its mark in the legend, and a line on either side of the gap.
    assert len(drawn) == 3
    numbers = [float(n) for path in drawn for n in re.findall(r"[\d.]+", path.replace("h20", ""))]
    assert all(0 <= number <= 960 for number in numbers)
    assert "nan" not in picture


def test_names_are_escaped_in_pictures() -> None:
    picture = charts.svg(Chart("<a & b>", "s", [Line("x<y", [0.0, 1.0], [1.0, 10.0])], logarithmic=True))
    ET.fromstring(picture)
    assert "x&lt;y" in picture


def test_an_empty_chart_is_a_chart() -> None:
    ET.fromstring(charts.svg(Chart("Nothing", "s", [])))


@pytest.mark.parametrize(("window", "last"), [("0s", 1), ("1h", 4)])
def test_the_window_of_the_manifest_is_simulated(
    tmp_path: Path, trace: str, capsys: pytest.CaptureFixture[str], window: str, last: int
) -> None:
    """Lost: the answer to what a shorter window would cost, which nobody wants to find out in production."""
    manifest = _manifest(tmp_path, scaling={"maxGroups": 4, "scaleDown": {"window": window}})
    asked = ("-f", manifest, "--trace", trace, "--start-groups", "4", "--policy", "operator", "-o", "json")
    assert kubectl_moe.main(["simulate", *asked]) == 0
    (found,) = json.loads(capsys.readouterr().out)["policies"]
    assert found["byMinute"]["ready"][-1] == last


@pytest.mark.parametrize(
    "engine", sorted(engines().values(), key=lambda one: one.name), ids=lambda one: one.name
)
def test_the_step_without_load_that_is_planned_is_near_the_measured_one(engine: EngineModel) -> None:
    """What autoscalers begin with at a first start: twice off, and an idle fleet looks half full."""
    found = report(
        plan_manifest(
            engine.models[0],
            engine.accelerator,
            model={"precision": engine.precision},
            hardware={"gpusPerGroup": engine.gpus},
            parallelism={"tensor": engine.gpus // engine.ranks},
        )
    )
    assert found.plan.sizing is not None
    planned = found.plan.sizing.idle_step_microseconds * 1e-6
    assert planned == pytest.approx(engine.step_seconds(1, 0, 2000), rel=0.3)
