"""A site's policy in the operator: what it forbids does not start, what serves goes on, corrections are taken up."""

from fakecluster.harness import NAMESPACE, Harness, manifest, play
from moe_operator.api import reasons
from moe_operator.catalog.operator_config import read_config
from moe_operator.controller.kube import CONTROLLER_REVISION, LEADER_WORKER_SET, NETWORK_POLICY, NODE

REGION = "topology.kubernetes.io/region"
CODE = {"args": {"trust-remote-code": ""}}


def _stalled(h: Harness) -> tuple[str, str] | None:
    found = h.condition(reasons.STALLED)
    return (found["reason"], found["message"]) if found else None


def _restart_with(h: Harness, policy: str) -> None:
    """As a change of the chart's `config` does."""
    h.config = read_config(f"policy: {{rules: [{policy}]}}")
    h.operator.kill()


def test_code_that_nobody_allowed_does_not_start_and_a_corrected_spec_does() -> None:
    """Lost: a model's repository runs its own Python beside the prompts of everybody."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest(engine=CODE))
        await h.until(lambda: _stalled(h), 10)
        reason, message = _stalled(h) or ("", "")
        assert reason == reasons.POLICY_VIOLATION
        assert "engine.args.trust-remote-code runs Python files" in message
        assert not h.world.server.list(LEADER_WORKER_SET)
        await h.settle()
        h.edit(engine=None)
        await h.serve()
        assert _stalled(h) is None

    play(scenario)


def test_a_spec_outside_the_policy_leaves_what_serves_alone() -> None:
    """Lost: an outage for a line in a manifest that is refused anyway."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()
        before = h.groups()
        h.edit(engine=CODE)
        await h.until(lambda: _stalled(h), 10)
        await h.settle()
        assert [g["metadata"]["uid"] for g in h.groups()] == [g["metadata"]["uid"] for g in before]
        assert h.serving()
        # A group that is lost meanwhile is replaced, by one of the revision that is allowed.
        h.world.crash_engine(f"{before[0]['metadata']['name']}-0")
        await h.until(lambda: not h.serving(), 60)
        await h.until(lambda: h.serving(), 300)
        (template,) = (g["spec"]["leaderWorkerTemplate"]["workerTemplate"] for g in h.groups())
        assert "--trust-remote-code" not in template["spec"]["containers"][0]["args"]

    play(scenario)


def test_another_policy_is_taken_up_both_ways() -> None:
    """Lost: a rule that holds for new deployments only, or one that is lifted and still refuses."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()
        allowed = h.status()["provenance"]
        assert (allowed["source"], allowed["publisher"]) == ("hf://org/tiny-moe", "org")
        assert "policyRule" not in allowed
        _restart_with(h, f"{{name: house, namespaces: [{NAMESPACE}], publishers: [acme]}}")
        await h.until(lambda: _stalled(h), 60)
        assert (
            "policy rule house: the publisher of hf://org/tiny-moe is org; allowed are acme" in _stalled(h)[1]
        )  # type: ignore[index]
        await h.settle()
        assert h.serving()
        assert h.status()["provenance"] == allowed, "what serves was allowed by what held then"
        _restart_with(h, "{name: house, publishers: [acme, org]}")
        await h.until(lambda: _stalled(h) is None, 60)
        await h.settle()
        assert h.status()["provenance"] == {**allowed, "policyRule": "house"}
        assert len(h.world.server.list(CONTROLLER_REVISION)) == 1

    play(scenario)


def test_groups_move_one_by_one_to_the_nodes_that_a_new_policy_allows() -> None:
    """Lost: data that must stay in a region is processed outside it until somebody touches the spec."""

    async def scenario(h: Harness) -> None:
        nodes = [n["metadata"]["name"] for n in h.world.server.list(NODE)]
        for name in nodes:
            obj = h.world.server.get(NODE, None, name)
            assert obj is not None
            obj["metadata"]["labels"][REGION] = "eu"
            h.world.server.apply(NODE, obj, "kubectl")
        h.apply(manifest())
        await h.serve()
        (before,) = h.groups()
        _restart_with(h, f"{{name: eu, nodes: {{{REGION}: [eu]}}}}")
        await h.until(
            lambda: before["metadata"]["uid"] not in {g["metadata"]["uid"] for g in h.groups()}, 600
        )
        await h.serve()
        (after,) = h.groups()
        affinity = after["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["affinity"]
        assert {"key": REGION, "operator": "In", "values": ["eu"]} in [
            expression
            for term in affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
                "nodeSelectorTerms"
            ]
            for expression in term["matchExpressions"]
        ]

    play(scenario)


def test_a_network_policy_comes_and_goes_with_the_configuration() -> None:
    """Lost: one that a site switched off stays for ever, and cuts off what it lets in now."""

    async def scenario(h: Harness) -> None:
        h.apply(manifest())
        await h.serve()
        (found,) = h.world.server.list(NETWORK_POLICY)
        assert found["metadata"]["name"] == "tiny-engine"
        h.config = read_config("network: {policies: Disabled}")
        h.operator.kill()
        await h.until(lambda: not h.world.server.list(NETWORK_POLICY), 60)
        await h.settle()
        assert h.serving()

    play(scenario)
