"""A site's policy: what it refuses, in words that help. A gap runs what a platform team has forbidden."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from factories.deployments import model_deployment
from factories.plans import plan_manifest
from moe_operator.api import reasons
from moe_operator.catalog import code_loading
from moe_operator.catalog.models.catalog import load_models
from moe_operator.catalog.operator_config import OperatorConfigError, read_config
from moe_operator.catalog.policy import Policy
from moe_operator.catalog.policy_check import Subject, policy_violations, repository_of
from moe_operator.cli.inventory_source import Nodes, usual
from moe_operator.cli.manifest import deployment_of
from moe_operator.cli.plan_report import PlanReport, make_report
from moe_operator.planner.facts import Inventory, NodeFacts
from moe_operator.planner.governance import constrained, narrowed
from moe_operator.planner.plan import Refusal
from moe_operator.resources.revision import spec_hash

REGION = "topology.kubernetes.io/region"


def policy(*rules: str) -> Policy:
    return read_config("policy: {rules: [" + ", ".join(rules) + "]}").policy


def found(rule: str | None, *, licence: str | None = "apache-2.0", **spec: Any) -> list[str]:
    """What a rule, written as in the file, has against a spec whose model is Qwen's."""
    spec.setdefault("model", {"name": "Qwen/Qwen3-30B-A3B"})
    repository = None if "source" in spec["model"] else spec["model"]["name"]
    subject = Subject(model_deployment(**spec), licence, repository, "registry.example/vllm:v0.32.0")
    return policy_violations(policy(*([rule] if rule else [])), subject)


# --- licences, publishers, sources ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "licence", "allowed"),
    [
        ("{name: r}", "cc-by-nc-4.0", True),
        ("{name: r, licences: [apache-2.0]}", "apache-2.0", True),
        ("{name: r, licences: [Apache-2.0]}", "apache-2.0", True),
        ("{name: r, licences: ['llama*']}", "llama3.1", True),
        ("{name: r, licences: [apache-2.0]}", "mit", False),
        ("{name: r, licences: [apache-2.0]}", None, False),
        ("{name: r, licences: [apache-2.0, unknown]}", None, True),
        ("{name: r, licences: []}", "mit", False),
    ],
)
def test_licences(rule: str, licence: str | None, allowed: bool) -> None:
    """A licence that forbids commercial use would be found out by lawyers."""
    assert (found(rule, licence=licence) == []) is allowed


def test_a_refusal_names_the_rule_what_is_wrong_and_what_is_allowed() -> None:
    (message,) = found("{name: production, licences: [apache-2.0, mit]}", licence="llama4")
    assert message == (
        "policy rule production: the licence of Qwen/Qwen3-30B-A3B is llama4; allowed are apache-2.0, mit"
    )


@pytest.mark.parametrize(
    ("rule", "source", "refused"),
    [
        ("{name: r, publishers: [Qwen]}", "hf://Qwen/adapter", None),
        ("{name: r, publishers: [Qwen]}", "hf://evil/adapter", "adapter tuned, hf://evil/adapter, is evil"),
        ("{name: r, publishers: [Qwen]}", "pvc://models/adapter", "is unknown"),
        ("{name: r, publishers: [Qwen, unknown]}", "pvc://models/adapter", None),
        ("{name: r, sources: ['hf://Qwen/*']}", "hf://Qwen/adapter", None),
        ("{name: r, sources: ['hf://Qwen/*']}", "hf://evil/adapter", "adapter tuned is at hf://evil/adapter"),
    ],
)
def test_adapters_are_weights_too(rule: str, source: str, refused: str | None) -> None:
    """An adapter changes every answer: it may not come from where the model itself may not."""
    model = {"name": "Qwen/Qwen3-30B-A3B", "adapters": [{"name": "tuned", "source": source}]}
    messages = found(rule, model=model)
    assert (messages == []) if refused is None else (len(messages) == 1 and refused in messages[0]), messages


