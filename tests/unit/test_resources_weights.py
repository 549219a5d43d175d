"""Where engines find their weights, and what brings them there. A wrong path here starts engines on nothing."""

import json
from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import group_plan, model_deployment, profile_of, rendering, revision_of
from factories.golden import check_golden
from moe_operator.api import names, reasons
from moe_operator.api.deployment import ModelDeployment
from moe_operator.api.weights import CacheSpec
from moe_operator.catalog.operator_config import OperatorConfig, default_config
from moe_operator.catalog.weights_site import WeightsSite, run_by
from moe_operator.planner.plan import Refusal
from moe_operator.resources.engine_args import engine_arguments
from moe_operator.resources.group import build_group
from moe_operator.resources.model_source import Scheme, model_source
from moe_operator.resources.pod_template import pod_template
from moe_operator.resources.revision import build_revision, read_revision, spec_hash
from moe_operator.resources.weights import CACHE_PATH, claim_name, weights_refusal
from moe_operator.resources.weights_fetch import (
    build_claim,
    build_download,
    build_job,
    entries_of,
    job_name,
    read_message,
)
from moe_operator.resources.weights_job import claim_of
from moe_operator.resources.weights_remove import build_removal, removal_name, removed_entries

SHARED = {"storageClassName": "shared-nvme", "size": "2Ti"}
MODEL = {"name": "org/tiny-moe", "revision": "v2"}


def site(**fields: Any) -> OperatorConfig:
    return OperatorConfig(
        default_config().catalog, weights=WeightsSite(image="registry/moe-operator:1", **fields)
    )


def deployment(name: str = "tiny", **spec: Any) -> ModelDeployment:
    return model_deployment(name, **{"model": MODEL, "weights": {"cache": SHARED}, **spec})


def engine(given: ModelDeployment, config: OperatorConfig | None = None) -> dict[str, Any]:
    template = pod_template(rendering(given, group_plan(2), config or site()))
    spec: dict[str, Any] = template["spec"]
    return next(c for c in spec["containers"] if c["name"] == names.ENGINE_CONTAINER) | {"pod": spec}


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_the_download_is_rendered_as_reviewed() -> None:
    given = deployment(
        hardware={"accelerator": "B200", "gpusPerGroup": 8},
        weights={"cache": SHARED, "credentialsSecret": "hub"},
        podTemplate={"imagePullSecrets": [{"name": "pull"}]},
    )
    config = site(endpoint="https://mirror.example", node_selector=(("pool", "infra"),))
    check_golden(
        "weights-download",
        build_download(rendering(given, group_plan(1, 8, accelerator="B200"), config)),
    )


def test_engines_read_the_folder_that_the_download_fills() -> None:
    given = deployment()
    kept = rendering(given, group_plan(2), site()).weights.kept
    assert kept is not None
    found = engine(given)
    assert found["args"][0] == f"{CACHE_PATH}/{kept.entry}/model"
    assert "--revision" not in found["args"]
    assert env(found)["HF_HUB_OFFLINE"] == "1"
    assert {"name": "moe-weights", "mountPath": CACHE_PATH, "readOnly": True} in found["volumeMounts"]
    volume = {"claimName": "moe-weights-shared-nvme", "readOnly": True}
    assert {"name": "moe-weights", "persistentVolumeClaim": volume} in found["pod"]["volumes"]
    job = build_download(rendering(given, group_plan(2), site()))[1]
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"][0] == {
        "name": "moe-weights",
        "persistentVolumeClaim": {"claimName": "moe-weights-shared-nvme"},
    }
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--source") + 1] == "hf://org/tiny-moe"
    assert arguments[arguments.index("--revision") + 1] == "v2"
    assert arguments[arguments.index("--cache") + 1] == CACHE_PATH


