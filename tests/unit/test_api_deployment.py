"""Reading an API object. An object that cannot be read must say so, not stop the operator."""

from typing import Any

import pytest

from moe_operator.api.base import parse_duration
from moe_operator.api.deployment import InvalidSpecError, parse
from moe_operator.api.status import ModelDeploymentStatus


def _object(**fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "m", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"model": {"name": "org/model"}, "hardware": {"accelerator": "B200"}},
        **fields,
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("50ms", 0.05), ("1h30m", 5400), ("1h1m1s1ms", 3661.001), ("0s", 0), ("90m", 5400)],
)
def test_durations_mean_what_kubernetes_means(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1s1m", "-1s", "1.5s", "1d", "5s\n", " 5s", "5 s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 30s"):
        parse_duration(text)


def test_every_field_at_fault_is_named() -> None:
    """One fault at a time would cost the user a round each."""
    with pytest.raises(InvalidSpecError) as error:
        parse(_object(spec={"model": {}, "hardware": {}, "replicas": -1}))
    assert "spec.model.name" in str(error.value)
    assert "spec.replicas" in str(error.value)


def test_an_object_without_a_spec_is_named_as_such() -> None:
    with pytest.raises(InvalidSpecError, match=r"spec\.model"):
        parse(_object(spec=None))


def test_fields_of_a_newer_version_do_not_stop_an_older_operator() -> None:
    obj = _object()
    obj["spec"] = {**obj["spec"], "prefill": {"hardware": {}}, "scaling": {"mode": "Auto", "window": "5m"}}
    assert parse(obj).spec.scaling.min_groups == 1


def test_an_unreadable_status_counts_as_none() -> None:
    """It is derived and written anew; stopping over it would leave the deployment alone for good."""
    assert parse(_object(status={"replicas": "many"})).status == ModelDeploymentStatus()


def test_what_was_written_is_what_is_read() -> None:
    status = ModelDeploymentStatus(observed_generation=3, replicas=2, endpoint="http://m")
    assert parse(_object(status=status.wire())).status == status
    assert "plan" not in status.wire(), "absent, not null: null and absent differ in server-side apply"