@pytest.mark.parametrize(
    ("rule", "model", "allowed"),
    [
        ("{name: r, publishers: [Qwen]}", {"name": "Qwen/Qwen3-30B-A3B"}, True),
        ("{name: r, publishers: [qwen]}", {"name": "Qwen/Qwen3-30B-A3B"}, True),
        ("{name: r, publishers: [mistralai]}", {"name": "Qwen/Qwen3-30B-A3B"}, False),
        # The address says who published it, not the name that the user gave.
        ("{name: r, publishers: [Qwen]}", {"name": "Qwen/x", "source": "hf://evil/x"}, False),
        ("{name: r, publishers: [Qwen]}", {"name": "house-model", "source": "pvc://models/x"}, False),
        ("{name: r, publishers: [unknown]}", {"name": "house-model", "source": "pvc://models/x"}, True),
        ("{name: r, sources: [hf]}", {"name": "Qwen/x"}, True),
        ("{name: r, sources: [pvc]}", {"name": "Qwen/x"}, False),
        ("{name: r, sources: ['hf://Qwen/*']}", {"name": "Qwen/x"}, True),
        ("{name: r, sources: ['hf://Qwen/*']}", {"name": "Qwen2/x"}, False),
        ("{name: r, sources: ['pvc://models/*']}", {"name": "x", "source": "pvc://models/a/b"}, True),
        ("{name: r, sources: ['pvc://models/*']}", {"name": "x", "source": "pvc://other/a"}, False),
    ],
)
def test_publishers_and_sources(rule: str, model: dict[str, str], allowed: bool) -> None:
    assert (found(rule, model=model) == []) is allowed


@pytest.mark.parametrize(
    "engine",
    [
        {"args": {"tokenizer": "evil/tokenizer"}},
        {"args": {"speculative-config": '{"model": "evil/draft", "num_speculative_tokens": 2}'}},
        {"args": {"speculative-config.model": "evil/draft"}},
        {"args": {"hf_config_path": "evil/config"}},
        {"env": [{"name": "HF_ENDPOINT", "value": "https://mirror.example"}]},
        {"env": [{"name": "VLLM_USE_MODELSCOPE", "value": "1"}]},
    ],
)
def test_a_way_around_the_sources_is_refused(engine: dict[str, Any]) -> None:
    """The rule would hold for the model's own weights only."""
    assert found("{name: r, sources: ['hf://Qwen/*']}", engine=engine)


def test_a_tokenizer_of_an_allowed_source_is_allowed() -> None:
    engine = {"args": {"tokenizer": "Qwen/other", "speculative-config": "not json", "tokenizer-mode": "auto"}}
    assert found("{name: r, sources: ['hf://Qwen/*'], publishers: [Qwen]}", engine=engine) == []


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("vllm/vllm-openai:v0.32.0", "docker.io/vllm/vllm-openai"),
        ("nginx", "docker.io/library/nginx"),
        ("registry.example:5000/a/b:v1@sha256:" + "0" * 64, "registry.example:5000/a/b"),
        ("registry.example/a@sha256:" + "0" * 64, "registry.example/a"),
        ("localhost/a:b", "localhost/a"),
    ],
)
def test_the_repository_of_an_image(image: str, repository: str) -> None:
    assert repository_of(image) == repository


@pytest.mark.parametrize(
    ("images", "image", "allowed"),
    [
        ("{repositories: ['registry.example/*']}", "registry.example/vllm:v1", True),
        ("{repositories: ['registry.example/*']}", "registry.example.evil.org/vllm:v1", False),
        ("{repositories: ['registry.example/*']}", "evil.org/registry.example/vllm:v1", False),
        ("{repositories: [vllm/vllm-openai]}", "docker.io/vllm/vllm-openai:v1", True),
        ("{repositories: ['docker.io/vllm/*']}", "vllm/vllm-openai:v1", True),
        ("{digest: Required}", "vllm/vllm-openai:v1", False),
        ("{digest: Required}", "vllm/vllm-openai@sha256:" + "0" * 64, True),
        ("{digest: Required}", "vllm/vllm-openai:v1@sha256:" + "0" * 64, True),
    ],
)
def test_images(images: str, image: str, allowed: bool) -> None:
    subject = Subject(model_deployment(), None, "org/tiny-moe", image)
    assert (policy_violations(policy(f"{{name: r, images: {images}}}"), subject) == []) is allowed