def test_credentials_go_to_the_download_and_not_to_engines_that_need_none() -> None:
    given = deployment(weights={"cache": SHARED, "credentialsSecret": "hub"})
    assert "HF_TOKEN" not in env(engine(given))
    job = build_download(rendering(given, group_plan(2), site()))[1]
    token = env(job["spec"]["template"]["spec"]["containers"][0])["HF_TOKEN"]
    assert token == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN", "optional": True}}
    alone = deployment(weights={"caching": "Disabled", "credentialsSecret": "hub"})
    assert env(engine(alone))["HF_TOKEN"] == token


def test_the_pod_that_downloads_is_restricted() -> None:
    """Namespaces of models may enforce Kubernetes' restricted standard but for the engines' images."""
    pod = build_download(rendering(deployment(), group_plan(2), site()))[1]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True


def test_what_only_a_person_can_mend_ends_the_job_at_once_and_an_eviction_never_does() -> None:
    rules = build_download(rendering(deployment(), group_plan(2), site()))[1]["spec"]["podFailurePolicy"][
        "rules"
    ]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"]["values"] == [3, 4, 5]


def test_a_cache_of_the_node_is_filled_before_the_engine_starts() -> None:
    given = deployment(weights={"cache": {"hostPath": "/var/lib/weights"}, "credentialsSecret": "hub"})
    config = site(host_paths=("/var/lib/weights",))
    found = engine(given, config)
    container = found["pod"]["initContainers"][0]
    assert container["image"] == "registry/moe-operator:1"
    assert container["volumeMounts"] == [{"name": "moe-weights", "mountPath": CACHE_PATH}]
    assert "HF_TOKEN" in env(container)
    assert "HF_TOKEN" not in env(found)
    host_path = {"path": "/var/lib/weights", "type": "DirectoryOrCreate"}
    assert {"name": "moe-weights", "hostPath": host_path} in found["pod"]["volumes"]
    assert build_download(rendering(given, group_plan(2), config)) == []


def test_folders_of_nodes_are_used_only_where_the_site_allows_it() -> None:
    def refused(folder: str) -> Refusal | None:
        given = deployment(weights={"cache": {"hostPath": folder}})
        return weights_refusal(given.spec, group_plan(), site(host_paths=("/var/lib/weights",)).weights)

    assert refused("/var/lib/weights") is None
    assert refused("/var/lib/weights/team-a") is None
    other = refused("/var/lib/weights-of-others")
    assert other is not None
    assert other.reason == reasons.HOST_PATH_NOT_ALLOWED
    assert "allowed: /var/lib/weights" in other.message
    assert refused("/etc") is not None


def test_the_sites_cache_is_the_default_and_can_be_declined() -> None:
    config = site(cache=CacheSpec(claim="company-models"))
    assert engine(deployment(weights={}), config)["args"][0].startswith(CACHE_PATH)
    declined = engine(deployment(weights={"caching": "Disabled"}), config)
    assert declined["args"][0] == "org/tiny-moe"
    assert declined["args"][declined["args"].index("--revision") + 1] == "v2"
    own = rendering(deployment(), group_plan(), config).weights.kept
    assert own is not None
    assert own.claim == "moe-weights-shared-nvme"


@pytest.mark.parametrize(
    ("source", "argument", "scheme"),
    [
        ("hf://org/model", "org/model", Scheme.HUB),
        ("s3://bucket/models/qwen/", "s3://bucket/models/qwen", Scheme.BUCKET),
        ("pvc://claim", "/models", Scheme.CLAIM),
        ("pvc://claim/qwen/397b/", "/models/qwen/397b", Scheme.CLAIM),
        ("oci://registry.example:5000/models/qwen:1", "/models", Scheme.IMAGE),
        ("oci://registry.example/qwen@sha256:ab#models/", "/models/models", Scheme.IMAGE),
    ],
)
def test_engines_read_sources_themselves(source: str, argument: str, scheme: Scheme) -> None:
    given = deployment(model={"name": "org/tiny-moe", "source": source}, weights={})
    assert engine(given)["args"][0] == argument
    assert model_source(given.spec.model).scheme is scheme
    assert (env(engine(given)).get("HF_HUB_OFFLINE") == "1") is (scheme is not Scheme.HUB)


