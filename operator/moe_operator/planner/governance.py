"""A site's policy around a plan: which nodes it may use, and whether what it would run is allowed."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from moe_operator.api import reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog.models.catalog import Model
from moe_operator.catalog.policy import UNKNOWN, PodAddition, PodSecurityLevel, Policy, PolicyRule
from moe_operator.catalog.policy_check import Subject, policy_violations
from moe_operator.planner.facts import Inventory
from moe_operator.planner.plan import Plan, Refusal

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True)
class Provenance:
    """What is run, whose it is and where: what licences and rules on data ask for."""

    model: str
    licence: str
    publisher: str
    source: str
    revision: str | None
    """Commit, tag or branch that the spec asks for."""
    precision: str
    adapters: tuple[str, ...]
    """Addresses of LoRA adapters."""
    rule: str | None
    """The policy's rule for the namespace; None without a policy."""
    nodes: Mapping[str, tuple[str, ...]]
    """Labels of the only nodes on which requests are processed; empty: any."""
    pod_security: PodSecurityLevel

    def places(self) -> str:
        """Where requests are processed, for people."""
        return places(self.nodes) if self.nodes else "any node of the accelerator"


def places(nodes: Mapping[str, tuple[str, ...]]) -> str:
    """`topology.kubernetes.io/region eu-west-1 or eu-central-1`."""
    return ", ".join(f"{key} {' or '.join(values)}" for key, values in sorted(nodes.items()))


def constrained(deployment: ModelDeployment, policy: Policy) -> ModelDeployment:
    """The deployment with the policy's nodes as a required affinity, as if its user had written them. So they are part
    of what makes a revision: another policy is another revision, to which groups move one by one."""
    rule = policy.rule_for(deployment.namespace)
    if rule is None or not rule.nodes:
        return deployment
    affinity: dict[str, Any] = copy.deepcopy(dict(deployment.spec.pod_template.affinity))
    required = affinity.setdefault("nodeAffinity", {}).setdefault(_REQUIRED, {})
    own = [
        {"key": key, "operator": "In", "values": list(values)} for key, values in sorted(rule.nodes.items())
    ]
    # Terms are alternatives: each of the user's must hold it.
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), *own]}
        for term in required.get("nodeSelectorTerms") or [{}]
    ]
    template = deployment.spec.pod_template.model_copy(update={"affinity": affinity})
    return replace(deployment, spec=deployment.spec.model_copy(update={"pod_template": template}))


def narrowed(inventory: Inventory, policy: Policy, namespace: str) -> Inventory:
    """Only the nodes that the policy lets deployments of this namespace run on."""
    rule = policy.rule_for(namespace)
    if rule is None or not rule.nodes or inventory.nodes is None:
        return inventory
    kept = tuple(node for node in inventory.nodes if _allows(rule, node.labels))
    return replace(inventory, nodes=kept)


def refused(
    policy: Policy,
    deployment: ModelDeployment,
    model: Model | None,
    plan: Plan | None = None,
    *,
    image: str | None = None,
    pods: tuple[PodSecurityLevel, tuple[str, ...]] | None = None,
    fabric: tuple[tuple[PodAddition, str], ...] = (),
) -> Refusal | None:
    """What the policy has against the deployment. Before there is a plan only what the spec says is judged.

    `pods`: the Pod Security Standard that they keep to, and what keeps them from a stricter one. `fabric`: what the
    site's fabric gives them of their nodes.
    """
    subject = replace(subject_of(deployment, model, plan), image=image, fabric_additions=fabric)
    if pods is not None:
        subject = replace(subject, pod_security=pods[0], pod_reasons=pods[1])
    found = policy_violations(policy, subject)
    return Refusal(reasons.POLICY_VIOLATION, "; ".join(found)) if found else None


def with_policy_nodes(refusal: Refusal, policy: Policy, namespace: str) -> Refusal:
    """A refusal for want of nodes says that the policy leaves some out."""
    rule = policy.rule_for(namespace)
    if rule is None or not rule.nodes or refusal.reason != reasons.NO_NODES:
        return refusal
    told = f"{refusal.message}; policy rule {rule.name} allows only nodes with {places(rule.nodes)}"
    return replace(refusal, message=told)


def provenance(
    policy: Policy,
    deployment: ModelDeployment,
    model: Model | None,
    plan: Plan,
    pod_security: PodSecurityLevel,
) -> Provenance:
    """What a plan of this very deployment runs, and where. `pod_security`: the standard that its pods keep to."""
    subject = subject_of(deployment, model, plan)
    rule = policy.rule_for(deployment.namespace)
    asked = deployment.spec.model
    return Provenance(
        model=asked.name,
        licence=subject.licence or UNKNOWN,
        publisher=subject.publisher or UNKNOWN,
        source=subject.source or UNKNOWN,
        revision=asked.revision,
        precision=plan.sizing.precision if plan.sizing is not None else asked.precision or "auto",
        adapters=tuple(adapter.source for adapter in asked.adapters),
        rule=rule.name if rule is not None and policy.rules else None,
        nodes=rule.nodes if rule is not None else {},
        pod_security=pod_security,
    )


def subject_of(deployment: ModelDeployment, model: Model | None, plan: Plan | None) -> Subject:
    """What the policy judges. A model that was not sized is loaded by its name."""
    repository = None
    if plan is not None and deployment.spec.model.source is None:
        sized = plan.sizing.repository if plan.sizing is not None else None
        repository = sized or deployment.spec.model.name
    return Subject(deployment, model.licence if model is not None else None, repository)


def _allows(rule: PolicyRule, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) in values for key, values in rule.nodes.items())
