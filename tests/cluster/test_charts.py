"""The charts on a real API server. A missing right shows up weeks later, as a group that is not replaced."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import render_manifests
from factories.deployments import group_plan, model_deployment, revision_of
from factories.site_configs import GOOD, ONLY_THE_READER_KNOWS, WRONG
from harness.crds import established
from harness.kubectl import CommandError, apply, helm, kubectl
from harness.wait import wait_for
from moe_operator.catalog.operator_config import read_config
from moe_operator.catalog.policy import PodSecurityLevel
from moe_operator.cli import run_command as operator_command
from moe_operator.resources.group import build_group
from moe_operator.resources.hardening import engine_context
from moe_operator.resources.pod_security import pod_security

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "moe-operator"
CRD_CHART = ROOT / "charts" / "moe-operator-crds"
EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))
RELEASE = "charts-test"
NAMESPACE = "charts-test"
ELSEWHERE = "charts-elsewhere"
ACCOUNT_NAME = f"{RELEASE}-moe-operator"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT_NAME}"

# Kind -> what the operator does with it in the namespaces it watches. The finalizers are only asked for by clusters
# that check owner references which block the owner's deletion.
USED = {
    "modeldeployments.moe-operator.dev/finalizers": "update",
    "modeldeployments.moe-operator.dev": "get list watch patch",
    "modeldeployments.moe-operator.dev/status": "patch",
    "leaderworkersets.leaderworkerset.x-k8s.io": "get list watch create patch delete",
    "controllerrevisions.apps": "get list watch create patch delete",
    "statefulsets.apps": "get",
    "pods": "get list watch patch delete",
    "pods/log": "get",
    "configmaps": "get list watch create patch delete",
    "services": "get list watch create patch",
    "serviceaccounts": "get list watch create patch",
    "poddisruptionbudgets.policy": "get list watch create patch",
    "networkpolicies.networking.k8s.io": "get list watch create patch delete",
    "resourceclaimtemplates.resource.k8s.io": "get list watch create patch delete",
    "computedomains.resource.nvidia.com": "get list watch create patch delete",
    "jobs.batch": "get list watch create patch delete",
    # Claims hold what users would download again: never deleted.
    "persistentvolumeclaims": "get create patch",
    "events.events.k8s.io": "create patch",
    # Those about StatefulSets and pods of groups that wait.
    "events": "list",
}
# What it may read of the cluster's hardware.
NODES = {
    "nodes": "get list watch",
    "resourceslices.resource.k8s.io": "list",
    "resourceclaims.resource.k8s.io": "list",
    "deviceclasses.resource.k8s.io": "get",
}


def _template(*options: str) -> list[dict[str, Any]]:
    text = helm("template", RELEASE, str(CHART), "-n", NAMESPACE, *options)
    return [obj for obj in yaml.safe_load_all(text) if obj]


def _may(user: str, verb: str, resource: str, *options: str) -> bool:
    answer = kubectl("auth", "can-i", verb, resource, *options, "-n", ELSEWHERE, f"--as={user}", check=False)
    return answer.strip() == "yes"


def _rights(namespace: str) -> dict[str, list[str]]:
    """Kind -> verbs that the operator's account has there beyond what every account has."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    text = kubectl(
        "create", "-f", "-", "-o", "json", "--validate=false", f"--as={ACCOUNT}", stdin=json.dumps(review)
    )
    found: dict[str, set[str]] = {}
    for rule in json.loads(text)["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                kind, slash, sub = resource.partition("/")
                name = (f"{kind}.{group}" if group else kind) + slash + sub
                name += "".join(f" {each}" for each in rule.get("resourceNames", ()))
                found.setdefault(name, set()).update(rule["verbs"])
    return {
        name: sorted(verbs)
        for name, verbs in found.items()
        if not name.endswith((".authorization.k8s.io", ".authentication.k8s.io"))
    }


def _sorted(rights: dict[str, str]) -> dict[str, list[str]]:
    return {kind: sorted(verbs.split()) for kind, verbs in rights.items()}


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> Iterator[None]:
    for name in (NAMESPACE, ELSEWHERE, render_manifests.NAMESPACE):
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    helm(
        "upgrade",
        "--install",
        "moe-operator-crds",
        str(CRD_CHART),
        "-n",
        render_manifests.NAMESPACE,
        "--take-ownership",
    )
    established("modeldeployments.moe-operator.dev")
    yield
    kubectl("delete", "namespace", NAMESPACE, ELSEWHERE, "--wait=false")


@pytest.fixture
def _uninstalled() -> Iterator[None]:
    yield
    helm("uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found")


def _install(*settings: str) -> None:
    """Without pods: another operator must not take part in other tests' cluster."""
    options = [arg for setting in ("replicas=0", *settings) for arg in ("--set", setting)]
    helm("upgrade", "--install", RELEASE, str(CHART), "-n", NAMESPACE, *options)


@pytest.mark.parametrize("chart", [CHART, CRD_CHART], ids=lambda chart: chart.name)
def test_helm_finds_no_fault(chart: Path) -> None:
    helm("lint", "--strict", str(chart))


@pytest.mark.parametrize(
    "setting",
    [
        "replica=3",
        "image.repo=x",
        "watch.namespace=a",
        "replicas=two",
        "log.level=loud",
        "ports.health=80",
        "image.digest=sha256:abc",
        "watch.namespaces={UPPER}",
        "rbac.nodes=maybe",
        "rbac.figures.subjects[0].kind=Person",
        "config.prices=1",
        "config.policy.rules[0].licences[0]=mit",
        "config.network.client=x",
    ],
)
def test_a_misspelt_value_is_refused(setting: str) -> None:
    """Else a typing error installs the default, and nobody notices."""
    with pytest.raises(CommandError, match="schema"):
        _template("--set", setting)


def test_helm_says_of_configurations_what_the_operator_says(tmp_path: Path) -> None:
    """Lost: a site's section that its own Helm refuses, or an operator that does not start. The unit tests compare the
    schema with the reader by a validator of their own; this is Helm's."""
    refused: dict[str, bool] = {}
    for text in (*GOOD, *WRONG, *ONLY_THE_READER_KNOWS):
        values = tmp_path / "values.yaml"
        values.write_text(yaml.safe_dump({"config": yaml.safe_load(text)}), encoding="utf-8")
        try:
            rendered = _template("-f", str(values))
        except CommandError as error:
            refused[text] = "schema" in str(error)
            continue
        refused[text] = False
        if text in GOOD:
            (made,) = [one for one in rendered if one["kind"] == "ConfigMap"]
            assert yaml.safe_load(made["data"]["config.yaml"]) == yaml.safe_load(text), "numbers stay numbers"
    assert [text for text, said in refused.items() if said != (text in WRONG)] == []


def test_committed_files_are_current() -> None:
    """Else `kubectl apply -f install.yaml` installs another operator than Helm does."""
    assert render_manifests.stale() == [], "run `make generate`"


@pytest.mark.parametrize("keep", [True, False])
def test_the_crd_chart_carries_the_crd_unchanged(keep: bool) -> None:
    text = helm("template", "crds", str(CRD_CHART), "--set", f"keep={str(keep).lower()}")
    rendered = [obj for obj in yaml.safe_load_all(text) if obj]
    wanted = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    for obj in rendered:
        annotations = obj["metadata"].pop("annotations", {})
        assert annotations.get("helm.sh/resource-policy") == ("keep" if keep else None)
    assert rendered == wanted


def test_a_sites_configuration_reaches_the_operator_and_restarts_it_when_it_changes() -> None:
    """A price that is read at the start only would stay the old one until somebody deletes pods."""
    price = "config.accelerators.B200.price.usdPerGpuHour"
    hashes = set()
    for amount in ("4.10", "4.20"):
        objects = _template("--set-string", f"{price}={amount}")
        (text,) = (o["data"]["config.yaml"] for o in objects if o["kind"] == "ConfigMap")
        profile = read_config(text).catalog.accelerator("B200")
        assert profile is not None
        assert profile.price is not None
        assert str(profile.price.usd_per_gpu_hour) == amount
        (pods,) = (o["spec"]["template"] for o in objects if o["kind"] == "Deployment")
        (container,) = pods["spec"]["containers"]
        (path,) = (a.partition("=")[2] for a in container["args"] if a.startswith("--config="))
        (mount,) = (m for m in container["volumeMounts"] if m["name"] == "config")
        assert path == f"{mount['mountPath']}/config.yaml"
        hashes.add(pods["metadata"]["annotations"]["moe-operator.dev/config-hash"])
    assert len(hashes) == 2


def test_no_configuration_leaves_no_trace() -> None:
    assert not [o for o in _template() if o["kind"] == "ConfigMap"]


@pytest.mark.usefixtures("_uninstalled")
def test_the_operator_may_do_what_it_does_and_nothing_else() -> None:
    _install()
    everywhere = _sorted({**USED, **NODES})
    lease = _sorted(
        {
            "leases.coordination.k8s.io": "create",
            f"leases.coordination.k8s.io {ACCOUNT_NAME}": "get patch",
            "secrets": "create",
            f"secrets {ACCOUNT_NAME}-agent-key": "get",
        }
    )
    assert _rights(ELSEWHERE) == everywhere
    assert _rights(NAMESPACE) == {**everywhere, **lease}, (
        "one lease and one Secret of its own, and nobody else's"
    )


@pytest.mark.usefixtures("_uninstalled")
def test_an_operator_for_some_namespaces_sees_no_others() -> None:
    """Platform teams install it without any cluster-wide right."""
    _install(f"watch.namespaces={{{NAMESPACE}}}", "rbac.nodes=false")
    rights = _rights(NAMESPACE)
    assert {
        kind: verbs for kind, verbs in rights.items() if "leases" not in kind and "secrets" not in kind
    } == _sorted(USED)
    assert _rights(ELSEWHERE) == {}
    kinds = {obj["kind"] for obj in _template("--set", f"watch.namespaces={{{NAMESPACE}}},rbac.nodes=false")}
    assert "ClusterRoleBinding" not in kinds
    arguments = _operator_pod("--set", "watch.namespaces={a,b}")["containers"][0]["args"]
    assert [a for a in arguments if a.startswith("--namespace=")] == ["--namespace=a", "--namespace=b"]


@pytest.mark.usefixtures("_uninstalled")
def test_editors_of_a_namespace_may_edit_its_models() -> None:
    _install()
    for role in ("view", "edit"):
        kubectl(
            "create", "rolebinding", f"{role}er", f"--clusterrole={role}", f"--user={role}er", "-n", ELSEWHERE
        )
    models = "modeldeployments.moe-operator.dev"
    wait_for("roles to be aggregated", lambda: _may("editer", "create", models), seconds=30, every=0.5)
    assert _may("viewer", "list", models)
    assert not _may("viewer", "create", models)
    assert not _may("editer", "patch", models, "--subresource=status"), "the status is the operator's"


@pytest.mark.usefixtures("_uninstalled")
def test_who_reads_figures_may_do_nothing_else() -> None:
    """Lost: `kubectl moe top` for those who are no administrators, or all ports of all pods to them."""
    assert not [obj for obj in _template() if obj["metadata"]["name"].endswith("-figures")], (
        "nobody by default"
    )
    subject = "rbac.figures.subjects[0]"
    group = f"{subject}.apiGroup=rbac.authorization.k8s.io"
    _install("rbac.figures.enabled=true", f"{subject}.kind=User", f"{subject}.name=reader", group)
    service = f"http:{ACCOUNT_NAME}-metrics:metrics"

    def may(verb: str, what: str, *options: str) -> bool:
        command = ("auth", "can-i", verb, what, *options, "-n", NAMESPACE, "--as=reader")
        return kubectl(*command, check=False).strip() == "yes"

    wait_for(
        "the right to be known", lambda: may("get", f"services/{service}", "--subresource=proxy"), seconds=30
    )
    for what in (f"http:{ACCOUNT_NAME}-metrics:health", f"{ACCOUNT_NAME}-metrics", "https:other:443"):
        assert not may("get", f"services/{what}", "--subresource=proxy")
    assert not may("create", f"services/{service}", "--subresource=proxy")
    assert not may("get", "pods", "--subresource=proxy")
    assert not may("list", "pods")
    assert not may("get", f"services/{ACCOUNT_NAME}-metrics")


def _operator_pod(*options: str) -> dict[str, Any]:
    deployment = next(obj for obj in _template(*options) if obj["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def _dry_run(obj: dict[str, Any]) -> str:
    return kubectl("create", "--dry-run=server", "-f", "-", "-o", "name", stdin=json.dumps(obj))


@pytest.fixture(scope="module")
def policed() -> Iterator[dict[str, str]]:
    """Namespaces that enforce the Pod Security Standards, by level."""
    levels = {level: f"charts-{level}" for level in ("restricted", "baseline")}
    for level, name in levels.items():
        labels = {"pod-security.kubernetes.io/enforce": level}
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield levels
    kubectl("delete", "namespace", *levels.values(), "--wait=false")


def test_the_operator_runs_where_only_restricted_pods_may(policed: dict[str, str]) -> None:
    spec = {**_operator_pod(), "serviceAccountName": "default"}
    meta = {"name": "operator", "namespace": policed["restricted"]}
    _dry_run({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    container = spec["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{"name": "x", "image": "x"}]},
    }
    with pytest.raises(CommandError, match="violates PodSecurity"):
        _dry_run(bare)


@pytest.mark.parametrize("accelerator", ["cpu", "B200"])
def test_a_rendered_group_is_accepted(accelerator: str, policed: dict[str, str]) -> None:
    """By LeaderWorkerSet's own validation, by the pods' and by the baseline Pod Security Standard."""
    deployment = model_deployment(
        "tiny",
        policed["baseline"],
        model={"name": "tiny-moe", "source": "pvc://tiny-moe"},
        hardware={"accelerator": accelerator},
    )
    plan = group_plan(2, 4, accelerator=accelerator)
    lws = build_group(deployment, revision_of(deployment, plan), 0)
    _dry_run(lws)
    template = lws["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "tiny-g0-0", "namespace": policed["baseline"]},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }
    _dry_run(pod)


@pytest.mark.parametrize("engine", [{}, {"podSecurity": "Restricted"}], ids=["as it is", "restricted"])
@pytest.mark.parametrize("added", [(), ("IPC_LOCK",)], ids=["no capability", "as a fabric asks"])
@pytest.mark.parametrize(("accelerator", "pods"), [("cpu", 2), ("B200", 1), ("B200", 2)])
def test_a_groups_pods_keep_to_the_standard_that_the_plan_says(
    accelerator: str, pods: int, added: tuple[str, ...], engine: dict[str, str], policed: dict[str, str]
) -> None:
    """Said too strict, a namespace refuses the pods, hours after somebody read the plan."""
    deployment = model_deployment("tiny", hardware={"accelerator": accelerator}, engine=engine)
    plan = group_plan(pods, 8 if accelerator == "B200" else 1, accelerator=accelerator)
    template = revision_of(deployment, plan).template["leaderWorkerTemplate"]["workerTemplate"]
    template["spec"]["containers"][0]["securityContext"] = engine_context(deployment.spec.engine, added)
    level = pod_security(template["spec"]).level
    assert level == ("Restricted" if engine else "Privileged" if added else "Baseline")
    for policed_level, namespace in policed.items():
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": "tiny-g0-0", "namespace": namespace},
            "spec": {**template["spec"], "serviceAccountName": "default"},
        }
        if list(PodSecurityLevel).index(level) >= list(PodSecurityLevel).index(
            PodSecurityLevel(policed_level.capitalize())
        ):
            _dry_run(pod)
        else:
            with pytest.raises(CommandError, match="violates PodSecurity"):
                _dry_run(pod)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_accepted(example: Path) -> None:
    """What people copy first must work."""
    kubectl("apply", "--server-side", "--dry-run=server", "-n", ELSEWHERE, "-f", str(example))


def test_install_yaml_is_accepted() -> None:
    path = str(render_manifests.INSTALL)
    kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", path)
    assert not re.search(r"helm\.sh|managed-by: Helm", render_manifests.INSTALL.read_text())


def test_the_operator_understands_what_the_chart_tells_it() -> None:
    """An argument that it does not know ends every replica at once."""
    values = {"$(POD_NAME)": "operator-0", "$(POD_NAMESPACE)": NAMESPACE, "$(POD_IP)": "10.0.0.1"}
    container = _operator_pod("--set", "watch.namespaces={a,b},log.format=console,ports.metrics=9191")[
        "containers"
    ][0]
    assert container["command"] == ["moe-operator", "run"]
    arguments = container["args"]
    for name, value in values.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    options = operator_command.options(operator_command._parser().parse_args(["run", *arguments]))
    assert options.namespaces == ("a", "b")
    assert (options.lease_namespace, options.lease_name) == (NAMESPACE, ACCOUNT_NAME)
    assert (options.identity, options.host) == ("operator-0", "10.0.0.1")
    assert (options.health_port, options.metrics_port) == (8080, 9191)
    declared = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert declared == {"health": 8080, "metrics": 9191}


def test_everything_optional_renders() -> None:
    """A template that only fails when somebody turns it on fails in that somebody's cluster."""
    settings = [
        "metrics.serviceMonitor.enabled=true",
        "metrics.enginePodMonitor.enabled=true",
        "metrics.rules.enabled=true",
        "metrics.dashboard.enabled=true",
        "networkPolicy.enabled=true",
        "image.digest=sha256:" + "0" * 64,
        "priorityClassName=high",
        "nodeSelector.pool=system",
        "serviceAccount.annotations.a=b",
        "podLabels.team=platform",
        "podAnnotations.note=x",
        "extraArgs={--resync=60}",
        "imagePullSecrets[0].name=registry",
        "tolerations[0].operator=Exists",
        "extraEnv[0].name=A",
        "extraEnv[0].value=b",
        "rbac.figures.enabled=true",
        "rbac.figures.subjects[0].kind=Group",
        "rbac.figures.subjects[0].name=sre",
        "rbac.figures.subjects[0].apiGroup=rbac.authorization.k8s.io",
    ]
    objects = _template(*(arg for setting in settings for arg in ("--set", setting)))
    kinds = {obj["kind"] for obj in objects}
    assert {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy"} <= kinds
    (monitor,) = [obj for obj in objects if obj["kind"] == "ServiceMonitor"]
    # Else Prometheus puts the operator's own namespace where a ModelDeployment's is looked for.
    assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]
    native = [obj for obj in objects if "monitoring.coreos.com" not in obj["apiVersion"]]
    kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(native))
