"""`kubectl moe status` and `rollout` as people run them: their own rights, the real API server's field owners.

Lost otherwise: the first look of whoever is on call, for want of a right that nobody thought of.
"""

import asyncio
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

from cluster.chart_rights import start
from cluster.runtime_helpers import HAS_CLUSTER, NO_CLUSTER, configure, deployment, until
from harness.kubectl import kubectl
from moe_operator.cli import kubectl_moe
from moe_operator.controller.kube import MODEL_DEPLOYMENT
from moe_operator.runtime.kube_client import AioKubeClient

pytestmark = pytest.mark.skipif(not HAS_CLUSTER, reason=NO_CLUSTER)


async def person(place: str, folder: Path, role: str) -> str:
    """A kubeconfig of somebody with this ClusterRole in the namespace."""
    kubectl("create", "serviceaccount", role, "-n", place)
    kubectl(
        "create",
        "rolebinding",
        role,
        f"--clusterrole={role}",
        f"--serviceaccount={place}:{role}",
        "-n",
        place,
    )
    admin = await configure()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [
            {"name": "it", "cluster": {"server": admin.host, "certificate-authority": admin.ssl_ca_cert}}
        ],
        "users": [{"name": "it", "user": {"token": kubectl("create", "token", role, "-n", place).strip()}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": place}}],
    }
    path = folder / f"kubeconfig-{role}"
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def moe(kubeconfig: str, *words: str) -> tuple[int, str, str]:
    """Exit code and what was printed. In a thread: the command runs a loop of its own."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = await asyncio.to_thread(kubectl_moe.main, ["--kubeconfig", kubeconfig, *words])
    print(f"$ kubectl moe {' '.join(words)}\n{out.getvalue()}{err.getvalue()}")
    return code, out.getvalue(), err.getvalue()


@pytest.mark.timeout(300)
async def test_people_look_with_the_rights_they_have_and_go_back_to_what_ran(
    client: AioKubeClient, place: str, tmp_path: Path
) -> None:
    operator = await start(place, tmp_path)
    try:
        await until(lambda: operator.said("leading as"), "it leads", 60)
        viewer, editor = [await person(place, tmp_path, role) for role in ("view", "edit")]
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(deployment(place, "tiny")))
        kubectl("apply", "-f", str(tmp_path / "tiny.yaml"))

        async def revision(other_than: str | None = None) -> str | None:
            found = await client.get(MODEL_DEPLOYMENT, place, "tiny")
            named = ((found or {}).get("status") or {}).get("revision")
            return named if named != other_than else None

        first = await until(revision, "a revision", 60)

        async def aggregated() -> str | None:
            code, out, _ = await moe(viewer, "status", "tiny")
            return out if code == 0 and "NOT SHOWN" not in out and "created group tiny-g0" in out else None

        text = await until(aggregated, "whoever may view sees everything", 60)
        assert "tiny-g0" in text.partition("NUMBER")[0]
        change = {"spec": {"engine": {"args": {"max-num-seqs": "64"}, "env": [{"name": "A", "value": "b"}]}}}
        await client.patch(MODEL_DEPLOYMENT, place, "tiny", change, manager="argocd-controller")
        second = await until(lambda: revision(first), "a second revision", 60)
        code, out, _ = await moe(viewer, "rollout", "history", "tiny", "-o", "json")
        kept = json.loads(out)
        assert [(one["name"], one["number"]) for one in kept] == [(first, 1), (second, 2)]
        assert code == 0
        assert {c["path"] for c in kept[1]["changes"]} == {
            "engine.args.max-num-seqs",
            "engine.env[A].name",
            "engine.env[A].value",
        }
        assert (await moe(viewer, "rollout", "status", "tiny", "--timeout", "1s"))[0] == 1
        code, out, err = await moe(viewer, "rollout", "undo", "tiny")
        assert code == 0
        assert json.loads(out) == {"spec": {"engine": None}}
        assert "written by argocd-controller" in err
        code, _, err = await moe(viewer, "rollout", "undo", "tiny", "--apply")
        assert code == 1
        assert "forbidden" in err
        assert (await moe(editor, "rollout", "undo", "tiny", "--apply"))[0] == 0
        assert await until(lambda: revision(second), "back", 60) == first
        live = await client.get(MODEL_DEPLOYMENT, place, "tiny")
        assert live is not None
        assert not live["spec"].get("engine", {}).get("args")

        # What it sets is its own; what it takes away belongs to nobody.
        assert (await moe(editor, "rollout", "undo", "tiny", "--to-revision", "2", "--apply"))[0] == 0
        live = await client.get(MODEL_DEPLOYMENT, place, "tiny")
        assert live is not None
        assert live["spec"]["engine"]["args"] == {"max-num-seqs": "64"}
        assert "kubectl-moe" in {entry["manager"] for entry in live["metadata"]["managedFields"]}

        kubectl(
            "create",
            "clusterrole",
            f"{place}-parent",
            "--verb=get",
            "--resource=modeldeployments.moe-operator.dev",
        )
        parent = await person(place, tmp_path, f"{place}-parent")
        code, out, _ = await moe(parent, "autoscaler", "explain", "tiny")
        assert code == 0
        assert "the limits leave 1 as the only number" in " ".join(out.split())
        assert out.endswith("CHANGES\n  none yet\n")
        code, out, _ = await moe(parent, "status", "tiny")
        assert code == 0
        assert "pods may not be read" in out
        assert "Ready       no" in out
    finally:
        await operator.kill()
        kubectl("delete", "clusterrole", f"{place}-parent", "--ignore-not-found")
