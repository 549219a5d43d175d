"""The operator's key and the tokens made of it. With a wrong one engines obey nobody, with a known one anybody."""

import asyncio
import base64
from typing import Any

import pytest

from factories.deployments import UID, group_plan, model_deployment, revision_of
from fakecluster.api_server import ApiServer
from fakecluster.client import MemoryClient
from fakecluster.clock import Clock
from moe_operator.agent.guard import Guard
from moe_operator.api import names
from moe_operator.controller.agent_tokens import AgentTokens
from moe_operator.controller.kube import SECRET
from moe_operator.resources.agent_token import agent_token, verifier_of
from moe_operator.resources.group import build_group
from moe_operator.runtime.agent_key import AgentKeyError, load_agent_key

KEY = bytes(range(32))


def _sent(token: str) -> dict[str, Any]:
    return {"headers": [(b"x-moe-agent-token", token.encode())]}


def test_a_groups_token_opens_its_own_agents_only() -> None:
    token, other = agent_token(KEY, UID, "tiny-g0"), agent_token(KEY, UID, "tiny-g1")
    guard = Guard(verifier_of(token))
    assert guard.is_operator(_sent(token))
    assert not guard.is_operator(_sent(other))
    assert not guard.is_operator(_sent(verifier_of(token)))
    assert not guard.is_operator({"headers": []})
    assert (
        len({token, other, agent_token(KEY, "another", "tiny-g0"), agent_token(bytes(32), UID, "tiny-g0")})
        == 4
    )


def test_pods_carry_the_hash_and_never_the_token_and_revisions_neither() -> None:
    """Whoever may read pods could otherwise drain every group."""
    tokens = AgentTokens()
    tokens.use(KEY)
    deployment = model_deployment()
    revision = revision_of(deployment, group_plan(pods=2))
    group = build_group(deployment, revision, 0, verifier=tokens.verifier(UID, "tiny-g0"))
    workers = group["spec"]["leaderWorkerTemplate"]
    for kind in ("leaderTemplate", "workerTemplate"):
        assert workers[kind]["metadata"]["annotations"][names.ANNOTATION_AGENT_VERIFIER] == tokens.verifier(
            UID, "tiny-g0"
        )
    token = tokens.token(UID, "tiny-g0")
    assert token is not None
    assert token not in str(group)
    assert names.ANNOTATION_AGENT_VERIFIER not in str(
        revision.template["leaderWorkerTemplate"]["leaderTemplate"]["metadata"]
    )


def test_without_a_key_there_is_no_token() -> None:
    assert AgentTokens().token(UID, "tiny-g0") is None
    assert AgentTokens().verifier(UID, "tiny-g0") is None


@pytest.fixture
async def server() -> ApiServer:
    return ApiServer(Clock(asyncio.get_running_loop()))


async def _load(server: ApiServer, draw: bytes = KEY) -> bytes:
    return await load_agent_key(MemoryClient(server), "moe-system", "agent-key", lambda n: draw[:n])


async def test_the_key_is_made_once_and_read_from_then_on(server: ApiServer) -> None:
    """Another key after every restart would make agents deaf to the operator."""
    assert await _load(server) == KEY
    assert await _load(server, draw=bytes(32)) == KEY
    (secret,) = server.list(SECRET)
    assert secret["immutable"] is True


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "has no usable 'key': delete it"),
        ({"key": "%%%"}, "has no usable 'key': delete it"),
        ({"key": base64.b64encode(b"short").decode()}, "has 5 bytes, fewer than 32"),
    ],
)
async def test_a_secret_that_holds_no_key_is_said(
    server: ApiServer, data: dict[str, str], message: str
) -> None:
    """An empty key would be one that anyone can guess."""
    metadata = {"name": "agent-key", "namespace": "moe-system"}
    server.create(
        SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}, "kubectl"
    )
    with pytest.raises(AgentKeyError, match=message):
        await _load(server)
