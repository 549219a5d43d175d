"""Rules over several fields: what a ModelDeployment must keep to beyond the bounds of single fields.

Each rule is stated once, with the CEL expression by which the API server refuses an object and the Python
that says the same of one that is stored already (before the rule existed, or with validation ratcheted).
Tests hold both against one table of objects.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from moe_operator.api import names, reasons, reserved
from moe_operator.api.compile_cache import CompileCaching
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.features import BalancingMode, SpeculationMethod
from moe_operator.api.reserved import Reserved
from moe_operator.api.spec import (
    AgentMode,
    ModelDeploymentSpec,
    PodSecurityProfile,
    ScalingMode,
    WeightsOnDeletion,
)
from moe_operator.api.time_zones import time_zone
from moe_operator.api.weights import Caching


@dataclass(frozen=True)
class Violation:
    """A broken rule: a constant of `api.reasons` and what to do instead."""

    reason: str
    message: str


@dataclass(frozen=True)
class Rule:
    """One rule. `path` is the schema node that `self` is in `cel`, empty for the whole object. Without `cel` the API
    server cannot say it, and the operator refuses the stored object."""

    path: str
    cel: str
    message: str
    reason: str
    broken: Callable[[ModelDeployment], Iterable[str]]
    """Messages for an object that breaks it, naming what is at fault; nothing for one that keeps to it."""


def violations(deployment: ModelDeployment) -> list[Violation]:
    """Everything about this deployment that must be refused, in the order of the rules."""
    every = (*RULES, *BEYOND_CEL)
    return [Violation(rule.reason, message) for rule in every for message in rule.broken(deployment)]


def rules() -> tuple[Rule, ...]:
    """All rules."""
    return RULES


# --- Plain rules ---------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def _plain(path: str, cel: str, message: str, keeps: Callable[[ModelDeployment], bool], reason: str) -> Rule:
    return Rule(path, cel, message, reason, lambda d: () if keeps(d) else (message,))


def _on_spec(
    path: str,
    cel: str,
    message: str,
    keeps: Callable[[ModelDeploymentSpec], bool],
    reason: str = reasons.INVALID_SPEC,
) -> Rule:
    return _plain(path, cel, message, lambda d: keeps(d.spec), reason)


def _exactly_one(spec: ModelDeploymentSpec) -> bool:
    return (spec.hardware.accelerator is None) != (spec.hardware.accelerators is None)


def _whole_nodes(spec: ModelDeploymentSpec) -> bool:
    group, node = spec.hardware.gpus_per_group, spec.hardware.gpus_per_node
    return group is None or node is None or group <= node or group % node == 0


def _limits_in_order(spec: ModelDeploymentSpec) -> bool:
    return spec.scaling.max_groups is None or spec.scaling.min_groups <= spec.scaling.max_groups


def _may_scale_to_zero(spec: ModelDeploymentSpec) -> bool:
    scaling = spec.scaling
    return scaling.scale_to_zero_after is None or (
        scaling.min_groups == 0 and scaling.mode is not ScalingMode.EXTERNAL
    )


def _product(spec: ModelDeploymentSpec) -> bool:
    width, tensor, data = spec.hardware.gpus_per_group, spec.parallelism.tensor, spec.parallelism.data
    return width is None or tensor is None or data is None or tensor * data == width


def _adapters_told_apart(spec: ModelDeploymentSpec) -> bool:
    given = [adapter.name for adapter in spec.model.adapters]
    return len(set(given)) == len(given) and not {spec.model.name, spec.model.served_name} & set(given)


def _divides(width: int | None, part: int | None) -> bool:
    return width is None or part is None or width % part == 0


def _one_cache(spec: ModelDeploymentSpec) -> bool:
    cache = spec.weights.cache
    return (
        cache is None
        or sum(place is not None for place in (cache.claim, cache.storage_class_name, cache.host_path)) == 1
    )


def _sized(spec: ModelDeploymentSpec) -> bool:
    cache = spec.weights.cache
    return cache is None or (cache.storage_class_name is None) == (cache.size is None)


def _one_compile_cache(spec: ModelDeploymentSpec) -> bool:
    cache = spec.engine.compile_cache
    return cache is None or (cache.claim is None) != (cache.host_path is None)


def _compile_cache_writable(spec: ModelDeploymentSpec) -> bool:
    cache = spec.engine.compile_cache
    restricted = spec.engine.pod_security is PodSecurityProfile.RESTRICTED
    return cache is None or cache.host_path is None or not restricted


def _keeps(spec: ModelDeploymentSpec) -> bool:
    return spec.deletion.weights is WeightsOnDeletion.KEEP


_KEEPS = "!has(self.deletion) || !has(self.deletion.weights) || self.deletion.weights != 'Delete'"
_GIVEN = "!has(self.hardware.gpusPerGroup) || !has(self.parallelism) || !has(self.parallelism.{})"

_PLAIN = (
    _plain(
        "",
        f"self.metadata.name.size() <= {names.MAX_NAME_LENGTH}"
        " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name must be at most {names.MAX_NAME_LENGTH} characters, begin with a letter and hold only"
        " lower-case letters, digits and dashes: its groups' pods are named after it",
        lambda d: len(d.name) <= names.MAX_NAME_LENGTH and _NAME.fullmatch(d.name) is not None,
        reasons.INVALID_NAME,
    ),
    _plain(
        "",
        "!self.metadata.name.matches('-g[0-9]+$')",
        "metadata.name must not end in -g and a number: groups of another deployment have such names",
        lambda d: re.search(r"-g[0-9]+\Z", d.name) is None,
        reasons.INVALID_NAME,
    ),
    _on_spec(
        "spec.hardware",
        "has(self.accelerator) != has(self.accelerators)",
        "set exactly one of accelerator and accelerators (a list to fall back along)",
        _exactly_one,
    ),
    _on_spec(
        "spec.hardware",
        "!has(self.gpusPerGroup) || !has(self.gpusPerNode) || self.gpusPerGroup <= self.gpusPerNode"
        " || self.gpusPerGroup % self.gpusPerNode == 0",
        "gpusPerGroup must be a multiple of gpusPerNode, as a group wider than a node takes whole nodes",
        _whole_nodes,
        reasons.INVALID_LAYOUT,
    ),
    _on_spec(
        "spec",
        f"{_GIVEN.format('tensor')} || !has(self.parallelism.data)"
        " || self.parallelism.tensor * self.parallelism.data == self.hardware.gpusPerGroup",
        "parallelism.tensor x parallelism.data must be hardware.gpusPerGroup: leave one of the three out",
        _product,
        reasons.INVALID_LAYOUT,
    ),
    _on_spec(
        "spec",
        f"{_GIVEN.format('tensor')} || self.hardware.gpusPerGroup % self.parallelism.tensor == 0",
        "parallelism.tensor must divide hardware.gpusPerGroup: every rank has as many GPUs",
        lambda s: _divides(s.hardware.gpus_per_group, s.parallelism.tensor),
        reasons.INVALID_LAYOUT,
    ),
    _on_spec(
        "spec",
        f"{_GIVEN.format('data')} || self.hardware.gpusPerGroup % self.parallelism.data == 0",
        "parallelism.data must divide hardware.gpusPerGroup: every rank has as many GPUs",
        lambda s: _divides(s.hardware.gpus_per_group, s.parallelism.data),
        reasons.INVALID_LAYOUT,
    ),
    _on_spec(
        "spec.model",
        "!has(self.adapters) || self.adapters.all(a, a.name != self.name"
        " && (!has(self.servedName) || a.name != self.servedName))",
        "model.adapters: every adapter needs a name of its own, other than the model's name and servedName:"
        " clients choose by it",
        _adapters_told_apart,
    ),
    _on_spec(
        "spec.engine",
        "!has(self.speculation) || !has(self.speculation.tokens) || self.speculation.method != 'Off'",
        "engine.speculation.tokens needs a method: set engine.speculation.method to MTP",
        lambda s: (
            s.engine.speculation.tokens is None or s.engine.speculation.method is not SpeculationMethod.OFF
        ),
    ),
    _on_spec(
        "spec.engine",
        "!has(self.expertBalancing) || !has(self.expertBalancing.redundantExperts)"
        " || self.expertBalancing.mode != 'Disabled'",
        "engine.expertBalancing.redundantExperts are copies for the balancer: leave them out where mode is Disabled",
        lambda s: (
            s.engine.expert_balancing.redundant_experts is None
            or s.engine.expert_balancing.mode is not BalancingMode.DISABLED
        ),
    ),
    _on_spec(
        "spec.scaling",
        "!has(self.maxGroups) || self.minGroups <= self.maxGroups",
        "minGroups must not be above maxGroups: raise maxGroups too",
        _limits_in_order,
    ),
    _on_spec(
        "spec.scaling",
        f"!has(self.scaleToZeroAfter) || (self.minGroups == 0 && self.mode != '{ScalingMode.EXTERNAL}')",
        "scaleToZeroAfter needs minGroups: 0 and mode: Auto (or Advisory, which only says when it would): set both, or"
        " leave it out",
        _may_scale_to_zero,
    ),
    _on_spec(
        "spec.cost.budget",
        "!self.amount.matches('^0+([.]0+)?$')",
        "cost.budget.amount must be more than 0: to keep a deployment from growing set scaling.maxGroups",
        lambda s: s.cost.budget is None or float(s.cost.budget.amount) > 0,
    ),
    _on_spec(
        "spec.rollout",
        # The API server tries the rule on the default, {}, before it fills in what is below.
        "!has(self.maxSurge) || !has(self.maxUnavailable) || self.maxSurge > 0 || self.maxUnavailable > 0",
        "maxSurge and maxUnavailable must not both be 0: no group could ever be replaced",
        lambda s: s.rollout.max_surge > 0 or s.rollout.max_unavailable > 0,
    ),
    _on_spec(
        "spec.engine",
        f"!has(self.apiKeySecret) || !has(self.agent) || self.agent != '{AgentMode.DISABLED}'",
        "apiKeySecret needs agent: Enabled: without it the operator's own requests have no key, and vLLM answers"
        " prompts on some paths without one",
        lambda s: s.engine.api_key_secret is None or s.engine.agent is not AgentMode.DISABLED,
    ),
    _on_spec(
        "spec.engine",
        f"!has(self.runAsUser) || (has(self.podSecurity) && self.podSecurity == '{PodSecurityProfile.RESTRICTED}')",
        "runAsUser needs podSecurity: Restricted: otherwise engines run as their image's own user",
        lambda s: s.engine.run_as_user is None or s.engine.pod_security is PodSecurityProfile.RESTRICTED,
    ),
    _on_spec(
        "spec.engine",
        "!has(self.compileCache) || has(self.compileCache.claim) != has(self.compileCache.hostPath)",
        "compileCache needs exactly one of claim and hostPath",
        _one_compile_cache,
    ),
    _on_spec(
        "spec.engine",
        "!has(self.compileCaching) || self.compileCaching != 'Disabled' || !has(self.compileCache)",
        "compileCaching: Disabled and compileCache contradict each other: leave one out",
        lambda s: s.engine.compile_caching is not CompileCaching.DISABLED or s.engine.compile_cache is None,
    ),
    _on_spec(
        "spec.engine",
        f"!has(self.compileCache) || !has(self.agent) || self.agent != '{AgentMode.DISABLED}'",
        "compileCache needs agent: Enabled: the agent copies kernels in and publishes them",
        lambda s: s.engine.compile_cache is None or s.engine.agent is not AgentMode.DISABLED,
    ),
    _on_spec(
        "spec.engine",
        "!has(self.compileCache) || !has(self.compileCache.hostPath) || !has(self.podSecurity)"
        f" || self.podSecurity != '{PodSecurityProfile.RESTRICTED}'",
        "compileCache.hostPath needs podSecurity: Baseline, as nodes make the folder for root alone: use a claim",
        _compile_cache_writable,
    ),
    _on_spec(
        "spec.weights",
        "!has(self.cache) || (has(self.cache.claim) ? 1 : 0) + (has(self.cache.storageClassName) ? 1 : 0)"
        " + (has(self.cache.hostPath) ? 1 : 0) == 1",
        "weights.cache needs exactly one of claim, storageClassName (with size) and hostPath",
        _one_cache,
    ),
    _on_spec(
        "spec.weights",
        "!has(self.cache) || has(self.cache.storageClassName) == has(self.cache.size)",
        "weights.cache.size goes with storageClassName, and with it alone: a claim or folder has the size it has",
        _sized,
    ),
    _on_spec(
        "spec.weights",
        "!has(self.caching) || self.caching != 'Disabled' || !has(self.cache)",
        "weights.caching: Disabled and weights.cache contradict each other: leave one out",
        lambda s: s.weights.caching is not Caching.DISABLED or s.weights.cache is None,
    ),
    _on_spec(
        "spec",
        f"{_KEEPS} || !has(self.weights) || !has(self.weights.cache) || !has(self.weights.cache.hostPath)",
        "deletion.weights: Delete needs a claim to remove from: what lies on nodes (weights.cache.hostPath) goes by the"
        " rule of collection, the least recently used when room is needed. Use Keep",
        lambda s: _keeps(s) or s.weights.cache is None or s.weights.cache.host_path is None,
    ),
    _on_spec(
        "spec",
        f"{_KEEPS} || !has(self.weights) || !has(self.weights.caching) || self.weights.caching != 'Disabled'",
        "deletion.weights: Delete has nothing to remove with weights.caching: Disabled, as nothing is kept. Use Keep",
        lambda s: _keeps(s) or s.weights.caching is not Caching.DISABLED,
    ),
    _on_spec(
        "spec",
        f"{_KEEPS} || !has(self.model.source) || !self.model.source.matches('^(pvc|oci)://')",
        "deletion.weights: Delete removes only what the operator downloaded, which is nothing of a pvc:// or oci://"
        " source. Use Keep",
        lambda s: _keeps(s) or not re.match("(pvc|oci)://", s.model.source or ""),
    ),
    Rule(
        "spec.model.name",
        "self == oldSelf",
        "the model of a deployment cannot change: create another ModelDeployment, move clients to it and"
        " delete this one",
        reasons.INVALID_SPEC,
        lambda d: (),  # needs the object as it was, which only the API server has
    ),
)

# --- Reserved names ------------------------------------------------------------------------------

#: What may be a flag at all: argparse would read the value out of `name=value`, and a blank would be a word.
_FLAG = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


@dataclass(frozen=True)
class _Field:
    """A map or a list of named objects in the spec whose names may be reserved."""

    path: str
    """Schema node that holds it."""
    name: str
    key: str
    """Field of the items that names them; empty for the keys of a map."""
    given: Callable[[ModelDeploymentSpec], Iterable[str]]
    reason: str
    flags: bool = False
    """Whether names are command-line flags, which have more than one spelling."""
    paths: bool = False
    """Whether names are paths, which may end in a slash."""

    def rule(self, group: Reserved) -> Rule:
        """The rule that refuses the names of `group` in this field."""
        item = f"x.{self.key}" if self.key else "x"
        absent = f"!has(self.{self.name})"
        if group.agent_only:
            absent = f"(has(self.agent) && self.agent == '{AgentMode.DISABLED}') || {absent}"
        where = f"{self.path.removeprefix('spec.')}.{self.name}"
        # Not at fault by name, as in Python: an expression that joins names of any length is too dear.
        shown = ", ".join([*group.exact, *(f"{p}*" for p in group.prefixes)])

        def broken(deployment: ModelDeployment) -> Iterator[str]:
            if group.agent_only and deployment.spec.engine.agent is AgentMode.DISABLED:
                return
            culprits = [name for name in self.given(deployment.spec) if self._holds(group, name)]
            if culprits:
                yield _refusal(where, ", ".join(culprits), group)

        return Rule(
            path=self.path,
            cel=f"{absent} || !self.{self.name}.exists(x, {self._cel(group, item)})",
            message=_refusal(where, shown, group),
            reason=self.reason,
            broken=broken,
        )

    def _holds(self, group: Reserved, name: str) -> bool:
        if self.flags:
            return _names_flag(group, name)
        if self.paths:
            name = name.rstrip("/") or "/"
        return name in (*group.exact, *group.short) or name.startswith(group.prefixes)

    def _cel(self, group: Reserved, item: str) -> str:
        if self.flags:
            return _flag_cel(group, f"{item}.replace('_', '-')")
        exact = [form for name in group.exact for form in ((name, f"{name}/") if self.paths else (name,))]
        parts = [f"{item} in {_list(exact)}"] if exact else []
        parts += [f"{item}.startsWith('{prefix}')" for prefix in group.prefixes]
        return " || ".join(parts)


def _names_flag(group: Reserved, name: str) -> bool:
    """Whether vLLM's parser could read `name` as a flag of the group: `_` for `-`, abbreviated, negated."""
    name = name.replace("_", "-")
    return any(flag.startswith(name) for flag in _forms(group.exact + group.short)) or any(
        name.startswith(prefix) or prefix.startswith(name) for prefix in _forms(group.prefixes)
    )


