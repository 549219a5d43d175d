"""policy x deployment -> what is not allowed. Pure: the operator and `kubectl moe plan` ask the same."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from moe_operator.api.deployment import ModelDeployment
from moe_operator.catalog import code_loading
from moe_operator.catalog.policy import (
    UNKNOWN,
    UNRESTRICTED,
    Digest,
    PodAddition,
    PodSecurityLevel,
    Policy,
    PolicyRule,
)

#: Flags that load further repositories, beside the model's own.
_FURTHER_MODELS = ("tokenizer", "hf-config-path", "spec-model", "speculative-config.model")
#: Variables that turn the hub's names into addresses elsewhere.
_REDIRECTS = ("HF_ENDPOINT", "VLLM_USE_MODELSCOPE")


@dataclass(frozen=True)
class Subject:
    """A deployment and what is known of what it would run. None: not known yet, so not judged yet."""

    deployment: ModelDeployment
    licence: str | None
    """The licence of its model; None where the catalogue has none."""
    repository: str | None = None
    """On the hub, for a model that is loaded from there."""
    image: str | None = None
    """The engine's image."""
    pod_security: PodSecurityLevel | None = None
    """The Pod Security Standard that its pods keep to."""
    pod_reasons: tuple[str, ...] = ()
    """What keeps them from a stricter one."""
    fabric_additions: tuple[tuple[PodAddition, str], ...] = ()
    """What the site's fabric gives its pods, and in words."""

    @property
    def source(self) -> str | None:
        """Address of the weights."""
        given = self.deployment.spec.model.source
        if given is not None:
            return given
        return f"hf://{self.repository}" if self.repository else None

    @property
    def publisher(self) -> str | None:
        """Who published the weights: the organisation of the repository, else of the model's name."""
        address = self.source or ""
        name = address.removeprefix("hf://") if address.startswith("hf://") else None
        organisation, slash, _ = (name or self.deployment.spec.model.name).strip("/").partition("/")
        return organisation if slash else None


def policy_violations(policy: Policy, subject: Subject) -> list[str]:
    """Everything that the rule for this namespace refuses: which rule, what is wrong, what is allowed."""
    deployment = subject.deployment
    rule = policy.rule_for(deployment.namespace)
    if rule is None:
        named = ", ".join(rule.name for rule in policy.rules)
        return [
            f"no rule of the policy names namespace {deployment.namespace} (rules: {named}): add it to the"
            " namespaces of one, in the operator's configuration"
        ]
    where = "" if rule is UNRESTRICTED else f"policy rule {rule.name}: "
    checks = (_licence, _publisher, _sources, _images, _nodes, _code, _pods, _pod_security, _priority)
    return [f"{where}{message}" for check in checks for message in check(rule, subject)]


