"""Compiled kernels in the pods: a folder shared too widely lets one tenant run code in another's engines."""

from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, rendering, revision_of
from moe_operator.agent.compile_cache import place_of
from moe_operator.api import names, reasons
from moe_operator.api.compile_cache import CompileCacheSpec
from moe_operator.catalog.compile_cache_site import CompileCacheSite
from moe_operator.catalog.operator_config import (
    OperatorConfig,
    OperatorConfigError,
    default_config,
    read_config,
)
from moe_operator.catalog.policy import PodSecurityLevel
from moe_operator.planner.plan import Plan
from moe_operator.resources.compile_cache import STORE_PATH, compile_cache_refusal
from moe_operator.resources.pod_security import template_security
from moe_operator.resources.pod_template import CACHE_PATH, pod_parts, pod_template
from moe_operator.resources.revision import spec_hash

CLAIM = {"compileCache": {"claim": "kernels"}}
FOLDER = {"compileCache": {"hostPath": "/var/lib/kernels"}}
RESTRICTED = {"podSecurity": "Restricted"}


def site(**fields: Any) -> OperatorConfig:
    return OperatorConfig(default_config().catalog, compile_cache=CompileCacheSite(**fields))


def pod(
    engine: dict[str, Any], config: OperatorConfig | None = None, plan: Plan | None = None, **more: Any
) -> dict[str, Any]:
    given = model_deployment(engine=engine, **more)
    spec: dict[str, Any] = pod_template(rendering(given, plan or group_plan(2), config))["spec"]
    return spec


def env(spec: dict[str, Any]) -> dict[str, str]:
    engine = next(c for c in spec["containers"] if c["name"] == names.ENGINE_CONTAINER)
    return {one["name"]: one.get("value", "") for one in engine["env"]}


def mount(spec: dict[str, Any]) -> dict[str, Any] | None:
    mounts = spec["containers"][0]["volumeMounts"]
    return next((one for one in mounts if one["name"] == "moe-compiled"), None)


def volume(spec: dict[str, Any]) -> dict[str, Any] | None:
    return next((one for one in spec["volumes"] if one["name"] == "moe-compiled"), None)


def test_without_it_nothing_is_different() -> None:
    """Else an upgrade would move every group with its next change."""
    assert spec_hash(model_deployment(engine={})) == spec_hash(model_deployment())
    assert spec_hash(model_deployment(engine=CLAIM)) != spec_hash(model_deployment())
    plain, declined = (
        pod({}),
        pod({"compileCaching": "Disabled"}, site(default=CompileCacheSpec(claim="k"))),
    )
    assert plain == declined
    assert volume(plain) is None
    assert env(plain)["VLLM_CACHE_ROOT"] == f"{CACHE_PATH}/vllm"
    assert not any(name.startswith("MOE_AGENT_COMPILED") for name in env(plain))


def test_engines_write_to_their_own_pod_and_see_only_their_folder_of_the_claim() -> None:
    """vLLM rewrites its index in place: two engines in one folder read half of it. And a claim may hold weights."""
    found = pod(CLAIM)
    assert volume(found) == {"name": "moe-compiled", "persistentVolumeClaim": {"claimName": "kernels"}}
    assert mount(found) == {"name": "moe-compiled", "mountPath": STORE_PATH, "subPath": "moe-compiled"}
    given = env(found)
    folder = given["MOE_AGENT_COMPILED"]
    assert folder.startswith(f"{CACHE_PATH}/")
    for name in (
        "VLLM_CACHE_ROOT",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "FLASHINFER_WORKSPACE_BASE",
        "TILELANG_CACHE_DIR",
        "CUDA_CACHE_PATH",
    ):
        assert given[name].startswith(f"{folder}/"), name
    assert given["HF_HOME"] == f"{CACHE_PATH}/huggingface", "downloads are no kernels"
    assert "initContainers" not in found


def test_the_agent_reads_what_is_rendered() -> None:
    """A variable by another name, and nothing is ever kept, without a word."""
    place = place_of(env(pod(CLAIM)))
    assert place is not None
    assert str(place.snapshot).startswith(f"{STORE_PATH}/")


def test_a_folder_of_the_node_is_one_for_each_namespace() -> None:
    """It holds code that engines run: a tenant could put its own there."""
    config = site(host_paths=("/var/lib/kernels",))
    found = volume(pod(FOLDER, config))
    assert found is not None
    assert found["hostPath"] == {"path": "/var/lib/kernels/serving", "type": "DirectoryOrCreate"}


