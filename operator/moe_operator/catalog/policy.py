"""The policy of a site: what ModelDeployments may run, by namespace. A section of the operator's configuration.

    policy:
      rules:
        - name: production
          namespaces: ["prod-*"]
          licences: [apache-2.0, mit]
          publishers: [Qwen, nvidia]
          sources: ["hf://Qwen/*", "hf://nvidia/*", pvc]
          images: {repositories: ["registry.example/vllm/*"], digest: Required}
          nodes: {topology.kubernetes.io/region: [eu-west-1, eu-central-1]}
          egress: Deny
          code: []
          pods: []
          podSecurity: Restricted
          maxPriority: 100

The first rule that names a deployment's namespace is the one that holds. What a rule leaves out it does not
restrict, but for `code`: arguments that load code are refused unless they are named there, with a policy or without.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: Stands in `licences` and `publishers` for what is not known.
UNKNOWN = "unknown"


class Digest(StrEnum):
    """Whether images must be named by digest."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"


class Egress(StrEnum):
    """What engines may connect to beside their own group."""

    ALLOW = "Allow"
    DENY = "Deny"


class PodSecurityLevel(StrEnum):
    """The Pod Security Standards, from wide to narrow."""

    PRIVILEGED = "Privileged"
    BASELINE = "Baseline"
    RESTRICTED = "Restricted"


class PodAddition(StrEnum):
    """What `podTemplate`, or a fabric of the site's, can add to pods beyond labels, tolerations and the like."""

    CONTAINERS = "containers"
    """Further containers."""
    HOST_PATH = "hostPath"
    """Volumes of the node's own files."""
    PRIVILEGED = "privileged"
    """Containers that may do more than an ordinary one: privileged, with added capabilities, with host ports."""
    FABRIC = "fabric"
    """Folders and devices of nodes that the operator's configuration gives a fabric, and no others."""


@dataclass(frozen=True)
class PolicyRule:
    """What deployments in some namespaces may run. None: not restricted. Patterns are those of a shell."""

    name: str
    namespaces: tuple[str, ...] = ("*",)
    licences: tuple[str, ...] | None = None
    """Licences of models; `unknown` for those whose licence the catalogue does not have."""
    publishers: tuple[str, ...] | None = None
    """Organisations on the hub whose weights may be loaded."""
    sources: tuple[str, ...] | None = None
    """Schemes (`hf`) or patterns of addresses (`hf://Qwen/*`)."""
    images: tuple[str, ...] | None = None
    """Patterns of image repositories, without tag and digest."""
    digest: Digest = Digest.OPTIONAL
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels, with the values of which a node must have one."""
    egress: Egress = Egress.ALLOW
    code: tuple[str, ...] = ()
    """Names of arguments and variables that may load code; see `code_loading`."""
    pods: tuple[PodAddition, ...] | None = None
    """What `podTemplate`, and fabrics of the site's, may add."""
    pod_security: PodSecurityLevel = PodSecurityLevel.PRIVILEGED
    """The Pod Security Standard that pods keep to."""
    max_priority: int | None = None
    """Highest `scaling.priority`: who comes first where GPUs are scarce."""

    def bounded(self, priority: int) -> int:
        """A priority as far as the rule allows it."""
        return priority if self.max_priority is None else min(priority, self.max_priority)


@dataclass(frozen=True)
class Policy:
    """Rules in the order in which they are looked at."""

    rules: tuple[PolicyRule, ...] = ()

    def rule_for(self, namespace: str) -> PolicyRule | None:
        """The rule that holds; None where there are rules and none names the namespace. Without any rule: one that
        restricts nothing but code."""
        if not self.rules:
            return UNRESTRICTED
        for rule in self.rules:
            if any(fnmatchcase(namespace, pattern) for pattern in rule.namespaces):
                return rule
        return None


#: Where a site has no policy.
UNRESTRICTED = PolicyRule("without a policy")

_Text = Annotated[str, Field(min_length=1, max_length=253)]
_Texts = Annotated[list[_Text], Field(max_length=256)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class _Images(_Form):
    repositories: _Texts | None = None
    digest: Annotated[Digest, Field(strict=False)] = Digest.OPTIONAL


class _Rule(_Form):
    name: _Text
    namespaces: Annotated[list[_Text], Field(min_length=1, max_length=256)] = Field(default=["*"])
    licences: _Texts | None = None
    publishers: _Texts | None = None
    sources: _Texts | None = None
    images: _Images = _Images()
    nodes: dict[_Text, Annotated[list[_Text], Field(min_length=1, max_length=64)]] = Field(
        default_factory=dict
    )
    egress: Annotated[Egress, Field(strict=False)] = Egress.ALLOW
    code: _Texts = Field(default_factory=list)
    pods: list[Annotated[PodAddition, Field(strict=False)]] | None = None
    pod_security: Annotated[PodSecurityLevel, Field(strict=False)] = PodSecurityLevel.PRIVILEGED
    max_priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None

    def rule(self) -> PolicyRule:
        return PolicyRule(
            name=self.name,
            namespaces=tuple(self.namespaces),
            licences=_tuple(self.licences),
            publishers=_tuple(self.publishers),
            sources=_tuple(self.sources),
            images=_tuple(self.images.repositories),
            digest=self.images.digest,
            nodes={key: tuple(values) for key, values in self.nodes.items()},
            egress=self.egress,
            code=tuple(self.code),
            pods=None if self.pods is None else tuple(self.pods),
            pod_security=self.pod_security,
            max_priority=self.max_priority,
        )


class PolicyForm(_Form):
    """`policy` in the file."""

    rules: Annotated[list[_Rule], Field(max_length=64)] = Field(default_factory=list)

    def policy(self) -> Policy:
        """What it says. Raises ValueError, with the path of the field, where rules cannot be told apart."""
        names = [rule.name for rule in self.rules]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"policy.rules.{index}.name: {name!r} is the name of an earlier rule too")
        return Policy(tuple(rule.rule() for rule in self.rules))


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