def _licence(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    licence = subject.licence or UNKNOWN
    if rule.licences is not None and not _matches(licence, rule.licences):
        yield (
            f"the licence of {subject.deployment.spec.model.name} is {licence}; allowed are"
            f" {_listed(rule.licences)}"
        )


def _publisher(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    if rule.publishers is None or subject.source is None:
        return
    publisher = subject.publisher or UNKNOWN
    if not _matches(publisher, rule.publishers):
        yield (
            f"the publisher of {subject.source} is {publisher}; allowed are {_listed(rule.publishers)}"
            + _other_checkpoint(subject)
        )
    for flag, name in _further_models(subject.deployment.spec.engine.args):
        organisation = name.partition("/")[0]
        if not _matches(organisation, rule.publishers):
            yield (
                f"engine.args.{flag} loads {name} of publisher {organisation}; allowed are"
                f" {_listed(rule.publishers)}"
            )

    for adapter in subject.deployment.spec.model.adapters:
        address = adapter.source
        organisation = (
            address.removeprefix("hf://").partition("/")[0] if address.startswith("hf://") else UNKNOWN
        )
        if not _matches(organisation, rule.publishers):
            yield (
                f"the publisher of adapter {adapter.name}, {address}, is {organisation}; allowed are"
                f" {_listed(rule.publishers)}"
            )


def _sources(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    if rule.sources is None or subject.source is None:
        return
    if not _allowed_source(subject.source, rule.sources):
        yield (
            f"the weights are at {subject.source}; allowed are {_listed(rule.sources)}{_other_checkpoint(subject)}"
        )
    for adapter in subject.deployment.spec.model.adapters:
        if not _allowed_source(adapter.source, rule.sources):
            yield f"adapter {adapter.name} is at {adapter.source}; allowed are {_listed(rule.sources)}"
    engine = subject.deployment.spec.engine
    for flag, name in _further_models(engine.args):
        if not _allowed_source(f"hf://{name}", rule.sources):
            yield f"engine.args.{flag} loads hf://{name}; allowed are {_listed(rule.sources)}"
    for variable in engine.env:
        if variable.get("name") in _REDIRECTS:
            yield (
                f"engine.env sets {variable['name']}, by which weights come from elsewhere than their address"
                " says: remove it"
            )


def _other_checkpoint(subject: Subject) -> str:
    """What helps where the plan, not the user, chose the repository."""
    model = subject.deployment.spec.model
    if model.source is None and subject.repository and subject.repository != model.name:
        return "; the plan chose this checkpoint: model.precision chooses another"
    return ""


def _images(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    images = [("the engine's image", subject.image)] if subject.image else []
    images += [
        (f"the image of podTemplate.containers {c.get('name')}", str(c.get("image", "")))
        for c in subject.deployment.spec.pod_template.containers
    ]
    for what, image in images:
        if rule.images is not None and not any(
            fnmatchcase(repository_of(image), _with_registry(pattern)) for pattern in rule.images
        ):
            yield f"{what} is {image}; allowed are {_listed(rule.images)}"
        if rule.digest is Digest.REQUIRED and "@sha256:" not in str(image):
            yield f"{what} is {image}, a tag that can be moved: name it by digest, as in REPOSITORY@sha256:..."


def _nodes(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    for key, wanted in subject.deployment.spec.pod_template.node_selector.items():
        allowed = rule.nodes.get(key)
        if allowed is not None and wanted not in allowed:
            yield f"podTemplate.nodeSelector asks for {key}={wanted}; allowed are {_listed(allowed)}"


def _code(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    engine = subject.deployment.spec.engine
    for name, written, does in code_loading.in_arguments(engine.args):
        if name not in rule.code:
            yield f"engine.args.{written} {does}; {_allow_code(name)}"
    for name, does in code_loading.in_environment(engine.env):
        if name not in rule.code:
            yield f"engine.env {name} {does}; {_allow_code(name)}"


def _allow_code(name: str) -> str:
    return f"remove it, or have {name} added to `code` of a policy rule in the operator's configuration"


def _pods(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    if rule.pods is None:
        return
    for addition, what in _additions(subject.deployment):
        if addition not in rule.pods:
            yield f"{what}; of these additions are allowed: {_listed(rule.pods)}"
    for addition, what in subject.fabric_additions:
        if addition not in rule.pods and PodAddition.FABRIC not in rule.pods:
            yield (
                f"{what}; of such additions are allowed: {_listed(rule.pods)}: add fabric to `pods` of the rule, or"
                " set hardware.fabric: tcp"
            )


def _pod_security(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    levels, given = list(PodSecurityLevel), subject.pod_security
    if given is None or levels.index(given) >= levels.index(rule.pod_security):
        return
    yield (
        f"pods keep to the Pod Security Standard {given} ({', '.join(subject.pod_reasons)}), and have to keep to"
        f" {rule.pod_security}: engine.podSecurity: Restricted keeps engines to the strictest"
    )


def _priority(rule: PolicyRule, subject: Subject) -> Iterator[str]:
    asked = subject.deployment.spec.scaling.priority
    if rule.max_priority is not None and asked > rule.max_priority:
        yield f"scaling.priority is {asked}, and {rule.max_priority} at most is allowed: lower it"


def _additions(deployment: ModelDeployment) -> Iterator[tuple[PodAddition, str]]:
    pod = deployment.spec.pod_template
    for volume in pod.volumes:
        if "hostPath" in volume:
            yield PodAddition.HOST_PATH, f"podTemplate.volumes {volume.get('name')} is a hostPath"
    for container in pod.containers:
        where = f"podTemplate.containers {container.get('name')}"
        yield PodAddition.CONTAINERS, f"{where} is a further container"
        if _is_privileged(container):
            yield PodAddition.PRIVILEGED, f"{where} may do more than an ordinary container"


def _is_privileged(container: Mapping[str, Any]) -> bool:
    security = container.get("securityContext") or {}
    capabilities = security.get("capabilities") or {}
    return bool(
        security.get("privileged")
        or security.get("allowPrivilegeEscalation")
        or capabilities.get("add")
        or any(port.get("hostPort") for port in container.get("ports") or ())
    )


def _further_models(args: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(flag, repository) of models that arguments load beside the model's own. Paths are none."""
    for written, value in args.items():
        flag = written.replace("_", "-")
        if any(name.startswith(flag) for name in _FURTHER_MODELS) and _is_repository(value):
            yield written, value
        elif flag in ("speculative-config", "sc"):
            try:
                model = json.loads(value).get("model")
            except (ValueError, AttributeError, RecursionError):
                continue
            if isinstance(model, str) and _is_repository(model):
                yield written, model


def _is_repository(value: str) -> bool:
    return "/" in value and not value.startswith((".", "/"))


def _allowed_source(address: str, allowed: Iterable[str]) -> bool:
    scheme = address.partition("://")[0]
    return any(
        fnmatchcase(address, pattern) if "://" in pattern else scheme == pattern for pattern in allowed
    )


def repository_of(image: str) -> str:
    """The image without tag and digest, with its registry: `docker.io` where it names none."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return _with_registry(f"{head}{slash}{last.partition(':')[0]}")


def _with_registry(name: str) -> str:
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or "*" in first or first == "localhost"):
        return name
    return name if name.startswith("*") else f"docker.io/{name if slash else f'library/{name}'}"


def _matches(value: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(value.casefold(), pattern.casefold()) for pattern in patterns)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values) or "none"