def test_folders_of_nodes_are_used_only_where_the_site_allows_it() -> None:
    def refused(folder: str) -> str:
        engine = model_deployment(engine={"compileCache": {"hostPath": folder}}).spec.engine
        found = compile_cache_refusal(engine, CompileCacheSite(host_paths=("/var/lib/kernels",)))
        assert found is None or found.reason == reasons.HOST_PATH_NOT_ALLOWED
        return "" if found is None else found.message

    assert refused("/var/lib/kernels") == ""
    # There `team-a` has its folder, and could put code into this one.
    assert "not allowed here" in refused("/var/lib/kernels/team-a")
    assert "allowed: /var/lib/kernels)" in refused("/var/lib/kernels-of-others")
    assert "compileCache.hostPaths" in refused("/etc")
    claim = model_deployment(engine=CLAIM).spec.engine
    assert compile_cache_refusal(claim, CompileCacheSite()) is None


def test_the_sites_default_is_for_those_who_can_use_it() -> None:
    """A default must not take the ground from under deployments that it does not suit."""
    claim = site(default=CompileCacheSpec(claim="kernels"))
    folder = site(default=CompileCacheSpec(host_path="/var/lib/kernels"))
    assert volume(pod({}, claim)) is not None
    assert volume(pod({}, folder)) is not None
    assert volume(pod(RESTRICTED, claim)) is not None
    assert volume(pod(RESTRICTED, folder)) is None, "the kubelet makes the folder as root"
    assert volume(pod({"agent": "Disabled"}, claim)) is None, "nobody would publish"
    own = volume(pod({"compileCache": {"claim": "own"}}, claim))
    assert own is not None
    assert own["persistentVolumeClaim"] == {"claimName": "own"}
    assert compile_cache_refusal(model_deployment().spec.engine, folder.compile_cache) is None


def test_restricted_pods_stay_restricted() -> None:
    revision = revision_of(model_deployment(engine={**RESTRICTED, **CLAIM}), group_plan(2))
    assert template_security(revision.template).level is PodSecurityLevel.RESTRICTED
    given = env(pod({**RESTRICTED, **CLAIM}))
    assert given["TRITON_CACHE_DIR"].startswith(given["MOE_AGENT_COMPILED"])
    assert given["HOME"] == CACHE_PATH


def _key(engine: dict[str, Any] | None = None, plan: Plan | None = None, **more: Any) -> str:
    return env(pod({**CLAIM, **(engine or {})}, plan=plan, **more))["MOE_AGENT_COMPILED_KEY"]


def test_the_key_follows_what_is_compiled_and_nothing_else() -> None:
    """Too narrow, and every new revision compiles; too wide, and engines copy what they cannot use."""
    same = [
        _key(),
        _key(model={"name": "org/tiny-moe", "servedName": "chat"}),
        _key(podTemplate={"labels": {"team": "a"}}),
        _key(engine={"env": [{"name": "HF_TOKEN", "value": "x"}]}),
    ]
    assert len(set(same)) == 1
    different = [
        _key(),
        _key(engine={"image": "registry/vllm:2"}),
        _key(engine={"args": {"max-num-seqs": "7"}}),
        _key(plan=group_plan(4)),
        _key(plan=group_plan(2, 2)),
        _key(model={"name": "org/other"}),
    ]
    assert len(set(different)) == len(different)


def test_all_of_it_is_explained() -> None:
    """`kubectl moe render --explain` names the reason of each variable and mount."""
    parts = pod_parts(rendering(model_deployment(engine=CLAIM), group_plan(2)))
    for one in parts.env:
        assert parts.reasons[one["name"]], one
    assert "claim kernels" in parts.reasons[STORE_PATH]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compileCache: {default: {}}", "compileCache.default"),
        ("compileCache: {default: {claim: a, hostPath: /b}}", "exactly one of claim and hostPath"),
        ("compileCache: {default: {storageClassName: a}}", "compileCache.default.storageClassName"),
        ("compileCache: {hostPaths: [relative]}", "compileCache.hostPaths"),
        ("compileCache: {hostPaths: [/a/b], default: {hostPath: /a}}", "/a/b lies in /a"),
    ],
)
def test_mistakes_in_the_configuration_are_named(text: str, message: str) -> None:
    with pytest.raises(OperatorConfigError, match=message):
        read_config(text)


def test_the_configuration_is_read() -> None:
    found = read_config("compileCache: {default: {hostPath: /a/b}, hostPaths: [/c]}").compile_cache
    assert found.default == CompileCacheSpec(host_path="/a/b")
    assert found.allows("/c")
    assert found.allows("/a/b")
    assert not found.allows("/c/d")
    assert not found.allows("/a")