def test_images_of_further_containers_are_held_to_the_rule() -> None:
    """A sidecar from anywhere shares the engine's memory and network."""
    template = {"containers": [{"name": "proxy", "image": "evil.org/proxy:v1"}]}
    (message,) = found("{name: r, images: {repositories: ['registry.example/*']}}", podTemplate=template)
    assert "podTemplate.containers proxy is evil.org/proxy:v1" in message


# --- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ({"trust-remote-code": ""}, "trust-remote-code"),
        ({"trust_remote_code": ""}, "trust-remote-code"),
        ({"trust-remote": ""}, "trust-remote-code"),
        ({"worker-extension-cls": "a.B"}, "worker-extension-cls"),
        ({"logits-processors": "a.B"}, "logits-processors"),
        ({"tool-parser-plugin": "/x.py"}, "tool-parser-plugin"),
        ({"reasoning-parser-plugin": "/x.py"}, "reasoning-parser-plugin"),
        ({"reasoning-parser-": "/x.py"}, "reasoning-parser-plugin"),
        (
            {"kv-transfer-config": '{"kv_connector": "X", "kv_connector_module_path": "evil"}'},
            "kv-transfer-config.kv_connector_module_path",
        ),
        (
            {"kv-transfer-config.kv_connector_module_path": "evil"},
            "kv-transfer-config.kv_connector_module_path",
        ),
        (
            {"kv-transfer-config": '{"kv_connector_extra_config": {"tiers": [{"module_path": "evil"}]}}'},
            "kv-transfer-config.kv_connector_extra_config.tiers.module_path",
        ),
        (
            {"structured-outputs-config": '{"reasoning_parser_plugin": "/x.py"}'},
            "structured-outputs-config.reasoning_parser_plugin",
        ),
        ({"compilation-config": '{"backend": "evil.backend"}'}, "compilation-config.backend"),
        ({"speculative-config": '{"method": "custom_class", "model": "a.B"}'}, "speculative-config.method"),
    ],
)
def test_arguments_that_load_code_need_to_be_allowed_by_name(args: dict[str, str], name: str) -> None:
    """A model's repository would run what it likes beside other tenants' prompts."""
    (message,) = found(None, engine={"args": args})
    assert f"have {name} added to `code`" in message
    assert found(f"{{name: r, code: ['{name}']}}", engine={"args": args}) == []
    assert found("{name: r, code: [something-else]}", engine={"args": args})


@pytest.mark.parametrize(
    "args",
    [
        {"max-num-seqs": "256", "enforce-eager": ""},
        {"reasoning-parser": "qwen3", "tool-call-parser": "hermes"},
        {"no-trust-remote-code": ""},
        {"compilation-config": '{"backend": "inductor", "cudagraph_mode": "FULL"}'},
        {"kv-transfer-config": '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'},
        {"hf-overrides": '{"rope_scaling": {"factor": 4.0}}'},
        {"moe-backend": "flashinfer_trtllm", "attention-config.backend": "FLASH_ATTN"},
        {"chat-template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
    ],
)
def test_ordinary_arguments_need_no_word(args: dict[str, str]) -> None:
    assert found(None, engine={"args": args}) == []


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONSTARTUP", "VLLM_SERVER_DEV_MODE"])
def test_variables_that_load_code_need_to_be_allowed_by_name(name: str) -> None:
    engine = {"env": [{"name": name, "value": "1"}]}
    assert found(None, engine=engine)
    assert found(f"{{name: r, code: [{name}]}}", engine=engine) == []


def test_every_name_that_a_policy_can_allow_says_what_it_does() -> None:
    assert all({**code_loading.ARGUMENTS, **code_loading.VARIABLES}.values())


# --- pods and nodes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "addition"),
    [
        ({"containers": [{"name": "a", "image": "x"}]}, "containers"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "hostPath"),
    ],
)
def test_additions_to_pods(template: dict[str, Any], addition: str) -> None:
    assert found("{name: r}", podTemplate=template) == []
    assert found("{name: r, pods: []}", podTemplate=template)
    assert found(f"{{name: r, pods: [{addition}]}}", podTemplate=template) == []


