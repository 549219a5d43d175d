"""The operator's command line: what the chart passes must be understood, and a mistake explained."""

from dataclasses import replace

import pytest

from moe_operator.api import crd
from moe_operator.catalog.network import Network
from moe_operator.catalog.operator_config import default_config
from moe_operator.cli import operator, run_command
from moe_operator.runtime.process import Options


def parsed(*arguments: str) -> Options:
    return run_command.options(run_command._parser().parse_args(["run", *arguments]))


def test_what_the_chart_passes() -> None:
    assert parsed(
        "--identity=op-1",
        "--lease-namespace=ops",
        "--lease-name=moe",
        "--agent-key-secret=moe-key",
        "--namespace=a",
        "--namespace=b",
        "--namespace=a",
        "--host=10.0.0.7",
        "--health-port=8081",
        "--metrics-port=9091",
        "--log-level=info",
        "--log-format=json",
    ) == Options(
        namespaces=("a", "b"),
        lease_namespace="ops",
        lease_name="moe",
        identity="op-1",
        host="10.0.0.7",
        health_port=8081,
        metrics_port=9091,
        agent_key_secret="moe-key",
        config=replace(default_config(), network=Network(operator_namespace="ops")),
    )


def test_in_a_pod_nothing_needs_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "op-0")
    monkeypatch.setenv("POD_NAMESPACE", "ops")
    monkeypatch.setenv("POD_IP", "10.0.0.8")
    found = parsed()
    assert (found.identity, found.lease_namespace, found.host) == ("op-0", "ops", "10.0.0.8")
    assert found.namespaces == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resync=5m-1m"], "not above the second"),
        (["--resync=soon"], "is not a duration"),
        (["--resync=0s"], "at least 1s"),
        (["--workers=0"], "from 1 to 256"),
        (["--health-port=99999"], "from 0 (any free one) to 65535"),
        (["--log-format=xml"], "json"),
    ],
)
def test_a_mistake_is_explained(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_the_interval_may_be_one_or_two_durations() -> None:
    assert parsed("--resync=90s").resync == (90.0, 90.0)
    assert parsed("--resync=5m-1h").resync == (300.0, 3600.0)


def test_the_crd_is_printed_as_it_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    operator.main(["crd"])
    assert capsys.readouterr().out == crd.render()
