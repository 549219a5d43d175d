"""What the operator sets and what users may not must be the same, or one silently overrides the other."""

import re

import pytest

from factories.deployments import group_plan, model_deployment, profile_of, rendering
from moe_operator.api import reserved
from moe_operator.api.reserved import Reserved
from moe_operator.api.rules import violations
from moe_operator.catalog.accelerators import load_catalog
from moe_operator.resources.group import render_template

#: Set by default, and a user's to replace.
REPLACEABLE_FLAGS = {"disable-access-log-for-endpoints"}
REPLACEABLE_VARIABLES = {"VLLM_CACHE_ROOT", "HF_HOME", "HF_HUB_OFFLINE"}

PLANS = {
    "one rank": group_plan(1, 1),
    "one pod": group_plan(1, 8, accelerator="B200"),
    "two pods of one rank": group_plan(2, 1),
    "two pods of eight": group_plan(2, 8, accelerator="B200"),
    "two pods of two ranks of four": group_plan(2, 2, 4, accelerator="B200"),
}


def _containers(plan: str) -> list[dict[str, object]]:
    chosen = PLANS[plan]
    deployment = model_deployment(
        model={
            "name": "m",
            "source": "pvc://weights",
            "revision": "r",
            "contextLength": 9,
            "precision": "bf16",
        }
    )
    template = render_template(rendering(deployment, chosen))["leaderWorkerTemplate"]
    return [template["leaderTemplate"], template["workerTemplate"]]


def _covers(groups: tuple[Reserved, ...], name: str) -> bool:
    return any(
        name in group.exact or name.startswith(group.prefixes)
        for group in groups
        if group.exact or group.prefixes
    )


@pytest.mark.parametrize("plan", PLANS)
def test_every_flag_variable_volume_and_path_that_is_rendered_is_reserved(plan: str) -> None:
    profile = profile_of(PLANS[plan].accelerator)
    for pod in _containers(plan):
        spec = pod["spec"]
        assert isinstance(spec, dict)
        engine = spec["containers"][0]
        flags = {arg[2:].partition("=")[0] for arg in engine["args"] if arg.startswith("--")}
        flags -= {name for name, _ in profile.args} | REPLACEABLE_FLAGS
        assert [flag for flag in sorted(flags) if not _covers(reserved.ARGUMENTS, flag)] == []
        variables = {entry["name"] for entry in engine["env"]}
        variables -= {name for name, _ in profile.env} | REPLACEABLE_VARIABLES
        assert [name for name in sorted(variables) if not _covers(reserved.ENVIRONMENT, name)] == []
        volumes = [volume["name"] for volume in spec["volumes"]]
        assert [name for name in volumes if not _covers(reserved.VOLUMES, name)] == []
        paths = [mount["mountPath"] for mount in engine["volumeMounts"]]
        assert [path for path in paths if not _covers(reserved.MOUNT_PATHS, path)] == []
        assert _covers(reserved.CONTAINERS, engine["name"])


@pytest.mark.parametrize("plan", PLANS)
def test_every_label_and_annotation_that_is_rendered_is_reserved(plan: str) -> None:
    for pod in _containers(plan):
        metadata = pod["metadata"]
        assert isinstance(metadata, dict)
        keys = [*metadata.get("labels", {}), *metadata.get("annotations", {})]
        assert keys
        assert [key for key in keys if not _covers(reserved.METADATA, key)] == []


def test_every_extended_resource_of_the_catalogue_is_reserved() -> None:
    """A request beside the plan's would ask for GPUs that no rank uses."""
    catalog = load_catalog()
    names = {profile.resource_name for n in catalog.names() if (profile := catalog.accelerator(n))}
    assert all(_covers(reserved.RESOURCES, name) for name in names if name)


def test_nothing_that_profiles_set_is_reserved() -> None:
    """Users are told that they may replace it."""
    catalog = load_catalog()
    for name in catalog.names():
        profile = profile_of(name)
        deployment = model_deployment(
            hardware={"accelerator": name},
            engine={"args": dict(profile.args), "env": [{"name": n, "value": v} for n, v in profile.env]},
        )
        assert violations(deployment) == []


def test_names_are_in_the_form_in_which_they_are_compared() -> None:
    """A flag in underscores, or one with dashes, would never match; a quote would break the CEL rule."""
    for group in reserved.ARGUMENTS:
        for name in (*group.exact, *group.prefixes, *group.short):
            assert re.fullmatch(r"[a-z][a-z-]*", name), name
    for groups in (reserved.ENVIRONMENT, reserved.METADATA, reserved.VOLUMES, reserved.MOUNT_PATHS):
        for group in groups:
            for name in (*group.exact, *group.prefixes):
                assert re.fullmatch(r"[A-Za-z0-9_./-]+", name), name
                assert name == "/" or not (groups is reserved.MOUNT_PATHS and name.endswith("/"))


@pytest.mark.parametrize(
    "flag",
    [
        "all2all-backend", "api-server", "async-scheduling", "block-size", "compilation-config", "enable-eplb",
        "eplb-config", "enforce-eager", "gpu-memory-utilization", "load-format",
        "max-num-batched-tokens", "max-num-seqs",
        "moe-backend", "no-enable-prefix-caching", "quantization", "reasoning-parser", "seed",
        "speculative-config", "tokenizer", "tool-call-parser", "trust-remote-code", "enable-auto-tool-choice",
        "distributed-timeout-seconds", "model-impl", "model-loader-extra-config", "config-format", "root-path",
        "decode-context-parallel-size", "download-dir", "prefill-schedule-interval", "enable-ep-weight-filter",
        "disable-uvicorn-access-log", "hf-overrides", "language-model-only", "limit-mm-per-prompt",
    ],
)  # fmt: skip
def test_flags_that_people_tune_stay_theirs(flag: str) -> None:
    """A rule on abbreviations that is too wide would refuse them. (`api-server` is an abbreviation.)"""
    refused = violations(model_deployment(engine={"args": {flag: "1"}}))
    assert bool(refused) == (flag == "api-server")