@pytest.mark.parametrize(
    "container",
    [
        {"securityContext": {"privileged": True}},
        {"securityContext": {"allowPrivilegeEscalation": True}},
        {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
        {"ports": [{"containerPort": 1, "hostPort": 80}]},
    ],
)
def test_a_container_that_may_do_more_is_an_addition_of_its_own(container: dict[str, Any]) -> None:
    template = {"containers": [{"name": "a", "image": "x", **container}]}
    assert found("{name: r, pods: [containers]}", podTemplate=template)
    assert found("{name: r, pods: [containers, privileged]}", podTemplate=template) == []


def test_a_priority_above_the_rules_is_refused_and_bounded() -> None:
    """Everybody would be more important than all others, and have their groups drained."""
    rule = "{name: r, maxPriority: 10}"
    assert found(rule, scaling={"priority": 10}) == []
    (message,) = found(rule, scaling={"priority": 11})
    assert message == "policy rule r: scaling.priority is 11, and 10 at most is allowed: lower it"
    assert found("{name: r}", scaling={"priority": 1000}) == []
    known = policy(rule).rule_for("serving")
    assert known is not None
    assert (known.bounded(11), known.bounded(-5)) == (10, -5)


def test_a_selector_that_contradicts_the_policys_nodes_is_refused() -> None:
    """The pods would stay pending, and nobody would know why."""
    rule = f"{{name: r, nodes: {{{REGION}: [eu-west-1, eu-central-1]}}}}"
    (message,) = found(rule, podTemplate={"nodeSelector": {REGION: "us-east-1"}})
    assert "us-east-1; allowed are eu-west-1, eu-central-1" in message
    assert found(rule, podTemplate={"nodeSelector": {REGION: "eu-west-1", "disk": "ssd"}}) == []


def test_the_policys_nodes_become_a_required_affinity_beside_the_users_own() -> None:
    """Terms are alternatives: a user's own term must not be a way around the region."""
    own = {"key": "pool", "operator": "In", "values": ["a"]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = {"nodeSelectorTerms": [{"matchExpressions": [own]}, {"matchFields": [own]}]}
    deployment = model_deployment(podTemplate={"affinity": {"nodeAffinity": {required: terms}}})
    made = constrained(deployment, policy(f"{{name: r, nodes: {{{REGION}: [eu]}}}}"))
    region = {"key": REGION, "operator": "In", "values": ["eu"]}
    assert made.spec.pod_template.affinity["nodeAffinity"][required]["nodeSelectorTerms"] == [
        {"matchExpressions": [own, region]},
        {"matchFields": [own], "matchExpressions": [region]},
    ]
    assert deployment.spec.pod_template.affinity["nodeAffinity"][required] == terms


def test_another_policy_on_nodes_is_another_revision_and_none_changes_nothing() -> None:
    """Groups would stay outside the region until somebody touched the spec; or an upgrade would move every group."""
    deployment = model_deployment()
    eu, us = (
        constrained(deployment, policy(f"{{name: r, nodes: {{{REGION}: [{at}]}}}}")) for at in ("eu", "us")
    )
    assert len({spec_hash(d) for d in (deployment, eu, us)}) == 3
    assert constrained(deployment, Policy()) is deployment
    assert constrained(deployment, policy("{name: r, licences: [mit]}")) is deployment


def test_only_the_policys_nodes_are_planned_for() -> None:
    nodes = tuple(NodeFacts(name, {REGION: name}, {}, allocatable={}) for name in ("eu", "us"))
    rule = policy(f"{{name: r, namespaces: [serving], nodes: {{{REGION}: [eu]}}}}", "{name: other}")
    kept = narrowed(Inventory(nodes), rule, "serving").nodes
    assert kept is not None
    assert [node.name for node in kept] == ["eu"]
    assert narrowed(Inventory(nodes), rule, "elsewhere").nodes == nodes
    assert narrowed(Inventory(None), rule, "serving").nodes is None


# --- rules and namespaces ------------------------------------------------------------------------


def test_the_first_rule_that_names_the_namespace_holds() -> None:
    strict = "{name: strict, namespaces: ['serving', 'prod-*'], licences: []}"
    assert found(strict)
    assert found("{name: dev, namespaces: [dev]}, " + strict)
    assert found("{name: mine, namespaces: ['serv*']}, " + strict) == []


def test_a_namespace_that_no_rule_names_may_run_nothing() -> None:
    """A namespace made later would otherwise be free of every rule."""
    (message,) = found("{name: prod, namespaces: [prod]}")
    assert message.startswith("no rule of the policy names namespace serving (rules: prod)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "policy: {rules: [{name: a}, {name: a}]}",
            "policy.rules.1.name: 'a' is the name of an earlier rule",
        ),
        ("policy: {rules: [{}]}", "policy.rules.0.name: Field required"),
        ("policy: {rules: [{name: a, licenses: [mit]}]}", "policy.rules.0.licenses: Extra inputs"),
        ("policy: {rules: [{name: a, pods: [everything]}]}", "policy.rules.0.pods.0: Input should be"),
        ("policy: {rules: [{name: a, images: {digest: maybe}}]}", "policy.rules.0.images.digest: Input"),
        ("policy: {rules: [{name: a, nodes: {region: eu}}]}", "policy.rules.0.nodes.region: Input"),
        ("policy: {rules: [{name: a, egress: No}]}", "policy.rules.0.egress: Input"),
        ("policy: []", "policy: Input should be"),
        ("network: {policies: All}", "network.policies: Input should be"),
        ("network: {client: []}", "network.client: Extra inputs"),
    ],
)
def test_a_policy_that_cannot_be_read_says_where(text: str, message: str) -> None:
    """An operator that took half of a policy would allow what the other half forbids."""
    with pytest.raises(OperatorConfigError) as caught:
        read_config(text)
    assert message in str(caught.value)


