"""An engine that asks clients for a key and runs confined: whoever needs both must not lose canary, probes or drain."""

import urllib.error

import pytest

from e2e.conftest import EAGER, NAMESPACE, Maker
from e2e.engine_helpers import get, get_json, post_json
from harness.deployments import engine_pods
from harness.kubectl import apply, kubectl
from harness.kubectl import get as get_object
from harness.wait import wait_for
from moe_operator.api import names
from moe_operator.resources.agent_token import KEY_BYTES

pytestmark = pytest.mark.timeout(600)

NAME, SECRET = "confined", "confined-keys"
ASKED = {"model": "tiny-moe", "prompt": "hello", "max_tokens": 2}


@pytest.fixture(scope="module", autouse=True)
def served(make: Maker) -> None:
    """Ready: so the operator's canary passed, without the operator knowing the key."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}}
    apply({**secret, "stringData": {"api-key": "s3cret"}})
    make(
        NAME,
        engine={
            "args": EAGER,
            "apiKeySecret": {"name": SECRET},
            "podSecurity": "Restricted",
        },
    )


def _bases() -> list[str]:
    return [f"http://{pod['status']['podIP']}:{names.HTTP_PORT}" for pod in engine_pods(NAME, NAMESPACE)]


def test_clients_need_the_key_and_probes_do_not() -> None:
    for base in _bases():
        for path in ("/v1/completions", "/invocations"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                post_json(base, path, ASKED)
            answer = post_json(base, path, ASKED, headers={"Authorization": "Bearer s3cret"})
            assert answer["usage"]["completion_tokens"] == 2
        assert get(base, "/metrics")[0] == 200
        assert get(base, "/moe/v1/ready")[0] == 200


def test_the_key_is_in_no_object_of_the_operators() -> None:
    selector = f"{names.LABEL_DEPLOYMENT}={NAME}"
    kinds = "modeldeployments,leaderworkersets,controllerrevisions,configmaps,pods,networkpolicies"
    text = kubectl("get", kinds, "-n", NAMESPACE, "-l", selector, "-o", "yaml")
    assert "VLLM_API_KEY" in text
    assert "s3cret" not in text


def test_nobody_but_the_operator_drains_and_the_operator_does() -> None:
    """Draining by anyone would be an outage by anyone; not draining loses requests of pooled clients."""
    base = _bases()[0]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post_json(base, "/moe/v1/drain", {"reason": "mischief"})
    kubectl("delete", names.PLURAL, NAME, "-n", NAMESPACE, "--wait=false")

    def told() -> bool:
        return get_json(base, "/moe/v1/state").get("draining") is not None

    wait_for("the group is told to drain", told, seconds=60, every=0.02)


def test_the_operators_key_is_its_only_secret() -> None:
    found = get_object("secret", "moe-operator-agent-key", "moe-system")
    assert found is not None
    assert found["immutable"] is True
    assert len(found["data"]["key"]) >= KEY_BYTES