def test_an_image_is_mounted_as_a_volume() -> None:
    given = deployment(model={"name": "m", "source": "oci://registry.example/qwen:1#models"})
    volume = {
        "name": "model",
        "image": {"reference": "registry.example/qwen:1", "pullPolicy": "IfNotPresent"},
    }
    assert volume in engine(given)["pod"]["volumes"]
    assert build_download(rendering(given, group_plan(), site())) == []


def test_a_bucket_is_streamed_without_a_cache_and_downloaded_with_one() -> None:
    bucket = {"name": "qwen", "source": "s3://bucket/qwen"}
    streamed = deployment(model=bucket, weights={"credentialsSecret": "s3"})
    assert "AWS_SECRET_ACCESS_KEY" in env(engine(streamed))
    kept = rendering(deployment(model=bucket), group_plan(), site()).weights.kept
    assert kept is not None
    assert (kept.source, kept.revision) == ("s3://bucket/qwen", None)
    files = deployment(model=bucket, weights={"loader": "FastSafetensors"})
    refused = weights_refusal(files.spec, group_plan(), site().weights)
    assert refused is not None
    assert "weights.loader: Streamer" in refused.message


def test_a_mirror_takes_the_hubs_place_where_engines_download() -> None:
    mirror = site(endpoint="https://mirror.example")
    assert env(engine(deployment(weights={}), mirror))["HF_ENDPOINT"] == "https://mirror.example"
    assert "HF_ENDPOINT" not in env(engine(deployment(), mirror))


LORA = [
    {"name": "law", "source": "hf://acme/law"},
    {"name": "tax", "source": "hf://acme/tax/"},
    {"name": "own", "source": "pvc://loras/own"},
]