def test_the_policies_of_the_documents_can_be_read() -> None:
    """People copy them: one that does not start the operator would be thrown away."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text("utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    sections = [
        yaml.safe_dump(data["config"]) for block in blocks if "config" in (data := yaml.safe_load(block))
    ]
    read = [read_config(section) for section in sections]
    assert [rule.name for rule in read[0].policy.rules] == ["production", "everywhere else"]
    assert read[1].network.clients
    # Every name that may be allowed is in the list of the page.
    assert all(f"`{name}`" in text for name in (*code_loading.ARGUMENTS, *code_loading.VARIABLES))


# --- kubectl moe plan ----------------------------------------------------------------------------


def planned(rule: str, **spec: Any) -> PlanReport | Refusal:
    deployment = deployment_of(plan_manifest(**spec))
    site = read_config(f"policy: {{rules: [{rule}]}}")
    return make_report(deployment, usual(deployment.spec, site.catalog), site, load_models())


def test_the_plans_own_choice_of_a_checkpoint_is_held_to_the_policy() -> None:
    """NVFP4 comes from another publisher than the model: the name alone would pass."""
    refusal = planned("{name: r, publishers: [Qwen]}", model={"precision": "nvfp4"})
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reasons.POLICY_VIOLATION
    assert "nvidia" in refusal.message
    assert "model.precision chooses another" in refusal.message
    assert isinstance(
        planned("{name: r, publishers: [Qwen, nvidia]}", model={"precision": "nvfp4"}), PlanReport
    )


def test_a_plan_says_whose_the_model_is_and_where_it_runs() -> None:
    report = planned(f"{{name: eu, nodes: {{{REGION}: [eu-west-1]}}}}")
    assert isinstance(report, PlanReport)
    assert report.provenance.licence == "apache-2.0"
    assert report.provenance.publisher == "Qwen"
    assert report.provenance.places() == f"{REGION} eu-west-1"


def test_a_plan_for_nodes_outside_the_policy_names_the_policy() -> None:
    """The nodes are there, as kubectl shows: the refusal would look wrong."""
    deployment = deployment_of(plan_manifest())
    site = read_config(f"policy: {{rules: [{{name: eu, nodes: {{{REGION}: [eu-west-1]}}}}]}}")
    nodes = Nodes(usual(deployment.spec, site.catalog).inventory, "a file")
    refusal = make_report(deployment, nodes, site, load_models())
    assert isinstance(refusal, Refusal)
    assert f"policy rule eu allows only nodes with {REGION} eu-west-1" in refusal.message
