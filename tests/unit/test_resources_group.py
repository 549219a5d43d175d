"""What a group is made of. A field lost here is seen only when a node fails or a user waits."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from factories.deployments import UID, group_plan, model_deployment, profile_of, revision_of
from factories.golden import AGENT, check_golden
from moe_operator.api import names
from moe_operator.api.deployment import ModelDeployment
from moe_operator.planner.facts import NodeFacts
from moe_operator.planner.node_selection import selects
from moe_operator.planner.placement import Placement
from moe_operator.planner.plan import Plan, Transport
from moe_operator.resources import agent_config
from moe_operator.resources.group import build_group, group_name, parse_slot
from moe_operator.resources.revision import Revision


def _revision(deployment: ModelDeployment, plan: Plan) -> Revision:
    return revision_of(deployment, plan)


def _group(deployment: ModelDeployment, plan: Plan, slot: int = 0) -> dict[str, Any]:
    return build_group(deployment, _revision(deployment, plan), slot)


def _pod(lws: dict[str, Any], kind: str = "workerTemplate") -> dict[str, Any]:
    template: dict[str, Any] = lws["spec"]["leaderWorkerTemplate"][kind]
    return template


def _engine(lws: dict[str, Any]) -> dict[str, Any]:
    containers = _pod(lws)["spec"]["containers"]
    return next(c for c in containers if c["name"] == names.ENGINE_CONTAINER)


@pytest.fixture(autouse=True)
def _fixed_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_config, "agent_files", lambda: dict(AGENT))


def test_a_group_on_the_cpu_is_rendered_as_reviewed() -> None:
    deployment = model_deployment(
        model={"name": "tiny-moe", "source": "pvc://tiny-moe"}, engine={"args": {"max-num-seqs": "8"}}
    )
    check_golden("group-cpu-two-pods", _group(deployment, group_plan(2)))


def test_a_group_over_several_nodes_of_gpus_is_rendered_as_reviewed() -> None:
    deployment = model_deployment(
        "qwen35-397b",
        model={"name": "Qwen/Qwen3.5-397B-A17B", "contextLength": 131072},
        hardware={"accelerator": "B200", "gpusPerGroup": 16},
        engine={
            "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
        },
        podTemplate={
            "labels": {"team": "search"},
            "annotations": {"example.com/note": "reviewed"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "nodeSelector": {"pool": "b200"},
            "imagePullSecrets": [{"name": "registry"}],
            "priorityClassName": "serving",
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
            "containers": [{"name": "sidecar", "image": "example.com/sidecar:1"}],
        },
    )
    check_golden("group-b200-two-nodes", _group(deployment, group_plan(2, 8, accelerator="B200"), slot=3))


def test_a_group_without_the_agent_is_rendered_as_reviewed() -> None:
    deployment = model_deployment(engine={"agent": "Disabled"})
    check_golden("group-without-agent", _group(deployment, group_plan(1)))


def test_leader_and_workers_run_the_same() -> None:
    """vLLM refuses ranks whose settings differ; what differs from pod to pod is the worker index alone."""
    lws = _group(model_deployment(), group_plan(2, 2))
    assert _pod(lws, "leaderTemplate") == _pod(lws, "workerTemplate")


def test_a_group_is_one_leader_worker_set_that_repairs_nothing_itself() -> None:
    lws = _group(model_deployment(), group_plan(3))
    assert lws["metadata"]["name"] == "tiny-g0"
    assert lws["spec"]["replicas"] == 1
    assert lws["spec"]["leaderWorkerTemplate"]["size"] == 3
    assert lws["spec"]["startupPolicy"] == "LeaderCreated", "LeaderReady would wait for itself"
    assert lws["spec"]["leaderWorkerTemplate"]["restartPolicy"] == "None", (
        "else the evidence is deleted at once"
    )


def test_a_group_is_found_by_its_labels_and_collected_by_its_owner() -> None:
    lws = _group(model_deployment(), group_plan(2, 2), slot=7)
    expected = {
        names.LABEL_DEPLOYMENT: "tiny",
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_GROUP: "tiny-g7",
        names.LABEL_ROLE: "serve",
    }
    for labels in (
        lws["metadata"]["labels"],
        _pod(lws)["metadata"]["labels"],
        _pod(lws, "leaderTemplate")["metadata"]["labels"],
    ):
        assert expected.items() <= labels.items()
        assert labels[names.LABEL_REVISION].startswith("tiny-")
    assert lws["metadata"]["annotations"][names.ANNOTATION_RANKS_PER_POD] == "2"
    assert [r["uid"] for r in lws["metadata"]["ownerReferences"]] == [UID]


def test_no_pod_is_born_with_traffic() -> None:
    """Traffic comes after the canary: with the label in the template users would reach a loading group."""
    deployment = model_deployment(podTemplate={"labels": {"team": "search"}})
    assert names.LABEL_TRAFFIC not in _pod(_group(deployment, group_plan(2)))["metadata"]["labels"]


def test_the_operators_labels_win_over_the_users() -> None:
    deployment = model_deployment(podTemplate={"labels": {names.LABEL_DEPLOYMENT: "other", "team": "search"}})
    labels = _pod(_group(deployment, group_plan()))["metadata"]["labels"]
    assert labels[names.LABEL_DEPLOYMENT] == "tiny"
    assert labels["team"] == "search"


def test_building_a_group_leaves_the_revision_as_it_was() -> None:
    """Two slots of one revision must not write into each other."""
    deployment, plan = model_deployment(), group_plan(2)
    revision = _revision(deployment, plan)
    before = copy.deepcopy(revision.template)
    first, second = build_group(deployment, revision, 0), build_group(deployment, revision, 1)
    assert revision.template == before
    assert _pod(first)["metadata"]["labels"][names.LABEL_GROUP] == "tiny-g0"
    assert _pod(second)["metadata"]["labels"][names.LABEL_GROUP] == "tiny-g1"


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        ("tiny-g0", 0),
        ("tiny-g12", 12),
        ("tiny-g", None),
        ("tiny-g01", None),
        ("tiny-g+1", None),
        ("tiny-g٣", None),
        ("tiny-g-1", None),
        ("tiny", None),
        ("tiny-gx", None),
        ("tinyx-g0", None),
        ("tiny-g0-0", None),
    ],
)
def test_only_names_that_a_slot_gives_are_taken_for_slots(name: str, slot: int | None) -> None:
    assert parse_slot("tiny", name) == slot
    if slot is not None:
        assert group_name("tiny", slot) == name


class TestPlacement:
    """Where pods may run."""

    def _affinity(self, accelerator: str, pods: int, user: dict[str, Any] | None = None) -> dict[str, Any]:
        deployment = model_deployment(
            hardware={"accelerator": accelerator}, podTemplate={"affinity": user} if user else {}
        )
        spec = _pod(_group(deployment, group_plan(pods, accelerator=accelerator), slot=4))["spec"]
        affinity: dict[str, Any] = spec.get("affinity", {})
        return affinity

    def test_gpu_pods_go_only_to_nodes_of_their_accelerator(self) -> None:
        """All NVIDIA GPUs share one resource name: without this a B200 plan may land on other GPUs."""
        terms = self._affinity("B200", 1)["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        first = terms["nodeSelectorTerms"][0]["matchExpressions"]
        assert first[0] == {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-B200"]}

    def test_the_users_node_terms_hold_as_well(self) -> None:
        zone = {"key": "zone", "operator": "In", "values": ["a"]}
        user = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [zone]},
                        {"matchFields": [{"key": "metadata.name"}]},
                    ]
                }
            }
        }
        own = profile_of("B200").node_labels
        terms = self._affinity("B200", 1, user)["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert len(terms["nodeSelectorTerms"]) == 2 * len(own)
        keys = {key for key, _ in own}
        for term in terms["nodeSelectorTerms"]:
            assert len(keys & {one["key"] for one in term["matchExpressions"]}) == 1
            assert zone in term["matchExpressions"] or term["matchFields"]

    def test_pods_of_a_group_never_share_a_node_of_gpus(self) -> None:
        apart = self._affinity("B200", 2)["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert [t["labelSelector"]["matchLabels"] for t in apart] == [{names.LABEL_GROUP: "tiny-g4"}]

    def test_ranks_on_the_cpu_may_share_a_laptop(self) -> None:
        affinity = self._affinity("cpu", 2)
        assert "nodeAffinity" not in affinity
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity["podAntiAffinity"]
        preferred = affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert preferred[0]["podAffinityTerm"]["labelSelector"]["matchLabels"] == {
            names.LABEL_GROUP: "tiny-g4"
        }

    def test_a_lone_pod_needs_no_distance(self) -> None:
        assert self._affinity("cpu", 1) == {}

    def test_nodes_that_share_their_gpus_are_left_out_and_nodes_that_do_not_say_are_not(self) -> None:
        """Lost: a group on a quarter of a GPU's time, where no labeller marks the product's name."""
        spec = _pod(
            _group(model_deployment(hardware={"accelerator": "B200"}), group_plan(accelerator="B200"))
        )
        for labels, taken in (
            ({}, True),
            ({"nvidia.com/gpu.sharing-strategy": "none"}, True),
            ({"nvidia.com/gpu.sharing-strategy": "time-slicing"}, False),
            ({"nvidia.com/gpu.sharing-strategy": "mps"}, False),
            ({"cloud.google.com/gke-gpu-sharing-strategy": "time-sharing"}, False),
        ):
            node = NodeFacts(name="n", labels={"nvidia.com/gpu.product": "NVIDIA-B200", **labels}, gpus={})
            assert selects(spec["spec"], node) is taken, labels

    @pytest.mark.parametrize("required", [True, False])
    def test_pods_of_a_group_are_kept_in_the_domain_of_their_transport(self, required: bool) -> None:
        """Lost: NVLink between nodes; a group over two racks would not start, or crawl over the network."""
        plan = _spanning(required=required)
        spec = _pod(_group(model_deployment(hardware={"accelerator": "GB200"}), plan, slot=4))["spec"]
        kind = "required" if required else "preferred"
        assert list(spec["affinity"]["podAffinity"]) == [f"{kind}DuringSchedulingIgnoredDuringExecution"]
        (wish,) = spec["affinity"]["podAffinity"][f"{kind}DuringSchedulingIgnoredDuringExecution"]
        term = wish if required else wish["podAffinityTerm"]
        assert term == {
            "labelSelector": {"matchLabels": {names.LABEL_GROUP: "tiny-g4"}},
            "topologyKey": "nvidia.com/gpu.clique",
        }

    def test_a_lone_pod_is_in_a_domain_by_itself(self) -> None:
        plan = replace(_spanning(), pods_per_group=1)
        spec = _pod(_group(model_deployment(hardware={"accelerator": "GB200"}), plan))["spec"]
        assert "podAffinity" not in spec["affinity"]

    def test_a_groups_place_is_put_into_both_templates_and_said_on_the_group(self) -> None:
        deployment = model_deployment(hardware={"accelerator": "GB200"})
        revision = _revision(deployment, _spanning())
        before = copy.deepcopy(revision.template)
        clique = "7b968a6d.1"
        placement = Placement(domain=("nvidia.com/gpu.clique", clique))
        lws = build_group(deployment, revision, 0, placement=placement)
        for kind in ("leaderTemplate", "workerTemplate"):
            node = NodeFacts(
                name="n",
                labels={"nvidia.com/gpu.product": "NVIDIA-GB200", "nvidia.com/gpu.clique": clique},
                gpus={},
            )
            assert selects(_pod(lws, kind)["spec"], node)
            elsewhere = replace(node, labels={**node.labels, "nvidia.com/gpu.clique": "7b968a6d.2"})
            assert not selects(_pod(lws, kind)["spec"], elsewhere)
        assert lws["metadata"]["annotations"][names.ANNOTATION_DOMAIN] == f"nvidia.com/gpu.clique={clique}"
        assert revision.template == before, "the next group of the revision goes elsewhere"

    def test_a_wish_for_a_node_is_added_to_the_users_own(self) -> None:
        theirs = {"weight": 5, "preference": {"matchExpressions": [{"key": "ssd", "operator": "Exists"}]}}
        user = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [theirs]}}
        deployment = model_deployment(hardware={"accelerator": "B200"}, podTemplate={"affinity": user})
        revision = _revision(deployment, group_plan(1, 2, accelerator="B200"))
        lws = build_group(deployment, revision, 0, placement=Placement(node="b200-7"))
        wishes = _pod(lws)["spec"]["affinity"]["nodeAffinity"][
            "preferredDuringSchedulingIgnoredDuringExecution"
        ]
        assert wishes[0] == theirs
        assert wishes[1]["preference"]["matchFields"][0]["values"] == ["b200-7"]
        assert lws["metadata"]["annotations"][names.ANNOTATION_NODE] == "b200-7"
        assert user["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == [theirs]

    def test_nodes_that_are_shunned_are_excluded_and_disliked_ones_come_last(self) -> None:
        """Lost: the next group, to the node that lost the last two."""
        revision = _revision(
            model_deployment(hardware={"accelerator": "B200"}), group_plan(2, accelerator="B200")
        )
        pod = _pod(build_group(model_deployment(), revision, 0, placement=Placement(shunned=("n1", "n2"))))
        labels = {"nvidia.com/gpu.product": "NVIDIA-B200"}
        taken = [
            n for n in ("n1", "n2", "n3") if selects(pod["spec"], NodeFacts(name=n, labels=labels, gpus={}))
        ]
        assert taken == ["n3"]
        pod = _pod(build_group(model_deployment(), revision, 0, placement=Placement(disliked=("n1",))))
        assert selects(pod["spec"], NodeFacts(name="n1", labels=labels, gpus={}))
        (wish,) = pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert wish["preference"]["matchFields"] == [
            {"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}
        ]

    def test_a_selector_on_another_group_that_the_user_wrote_stays(self) -> None:
        near = {"labelSelector": {"matchLabels": {names.LABEL_GROUP: "other-g1"}}, "topologyKey": "zone"}
        user = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}}
        affinity = self._affinity("B200", 2, user)
        assert affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == [near]

    def test_a_group_is_handed_to_its_queue_as_a_whole(self) -> None:
        """Kueue reads the label of the LeaderWorkerSet. A pod that carries it already is left out of its group."""
        deployment = model_deployment(podTemplate={"queueName": "team-a"})
        lws = _group(deployment, group_plan(2))
        assert lws["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
        for kind in ("leaderTemplate", "workerTemplate"):
            assert "kueue.x-k8s.io/queue-name" not in _pod(lws, kind)["metadata"]["labels"]
        moved = model_deployment(podTemplate={"queueName": "team-b"})
        old = build_group(moved, _revision(deployment, group_plan(2)), 0)
        assert old["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a", "what the revision says"

    def test_the_size_of_claims_is_said_where_pods_do_not(self) -> None:
        plan = replace(group_plan(1, 4, accelerator="GB200"), claims=True)
        lws = _group(model_deployment(hardware={"accelerator": "GB200"}), plan)
        assert lws["metadata"]["annotations"][names.ANNOTATION_GPUS_PER_POD] == "4"


def _spanning(*, required: bool = True) -> Plan:
    """Two compute trays of a rack."""
    transport = Transport("nvlink", domain="nvidia.com/gpu.clique", domain_required=required)
    return replace(group_plan(2, 4, accelerator="GB200"), transport=transport)


class TestEngineContainer:
    """The container that runs vLLM."""

    def test_gpus_are_the_plans_whatever_the_user_writes(self) -> None:
        deployment = model_deployment(
            hardware={"accelerator": "B200"},
            engine={
                "resources": {
                    "requests": {"cpu": "64", "nvidia.com/gpu": 1},
                    "limits": {"memory": "512Gi", "nvidia.com/gpu": 1},
                }
            },
        )
        resources = _engine(_group(deployment, group_plan(1, 8, accelerator="B200")))["resources"]
        assert resources["requests"] == {"cpu": "64", "memory": "131072Mi", "nvidia.com/gpu": "8"}
        assert resources["limits"] == {"memory": "512Gi", "nvidia.com/gpu": "8"}

    def test_the_users_environment_replaces_ours_once(self) -> None:
        """A name that is there twice is refused by the API server: the group could never be created."""
        deployment = model_deployment(
            engine={
                "env": [
                    {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"},
                    {"name": "HF_HOME", "value": "/var/cache/moe-operator/own"},
                ]
            }
        )
        env = _engine(_group(deployment, group_plan()))["env"]
        own = [e["name"] for e in env]
        assert len(own) == len(set(own))
        assert [e["value"] for e in env if e["name"] == "VLLM_CPU_KVCACHE_SPACE"] == ["4"]
        assert own.index("POD_IP") < own.index("VLLM_HOST_IP"), "a variable can refer only to earlier ones"

    def test_the_command_is_no_shell(self) -> None:
        """A shell would not pass SIGTERM on, and would expand what a user writes into a flag."""
        engine = _engine(_group(model_deployment(), group_plan(2)))
        assert engine["command"] == ["vllm", "serve"]

    def test_readiness_asks_the_agent_and_without_it_the_server(self) -> None:
        probe = _engine(_group(model_deployment(), group_plan()))["readinessProbe"]
        assert probe["httpGet"]["path"] == "/moe/v1/ready"
        assert probe["periodSeconds"] * probe["failureThreshold"] <= 2, (
            "half a group must be out within seconds"
        )
        plain = _engine(_group(model_deployment(engine={"agent": "Disabled"}), group_plan()))
        assert plain["readinessProbe"]["httpGet"]["path"] == "/v1/models"
        assert "PYTHONPATH" not in {e["name"] for e in plain["env"]}

    def test_no_probe_ever_kills_a_loading_or_busy_engine(self) -> None:
        engine = _engine(_group(model_deployment(), group_plan()))
        assert "livenessProbe" not in engine
        startup = engine["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 24 * 3600

    def test_a_stop_leaves_time_for_the_requests_in_flight(self) -> None:
        lws = _group(model_deployment(), group_plan())
        arguments = _engine(lws)["args"]
        timeout = int(arguments[arguments.index("--shutdown-timeout") + 1])
        assert _pod(lws)["spec"]["terminationGracePeriodSeconds"] == timeout + 10

    def test_the_start_deadline_does_not_reach_the_pods(self) -> None:
        plan = group_plan()
        short = model_deployment(recovery={"startDeadline": "5m"})
        assert _revision(short, plan) == _revision(model_deployment(), plan)

    def test_a_claim_is_mounted_read_only_and_the_hub_is_left_alone(self) -> None:
        lws = _group(model_deployment(model={"name": "m", "source": "pvc://claim/sub"}), group_plan())
        volumes = {v["name"]: v for v in _pod(lws)["spec"]["volumes"]}
        assert volumes["model"]["persistentVolumeClaim"] == {"claimName": "claim", "readOnly": True}
        engine = _engine(lws)
        assert {"name": "model", "mountPath": "/models", "readOnly": True} in engine["volumeMounts"]
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in engine["env"]

    def test_every_mount_has_its_volume(self) -> None:
        lws = _group(model_deployment(model={"name": "m", "source": "pvc://claim"}), group_plan(2))
        volumes = [v["name"] for v in _pod(lws)["spec"]["volumes"]]
        mounts = [m["name"] for m in _engine(lws)["volumeMounts"]]
        assert sorted(mounts) == sorted(volumes)
        assert len(set(volumes)) == len(volumes)
