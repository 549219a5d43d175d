"""What is rendered and shipped, read by kube-score: nothing unusual goes into a cluster without a written reason."""

from pathlib import Path

import pytest
import yaml

import render_manifests
from factories.platforms import Platform, platforms
from harness.kubectl import JsonObject, helm
from harness.scan import as_started, findings
from moe_operator.api import names

_EXCEPTIONS = Path(__file__).with_name("scan_exceptions.yaml")
_CHART = render_manifests.CHARTS / "moe-operator"
_CLOSED = ("networkPolicy.enabled=true", "metrics.service.enabled=true")


def _exceptions() -> dict[str, str]:
    read: dict[str, str] = yaml.safe_load(_EXCEPTIONS.read_text(encoding="utf-8")) or {}
    return read


def _group(platform: Platform) -> list[JsonObject]:
    """Everything of one platform, as it is once the group takes traffic."""
    objects = platform.objects(namespace="serving")
    pods = as_started(objects.pop(), {names.LABEL_TRAFFIC: names.TRAFFIC_ON})
    return [*objects, *pods]


def _chart(*settings: str) -> list[JsonObject]:
    options = [arg for setting in settings for arg in ("--set", setting)]
    text = helm("template", "moe-operator", str(_CHART), "-n", render_manifests.NAMESPACE, *options)
    return [obj for obj in yaml.safe_load_all(text) if obj]


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """All findings; install.yaml is the chart with its defaults."""
    installed = [
        obj for obj in yaml.safe_load_all(render_manifests.INSTALL.read_text(encoding="utf-8")) if obj
    ]
    every = [installed, _chart(*_CLOSED), *(_group(platform) for platform in platforms())]
    return {name: said for objects in every for name, said in findings(objects).items()}


def test_every_finding_is_mended_or_has_a_reason(found: dict[str, str]) -> None:
    assert {name: said for name, said in found.items() if name not in _exceptions()} == {}


def test_no_exception_is_left_over(found: dict[str, str]) -> None:
    """An exception that nothing needs would hide the next mistake."""
    assert set(_exceptions()) - set(found) == set()
    assert all(len(reason.split()) > 3 for reason in _exceptions().values())


def test_a_mistake_would_be_found() -> None:
    """Else nobody knows whether the scan sees anything."""
    objects = _group(platforms()[0])
    engine = objects[-1]["spec"]["template"]["spec"]["containers"][0]
    engine["image"] = "vllm/vllm-openai:latest"
    engine["securityContext"]["privileged"] = True
    engine["env"].append(engine["env"][-1])
    new = {name.partition("/")[2] for name in set(findings(objects)) - set(findings(_group(platforms()[0])))}
    assert new == {
        "container-image-tag",
        "container-security-context-privileged",
        "environment-variable-key-duplication",
    }