def _flag_cel(group: Reserved, name: str) -> str:
    exact = group.exact + group.short
    parts = [f"{_list(_forms(exact))}.exists(f, f.startsWith({name}))"] if exact else []
    if group.prefixes:
        prefixes = _list(_forms(group.prefixes))
        parts.append(f"{prefixes}.exists(p, p.startsWith({name}) || {name}.startsWith(p))")
    return " || ".join(parts)


def _forms(flags: Iterable[str]) -> list[str]:
    return [form for flag in flags for form in (flag, f"no-{flag}")]


def _refusal(where: str, culprits: str, group: Reserved) -> str:
    return f"{where} must not set {culprits}: {group.advice}"


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{text}'" for text in texts) + "]"


def _named(items: Iterable[dict[str, object]], key: str = "name") -> list[str]:
    return [str(item.get(key, "")) for item in items]


_ENGINE, _POD, _RESOURCES = "spec.engine", "spec.podTemplate", "spec.engine.resources"
_ARGUMENT, _FIELD = reasons.RESERVED_ARGUMENT, reasons.RESERVED_FIELD

_FIELDS: tuple[tuple[_Field, tuple[Reserved, ...]], ...] = (
    (_Field(_ENGINE, "args", "", lambda s: s.engine.args, _ARGUMENT, flags=True), reserved.ARGUMENTS),
    (_Field(_ENGINE, "env", "name", lambda s: _named(s.engine.env), _ARGUMENT), reserved.ENVIRONMENT),
    (_Field(_RESOURCES, "requests", "", lambda s: s.engine.resources.requests, _FIELD), reserved.RESOURCES),
    (_Field(_RESOURCES, "limits", "", lambda s: s.engine.resources.limits, _FIELD), reserved.RESOURCES),
    (_Field(_POD, "labels", "", lambda s: s.pod_template.labels, _FIELD), reserved.METADATA),
    (_Field(_POD, "annotations", "", lambda s: s.pod_template.annotations, _FIELD), reserved.METADATA),
    (_Field(_POD, "volumes", "name", lambda s: _named(s.pod_template.volumes), _FIELD), reserved.VOLUMES),
    (
        _Field(
            _POD,
            "volumeMounts",
            "mountPath",
            lambda s: _named(s.pod_template.volume_mounts, "mountPath"),
            _FIELD,
            paths=True,
        ),
        reserved.MOUNT_PATHS,
    ),
    (
        _Field(_POD, "containers", "name", lambda s: _named(s.pod_template.containers), _FIELD),
        reserved.CONTAINERS,
    ),
)

