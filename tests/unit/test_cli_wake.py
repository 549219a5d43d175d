"""`kubectl moe wake`. Lost otherwise: a model that sleeps on while its users wait, or that is put to sleep under those
who asked for longer."""

from typing import Any

import pytest

from factories.cluster_objects import NOW, deployment_object
from moe_operator.api import names
from moe_operator.api.times import format_time, read_rfc3339
from moe_operator.cli import kubectl_moe, wake_command
from unit.answers import Answers

PATH = "/apis/moe-operator.dev/v1alpha1/namespaces/serving/modeldeployments/tiny"
COLD_START = {
    "group": "tiny-g0",
    "createdTime": "2027-01-15T08:00:00Z",
    "total": 345,
    "schedule": 1,
    "image": 2,
}


@pytest.fixture
def asleep(cluster: Answers, monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setattr(wake_command.time, "time", lambda: NOW)
    _put(
        cluster,
        {"minGroups": 0, "maxGroups": 2, "scaleToZeroAfter": "30m"},
        coldStart=COLD_START | {"engine": 300},
    )
    return cluster


def _put(answers: Answers, scaling: dict[str, Any], wake: str | None = None, **status: Any) -> None:
    obj = deployment_object({"scaling": scaling}, **status)
    if wake is not None:
        obj["metadata"]["annotations"] = {names.ANNOTATION_WAKE_UNTIL: wake}
    answers.answers[PATH] = obj


def _written(answers: Answers) -> float:
    ((path, body),) = answers.patches
    assert path == f"{PATH}?fieldManager=kubectl-moe"
    assert set(body) == {"metadata"}
    assert set(body["metadata"]) == {"annotations", "uid", "resourceVersion"}
    return read_rfc3339(body["metadata"]["annotations"][names.ANNOTATION_WAKE_UNTIL])


@pytest.mark.parametrize(("words", "seconds"), [([], 7200), (["--for", "30m"], 1800)])
def test_it_writes_until_when_and_says_from_when_it_serves(
    asleep: Answers, capsys: pytest.CaptureFixture[str], words: list[str], seconds: int
) -> None:
    assert kubectl_moe.main(["wake", "tiny", *words]) == 0
    assert _written(asleep) == int(NOW) + seconds
    out = capsys.readouterr().out
    assert f"serving/tiny: at least one group until {format_time(NOW + seconds)}" in out
    assert f"it serves from about {format_time(NOW + 345)}: its last start took 5m" in out
    assert "kubectl annotate mdep tiny -n serving moe-operator.dev/wake-until-" in out


def test_who_asked_for_longer_keeps_it(asleep: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    _put(asleep, {"minGroups": 0, "scaleToZeroAfter": "30m"}, format_time(NOW + 86400))
    assert kubectl_moe.main(["wake", "tiny"]) == 0
    assert asleep.patches == []
    assert "as it was asked before for longer" in capsys.readouterr().out
    assert kubectl_moe.main(["wake", "tiny", "--for", "48h"]) == 0
    assert _written(asleep) == int(NOW) + 48 * 3600


def test_what_cannot_be_read_is_written_over(asleep: Answers) -> None:
    _put(asleep, {"minGroups": 0, "scaleToZeroAfter": "30m"}, "tomorrow")
    assert kubectl_moe.main(["wake", "tiny"]) == 0
    assert _written(asleep) == int(NOW) + 7200


def test_what_serves_already_is_said(asleep: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    _put(asleep, {"minGroups": 0, "scaleToZeroAfter": "30m"}, groups={"ready": 1, "desired": 1})
    assert kubectl_moe.main(["wake", "tiny"]) == 0
    assert "it serves: 1 of 1 groups" in capsys.readouterr().out


def test_a_model_that_may_have_no_group_is_not_woken_in_vain(
    asleep: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    _put(asleep, {"minGroups": 0, "maxGroups": 0})
    assert kubectl_moe.main(["wake", "tiny"]) == 1
    assert asleep.patches == []
    assert "scaling.maxGroups is 0" in capsys.readouterr().err


def test_without_a_known_start_it_says_what_is_usual(
    asleep: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    _put(asleep, {"minGroups": 0, "scaleToZeroAfter": "30m"})
    assert kubectl_moe.main(["wake", "tiny"]) == 0
    assert "no start was seen yet" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["0s", "9999999h"])
def test_a_length_that_makes_no_sense_is_refused(
    asleep: Answers, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubectl_moe.main(["wake", "tiny", "--for", given]) == 2
    assert asleep.patches == []
    assert "between 1m and 8760h" in capsys.readouterr().err