def test_adapters_of_the_hub_are_downloaded_with_the_model_and_engines_get_their_folders() -> None:
    """An engine without a token, or without a way out, cannot fetch them."""
    given = deployment(
        model={**MODEL, "adapters": LORA}, weights={"cache": SHARED, "credentialsSecret": "hub"}
    )
    made = rendering(given, group_plan(2), site(endpoint="http://mirror:8080"))
    kept = made.weights.kept
    assert kept is not None
    found = engine(given)
    at = found["args"].index("--lora-modules")
    law, tax, own = [json.loads(text) for text in found["args"][at + 1 : at + 4]]
    assert kept.entries[1].startswith("acme-law-main-")
    assert law == {"name": "law", "path": f"{CACHE_PATH}/{kept.entries[1]}/model"}
    assert tax["path"] == f"{CACHE_PATH}/{kept.entries[2]}/model"
    assert own["path"] == "/adapters/loras/own"
    assert env(found)["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in env(found)
    job = build_download(made)[1]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    fetched = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--adapter"]
    assert fetched == ["hf://acme/law", "hf://acme/tax"]
    assert arguments[arguments.index("--adapter-endpoint") + 1] == "http://mirror:8080"
    group = build_group(given, revision_of(given, group_plan(2), site()), 0)
    for user in (job, group):
        assert set(entries_of(user)) == set(kept.entries), "a folder in use could be removed"
    assert set(kept.entries) <= set(arguments)


def test_adapters_of_the_hub_beside_a_bucket_get_the_hubs_token() -> None:
    given = deployment(
        model={"name": "qwen", "source": "s3://bucket/qwen", "adapters": LORA},
        weights={"cache": SHARED, "credentialsSecret": "both"},
    )
    container = build_download(rendering(given, group_plan(2), site(s3_endpoint="http://minio:9000")))[1]
    container = container["spec"]["template"]["spec"]["containers"][0]
    assert {"HF_TOKEN", "AWS_ACCESS_KEY_ID"} <= set(env(container))
    assert container["args"][container["args"].index("--endpoint") + 1] == "http://minio:9000"
    assert "--adapter-endpoint" not in container["args"]


def test_a_node_keeps_adapters_too() -> None:
    given = deployment(
        model={**MODEL, "adapters": LORA[:1]}, weights={"cache": {"hostPath": "/var/lib/weights"}}
    )
    found = engine(given, site(host_paths=("/var/lib/weights",)))
    assert "--adapter" in found["pod"]["initContainers"][0]["args"]
    assert env(found)["HF_HUB_OFFLINE"] == "1"


def test_engines_that_fetch_adapters_themselves_get_the_token_and_the_mirror() -> None:
    """Beside a claim or an image there is no cache to keep them in."""
    given = deployment(
        model={"name": "m", "source": "pvc://models/m", "adapters": LORA},
        weights={"credentialsSecret": "hub"},
    )
    found = env(engine(given, site(endpoint="http://mirror:8080")))
    assert found["HF_HUB_OFFLINE"] == "0"
    assert found["HF_TOKEN"]["secretKeyRef"]["name"] == "hub"
    assert found["HF_ENDPOINT"] == "http://mirror:8080"


def test_an_adapter_that_no_hub_can_have_is_refused() -> None:
    given = deployment(model={**MODEL, "adapters": [{"name": "a", "source": "hf://law"}]})
    refused = weights_refusal(given.spec, group_plan(), site().weights)
    assert refused is not None
    assert "hf://law" in refused.message


def test_a_store_of_the_sites_takes_the_place_of_the_secrets() -> None:
    streamed = deployment(
        model={"name": "qwen", "source": "s3://bucket/qwen"}, weights={"credentialsSecret": "s3"}
    )
    found = env(engine(streamed, site(s3_endpoint="http://minio:9000")))
    assert found["AWS_ENDPOINT_URL"] == "http://minio:9000"
    assert "AWS_SECRET_ACCESS_KEY" in found


def test_a_source_that_no_cache_can_keep_is_refused_with_what_to_write() -> None:
    given = deployment(model={"name": "tiny-moe"})
    refused = weights_refusal(given.spec, group_plan(), site().weights)
    assert refused is not None
    assert "hf://ORG/NAME" in refused.message


@pytest.mark.parametrize(
    ("loader", "value"),
    [
        ("Standard", "safetensors"),
        ("Streamer", "runai_streamer"),
        ("FastSafetensors", "fastsafetensors"),
        ("InstantTensor", "instanttensor"),
    ],
)
def test_the_loader_is_vllms(loader: str, value: str) -> None:
    given = deployment(weights={"cache": SHARED, "loader": loader})
    assert f"--load-format={value}" in engine_arguments(rendering(given, group_plan(), site()))
    own = deployment(weights={"loader": loader}, engine={"args": {"load-format": "tensorizer"}})
    assert "--load-format=tensorizer" in engine_arguments(rendering(own, group_plan(), site()))
    assert not [
        a for a in engine_arguments(rendering(deployment(), group_plan(), site())) if "load-format" in a
    ]


def test_a_larger_claim_is_no_new_revision_and_another_claim_is() -> None:
    larger = deployment(weights={"cache": {**SHARED, "size": "4Ti"}})
    assert spec_hash(larger) == spec_hash(deployment())
    assert spec_hash(deployment(weights={"cache": {"claim": "other"}})) != spec_hash(deployment())
    assert spec_hash(deployment(weights={})) == spec_hash(model_deployment(model=MODEL))


def test_a_kept_revision_knows_its_weights() -> None:
    """An upgrade or another default of the site must not make it look for them elsewhere."""
    made = revision_of(deployment(), group_plan(), site())
    stored = json.loads(json.dumps(build_revision(deployment(), made)))
    assert read_revision(stored).weights == made.weights
    assert "adapters" not in stored["data"]["weights"]
    beside = revision_of(deployment(model={**MODEL, "adapters": LORA}), group_plan(), site())
    stored = json.loads(json.dumps(build_revision(deployment(), beside)))
    assert read_revision(stored).weights == beside.weights
    without = revision_of(deployment(weights={}), group_plan(), site())
    stored = json.loads(json.dumps(build_revision(deployment(), without)))
    assert "weights" not in stored["data"]
    assert read_revision(stored).weights is None


def test_deployments_share_a_job_when_they_want_the_same_with_the_same_secret() -> None:
    def name(**spec: Any) -> str:
        kept = rendering(deployment(**spec), group_plan(), site()).weights.kept
        assert kept is not None
        return job_name(kept)

    assert name(name="other") == name()
    assert name(weights={"cache": {**SHARED, "size": "9Ti"}}) == name()
    others = [
        name(model={**MODEL, "adapters": LORA}),
        name(model={**MODEL, "revision": "v3"}),
        name(weights={"cache": {"claim": "other"}}),
        name(weights={"cache": SHARED, "credentialsSecret": "hub"}),
    ]
    assert len({name(), *others}) == 5


def test_the_claim_is_shared_and_outlives_deployments() -> None:
    kept = rendering(deployment(), group_plan(), site()).weights.kept
    assert kept is not None
    claim = build_claim(deployment(), kept, "2Ti")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "ownerReferences" not in claim["metadata"]
    assert claim_name("a" * 70) != claim_name("a" * 71)
    assert len(claim_name("a" * 70)) <= 63


def test_a_removal_is_one_job_under_the_same_rules_as_a_download() -> None:
    """A pod that admission refuses, or that may not write to the claim, leaves terabytes."""
    kept = rendering(deployment(), group_plan(), site()).weights.kept
    assert kept is not None
    assert kept.claim is not None
    fetch = build_job(deployment(), kept, site().weights, profile_of("cpu"), in_use=(), annotations={})
    job = build_removal(deployment(), kept.claim, ["a-0", "b-0"], site().weights, profile_of("cpu"))
    assert job["metadata"]["name"] == removal_name(deployment(), kept.claim)
    assert job["metadata"]["name"] != removal_name(replace(deployment(), uid="another"), kept.claim)
    assert removed_entries(job) == removed_entries(job["spec"]["template"]) == ("a-0", "b-0")
    assert entries_of(job) == (), "a download must not spare what is removed"
    assert (claim_of(job), claim_of(job["spec"]["template"])) == (kept.claim, kept.claim)
    mine, theirs = job["spec"]["template"]["spec"], fetch["spec"]["template"]["spec"]
    (container,), (other,) = mine["containers"], theirs["containers"]
    assert container["args"][:8] == [
        "weights", "remove", "--cache", "/var/cache/moe-weights", "--entry", "a-0", "--entry", "b-0",
    ]  # fmt: skip
    assert container["env"] == [], "it needs no credentials"
    same = ("image", "command", "securityContext", "volumeMounts", "terminationMessagePath")
    assert {key: container[key] for key in same} == {key: other[key] for key in same}
    assert {**mine, "containers": ()} == {**theirs, "containers": ()}
    assert job["spec"]["activeDeadlineSeconds"] == 300
    final = job["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
    assert final == [3, 4, 5, 6], "a second try would remove what another has downloaded meanwhile"
    assert fetch["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] == [3, 4, 5]


def test_a_download_leaves_what_others_use() -> None:
    kept = rendering(deployment(), group_plan(), site()).weights.kept
    assert kept is not None
    job = build_job(
        deployment(), kept, site().weights, profile_of("cpu"), in_use=["b-0", "a-0"], annotations={}
    )
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    named = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--in-use"]
    assert named == sorted({"a-0", "b-0", kept.entry})


def test_the_operators_own_image_downloads_unless_the_site_names_another() -> None:
    assert run_by(WeightsSite(), "registry/own:2").program_image == "registry/own:2"
    assert run_by(WeightsSite(image="registry/other:1"), "registry/own:2").program_image == "registry/other:1"
    assert WeightsSite().program_image.startswith("moe-operator:")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("Traceback ...\nKeyError: 'x'", None),
        ('{"bytes": 1}\n{"bytes": 2}\n', {"bytes": 2}),
        ('{"bytes": 1}\nwarning: slow\n', {"bytes": 1}),
        ('{"bytes": 1}\n{"byt', {"bytes": 1}),
        ("[1]", None),
    ],
)
def test_the_programs_words_are_found_among_others(text: str, found: dict[str, Any] | None) -> None:
    assert read_message(text) == found