_FLAG_MESSAGE = (
    "engine.args: write a flag's name without leading dashes, its value after the colon: max-num-seqs: '256'"
)

RULES: tuple[Rule, ...] = (
    *_PLAIN,
    _on_spec(
        _ENGINE,
        f"!has(self.args) || self.args.all(x, x.matches('{_FLAG}'))",
        _FLAG_MESSAGE,
        lambda s: all(re.fullmatch(_FLAG, name) for name in s.engine.args),
        reasons.RESERVED_ARGUMENT,
    ),
    *(field.rule(group) for field, groups in _FIELDS for group in groups),
)


def _unknown_zones(deployment: ModelDeployment) -> Iterator[str]:
    for schedule in deployment.spec.scaling.schedules:
        if time_zone(schedule.time_zone) is None:
            yield (
                f"scaling.schedules: {schedule.name}: the time zone database has no {schedule.time_zone}: write a name"
                " such as Europe/Berlin, America/New_York or UTC"
            )


def _unknown_budget_zone(deployment: ModelDeployment) -> Iterator[str]:
    budget = deployment.spec.cost.budget
    if budget is not None and time_zone(budget.time_zone) is None:
        yield (
            f"cost.budget: the time zone database has no {budget.time_zone}: write a name such as Europe/Berlin,"
            " America/New_York or UTC"
        )


#: What only whoever reads the object can say.
BEYOND_CEL: tuple[Rule, ...] = (
    Rule(
        "spec.scaling.schedules",
        "",
        "timeZone must be in the time zone database: Europe/Berlin, America/New_York, UTC",
        reasons.UNKNOWN_TIME_ZONE,
        _unknown_zones,
    ),
    Rule(
        "spec.cost.budget",
        "",
        "timeZone must be in the time zone database: Europe/Berlin, America/New_York, UTC",
        reasons.UNKNOWN_TIME_ZONE,
        _unknown_budget_zone,
    ),
)
