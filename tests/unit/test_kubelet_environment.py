"""A container's environment: a wrong variable starts an engine with the wrong rank, address or token."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kubelet_contract import row
from localcluster.kubelet import environment
from localcluster.kubelet.environment import ConfigError, PodFacts
from localcluster.kubelet.images import parse
from localcluster.kubelet.quantity import parse as quantity
from localcluster.kubelet.quantity import whole

FACTS = PodFacts("10.244.1.7", "10.244.1.1", {"cpu": "8", "memory": "16Gi"})


def pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "engine-0",
            "namespace": "serving",
            "uid": "u-1",
            "labels": {"role": "serve", "b": 'quo"te'},
            "annotations": {"a.b/c": "x"},
        },
        "spec": {"nodeName": "gpu-0", "containers": [container or {"name": "main", "image": "i"}], **spec},
    }


def built(
    env: list[dict[str, Any]], objects: dict[tuple[str, str], Any] | None = None, **container: Any
) -> Any:
    entry = {"name": "main", "image": "i", "env": env, **container}
    found = objects or {}
    return environment.build(pod(entry), entry, FACTS, lambda kind, name: found.get((kind, name)), {})


@row("env-expansion")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("100%$$", "100%$"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert environment.expand(text, {"A": "1", "B": "2"}) == expected


@row("env-expansion")
def test_a_variable_sees_only_those_before_it() -> None:
    given = built(
        [{"name": "A", "value": "$(B)"}, {"name": "B", "value": "1"}, {"name": "C", "value": "$(B)!"}]
    )
    assert given == {"A": "$(B)", "B": "1", "C": "1!"}


@row("env")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "engine-0"),
        ("metadata.namespace", "serving"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['role']", "serve"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a.b/c']", "x"),
        ("spec.nodeName", "gpu-0"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.244.1.7"),
        ("status.podIPs", "10.244.1.7"),
        ("status.hostIP", "10.244.1.1"),
        ("metadata.labels", 'b="quo\\"te"\nrole="serve"'),
    ],
)
def test_a_pod_can_name_its_own_fields(path: str, expected: str) -> None:
    assert environment.field_value(pod(), path, FACTS) == expected


@row("env")
def test_a_field_that_the_downward_api_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unsupported fieldPath: spec\.tolerations"):
        environment.field_value(pod(), "spec.tolerations", FACTS)


@row("env")
@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.memory", "1Mi", "2048"),
        ("requests.memory", None, str(2 * 2**30)),
        ("limits.memory", "1Gi", "16"),  # no limit: what the node can give
        ("requests.cpu", "1m", "1500"),  # no request: the limit
        ("requests.ephemeral-storage", None, "0"),
    ],
)
def test_a_container_learns_its_resources(resource: str, divisor: str | None, expected: str) -> None:
    container = {"name": "main", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "2Gi"}}}
    reference = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    assert environment.resource_value(pod(container), container, reference, FACTS) == expected


@row("env")
def test_config_maps_and_secrets_give_variables_and_later_ones_win() -> None:
    objects = {
        ("ConfigMap", "c"): {"data": {"A": "from-map", "not a name": "x", "B": "kept"}},
        ("Secret", "s"): {"data": {"TOKEN": base64.b64encode(b"secret").decode()}},
    }
    given = built(
        [
            {"name": "A", "value": "own"},
            {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "TOKEN"}}},
            {"name": "N", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": True}}},
        ],
        objects,
        envFrom=[{"configMapRef": {"name": "c"}}, {"prefix": "P_", "secretRef": {"name": "s"}}],
    )
    assert given == {"A": "own", "B": "kept", "P_TOKEN": "secret", "T": "secret"}


@row("config-errors")
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "k"}}, "couldn't find key k in ConfigMap serving/c"),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
    ],
)
def test_what_is_missing_is_named(reference: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built([{"name": "X", "valueFrom": reference}], {("ConfigMap", "c"): {"data": {}}})


@row("service-env")
def test_services_become_variables_that_can_break_programs_named_like_them() -> None:
    """A Service named vllm sets VLLM_PORT to a URL; a cluster without this trap would hide the failure."""
    service = {
        "metadata": {"name": "my-vllm", "namespace": "serving"},
        "spec": {
            "clusterIP": "10.96.3.4",
            "ports": [{"name": "http", "port": 8000}, {"port": 53, "protocol": "UDP"}],
        },
    }
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}
    assert environment.service_links([service, headless]) == {
        "MY_VLLM_SERVICE_HOST": "10.96.3.4",
        "MY_VLLM_SERVICE_PORT": "8000",
        "MY_VLLM_SERVICE_PORT_HTTP": "8000",
        "MY_VLLM_PORT": "tcp://10.96.3.4:8000",
        "MY_VLLM_PORT_8000_TCP": "tcp://10.96.3.4:8000",
        "MY_VLLM_PORT_8000_TCP_PROTO": "tcp",
        "MY_VLLM_PORT_8000_TCP_PORT": "8000",
        "MY_VLLM_PORT_8000_TCP_ADDR": "10.96.3.4",
        "MY_VLLM_PORT_53_UDP": "udp://10.96.3.4:53",
        "MY_VLLM_PORT_53_UDP_PROTO": "udp",
        "MY_VLLM_PORT_53_UDP_PORT": "53",
        "MY_VLLM_PORT_53_UDP_ADDR": "10.96.3.4",
    }


def test_every_object_that_a_pod_names_is_watched() -> None:
    container = {
        "name": "main",
        "envFrom": [{"configMapRef": {"name": "e1"}}, {"secretRef": {"name": "e2"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "e3", "key": "k"}}}],
    }
    volumes = [
        {"name": "a", "configMap": {"name": "v1"}},
        {"name": "b", "secret": {"secretName": "v2"}},
        {"name": "c", "projected": {"sources": [{"configMap": {"name": "v3"}}, {"secret": {"name": "v4"}}]}},
    ]
    given = pod(
        container, volumes=volumes, initContainers=[{"name": "i", "envFrom": [{"secretRef": {"name": "i1"}}]}]
    )
    assert environment.references(given) == {
        ("ConfigMap", "e1"),
        ("Secret", "e2"),
        ("Secret", "e3"),
        ("ConfigMap", "v1"),
        ("Secret", "v2"),
        ("ConfigMap", "v3"),
        ("Secret", "v4"),
        ("Secret", "i1"),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("500m", "0.5"), ("2Gi", 2 * 2**30), ("1e3", 1000), ("1.5k", 1500), (".5", "0.5")],
)
def test_quantities(text: str, value: Any) -> None:
    assert quantity(text) == quantity(str(value))


@pytest.mark.parametrize("text", ["", "1g", "Gi", "1 Gi", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity"):
        quantity(text)


def test_quantities_are_rounded_up() -> None:
    assert whole("1500m") == 2


@row("image-errors")
def test_the_first_matching_entry_stands_for_an_image() -> None:
    table = parse(
        {
            "images": [
                {"match": "vllm/*:v1", "pathPrepend": ["/a/bin"], "entrypoint": ["vllm"], "cmd": ["--help"]},
                {"match": "vllm/*"},
            ]
        }
    )
    first = table.find("vllm/vllm-openai:v1")
    assert first is not None
    assert first.path.startswith("/a/bin:/usr/local/sbin")
    assert first.argv([], []) == ["vllm", "--help"]
    assert first.argv([], ["serve"]) == ["vllm", "serve"]
    assert first.argv(["sh"], ["-c"]) == ["sh", "-c"]
    other = table.find("vllm/vllm-openai:v2")
    assert other is not None
    assert other.argv([], []) == []
    assert table.find("other:v1") is None
