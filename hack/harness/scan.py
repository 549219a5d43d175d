"""kube-score over rendered objects: what is unusual about them, by name, so that each is mended or has a reason.

`python -m harness.scan` only builds it: a local cluster, where the tests run, cannot reach the world outside.
"""

import copy
import json
import subprocess
from collections.abc import Iterable
from typing import Any

import yaml

from harness.kubectl import JsonObject
from localcluster.build import ensure_built
from localcluster.layout import cache_root, hack_root
from localcluster.recipes import KUBERNETES_VERSION, scanners
from localcluster.say import to_stderr

#: Checks that are off by default and fit every pod here.
_ALSO = ("container-seccomp-profile", "container-ports-check")
#: The best grade; what is below it is a finding.
_ALMOST_GOOD = 10


def findings(objects: Iterable[JsonObject]) -> dict[str, str]:
    """`<kind, or container>/<check>` -> what kube-score says. Objects must have different names within a kind."""
    program = ensure_built(scanners(hack_root()), cache_root(), to_stderr) / "kube-score"
    done = subprocess.run(
        [
            str(program),
            "score",
            "--output-format=json",
            f"--kubernetes-version=v{KUBERNETES_VERSION.rpartition('.')[0]}",
            *(f"--enable-optional-test={check}" for check in _ALSO),
            "-",
        ],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        scored: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError as error:
        raise RuntimeError(f"kube-score: exit {done.returncode}: {done.stderr or done.stdout}") from error
    found = {}
    for obj in scored:
        for check in obj["checks"]:
            if check["skipped"] or check["grade"] >= _ALMOST_GOOD:
                continue
            for comment in check["comments"] or [{"path": "", "summary": ""}]:
                where = comment["path"] or obj["type_meta"]["kind"]
                name = f"{where}/{check['check']['id']}"
                found[name] = f"{obj['object_name']}: {comment['summary']}"
    return found


def as_started(group: JsonObject, admitted: dict[str, str]) -> list[JsonObject]:
    """What LeaderWorkerSet makes of a group, for programs that do not know it: a StatefulSet and its headless Service.

    `admitted`: labels that the operator gives the pods of a group that may take traffic.
    """
    name, space = group["metadata"]["name"], group["metadata"]["namespace"]
    mine = {"leaderworkerset.sigs.k8s.io/name": name}
    workers = group["spec"]["leaderWorkerTemplate"]
    pod = copy.deepcopy(workers["workerTemplate"])
    pod["metadata"]["labels"] = {**pod["metadata"]["labels"], **mine, **admitted}
    meta = {"name": name, "namespace": space, "labels": mine}
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": mine}
    pods = {
        "replicas": workers["size"],
        "serviceName": name,
        "selector": {"matchLabels": mine},
        "template": pod,
    }
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": pods},
    ]


if __name__ == "__main__":
    ensure_built(scanners(hack_root()), cache_root(), to_stderr)
